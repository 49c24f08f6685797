//! Attempts beside a living one, by prediction: a hedge against the slow tail, and a
//! second attempt where the first is silent for longer than it should be.
//!
//! Neither ends the first: whoever has content first wins (Dean and Barroso, "The Tail at
//! Scale", 2013). Hedges are paid from their own small budget, the others from the retry
//! bucket, always: under overload all are slow, and attempts on top make it worse.

use core::time::Duration;

use rand_core::Rng;

use super::{Context, Live, Request, Start};
use crate::{
    eligibility::strategy_of,
    math,
    score::{self, Basis, Estimate},
    select::Ranked,
    table::{DeploymentIndex, Strategy},
    time::Timestamp,
};

/// A hedge starts after the predicted time times e^(2.1 sigma): 98 % are faster.
const HEDGE_SIGMAS: f64 = 2.1;
const HEDGE_MIN_S: f64 = 0.25;
/// Soft timeout: the predicted time times e^(3.2 sigma + 0.3), within these bounds; of a
/// request that takes long by itself twice its time.
const SOFT_SIGMAS: f64 = 3.2;
const SOFT_EXTRA: f64 = 0.3;
const SOFT_MIN_S: f64 = 2.0;
const SOFT_MAX_S: f64 = 10.0;
const SOFT_SLOW: f64 = 2.0;
/// Lengths of answers are known less well than waits: added to the deviation of whole
/// answers.
const WHOLE_SIGMA: f64 = 0.6;
/// A hedge goes only to a target that is expected to answer before this share of the
/// time that passed, or this multiple of the time predicted for the first.
const HEDGE_ELAPSED: f64 = 0.8;
const HEDGE_PREDICTED: f64 = 2.5;
/// Beside an attempt at a target that answers others: only one that is much faster.
const BESIDE_ALIVE: f64 = 0.5;
/// Beside one at a target that answers nobody: one that answers within the time that
/// passed, or this.
const BESIDE_DEAD_S: f64 = 2.0;
/// When nothing could start it is looked at again after so long.
const AGAIN_AFTER: Duration = Duration::from_millis(1_500);
/// COST: a hedge may cost so much more than the cheapest.
const HEDGE_COST: f64 = 1.1;
/// A target on its way back gets hedges only beyond this share of its traffic.
const HEDGE_GATE: f64 = 0.5;

/// What was predicted of a running attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foresight {
    started: Timestamp,
    /// Seconds until its first content.
    first_s: f64,
    /// None: no more.
    hedge_at: Option<Timestamp>,
    soft_at: Timestamp,
    /// When it is looked at again after that.
    again_at: Timestamp,
    late: bool,
}

impl Live {
    /// When something may be due beside it.
    pub(super) fn looks_again(&self) -> Option<Timestamp> {
        let foresight = self.foresight?;
        let due = if foresight.late { foresight.again_at } else { foresight.soft_at };
        Some(foresight.hedge_at.map_or(due, |hedge| hedge.min(due)))
    }

    /// Whether it is silent for longer than its soft timeout.
    pub(super) fn is_late(&self, now: Timestamp) -> bool {
        self.foresight.is_some_and(|foresight| foresight.soft_at <= now)
    }
}

impl Request {
    pub(super) fn estimate<R: Rng>(&self, context: &Context<'_, R>, deployment: DeploymentIndex) -> Estimate {
        score::estimate(
            context.registry,
            context.table,
            context.binding,
            context.route,
            deployment,
            &self.profile,
            context.now,
        )
    }

    /// What is foreseen of an attempt that starts now. None: nothing is known, or the
    /// strategy does not predict.
    pub(super) fn foresee<R: Rng>(&self, context: &Context<'_, R>, estimate: &Estimate) -> Option<Foresight> {
        let known = matches!(estimate.basis, Basis::Own | Basis::Fleet);
        if !known || !strategy_of(context.route.model, &self.profile).predicts() {
            return None;
        }
        let stream = self.profile.stream;
        let first_s = estimate.first_s(stream);
        let extra = if stream { 0.0 } else { WHOLE_SIGMA };
        let sigma = math::sqrt(estimate.sigma * estimate.sigma + extra * extra);
        let hedge_s = (first_s * math::exp(HEDGE_SIGMAS * sigma)).max(HEDGE_MIN_S);
        let soft_s = first_s * math::exp(SOFT_SIGMAS * sigma + SOFT_EXTRA);
        let soft_s = soft_s.min(SOFT_MAX_S.max(SOFT_SLOW * first_s)).max(SOFT_MIN_S);
        let soft_at = context.now + math::seconds(soft_s);
        Some(Foresight {
            started: context.now,
            first_s,
            hedge_at: (context.route.model.hedge_budget_percent > 0)
                .then(|| context.now + math::seconds(hedge_s)),
            soft_at,
            again_at: soft_at,
            late: false,
        })
    }

    /// An attempt that is to start beside the only one that runs, if one is.
    pub(super) fn choose_race<R: Rng>(
        &mut self,
        context: &mut Context<'_, R>,
    ) -> Option<(DeploymentIndex, usize, Start)> {
        let now = context.now;
        for live in &mut self.live {
            if let Some(foresight) = &mut live.foresight
                && !foresight.late
                && foresight.soft_at <= now
            {
                foresight.late = true;
                if !context.registry.is_alive(live.ticket) {
                    live.ticket = context.registry.doubt(live.ticket, now);
                }
            }
        }
        let [live] = *self.live.as_slice() else { return None };
        let foresight = live.foresight?;
        if self.attempts >= context.route.model.max_attempts {
            return None;
        }
        if foresight.late && foresight.again_at <= now {
            let found = self.beside(context, &live, &foresight);
            if let Some(foresight) = self.live.first_mut().and_then(|live| live.foresight.as_mut()) {
                foresight.again_at = now + AGAIN_AFTER;
            }
            if let Some((deployment, tier)) = found
                && context.registry.bucket().spend()
            {
                return Some((deployment, tier, Start::Beside));
            }
        }
        if foresight.hedge_at.is_some_and(|hedge| hedge <= now) {
            if let Some(foresight) = self.live.first_mut().and_then(|live| live.foresight.as_mut()) {
                foresight.hedge_at = None;
            }
            let (deployment, tier) = self.hedge(context, &live, &foresight)?;
            if context.registry.hedges().spend() {
                return Some((deployment, tier, Start::Hedge));
            }
        }
        None
    }

    /// A target for a second attempt, tier by tier.
    fn beside<R: Rng>(
        &self,
        context: &Context<'_, R>,
        live: &Live,
        foresight: &Foresight,
    ) -> Option<(DeploymentIndex, usize)> {
        let elapsed = context.now.since(foresight.started).as_secs_f64();
        let alive = context.registry.is_alive(live.ticket);
        let within = if alive { BESIDE_ALIVE * foresight.first_s } else { elapsed.max(BESIDE_DEAD_S) };
        (0..context.route.model.tiers.len()).find_map(|tier| {
            let ranked = self.rank(context, tier);
            let found = self.soonest(context, tier, &ranked, |one| self.first_s(one) < within);
            // Beside a dead one even a target of which nothing is known is better.
            let other = || ranked.iter().find(|one| !alive && one.is_unknown()).map(|one| one.at);
            let targets = &context.route.model.tiers[tier].targets;
            found.or_else(|| other().map(|at| (targets[at].deployment, tier)))
        })
    }

    /// A target for a hedge, in the tier of the attempt.
    fn hedge<R: Rng>(
        &self,
        context: &Context<'_, R>,
        live: &Live,
        foresight: &Foresight,
    ) -> Option<(DeploymentIndex, usize)> {
        let elapsed = context.now.since(foresight.started).as_secs_f64();
        let within = (HEDGE_ELAPSED * elapsed).max(HEDGE_PREDICTED * foresight.first_s);
        let ranked = self.rank(context, live.tier);
        let most = self.cost_limit(context, live, &ranked);
        self.soonest(context, live.tier, &ranked, |one| {
            let cheap = most.is_none_or(|most| one.estimate.cost.is_some_and(|cost| cost.0 as f64 <= most));
            one.gate() > HEDGE_GATE && cheap && self.first_s(one) < within
        })
    }

    /// COST: nano-dollars that a hedge may be expected to cost.
    fn cost_limit<R: Rng>(&self, context: &Context<'_, R>, live: &Live, ranked: &[Ranked]) -> Option<f64> {
        if strategy_of(context.route.model, &self.profile) != Strategy::Cost {
            return None;
        }
        let running = self.estimate(context, live.deployment).cost;
        let feasible = ranked.iter().filter(|one| one.feasible).filter_map(|one| one.estimate.cost);
        let cheapest = feasible.chain(running).min()?;
        Some(cheapest.0 as f64 * HEDGE_COST)
    }

    fn first_s(&self, one: &Ranked) -> f64 {
        one.estimate.first_s(self.profile.stream)
    }

    /// The target that is expected to answer first, of those that are known, closed and
    /// wanted.
    fn soonest<R: Rng>(
        &self,
        context: &Context<'_, R>,
        tier: usize,
        ranked: &[Ranked],
        wanted: impl Fn(&Ranked) -> bool,
    ) -> Option<(DeploymentIndex, usize)> {
        let fit = ranked.iter().filter(|one| one.may_race() && wanted(one));
        let best = fit.min_by(|a, b| self.price_s(a).total_cmp(&self.price_s(b)))?;
        Some((context.route.model.tiers[tier].targets[best.at].deployment, tier))
    }

    /// Seconds until its first content, its failures priced in.
    fn price_s(&self, one: &Ranked) -> f64 {
        self.first_s(one) + one.estimate.terms.error_s
    }
}
