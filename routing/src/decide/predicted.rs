//! Decisions of the strategies that predict: which tier, and the chances in it.

use alloc::vec::Vec;

use super::{Candidate, Decision, Exclusion, Reason, Route, apply_shares, shares};
use crate::{
    eligibility::{Profile, strategy_of},
    registry::{Binding, Registry},
    select::{self, Question, Ranked},
    table::{RoutingTable, Strategy, Tier},
    time::Timestamp,
};

/// Decides for a request that was not tried anywhere.
pub(super) fn decide(
    registry: &Registry,
    table: &RoutingTable,
    binding: &Binding,
    route: Route<'_>,
    profile: &Profile,
    now: Timestamp,
) -> Decision {
    let mut decision = Decision::default();
    let mut tiers = Vec::with_capacity(route.model.tiers.len());
    for (index, tier) in route.model.tiers.iter().enumerate() {
        let mut left_out = |deployment, reason| {
            decision.excluded.push(Exclusion { deployment, tier: index, reason });
        };
        let mut open = shares(registry, table, binding, route.model, tier, profile, now, &mut left_out);
        for at in hide_zero_weights(tier, &mut open) {
            left_out(tier.targets[at].deployment, Reason::ZeroWeight);
        }
        let question = Question { registry, table, binding, route, tier, profile, now, first: true };
        tiers.push(select::rank(&question, &open));
    }
    let chances = select::tier_chances(route.model, &tiers, profile);
    for (index, (ranked, chance)) in tiers.iter_mut().zip(chances).enumerate() {
        let kept = ranked.iter().any(|one| one.feasible);
        ranked.sort_by(|a, b| b.chance.total_cmp(&a.chance).then(a.score.total_cmp(&b.score)));
        for one in ranked.iter() {
            let deployment = route.model.tiers[index].targets[one.at].deployment;
            if kept
                && !one.feasible
                && one.chance <= 0.0
                && strategy_of(route.model, profile) == Strategy::Cost
            {
                decision.excluded.push(Exclusion { deployment, tier: index, reason: Reason::Slo });
            } else {
                decision.candidates.push(candidate(one, index, deployment, chance));
            }
        }
    }
    // In the order in which they would be tried: a tier that was skipped comes after.
    decision.candidates.sort_by_key(|candidate| candidate.probability <= 0.0);
    decision
}

fn candidate(
    one: &Ranked,
    tier: usize,
    deployment: crate::table::DeploymentIndex,
    tier_chance: f64,
) -> Candidate {
    Candidate {
        deployment,
        tier,
        probability: one.chance * tier_chance,
        expected_cost: one.estimate.cost,
        estimate: Some(one.estimate),
    }
}

/// Takes targets of weight 0 out while others are there; their places.
pub(crate) fn hide_zero_weights(tier: &Tier, open: &mut [u8]) -> Vec<usize> {
    let weights = apply_shares(Strategy::RoundRobin, tier, open);
    let hidden: Vec<usize> = (0..open.len()).filter(|at| open[*at] > 0 && weights[*at] == 0).collect();
    for at in &hidden {
        open[*at] = 0;
    }
    hidden
}
