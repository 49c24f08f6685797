//! Percentiles of latency, one line a strategy: p50, p95 and p99 of the time to the first
//! token and of the whole answer.

use super::{
    Figures, Series,
    axis::{Axis, label},
    canvas::{Anchor, Canvas, GRID, INK, MUTED, Stroke, Style, width_of},
    palette,
};

const ROW: f64 = 30.0;
const TOP: f64 = 116.0;
const PANEL: f64 = 380.0;
const GAP: f64 = 44.0;

/// The plot as SVG.
pub(super) fn draw(figures: &Figures) -> String {
    let names = figures.series.iter().map(|series| width_of(&series.name, 13.0)).fold(80.0, f64::max);
    let left = 24.0 + names + 16.0;
    let bottom = TOP + ROW * figures.series.len() as f64;
    let mut canvas = Canvas::new(left + 2.0 * PANEL + GAP + 36.0, bottom + 60.0);
    canvas.head(&figures.title, &figures.subtitle);
    legend(&mut canvas, left);
    for (row, series) in figures.series.iter().enumerate() {
        let style = Style::new(13.0).anchor(Anchor::End);
        canvas.text([left - 14.0, middle(row) + 4.5], style, &series.name);
    }
    panel(&mut canvas, figures, left, "Time to first token (s)", |series| series.ttft_s);
    panel(&mut canvas, figures, left + PANEL + GAP, "Whole answer (s), failures at 60", |series| {
        series.e2e_s
    });
    canvas.finish()
}

fn middle(row: usize) -> f64 {
    TOP + ROW * (row as f64 + 0.5)
}

fn legend(canvas: &mut Canvas, left: f64) {
    let style = Style::new(12.0).colour(MUTED);
    for (n, (name, radius, hollow)) in
        [("p50", 4.0, true), ("p95", 6.0, false), ("p99", 4.0, false)].into_iter().enumerate()
    {
        let x = left + 6.0 + 62.0 * n as f64;
        canvas.dot([x, 77.0], radius, INK, hollow);
        canvas.text([x + 11.0, 81.0], style, name);
    }
}

fn panel(canvas: &mut Canvas, figures: &Figures, left: f64, title: &str, values: fn(&Series) -> [f64; 3]) {
    let all: Vec<f64> = figures.series.iter().flat_map(values).filter(|v| *v > 0.0).collect();
    let low = all.iter().copied().fold(f64::INFINITY, f64::min);
    let high = all.iter().copied().fold(0.0, f64::max);
    let (low, high) = if all.is_empty() { (0.1, 60.0) } else { (low * 0.9, high * 1.05) };
    let axis = Axis::logarithmic([low, high], [left, left + PANEL]);
    let bottom = TOP + ROW * figures.series.len() as f64;
    canvas.text([left, 104.0], Style::new(12.5).bold(), title);
    for tick in axis.ticks(8) {
        let x = axis.at(tick);
        canvas.line([x, TOP], [x, bottom], Stroke::new(GRID, 1.0));
        let style = Style::new(11.5).colour(MUTED).anchor(Anchor::Middle);
        canvas.text([x, bottom + 18.0], style, &label(tick));
    }
    for (row, series) in figures.series.iter().enumerate() {
        let [p50, p95, p99] = values(series).map(|value| axis.at(value));
        let (y, colour) = (middle(row), palette::colour(row));
        canvas.line([p50, y], [p99, y], Stroke::new(colour, 2.5));
        canvas.dot([p99, y], 4.0, colour, false);
        canvas.dot([p95, y], 6.0, colour, false);
        canvas.dot([p50, y], 4.0, colour, true);
    }
}
