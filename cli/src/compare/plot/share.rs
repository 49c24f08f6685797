//! Where the attempts went, over time: one panel a strategy, one colour a deployment.

use super::{
    Figures, Series,
    axis::{Axis, label},
    canvas::{Anchor, Canvas, INK, MUTED, Stroke, Style, width_of},
    palette,
};

const PANEL: [f64; 2] = [400.0, 110.0];
const COLUMNS: usize = 2;
const LEFT: f64 = 64.0;
const TOP: f64 = 124.0;
const GAP: [f64; 2] = [56.0, 58.0];

/// The plot as SVG.
pub(super) fn draw(figures: &Figures) -> String {
    let rows = figures.series.len().div_ceil(COLUMNS).max(1) as f64;
    let width = LEFT + PANEL[0] * COLUMNS as f64 + GAP[0] + 28.0;
    let mut canvas = Canvas::new(width, TOP + rows * (PANEL[1] + GAP[1]) + 4.0);
    canvas.head(&figures.title, &figures.subtitle);
    legend(&mut canvas, figures);
    for (n, series) in figures.series.iter().enumerate() {
        let left = LEFT + (n % COLUMNS) as f64 * (PANEL[0] + GAP[0]);
        let top = TOP + (n / COLUMNS) as f64 * (PANEL[1] + GAP[1]);
        panel(&mut canvas, figures, series, [left, top]);
    }
    canvas.finish()
}

fn legend(canvas: &mut Canvas, figures: &Figures) {
    let mut x = 24.0;
    for (n, name) in figures.deployments.iter().enumerate() {
        canvas.rectangle([x, 71.0], [13.0, 13.0], palette::colour(n), 1.0);
        canvas.text([x + 19.0, 82.0], Style::new(12.5), name);
        x += 19.0 + width_of(name, 12.5) + 22.0;
    }
    if !figures.incidents.is_empty() {
        canvas.line([x, 77.5], [x + 16.0, 77.5], Stroke::new(INK, 3.0));
        canvas.text([x + 24.0, 82.0], Style::new(12.5), "incident");
    }
}

fn panel(canvas: &mut Canvas, figures: &Figures, series: &Series, [left, top]: [f64; 2]) {
    let windows = series.shares.len();
    let end = (windows.max(1) as f64) * figures.window_s.max(1e-3);
    let x = Axis::linear([0.0, end], [left, left + PANEL[0]]);
    let y = Axis::linear([0.0, 1.0], [top + PANEL[1], top]);
    canvas.text([left, top - 10.0], Style::new(13.0).bold(), &series.name);
    canvas.rectangle([left, top], PANEL, "#f6f7f8", 1.0);
    let mut floor = vec![0.0; windows];
    for n in 0..figures.deployments.len() {
        let mut ceiling = floor.clone();
        for (sum, shares) in ceiling.iter_mut().zip(&series.shares) {
            *sum = (*sum + shares.get(n).copied().unwrap_or(0.0)).min(1.0);
        }
        // Steps, as each value is that of a whole window.
        let edge = |sums: &[f64]| -> Vec<[f64; 2]> {
            let window = |(i, sum): (usize, &f64)| {
                let from = i as f64 * figures.window_s;
                [[x.at(from), y.at(*sum)], [x.at(from + figures.window_s), y.at(*sum)]]
            };
            sums.iter().enumerate().flat_map(window).collect()
        };
        let mut outline = edge(&ceiling);
        outline.extend(edge(&floor).into_iter().rev());
        if !outline.is_empty() {
            canvas.polygon(&outline, palette::colour(n), 0.92);
        }
        floor = ceiling;
    }
    let style = Style::new(11.0).colour(MUTED);
    for [from, to] in &figures.incidents {
        canvas.line([x.at(*from), top - 3.0], [x.at(*to), top - 3.0], Stroke::new(INK, 3.0));
    }
    for share in [0.0, 0.5, 1.0] {
        let text = format!("{:.0} %", share * 100.0);
        canvas.text([left - 7.0, y.at(share) + 4.0], style.anchor(Anchor::End), &text);
    }
    for tick in x.ticks(6) {
        let text = format!("{} s", label(tick));
        canvas.text([x.at(tick), top + PANEL[1] + 16.0], style.anchor(Anchor::Middle), &text);
    }
}
