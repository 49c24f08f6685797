//! Rows that judge speed: the right target for this request, also while one is slow.

use super::{ARGMIN, LATENCY, NAIVE_EWMA, NO_HEDGE, ORACLE, P2C, RR, Row, condition::figure};
use crate::report::Metric::{
    Duplicates, E2eP95, Hedges, Regret, SickShareAfter30s, Slo, TtftP99, Wasted, WindowSlo, WindowTtftP99,
};

/// In the order of the table.
pub(super) const ROWS: [Row; 7] = [
    Row {
        id: "01",
        name: "steady",
        pass: &[
            figure("01", LATENCY, Regret).at_most(0.12),
            figure("01", LATENCY, Regret).at_most_times(0.25, P2C),
            figure("01", LATENCY, E2eP95).at_most_times(0.55, RR),
            figure("01", LATENCY, E2eP95).at_most_times(1.10, ORACLE),
            figure("01", LATENCY, Duplicates).at_most(0.03),
        ],
        must_fail: &[figure("01", RR, Regret).above(0.8)],
    },
    Row {
        id: "02",
        name: "brownout",
        pass: &[
            figure("02", LATENCY, WindowTtftP99).at_most_times(0.6, RR),
            figure("02", LATENCY, E2eP95).at_most_times(0.5, RR),
            figure("02", LATENCY, WindowSlo).at_least(0.95),
            figure("02", LATENCY, Regret).at_most_times(0.45, P2C),
        ],
        must_fail: &[figure("02", RR, WindowSlo).below(0.75)],
    },
    Row {
        id: "04",
        name: "black hole",
        pass: &[
            figure("04", LATENCY, WindowTtftP99).at_most_times(0.6, RR),
            figure("04", LATENCY, WindowTtftP99).at_most_times(0.75, P2C),
            figure("04", LATENCY, Slo).at_least(0.98),
        ],
        must_fail: &[figure("04", ARGMIN, WindowTtftP99).above(10.0)],
    },
    Row {
        id: "05",
        name: "flapping",
        pass: &[
            figure("05", LATENCY, Wasted).at_most(0.06),
            figure("05", LATENCY, TtftP99).at_most_times(0.45, RR),
        ],
        must_fail: &[],
    },
    Row {
        id: "06",
        name: "gray",
        pass: &[
            figure("06", LATENCY, TtftP99).at_most_times(0.45, RR),
            figure("06", LATENCY, TtftP99).at_most_times(0.7, P2C),
            figure("06", LATENCY, Hedges).at_most(0.025),
        ],
        must_fail: &[figure("06", NO_HEDGE, TtftP99).above(10.0)],
    },
    Row {
        id: "11",
        name: "length",
        pass: &[figure("11", LATENCY, Regret).at_most(0.12)],
        must_fail: &[figure("11", NAIVE_EWMA, Regret).above(0.4)],
    },
    Row {
        id: "14",
        name: "new lane",
        pass: &[
            figure("14", LATENCY, TtftP99).at_most_times(0.35, RR),
            figure("14", LATENCY, SickShareAfter30s).below(0.03),
        ],
        must_fail: &[figure("14", RR, TtftP99).above(9.0)],
    },
];
