//! Rows that judge money.

use super::{COST, LOWEST_LIST_PRICE, ORACLE_COST, Row, condition::figure};
use crate::report::Metric::{FloorViolations, Slo, UsdPer1000};

/// In the order of the table.
pub(super) const ROWS: [Row; 1] = [Row {
    id: "12",
    name: "cost",
    pass: &[
        figure("12", COST, FloorViolations).at_most(0.0),
        figure("12", COST, UsdPer1000).at_most_times(1.10, ORACLE_COST),
        figure("12", COST, Slo).at_least(0.98),
    ],
    must_fail: &[figure("12", LOWEST_LIST_PRICE, FloorViolations).above(0.30)],
}];
