//! Runs that show what budgets do, in virtual time, with the ledger, the wallets and the
//! pacer that control plane and agents run: row B of the acceptance table. Providers have
//! no part in it.

mod edge;
mod pacing;

use crate::run::{RunReport, report::BudgetFigures};

/// What the acceptance table calls this scenario.
pub const SCENARIO: &str = "B";
/// Leases and reservations, as built.
pub const LEASES: &str = "leases";
/// No reservation: an agent compares the total that it heard last with the limit.
pub const CHECK_THEN_SPEND: &str = "check-then-spend";
/// Upgrades by dual pacing, as built.
pub const DUAL_PACING: &str = "dual-pacing";
/// Every upgrade is bought while there is money.
pub const SPEND_UNTIL_EMPTY: &str = "spend-until-empty";

/// One run. None: there is no such way to spend.
pub fn run(way: &str, seed: u64) -> Option<RunReport> {
    let budget = match way {
        LEASES => edge::run(edge::Way::Leases, seed),
        CHECK_THEN_SPEND => edge::run(edge::Way::CheckThenSpend, seed),
        DUAL_PACING => pacing::run(pacing::Way::Dual, seed),
        SPEND_UNTIL_EMPTY => pacing::run(pacing::Way::UntilEmpty, seed),
        _ => return None,
    };
    Some(report(way, seed, budget))
}

fn report(way: &str, seed: u64, budget: BudgetFigures) -> RunReport {
    RunReport {
        scenario: SCENARIO.to_owned(),
        policy: way.to_owned(),
        seed,
        budget: Some(budget),
        ..RunReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(way: &str, seed: u64) -> BudgetFigures {
        run(way, seed).unwrap().budget.unwrap()
    }

    #[test]
    fn leases_never_overspend_and_refuse_hardly_anybody_whose_money_is_there() {
        for seed in 1..6 {
            let figures = figures(LEASES, seed);
            assert!(figures.spent_usd <= figures.limit_usd, "{seed}: {figures:?}");
            // The last request's worth may lie in parts with several agents.
            assert!(figures.falsely_refused <= 1, "{seed}: {figures:?}");
            assert!(figures.spent_usd > 0.98 * figures.limit_usd, "{seed}: {figures:?}");
        }
    }

    #[test]
    fn without_reservations_the_limit_is_passed() {
        let figures = figures(CHECK_THEN_SPEND, 1);
        assert!(figures.spent_usd > figures.limit_usd, "{figures:?}");
    }

    #[test]
    fn pacing_keeps_most_of_what_could_be_bought_and_greed_does_not() {
        for seed in 1..6 {
            let (paced, greedy) = (figures(DUAL_PACING, seed), figures(SPEND_UNTIL_EMPTY, seed));
            assert!(paced.value > 0.9 && paced.value <= 1.0, "{seed}: {paced:?}");
            assert!(greedy.value < 0.5, "{seed}: {greedy:?}");
            assert!(paced.spent_usd <= paced.limit_usd && greedy.spent_usd <= greedy.limit_usd);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        assert_eq!(run(LEASES, 7), run(LEASES, 7));
        assert_ne!(run(DUAL_PACING, 7), run(DUAL_PACING, 8));
        assert_eq!(run("on credit", 1), None);
    }
}
