//! Success over time, one strip a strategy: full where every request succeeded, the
//! missing part in the colour of failure.

use super::{
    Figures, Series,
    axis::{Axis, label},
    canvas::{Anchor, Canvas, GRID, INCIDENT, MUTED, Stroke, Style, width_of},
    palette,
};

const ROW: f64 = 46.0;
const STRIP: f64 = 34.0;
const TOP: f64 = 100.0;
const WIDTH: f64 = 680.0;

/// The plot as SVG.
pub(super) fn draw(figures: &Figures) -> String {
    let names = figures.series.iter().map(|series| width_of(&series.name, 13.0)).fold(80.0, f64::max);
    let left = 24.0 + names + 16.0;
    let bottom = TOP + ROW * figures.series.len() as f64;
    let mut canvas = Canvas::new(left + WIDTH + 96.0, bottom + 52.0);
    canvas.head(&figures.title, &figures.subtitle);
    legend(&mut canvas, figures);
    let windows = figures.series.iter().map(|series| series.success.len()).max().unwrap_or(0).max(1);
    let x = Axis::linear([0.0, windows as f64 * figures.window_s.max(1e-3)], [left, left + WIDTH]);
    for [from, to] in &figures.incidents {
        canvas.rectangle(
            [x.at(*from), TOP - 6.0],
            [x.at(*to) - x.at(*from), bottom - TOP + 6.0],
            INCIDENT,
            1.0,
        );
    }
    let style = Style::new(11.5).colour(MUTED).anchor(Anchor::Middle);
    for tick in x.ticks(8) {
        canvas.line([x.at(tick), TOP - 6.0], [x.at(tick), bottom], Stroke::new(GRID, 1.0));
        canvas.text([x.at(tick), bottom + 18.0], style, &format!("{} s", label(tick)));
    }
    for (row, series) in figures.series.iter().enumerate() {
        strip(&mut canvas, figures.window_s, series, x, TOP + ROW * row as f64);
        let at = [left - 14.0, TOP + ROW * row as f64 + STRIP / 2.0 + 4.5];
        canvas.text(at, Style::new(13.0).anchor(Anchor::End), &series.name);
    }
    canvas.finish()
}

fn legend(canvas: &mut Canvas, figures: &Figures) {
    let mut items = vec![(palette::GOOD, "succeeded"), (palette::BAD, "failed")];
    if !figures.incidents.is_empty() {
        items.push((INCIDENT, "incident"));
    }
    let mut x = 24.0;
    for (colour, name) in items {
        canvas.rectangle([x, 69.0], [13.0, 13.0], colour, 1.0);
        canvas.text([x + 19.0, 80.0], Style::new(12.5), name);
        x += 19.0 + width_of(name, 12.5) + 22.0;
    }
    canvas.text([x, 80.0], Style::new(12.5).colour(MUTED), "right: lowest window");
}

fn strip(canvas: &mut Canvas, window_s: f64, series: &Series, x: Axis, top: f64) {
    let mut lowest: f64 = 1.0;
    for (i, success) in series.success.iter().enumerate() {
        let Some(success) = *success else { continue };
        lowest = lowest.min(success);
        let (from, to) = (x.at(i as f64 * window_s), x.at((i as f64 + 1.0) * window_s));
        // A little wider than the window, so that no seam shows between two.
        let width = to - from + 0.3;
        let failed = STRIP * (1.0 - success.clamp(0.0, 1.0));
        if failed < STRIP {
            canvas.rectangle([from, top + failed], [width, STRIP - failed], palette::GOOD, 1.0);
        }
        if failed > 0.0 {
            // One failure must be seen, however thin its share would be.
            canvas.rectangle([from, top], [width, failed.max(2.0)], palette::BAD, 1.0);
        }
    }
    let text = if series.success.iter().any(Option::is_some) { percent(lowest) } else { "-".to_owned() };
    canvas.text([x.at(f64::INFINITY) + 10.0, top + STRIP / 2.0 + 4.5], Style::new(12.5), &text);
}

/// Rounded down: 100 % means that nothing failed.
fn percent(share: f64) -> String {
    let hundredths = (share * 10_000.0 + 1e-6).floor() / 100.0;
    format!("{hundredths} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_window_without_a_failure_shows_100_percent() {
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(0.999_99), "99.99 %");
        assert_eq!(percent(0.93), "93 %");
    }
}
