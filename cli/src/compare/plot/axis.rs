//! From values to pixels, and the round values at which an axis is labelled.

/// A stretch of values laid over a stretch of pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    values: [f64; 2],
    pixels: [f64; 2],
    logarithmic: bool,
}

impl Axis {
    /// Equal distances for equal differences. An empty stretch is widened.
    pub(super) fn linear(values: [f64; 2], pixels: [f64; 2]) -> Self {
        let [from, to] = values;
        let values = if to > from { values } else { [from, from + f64::max(1.0, from.abs())] };
        Self { values, pixels, logarithmic: false }
    }

    /// Equal distances for equal ratios; `values` are above 0. Widened to 1, 2 or 5
    /// times a power of ten.
    pub(super) fn logarithmic(values: [f64; 2], pixels: [f64; 2]) -> Self {
        let from = round_below(values[0].max(1e-9));
        let to = round_above(values[1].max(from * 2.0));
        Self { values: [from, to], pixels, logarithmic: true }
    }

    /// Where a value is. What lies beyond the axis is put at its end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let [from, to] = self.values;
        let value = value.clamp(from, to);
        let share = if self.logarithmic {
            (value / from).ln() / (to / from).ln()
        } else {
            (value - from) / (to - from)
        };
        self.pixels[0] + share * (self.pixels[1] - self.pixels[0])
    }

    /// Where labels go: about `count`, at round values.
    pub(super) fn ticks(&self, count: usize) -> Vec<f64> {
        if self.logarithmic { self.logarithmic_ticks(count) } else { self.linear_ticks(count) }
    }

    fn linear_ticks(&self, count: usize) -> Vec<f64> {
        let [from, to] = self.values;
        let step = round_above((to - from) / count.max(1) as f64);
        let first = (from / step - 1e-9).ceil() as i64;
        let last = (to / step + 1e-9).floor() as i64;
        (first..=last).map(|n| n as f64 * step).collect()
    }

    fn logarithmic_ticks(&self, count: usize) -> Vec<f64> {
        let [from, to] = self.values;
        let mut all = Vec::new();
        let mut tick = from;
        while tick <= to * 1.000_001 {
            all.push(tick);
            tick = round_above(tick * 1.01);
        }
        // Only powers of ten where 1, 2 and 5 would crowd.
        if all.len() > count + 2 {
            all.retain(|tick| (tick.log10() - tick.log10().round()).abs() < 1e-6);
        }
        all
    }
}

/// The largest of 1, 2 and 5 times a power of ten that is not above `value`.
fn round_below(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].map(|step| step * power).into_iter().find(|v| *v <= value * 1.000_001).unwrap_or(power)
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `value`.
pub(super) fn round_above(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|step| step * power)
        .into_iter()
        .find(|v| *v >= value * 0.999_999)
        .unwrap_or(power * 10.0)
}

/// A tick's label: as many decimals as it needs.
pub(super) fn label(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_is_labelled_at_round_values() {
        let axis = Axis::linear([0.0, 900.0], [0.0, 100.0]);
        assert_eq!(axis.ticks(5), [0.0, 200.0, 400.0, 600.0, 800.0]);
        assert!((axis.at(450.0) - 50.0).abs() < 1e-9);
        assert!((axis.at(5_000.0) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn a_logarithmic_axis_covers_its_values() {
        let axis = Axis::logarithmic([0.31, 60.0], [0.0, 100.0]);
        assert_eq!(
            axis.ticks(8).iter().map(|v| label(*v)).collect::<Vec<_>>(),
            ["0.2", "0.5", "1", "2", "5", "10", "20", "50", "100"]
        );
        let wide = Axis::logarithmic([0.001, 900.0], [0.0, 100.0]);
        assert_eq!(wide.ticks(6).first().map(|v| label(*v)).as_deref(), Some("0.001"));
        assert_eq!(wide.ticks(6).len(), 7);
    }

    #[test]
    fn an_axis_without_extent_is_still_an_axis() {
        let axis = Axis::linear([1.0, 1.0], [0.0, 100.0]);
        assert!(axis.at(1.0).is_finite());
        assert!(Axis::logarithmic([0.0, 0.0], [0.0, 1.0]).at(0.0).is_finite());
    }
}
