//! Picks among the targets of a tier by prediction: LATENCY, COST and BALANCED.
//!
//! Each gives every target a chance (its propensity) instead of naming one: near-equal
//! targets share the traffic, a returning one gets the part that its breaker admits, and
//! one that was not seen for long is met again now and then, else it could never return.
//! Chances are what replays and experiments rest on, so they are exact.

use alloc::vec::Vec;

use crate::{
    decide::Route,
    eligibility::{Profile, strategy_of},
    math,
    registry::{Binding, Registry},
    score::{Basis, Estimate, Scorer},
    table::{Balance, RoutingTable, Slo, Strategy, Tier, VirtualModel},
    time::Timestamp,
};

mod chances;

use chances::{by_in_flight, soft_min};

/// Spread of choices among targets whose scores differ by a share of the best one: at
/// least, and what is added when load matters and its news are old.
const SPREAD: f64 = 0.08;
const SPREAD_STALE: f64 = 0.6;
/// Seconds of age at which half of that is added.
const STALE_S: f64 = 4.0;
/// Targets that are worse than the best by more than this get no chance,
const CUT_MIN: f64 = 0.5;
/// or more than so many spreads.
const CUT_SPREADS: f64 = 4.0;
/// COST: spread, as a share of the least cost; much smaller, since prices are exact.
const COST_SPREAD: f64 = 0.03;
/// COST: predicted times keep this share of the objectives, since they err.
const SLO_SHARE: f64 = 0.85;
/// COST: a target that fails more often is not feasible.
const ERROR_MAX: f64 = 0.3;
/// A tier all of whose targets fail more often is passed over while another is there.
const FAILING: f64 = 0.5;
/// First attempts that go to a target unseen for so long.
const EXPLORE_SHARE: f64 = 0.01;
const EXPLORE_AFTER_S: f64 = 10.0;
/// First attempts that go to one that is not known yet, while nothing runs there: a
/// newcomer gets single requests until it has shown what it can do.
const NEWCOMER_SHARE: f64 = 0.1;
/// First attempts that go to a target whose breaker asks for a probe.
const PROBE_SHARE: f64 = 0.1;
/// Targets whose chance is at least this share of the largest are as good as it: a
/// session stays where it was among them.
const TIE: f64 = 0.4;

/// A target is full from this elasticity on.
const CROWDED: f64 = 2.0;

/// A target with its prediction and its chance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranked {
    /// Its place in the tier.
    pub(crate) at: usize,
    pub(crate) estimate: Estimate,
    /// 0 to 1. All of a tier add up to 1, or to 0 if none may be used.
    pub(crate) chance: f64,
    /// What the strategy minimises.
    pub(crate) score: f64,
    /// COST: within the objectives. Always so without them.
    pub(crate) feasible: bool,
    /// Share of its traffic that its breaker admits, over 0 to 1.
    gate: f64,
    probe: bool,
}

/// One request among the targets of one tier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) table: &'a RoutingTable,
    pub(crate) binding: &'a Binding,
    pub(crate) route: Route<'a>,
    pub(crate) tier: &'a Tier,
    pub(crate) profile: &'a Profile,
    pub(crate) now: Timestamp,
    /// The request's first attempt: only those explore.
    pub(crate) first: bool,
}

/// Ranks the targets whose share (in percent, by place) is over 0.
pub(crate) fn rank(question: &Question<'_>, shares: &[u8]) -> Vec<Ranked> {
    let Question { registry, table, binding, route, tier, profile, now, first } = *question;
    let scorer = Scorer::new(registry, table, binding, route, profile, now);
    let mut ranked: Vec<Ranked> = (0..shares.len())
        .filter(|at| shares[*at] > 0)
        .map(|at| {
            let deployment = tier.targets[at].deployment;
            Ranked {
                at,
                estimate: scorer.estimate(deployment),
                chance: 0.0,
                score: 0.0,
                feasible: true,
                gate: f64::from(shares[at]) / 100.0,
                probe: registry.asks_for_probe(binding, deployment, now),
            }
        })
        .collect();
    let strategy = strategy_of(route.model, profile);
    let quality = |at: usize| table.deployment(tier.targets[at].deployment).quality.unwrap_or(0.0);
    for one in &mut ranked {
        one.feasible = strategy != Strategy::Cost || is_feasible(one, &route.model.slo);
        one.score = match strategy {
            Strategy::Balanced => balanced(&one.estimate, &route.model.balance, quality(one.at)),
            Strategy::Cost => one.estimate.cost.map_or(f64::MAX, |cost| cost.0 as f64),
            Strategy::Latency | Strategy::RoundRobin | Strategy::Weighted => one.estimate.seconds,
        };
    }
    give_chances(strategy, &route.model.balance, profile.cheapest, &mut ranked);
    if first {
        explore(&mut ranked, profile.cheapest);
    }
    settle_session(question, &mut ranked);
    ranked
}

/// Whether the prediction keeps the objectives with room to err. One of which nothing is
/// known is taken to keep them.
fn is_feasible(one: &Ranked, slo: &Slo) -> bool {
    let estimate = &one.estimate;
    let within = |predicted: f64, most: Option<core::time::Duration>| {
        !is_known(one) || most.is_none_or(|most| predicted <= SLO_SHARE * most.as_secs_f64())
    };
    within(estimate.ttft_s, slo.ttft) && within(estimate.total_s(), slo.total) && estimate.p_error < ERROR_MAX
}

/// Nano-dollars of cost, time and quality together.
fn balanced(estimate: &Estimate, balance: &Balance, quality: f64) -> f64 {
    let cost = estimate.cost.map_or(f64::MAX / 4.0, |cost| cost.0 as f64);
    let time = balance.nano_usd_per_second as f64 * estimate.seconds;
    let quality = balance.nano_usd_per_quality_point as f64 * quality;
    math::finite(cost + time - quality, -1e300, 1e300, 1e300)
}

fn is_known(one: &Ranked) -> bool {
    matches!(one.estimate.basis, Basis::Own | Basis::Fleet)
}

/// `cheapest`: also if nothing is known of it yet.
fn give_chances(strategy: Strategy, balance: &Balance, cheapest: bool, ranked: &mut [Ranked]) {
    let roomy = ranked.iter().any(|one| is_known(one) && !one.probe && !one.is_full());
    let known = |one: &Ranked| is_known(one) && !one.probe && !(roomy && one.is_full());
    // Costs need no learning. What is not known yet is a newcomer beside what is known to
    // be good enough, and taken by its price where nothing is.
    let trusting =
        strategy == Strategy::Cost && (cheapest || !ranked.iter().any(|one| known(one) && one.feasible));
    let usable = |one: &Ranked| known(one) || trusting && one.is_unknown();
    if !ranked.iter().any(usable) {
        // Nothing is known of what may be used: fewer requests in flight are better.
        return by_in_flight(ranked);
    }
    let feasible = |one: &Ranked| usable(one) && one.feasible;
    let best = |ranked: &[Ranked], which: &dyn Fn(&Ranked) -> bool| {
        let those = ranked.iter().filter(|one| which(one)).copied();
        those.reduce(|best, one| if one.score < best.score { one } else { best })
    };
    match strategy {
        Strategy::Cost if ranked.iter().any(feasible) => {
            let Some(best) = best(ranked, &feasible) else { return };
            let scale = best.score.max(1.0) * COST_SPREAD;
            let cut = best.score.max(1.0) * CUT_MIN;
            soft_min(ranked, feasible, best.score, scale, cut);
            prefer_faster(ranked);
        }
        Strategy::Cost => {
            // Nothing keeps the objectives: the soonest answer, whatever it costs.
            for one in ranked.iter_mut() {
                one.score = one.estimate.seconds;
            }
            give_chances(Strategy::Latency, balance, cheapest, ranked);
        }
        Strategy::Balanced => {
            let Some(best) = best(ranked, &usable) else { return };
            let time = balance.nano_usd_per_second as f64 * best.estimate.seconds;
            let size = (best.estimate.cost.map_or(0.0, |cost| cost.0 as f64) + time).max(1.0);
            let spread = spread(&best.estimate);
            let cut = CUT_MIN.max(CUT_SPREADS * spread);
            soft_min(ranked, usable, best.score, spread * size, cut * size);
        }
        Strategy::Latency | Strategy::RoundRobin | Strategy::Weighted => {
            let Some(best) = best(ranked, &usable) else { return };
            let spread = spread(&best.estimate);
            let cut = CUT_MIN.max(CUT_SPREADS * spread);
            soft_min(ranked, usable, best.score, spread * best.score, cut * best.score);
        }
    }
}

/// More spreading when load matters and what is known of it is old: else all agents
/// would run to the same target until the next news.
fn spread(best: &Estimate) -> f64 {
    SPREAD + SPREAD_STALE * best.load * best.age_s / (best.age_s + STALE_S)
}

/// Among targets of the same cost time decides.
fn prefer_faster(ranked: &mut [Ranked]) {
    let soonest = ranked.iter().filter(|one| one.chance > 0.0).map(|one| one.estimate.seconds);
    let Some(soonest) = soonest.reduce(f64::min) else { return };
    for one in ranked.iter_mut() {
        one.chance *= math::exp(-(one.estimate.seconds / soonest - 1.0).min(50.0));
    }
    normalize(ranked);
}

/// Gives small parts of the traffic to targets that would else never be met. With the
/// budget used up only probes are worth more than the cheapest.
fn explore(ranked: &mut [Ranked], cheapest: bool) {
    let wanted = |one: &Ranked| -> f64 {
        if one.probe {
            PROBE_SHARE
        } else if cheapest {
            0.0
        } else if !is_known(one) {
            if one.estimate.in_flight < 0.5 { NEWCOMER_SHARE } else { 0.0 }
        } else if one.estimate.unseen_s > EXPLORE_AFTER_S {
            EXPLORE_SHARE * one.gate
        } else {
            0.0
        }
    };
    // With all alike there is nothing to explore.
    if !ranked.iter().any(|one| is_known(one) && !one.probe) {
        return;
    }
    let extra: f64 = ranked.iter().map(wanted).sum();
    let limit = 0.5;
    let scale = if extra > limit { limit / extra } else { 1.0 };
    let rest = 1.0 - extra * scale;
    for one in ranked.iter_mut() {
        one.chance = one.chance * rest + wanted(one) * scale;
    }
}

/// A session stays where it was among targets that are as good as the best; one that is
/// new goes where all agents would send it.
fn settle_session(question: &Question<'_>, ranked: &mut [Ranked]) {
    let Some(session) = chances::session(question) else { return };
    let Some(most) = ranked.iter().map(|one| one.chance).reduce(f64::max) else { return };
    let score = |one: &Ranked| {
        let deployment = question.tier.targets[one.at].deployment;
        let cached = one.estimate.terms.cached_tokens > 0.0;
        (cached, chances::rendezvous(session, &question.table.deployment(deployment).name))
    };
    let tied = ranked.iter().enumerate().filter(|(_, one)| one.chance > 0.0 && one.chance >= TIE * most);
    let Some((home, _)) = tied.max_by_key(|(_, one)| score(one)) else { return };
    let tie: f64 = ranked.iter().filter(|one| one.chance >= TIE * most).map(|one| one.chance).sum();
    for (index, one) in ranked.iter_mut().enumerate() {
        if index == home {
            one.chance = tie;
        } else if one.chance >= TIE * most {
            one.chance = 0.0;
        }
    }
}

fn normalize(ranked: &mut [Ranked]) {
    let total: f64 = ranked.iter().map(|one| one.chance).sum();
    if total > 0.0 {
        for one in ranked.iter_mut() {
            one.chance /= total;
        }
    }
}

/// The chance of each tier to be tried first. A tier is passed over while even its best
/// target is predicted to be slower than the tier allows, and taken with the share that
/// its targets' breakers admit while all of them come back. Where that leaves nothing the
/// tier of the soonest answer is taken. With the budget used up it is the cheapest's,
/// whichever that is.
pub(crate) fn tier_chances(model: &VirtualModel, tiers: &[Vec<Ranked>], profile: &Profile) -> Vec<f64> {
    if let Some(tier) = profile.cheapest.then(|| cheapest_tier(tiers)).flatten() {
        return (0..tiers.len()).map(|at| if at == tier { 1.0 } else { 0.0 }).collect();
    }
    let stream = profile.stream;
    let mut chances = Vec::with_capacity(tiers.len());
    let roomy = tiers.iter().flatten().any(|one| !one.is_full());
    let mut rest = 1.0;
    for (tier, ranked) in model.tiers.iter().zip(tiers) {
        let chance = rest * tier_gate(tier, ranked, stream, roomy);
        chances.push(chance);
        rest -= chance;
    }
    let taken = 1.0 - rest;
    if taken > 0.0 {
        for chance in &mut chances {
            *chance /= taken;
        }
        return chances;
    }
    let soonest = |ranked: &Vec<Ranked>| ranked.iter().map(|one| one.estimate.seconds).reduce(f64::min);
    let best = tiers.iter().enumerate().filter_map(|(index, ranked)| Some((index, soonest(ranked)?)));
    if let Some((index, _)) = best.min_by(|a, b| a.1.total_cmp(&b.1)) {
        chances[index] = 1.0;
    }
    chances
}

/// The tier with the cheapest target that is good enough, else with the cheapest.
fn cheapest_tier(tiers: &[Vec<Ranked>]) -> Option<usize> {
    let all = tiers.iter().enumerate().flat_map(|(at, tier)| tier.iter().map(move |one| (at, one)));
    let cost = |one: &Ranked| (!one.feasible, one.estimate.cost.map_or(u64::MAX, |cost| cost.0));
    let open = all.filter(|(_, one)| one.chance > 0.0);
    open.min_by_key(|(_, one)| cost(one)).map(|(at, _)| at)
}

/// Share of requests that a tier takes, 0 to 1.
fn tier_gate(tier: &Tier, ranked: &[Ranked], stream: bool, roomy: bool) -> f64 {
    let allowed = tier.timeouts.first_token.as_secs_f64();
    let in_time = |one: &&Ranked| {
        let fast = !stream || !is_known(one) || one.estimate.ttft_s <= allowed;
        fast && one.estimate.p_error < FAILING && !(roomy && one.is_full())
    };
    ranked.iter().filter(in_time).map(|one| one.gate).fold(0.0, f64::max)
}

impl Ranked {
    /// Share of its traffic that its breaker admits, over 0 to 1.
    pub(crate) const fn gate(&self) -> f64 {
        self.gate
    }

    /// Whether one more request there would mean fewer answers.
    pub(crate) fn is_full(&self) -> bool {
        is_known(self) && self.estimate.crowding > CROWDED
    }

    /// Whether nothing is known of it.
    pub(crate) fn is_unknown(&self) -> bool {
        !is_known(self) && !self.probe
    }

    /// Whether it may be called beside a running attempt: it is known, and no probe.
    pub(crate) fn may_race(&self) -> bool {
        is_known(self) && !self.probe && !self.is_full()
    }
}
