//! Which target comes next: the rules on tiers, tried deployments, gates and tokens.

use core::time::Duration;

use rand_core::Rng;

use super::{Context, ROUND_BACKOFF_BASE, ROUND_BACKOFF_MAX, Request};
use crate::{
    decide::{Route, apply_shares},
    eligibility, math,
    registry::{Block, Health},
    table::DeploymentIndex,
    time::Timestamp,
};

/// A shut gate is waited for so long before a lower tier is used,
const GATE_WAIT_IN_TIER: Duration = Duration::from_secs(3);
/// and so long when nothing else is left.
const GATE_WAIT_LAST: Duration = Duration::from_secs(20);
/// Requests wait so long for open breakers and used-up limits.
const PATIENCE: Duration = Duration::from_secs(2);
/// A probe's end has no known time; those who wait look again after so long.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// What to do next.
pub(super) enum Choice {
    Target { deployment: DeploymentIndex, tier: usize },
    Wait(Timestamp),
    Nothing,
}

impl Request {
    /// The next target when no attempt runs.
    pub(super) fn choose<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Choice {
        if self.attempts >= context.route.model.max_attempts {
            return Choice::Nothing;
        }
        for tier in 0..context.route.model.tiers.len() {
            if let Some(deployment) = self.pick(context, tier) {
                return Choice::Target { deployment, tier };
            }
            if let Some(until) = self.gate_within(context, tier, GATE_WAIT_IN_TIER) {
                return Choice::Wait(until);
            }
        }
        if self.begin_round(context) {
            return Choice::Wait(self.not_before);
        }
        let gates = (0..context.route.model.tiers.len())
            .filter_map(|tier| self.gate_within(context, tier, GATE_WAIT_LAST));
        if let Some(until) = gates.min() {
            return Choice::Wait(until);
        }
        self.wait_for_opening(context)
    }

    /// A target that may start beside a silent one: another deployment, without
    /// waiting for anything.
    pub(super) fn choose_beside<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Option<(DeploymentIndex, usize)> {
        if self.attempts >= context.route.model.max_attempts {
            return None;
        }
        (0..context.route.model.tiers.len()).find_map(|tier| Some((self.pick(context, tier)?, tier)))
    }

    /// Takes a turn in the tier among what may be used and was not tried.
    fn pick<R: Rng>(&mut self, context: &mut Context<'_, R>, tier: usize) -> Option<DeploymentIndex> {
        let model = context.route.model;
        let limit = model.tiers[tier].max_attempts as usize;
        let met = self.seen.iter().filter(|(seen, _)| *seen == tier).count();
        let targets = &model.tiers[tier].targets;
        let shares: alloc::vec::Vec<u8> = targets
            .iter()
            .map(|target| {
                let deployment = target.deployment;
                let new = !self.seen.contains(&(tier, deployment));
                let open = !self.tried.contains(&deployment) && !(new && met >= limit);
                match self.health(context, deployment) {
                    Some(Health::Ready(share)) if open => share,
                    _ => 0,
                }
            })
            .collect();
        let weights = apply_shares(model.strategy, &model.tiers[tier], &shares);
        let turn = match context.route.index.and_then(|index| context.registry.rotation(context.binding, index, tier)) {
            Some(rotation) => rotation.pick(&weights),
            None => weights.iter().position(|weight| *weight > 0),
        };
        turn.map(|at| targets[at].deployment)
    }

    /// Health of a deployment that fits the request; None for one that does not.
    fn health<R: Rng>(&self, context: &Context<'_, R>, deployment: DeploymentIndex) -> Option<Health> {
        let model = context.route.model;
        let wanted = context.table.deployment(deployment);
        eligibility::check(wanted, &model.constraints, &self.profile, self.window_over).ok()?;
        let tokens = self.profile.expected_tokens();
        Some(context.registry.health(context.binding, deployment, context.now, tokens.input + tokens.output))
    }

    pub(super) fn is_ready<R: Rng>(&self, context: &Context<'_, R>, deployment: DeploymentIndex) -> bool {
        matches!(self.health(context, deployment), Some(Health::Ready(_)))
    }

    /// The earliest gate of the tier that opens in time.
    fn gate_within<R: Rng>(&self, context: &Context<'_, R>, tier: usize, wait: Duration) -> Option<Timestamp> {
        let latest = (context.now + wait).min(self.deadline);
        let gates = context.route.model.tiers[tier].targets.iter().filter_map(|target| {
            match self.health(context, target.deployment) {
                Some(Health::Blocked(Block::Gate(until))) => Some(until),
                _ => None,
            }
        });
        gates.min().filter(|until| *until < latest)
    }

    /// Everything usable was tried: forget that, after a pause. False if nothing usable
    /// was tried.
    fn begin_round<R: Rng>(&mut self, context: &mut Context<'_, R>) -> bool {
        let again = self.tried.iter().any(|tried| self.is_ready(context, *tried));
        if !again {
            return false;
        }
        self.tried.clear();
        self.seen.clear();
        let longest = (ROUND_BACKOFF_BASE * (1 << self.rounds.min(5))).min(ROUND_BACKOFF_MAX);
        self.rounds += 1;
        self.not_before = context.now + longest.mul_f64(math::unit(context.rng));
        true
    }

    /// All that is left is shut for a time that may end soon.
    fn wait_for_opening<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Choice {
        let waits = targets(context.route).any(|deployment| {
            matches!(self.health(context, deployment), Some(Health::Blocked(Block::Breaker(_) | Block::Limit)))
        });
        let patience = *self.patience.get_or_insert(context.now + PATIENCE);
        if waits && context.now < patience {
            return Choice::Wait((context.now + LOOK_AGAIN_AFTER).min(patience));
        }
        Choice::Nothing
    }

    /// When the first of the targets may be used again, if that is known.
    pub(super) fn next_opening<R: Rng>(&self, context: &Context<'_, R>) -> Option<Timestamp> {
        let openings = targets(context.route).filter_map(|deployment| match self.health(context, deployment)? {
            Health::Blocked(Block::Gate(until) | Block::Breaker(until)) => Some(until),
            Health::Blocked(Block::Limit) => Some(context.now + Duration::from_secs(1)),
            Health::Ready(_) | Health::Blocked(Block::Forced | Block::Quarantine(..)) => None,
        });
        openings.min()
    }

    /// One more call must stay for a deployment that was not tried.
    pub(super) fn may_retry_same<R: Rng>(&self, context: &Context<'_, R>) -> bool {
        let left = context.route.model.max_attempts.saturating_sub(self.attempts);
        let other = targets(context.route)
            .any(|deployment| !self.tried.contains(&deployment) && self.is_ready(context, deployment));
        left > u32::from(other)
    }

    /// Pays for an extra attempt at `deployment`. Free: a move after a rate limit, and
    /// the first move of a request to a deployment that is well.
    pub(super) fn pay<R: Rng>(&mut self, context: &mut Context<'_, R>, deployment: DeploymentIndex) -> bool {
        if self.attempts == 0 || self.move_is_free {
            return true;
        }
        let met = self.seen.iter().any(|(_, seen)| *seen == deployment);
        if !self.free_move_used && !met && context.registry.recently_clean(context.binding, deployment, context.now) {
            self.free_move_used = true;
            return true;
        }
        context.registry.bucket().spend()
    }
}

/// All targets, tier by tier.
fn targets(route: Route<'_>) -> impl Iterator<Item = DeploymentIndex> {
    route.model.tiers.iter().flat_map(|tier| tier.targets.iter().map(|target| target.deployment))
}
