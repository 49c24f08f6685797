//! What a strategy costs against what it keeps: US dollars for 1,000 requests and the share
//! within the objective. The best corner is the upper left.

use super::{
    Figures, Series,
    axis::{Axis, label},
    canvas::{Anchor, Canvas, GRID, MUTED, Stroke, Style, width_of},
    palette,
};

const LEFT: f64 = 76.0;
const RIGHT: f64 = 840.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = 460.0;
/// Between the baselines of two labels.
const LABEL: f64 = 16.0;

/// The plot as SVG.
pub(super) fn draw(figures: &Figures) -> String {
    let mut canvas = Canvas::new(880.0, 524.0);
    canvas.head(&figures.title, &figures.subtitle);
    let usd = |pick: fn(f64, f64) -> f64, start: f64| {
        figures.series.iter().flat_map(|series| series.usd_per_1000).fold(start, pick)
    };
    let (low, high) = (usd(f64::min, f64::INFINITY), usd(f64::max, 0.0));
    let (low, high) = if high > 0.0 { (low, high) } else { (0.0, 1.0) };
    let margin = f64::max((high - low) * 0.12, high * 0.02);
    let lowest = figures.series.iter().flat_map(|series| series.slo).fold(1.0, f64::min);
    let x = Axis::linear([f64::max(0.0, low - margin), high + 2.5 * margin], [LEFT, RIGHT]);
    let y = Axis::linear([f64::max(0.0, lowest - 0.1 * (1.0 - lowest).max(0.05)), 1.0], [BOTTOM, TOP]);
    grid(&mut canvas, x, y);
    for (n, series) in figures.series.iter().enumerate() {
        let [cost, cost_low, cost_high] = series.usd_per_1000.map(|value| x.at(value));
        let [slo, slo_low, slo_high] = series.slo.map(|value| y.at(value));
        let stroke = Stroke::new(palette::colour(n), 1.4);
        canvas.line([cost_low, slo], [cost_high, slo], stroke);
        canvas.line([cost, slo_low], [cost, slo_high], stroke);
    }
    for (n, series) in figures.series.iter().enumerate() {
        canvas.dot([x.at(series.usd_per_1000[0]), y.at(series.slo[0])], 7.0, palette::colour(n), false);
    }
    labels(&mut canvas, &figures.series, x, y);
    canvas.finish()
}

fn grid(canvas: &mut Canvas, x: Axis, y: Axis) {
    let style = Style::new(11.5).colour(MUTED);
    for tick in y.ticks(6) {
        canvas.line([LEFT, y.at(tick)], [RIGHT, y.at(tick)], Stroke::new(GRID, 1.0));
        let text = format!("{} %", label(tick * 100.0));
        canvas.text([LEFT - 10.0, y.at(tick) + 4.0], style.anchor(Anchor::End), &text);
    }
    for tick in x.ticks(8) {
        canvas.line([x.at(tick), TOP], [x.at(tick), BOTTOM], Stroke::new(GRID, 1.0));
        canvas.text([x.at(tick), BOTTOM + 18.0], style.anchor(Anchor::Middle), &label(tick));
    }
    let below = [f64::midpoint(LEFT, RIGHT), BOTTOM + 44.0];
    canvas.text(
        below,
        style.anchor(Anchor::Middle),
        "US dollars for 1,000 requests; lines: 95 % interval over seeds",
    );
    canvas.text([24.0, TOP - 14.0], style, "requests within the objective");
}

/// Names beside their points. Where two would cover each other the lower one moves down.
fn labels(canvas: &mut Canvas, series: &[Series], x: Axis, y: Axis) {
    let mut order: Vec<&Series> = series.iter().collect();
    order.sort_by(|a, b| b.slo[0].total_cmp(&a.slo[0]).then(a.usd_per_1000[0].total_cmp(&b.usd_per_1000[0])));
    let mut placed: Vec<[f64; 3]> = Vec::new();
    for series in order {
        let point = [x.at(series.usd_per_1000[0]), y.at(series.slo[0])];
        let width = width_of(&series.name, 12.5);
        let from =
            if point[0] + 9.0 + width > RIGHT + 30.0 { point[0] - 9.0 - width } else { point[0] + 9.0 };
        let mut base = point[1] - 8.0;
        let covers = |base: f64, other: &[f64; 3]| {
            (other[2] - base).abs() < LABEL && from < other[1] && other[0] < from + width
        };
        while let Some(other) = placed.iter().find(|other| covers(base, other)) {
            base = other[2] + LABEL;
        }
        placed.push([from, from + width, base]);
        if base - point[1] > LABEL {
            canvas.line(point, [from - 2.0, base - 4.0], Stroke::new(MUTED, 0.7));
        }
        canvas.text([from, base], Style::new(12.5), &series.name);
    }
}
