//! The acceptance table of decision quality, as data: each row names scenarios, what must
//! hold there, and controls that must fail. A scenario whose control passes is too easy,
//! and what holds there shows nothing.

mod condition;
mod cost;
mod failure;
mod latency;
mod load;

pub use condition::{Bound, Condition, Sense, Verdict};

/// The strategy that rows on speed and reliability judge.
const LATENCY: &str = "latency";
/// The same without hedges, which row 06 must find wanting.
const NO_HEDGE: &str = "latency/no-hedge";
/// The strategy that rows on money judge.
const COST: &str = "cost";
/// The strategy that walks the tiers of row F.
const FALLBACK: &str = "latency";
/// One after the other, three attempts, a deployment is never tried twice.
const RR: &str = "naive-round-robin";
/// What peers with good load balancing have.
const P2C: &str = "peak-ewma-p2c";
/// The lowest mean latency of the last ten.
const ARGMIN: &str = "litellm-latency";
/// The lowest moving average of whole latencies.
const NAIVE_EWMA: &str = "naive-ewma";
/// A control plane that names the one best.
const CENTRAL: &str = "central-argmin";
/// Tier after tier, remembering nothing.
const CHAIN: &str = "naive-chain";
/// The lowest sum of the two list prices.
const LOWEST_LIST_PRICE: &str = "litellm-lowest-cost";
/// Knows all, wants speed.
const ORACLE: &str = "oracle";
/// Knows all, wants a low bill.
const ORACLE_COST: &str = "oracle-cost";

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// As the table numbers it.
    pub id: &'static str,
    /// What it is about, in a word or two.
    pub name: &'static str,
    /// All must hold.
    pub pass: &'static [Condition],
    /// All must hold too: they say that the control fails.
    pub must_fail: &'static [Condition],
}

impl Row {
    /// Its conditions, those of its controls last.
    pub fn conditions(&self) -> impl Iterator<Item = &'static Condition> {
        self.pass.iter().chain(self.must_fail)
    }
}

/// A row of the table that can't be judged, since what it judges is not built.
#[derive(Clone, Copy, Debug)]
pub struct NotBuilt {
    /// As the table numbers it.
    pub id: &'static str,
    /// What it is about.
    pub name: &'static str,
    /// What is missing.
    pub missing: &'static str,
}

/// The rows of the table that [`rows`] does not have.
pub const NOT_BUILT: [NotBuilt; 3] = [
    NotBuilt {
        id: "16",
        name: "predictive, daily pattern",
        missing: "strategy PREDICTIVE; row 01 is not judged for it either",
    },
    NotBuilt { id: "19", name: "predictive, moved pattern", missing: "strategy PREDICTIVE, the scenario" },
    NotBuilt { id: "E", name: "experiments", missing: "experiments of strategies" },
];

/// All rows that can be judged, by id.
pub fn rows() -> Vec<Row> {
    let mut rows = [&latency::ROWS[..], &load::ROWS, &failure::ROWS, &cost::ROWS].concat();
    rows.sort_by_key(|row| row.id);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Policy;

    #[test]
    fn every_row_of_what_is_built_is_there_once_and_the_others_are_named() {
        let ids: Vec<&str> = rows().iter().map(|row| row.id).collect();
        assert_eq!(
            ids,
            [
                "01", "02", "03", "04", "05", "06", "07", "09", "10", "11", "12", "13", "14", "15", "17",
                "18", "B", "F", "FO"
            ]
        );
        assert_eq!(NOT_BUILT.map(|row| row.id), ["16", "19", "E"]);
    }

    #[test]
    fn every_policy_and_scenario_of_a_condition_is_known() {
        let of_providers = |condition: &&Condition| condition.scenario != crate::spending::SCENARIO;
        for condition in rows().iter().flat_map(Row::conditions).filter(of_providers) {
            let known = crate::scenario::acceptance()
                .unwrap()
                .iter()
                .any(|scenario| scenario.id == condition.scenario);
            assert!(known, "{condition}: {}", condition.scenario);
            for policy in condition.policies() {
                assert!(policy.parse::<Policy>().is_ok(), "{condition}: {policy}");
            }
        }
    }
}
