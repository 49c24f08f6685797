//! What a comparison shows of each strategy, by what people ask of it, and how a figure is
//! written.

use trunkline_simulator::report::{Cell, Metric};

/// Figures that belong together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Its heading.
    pub(super) title: &'static str,
    /// Key in JSON.
    pub(super) key: &'static str,
    pub(super) columns: &'static [Column],
}

/// One figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) metric: Metric,
    /// Its heading, with the unit.
    pub(super) heading: &'static str,
    pub(super) unit: Unit,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// 0 to 1, written in percent.
    Share,
    Seconds,
    Usd,
    /// Anything else.
    Number,
}

const fn column(metric: Metric, heading: &'static str, unit: Unit) -> Column {
    Column { metric, heading, unit }
}

/// After complexity, which is not of a run.
pub(super) const GROUPS: [Group; 4] = [
    Group {
        title: "Cost control",
        key: "cost_control",
        columns: &[
            column(Metric::UsdPer1000, "USD per 1,000", Unit::Usd),
            column(Metric::FloorViolations, "floor violations %", Unit::Share),
            column(Metric::Overpaid, "overpaid %", Unit::Share),
        ],
    },
    Group {
        title: "Performance",
        key: "performance",
        columns: &[
            column(Metric::TtftP50, "TTFT p50 s", Unit::Seconds),
            column(Metric::TtftP95, "TTFT p95 s", Unit::Seconds),
            column(Metric::TtftP99, "TTFT p99 s", Unit::Seconds),
            column(Metric::E2eP50, "e2e p50 s", Unit::Seconds),
            column(Metric::E2eP95, "e2e p95 s", Unit::Seconds),
            column(Metric::E2eP99, "e2e p99 s", Unit::Seconds),
            column(Metric::Slo, "SLO %", Unit::Share),
        ],
    },
    Group {
        title: "Reliability",
        key: "reliability",
        columns: &[
            column(Metric::Success, "success %", Unit::Share),
            column(Metric::WindowSuccess, "in the incident %", Unit::Share),
            column(Metric::DetectS, "detect s", Unit::Number),
            column(Metric::RecoverS, "recover s", Unit::Number),
            column(Metric::Wasted, "wasted attempts", Unit::Number),
            column(Metric::Refused, "429s", Unit::Number),
        ],
    },
    Group {
        title: "Against the oracle",
        key: "oracle",
        columns: &[column(Metric::Regret, "regret", Unit::Number)],
    },
];

impl Unit {
    /// A figure as text, without its unit.
    pub(super) fn text(self, value: f64) -> String {
        let value = if self == Self::Share { value * 100.0 } else { value };
        let decimals = if self == Self::Number && value.abs() < 1.0 { 3 } else { 2 };
        let text = format!("{value:.decimals$}");
        if text.trim_start_matches('-').chars().all(|c| c == '0' || c == '.') { "0".to_owned() } else { text }
    }
}

/// `value (ratio) [low, high]`; a dash where there is nothing.
pub(super) fn text(cell: Option<Cell>, unit: Unit) -> String {
    let Some(Cell { interval, ratio }) = cell else { return "-".to_owned() };
    let ratio = ratio.map(|ratio| format!(" ({ratio:.2}x)")).unwrap_or_default();
    let spread = if interval.low < interval.high {
        // No figure is negative, and no share is above 1, however wide the interval.
        let most = if unit == Unit::Share { 1.0 } else { f64::INFINITY };
        format!(" [{}, {}]", unit.text(interval.low.max(0.0)), unit.text(interval.high.min(most)))
    } else {
        String::new()
    };
    format!("{}{ratio}{spread}", unit.text(interval.mean))
}

#[cfg(test)]
mod tests {
    use trunkline_simulator::report::Interval;

    use super::*;

    #[test]
    fn a_cell_tells_value_ratio_and_interval() {
        let cell = |mean, low, high, ratio| Some(Cell { interval: Interval { mean, low, high }, ratio });
        assert_eq!(text(cell(0.998, 0.99, 1.0, Some(1.1)), Unit::Share), "99.80 (1.10x) [99.00, 100.00]");
        assert_eq!(text(cell(3.0, 3.0, 3.0, None), Unit::Seconds), "3.00");
        assert_eq!(text(cell(0.0, 0.0, 0.0, Some(0.0)), Unit::Number), "0 (0.00x)");
        assert_eq!(text(None, Unit::Usd), "-");
    }
}
