//! How many requests had their whole answer within how many seconds, a line a strategy.

use super::{
    Figures,
    axis::{Axis, label},
    canvas::{Anchor, Canvas, GRID, MUTED, Stroke, Style},
    palette,
};

const LEFT: f64 = 64.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 440.0;

/// The plot as SVG.
pub(super) fn draw(figures: &Figures) -> String {
    let mut canvas = Canvas::new(940.0, 500.0);
    canvas.head(&figures.title, &figures.subtitle);
    let all =
        || figures.series.iter().flat_map(|series| &series.e2e_quantiles_s).copied().filter(|v| *v > 0.0);
    let high = all().fold(0.0, f64::max);
    // The fastest answers hold no news and would take half of the axis.
    let low = all().fold(f64::INFINITY, f64::min).max(high / 500.0);
    let (low, high) = if high > 0.0 { (low, high) } else { (0.1, 60.0) };
    let x = Axis::logarithmic([low, high], [LEFT, RIGHT]);
    let y = Axis::linear([0.0, 1.0], [BOTTOM, TOP]);
    grid(&mut canvas, x, y);
    for (n, series) in figures.series.iter().enumerate() {
        let count = series.e2e_quantiles_s.len() as f64;
        let points: Vec<[f64; 2]> = series
            .e2e_quantiles_s
            .iter()
            .enumerate()
            .map(|(i, seconds)| [x.at(*seconds), y.at((i as f64 + 1.0) / count)])
            .collect();
        let width = if series.is_own { 3.2 } else { 1.9 };
        let stroke = Stroke::new(palette::colour(n), width).dash(palette::dash(n));
        canvas.polyline(&points, stroke);
        let row = TOP + 10.0 + 24.0 * n as f64;
        canvas.line([RIGHT + 28.0, row], [RIGHT + 58.0, row], stroke);
        canvas.text([RIGHT + 68.0, row + 4.5], Style::new(13.0), &series.name);
    }
    canvas.finish()
}

fn grid(canvas: &mut Canvas, x: Axis, y: Axis) {
    let style = Style::new(11.5).colour(MUTED);
    for tick in y.ticks(5) {
        canvas.line([LEFT, y.at(tick)], [RIGHT, y.at(tick)], Stroke::new(GRID, 1.0));
        let text = format!("{:.0} %", tick * 100.0);
        canvas.text([LEFT - 10.0, y.at(tick) + 4.0], style.anchor(Anchor::End), &text);
    }
    for tick in x.ticks(8) {
        canvas.line([x.at(tick), TOP], [x.at(tick), BOTTOM], Stroke::new(GRID, 1.0));
        canvas.text([x.at(tick), BOTTOM + 18.0], style.anchor(Anchor::Middle), &label(tick));
    }
    let below = [f64::midpoint(LEFT, RIGHT), BOTTOM + 42.0];
    canvas.text(below, style.anchor(Anchor::Middle), "seconds to the whole answer; failures at 60");
}
