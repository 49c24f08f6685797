//! One decision: which targets may take a request, in which order, and why the
//! others may not.

use alloc::vec::Vec;

use rand_core::Rng;

use crate::{
    eligibility::{self, Profile, Unfit, price_of, strategy_of},
    math,
    money::NanoUsd,
    registry::{Binding, Block, Health, Registry},
    score::Estimate,
    table::{DeploymentIndex, RoutingTable, Strategy, Target, Tier, VirtualModel},
    time::Timestamp,
};

mod predicted;

pub(crate) use predicted::hide_zero_weights;

/// What a request was decided on: a virtual model with its place in the table, or a
/// pin.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// The virtual model; for a pin one made up for it.
    pub model: &'a VirtualModel,
    /// Its index in the table. None: a pin.
    pub index: Option<usize>,
}

/// A target that may take the request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which.
    pub deployment: DeploymentIndex,
    /// Its tier, from 0.
    pub tier: usize,
    /// Chance that it is first choice, 0 to 1.
    pub probability: f64,
    /// Expected cost, if its price is known.
    pub expected_cost: Option<NanoUsd>,
    /// What is predicted of the request there. None: the strategy does not predict.
    pub estimate: Option<Estimate>,
}

/// A target that may not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exclusion {
    /// Which.
    pub deployment: DeploymentIndex,
    /// Its tier, from 0.
    pub tier: usize,
    /// Why.
    pub reason: Reason,
}

/// Why a target was left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// It can't serve the request at all.
    Unfit(Unfit),
    /// It is not to be used now.
    Blocked(Block),
    /// Weight 0 while others are there.
    ZeroWeight,
    /// COST: predicted to miss an objective, while others keep them.
    Slo,
}

/// The decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// In the order in which they would be tried.
    pub candidates: Vec<Candidate>,
    /// The others.
    pub excluded: Vec<Exclusion>,
}

impl Decision {
    /// Why nothing may serve the request: the reason of the target that came nearest to
    /// it, in the order capability, region, window, longest answer, quality, cost, state
    /// of the moment. None: something may.
    pub fn binding_constraint(&self) -> Option<&Exclusion> {
        if !self.candidates.is_empty() {
            return None;
        }
        self.excluded.iter().rev().max_by_key(|exclusion| exclusion.reason.stage())
    }
}

impl Reason {
    /// How far a target came that was left out for this.
    const fn stage(&self) -> u8 {
        match self {
            Self::Unfit(Unfit::Capability(_)) => 0,
            Self::Unfit(Unfit::Region) => 1,
            Self::Unfit(Unfit::ContextWindow(_)) => 2,
            Self::Unfit(Unfit::MaxOutputTokens(_)) => 3,
            Self::Unfit(Unfit::Quality(_)) => 4,
            Self::Unfit(Unfit::Cost(_)) => 5,
            Self::Blocked(_) => 6,
            Self::ZeroWeight | Self::Slo => 7,
        }
    }
}

/// Decides without taking a turn: the same state gives the same decision.
pub fn decide(
    registry: &mut Registry,
    table: &RoutingTable,
    binding: &Binding,
    route: Route<'_>,
    profile: &Profile,
    now: Timestamp,
) -> Decision {
    if strategy_of(route.model, profile).predicts() {
        return predicted::decide(registry, table, binding, route, profile, now);
    }
    let mut decision = Decision::default();
    for (index, tier) in route.model.tiers.iter().enumerate() {
        let weights = weigh(registry, table, binding, route.model, tier, profile, now, |target, reason| {
            decision.excluded.push(Exclusion { deployment: target, tier: index, reason });
        });
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let order = route.index.and_then(|model| registry.rotation(binding, model, index)).map_or_else(
            || (0..weights.len()).filter(|at| weights[*at] > 0).collect(),
            |turns| turns.order(&weights),
        );
        // Lower tiers are first choice only when nothing above may serve.
        let first = decision.candidates.is_empty();
        decision.candidates.extend(order.into_iter().map(|at| {
            let deployment = tier.targets[at].deployment;
            let price = price_of(table.deployment(deployment), profile);
            Candidate {
                deployment,
                tier: index,
                probability: if first { f64::from(weights[at]) / total as f64 } else { 0.0 },
                expected_cost: price.map(|price| price.cost(profile.expected_tokens())),
                estimate: None,
            }
        }));
    }
    decision
}

/// Decides and takes the turn of the first candidate: the next decision goes on from
/// there. A strategy that predicts draws the first candidate by the chances.
pub fn take(
    registry: &mut Registry,
    table: &RoutingTable,
    binding: &Binding,
    route: Route<'_>,
    profile: &Profile,
    now: Timestamp,
    rng: &mut impl Rng,
) -> Decision {
    let mut decision = decide(registry, table, binding, route, profile, now);
    if strategy_of(route.model, profile).predicts() {
        let chances = decision.candidates.iter().map(|candidate| candidate.probability);
        if let Some(drawn) = math::draw(chances, rng) {
            decision.candidates[..=drawn].rotate_right(1);
        }
        return decision;
    }
    let Some((model, first)) = route.index.zip(decision.candidates.first()) else { return decision };
    let tier = &route.model.tiers[first.tier];
    let weights = weigh(registry, table, binding, route.model, tier, profile, now, |_, _| {});
    if let Some(rotation) = registry.rotation(binding, model, first.tier) {
        rotation.pick(&weights);
    }
    decision
}

/// Which targets of a tier may be used now, in percent of their traffic; 0: not at all.
#[expect(clippy::too_many_arguments, reason = "each is a separate input of a pure function")]
pub(crate) fn shares(
    registry: &Registry,
    table: &RoutingTable,
    binding: &Binding,
    model: &VirtualModel,
    tier: &Tier,
    profile: &Profile,
    now: Timestamp,
    mut left_out: impl FnMut(DeploymentIndex, Reason),
) -> Vec<u8> {
    let tokens = profile.expected_tokens();
    let tokens = tokens.input + tokens.output;
    let fits = |other| eligibility::check(table, other, model, profile, None).is_ok();
    let floor = registry.floor(binding, model, now, tokens, fits);
    let share = |target: &Target| {
        if let Err(unfit) = eligibility::check(table, target.deployment, model, profile, None) {
            left_out(target.deployment, Reason::Unfit(unfit));
            return 0;
        }
        match registry.health_at_floor(binding, target.deployment, now, tokens, floor) {
            Health::Ready(share) => share,
            Health::Blocked(block) => {
                left_out(target.deployment, Reason::Blocked(block));
                0
            }
        }
    };
    tier.targets.iter().map(share).collect()
}

/// The weights of a tier's targets now: configured weight times the share that their
/// breakers admit; 0 for those that may not be used. Targets of weight 0 come in only
/// when all others are out.
#[expect(clippy::too_many_arguments, reason = "each is a separate input of a pure function")]
pub(crate) fn weigh(
    registry: &Registry,
    table: &RoutingTable,
    binding: &Binding,
    model: &VirtualModel,
    tier: &Tier,
    profile: &Profile,
    now: Timestamp,
    mut left_out: impl FnMut(DeploymentIndex, Reason),
) -> Vec<u32> {
    let shares = shares(registry, table, binding, model, tier, profile, now, &mut left_out);
    let weights = apply_shares(model.strategy, tier, &shares);
    for (at, weight) in weights.iter().enumerate() {
        if *weight == 0 && shares[at] > 0 {
            left_out(tier.targets[at].deployment, Reason::ZeroWeight);
        }
    }
    weights
}

/// Weight times share for each target; where that leaves nothing, the targets of
/// weight 0 with equal weights.
pub(crate) fn apply_shares(strategy: Strategy, tier: &Tier, shares: &[u8]) -> Vec<u32> {
    let weight = |at: usize| match strategy {
        // Weight 0 means the same under every strategy.
        Strategy::RoundRobin | Strategy::Latency | Strategy::Cost | Strategy::Balanced => {
            tier.targets[at].weight.min(1)
        }
        Strategy::Weighted => tier.targets[at].weight,
    };
    let weights: Vec<u32> =
        (0..shares.len()).map(|at| weight(at).saturating_mul(shares[at].into())).collect();
    if weights.iter().any(|weight| *weight > 0) {
        return weights;
    }
    shares.iter().map(|share| u32::from(*share)).collect()
}
