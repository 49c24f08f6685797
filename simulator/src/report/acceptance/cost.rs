//! Rows that judge money.

use super::{COST, LOWEST_LIST_PRICE, ORACLE_COST, Row, condition::figure};
use crate::{
    report::Metric::{BudgetValue, FalselyRefused, FloorViolations, OldPriceS, Overspend, Slo, UsdPer1000},
    spending::{CHECK_THEN_SPEND, DUAL_PACING, LEASES, SCENARIO, SPEND_UNTIL_EMPTY},
};

/// From one publication at the agents to the next: a price must be in force by then.
const PUBLICATION_S: f64 = 2.0 + 0.2;

/// In the order of the table.
pub(super) const ROWS: [Row; 2] = [
    Row {
        id: "12",
        name: "cost",
        pass: &[
            figure("12", COST, FloorViolations).at_most(0.0),
            figure("12", COST, UsdPer1000).at_most_times(1.10, ORACLE_COST),
            figure("12", COST, Slo).at_least(0.98),
            figure("12", COST, OldPriceS).at_most(PUBLICATION_S),
        ],
        must_fail: &[figure("12", LOWEST_LIST_PRICE, FloorViolations).above(0.30)],
    },
    Row {
        id: "B",
        name: "budget",
        pass: &[
            figure(SCENARIO, LEASES, Overspend).at_most(0.0),
            // Of some 1,800: the last one's worth may lie in parts with several agents.
            figure(SCENARIO, LEASES, FalselyRefused).at_most(1.0),
            figure(SCENARIO, DUAL_PACING, BudgetValue).at_least(0.9),
        ],
        must_fail: &[
            figure(SCENARIO, SPEND_UNTIL_EMPTY, BudgetValue).below(0.5),
            figure(SCENARIO, CHECK_THEN_SPEND, Overspend).above(0.0),
        ],
    },
];
