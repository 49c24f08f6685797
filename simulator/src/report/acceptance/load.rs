//! Rows that judge what own traffic does to providers: limits, bursts, herds.

use super::{ARGMIN, CENTRAL, LATENCY, P2C, RR, Row, condition::figure};
use crate::report::Metric::{Refused, Regret, Slo, Success, Swing, Wasted};

/// In the order of the table.
pub(super) const ROWS: [Row; 4] = [
    Row {
        id: "07",
        name: "rate limits",
        pass: &[
            figure("07", LATENCY, Refused).at_most(0.05),
            figure("07", LATENCY, Success).at_least(0.999),
            figure("07", LATENCY, Slo).at_least(0.97),
        ],
        must_fail: &[figure("07", P2C, Refused).above(0.05)],
    },
    Row {
        id: "09",
        name: "spike",
        pass: &[
            figure("09", LATENCY, Success).at_least_above(0.04, P2C),
            figure("09", LATENCY, Wasted).at_most_times(0.5, RR),
        ],
        must_fail: &[figure("09", ARGMIN, Success).below(0.75)],
    },
    Row {
        id: "10",
        name: "herding",
        pass: &[
            figure("10", LATENCY, Success).at_least(0.999),
            figure("10", LATENCY, Regret).at_most_times(0.8, P2C),
            figure("10", LATENCY, Swing).at_most(0.40),
        ],
        must_fail: &[figure("10", CENTRAL, Success).below(0.7)],
    },
    Row {
        id: "15",
        name: "bursty",
        pass: &[
            figure("15", LATENCY, Success).at_least(0.998),
            figure("15", LATENCY, Regret).at_most_times(0.65, P2C),
        ],
        must_fail: &[figure("15", ARGMIN, Success).below(0.95).only_with("mixed-a")],
    },
];
