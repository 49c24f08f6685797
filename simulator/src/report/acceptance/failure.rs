//! Rows that judge what callers notice of failures.

use super::{ARGMIN, CHAIN, FALLBACK, LATENCY, P2C, RR, Row, condition::figure};
use crate::report::Metric::{SickShareAfter3s, Success, Wasted, WindowTtftP95, WindowWasted};

/// In the order of the table.
pub(super) const ROWS: [Row; 6] = [
    Row {
        id: "03",
        name: "outage",
        pass: &[
            figure("03", LATENCY, Success).at_least(0.9999),
            figure("03", LATENCY, Wasted).at_most(0.05),
            figure("03", LATENCY, Wasted).at_most_times(0.5, RR),
            figure("03", LATENCY, SickShareAfter3s).below(0.05),
        ],
        must_fail: &[figure("03", RR, Wasted).above(0.07)],
    },
    Row {
        id: "13",
        name: "two down",
        pass: &[figure("13", LATENCY, Success).at_least_above(0.02, P2C)],
        must_fail: &[figure("13", RR, Success).below(0.96)],
    },
    Row {
        id: "17",
        name: "two providers",
        pass: &[figure("17", LATENCY, Success).at_least_above(0.025, RR)],
        must_fail: &[figure("17", RR, Success).below(0.97), figure("17", P2C, Success).below(0.97)],
    },
    Row {
        id: "18",
        name: "mid-stream",
        pass: &[
            figure("18", LATENCY, Success).at_least_above(0.003, RR),
            figure("18", LATENCY, Success).at_least_above(0.012, ARGMIN),
        ],
        must_fail: &[figure("18", ARGMIN, Success).below_that_of(RR)],
    },
    Row {
        id: "F",
        name: "fallback, black hole",
        pass: &[figure("F", FALLBACK, WindowTtftP95).at_most_times(0.3, CHAIN)],
        must_fail: &[figure("F", CHAIN, WindowTtftP95).above(10.0)],
    },
    Row {
        id: "FO",
        name: "fallback, outage",
        pass: &[figure("FO", FALLBACK, WindowWasted).at_most_times(0.25, CHAIN)],
        must_fail: &[figure("FO", CHAIN, WindowWasted).above(0.9)],
    },
];
