//! Which target comes next: the rules on tiers, tried deployments, gates and tokens.

use alloc::vec::Vec;
use core::time::Duration;

use rand_core::Rng;

use super::{Context, ROUND_BACKOFF_BASE, ROUND_BACKOFF_MAX, Request};
use crate::{
    baseline::draw,
    decide::{Route, apply_shares, hide_zero_weights},
    eligibility::{self, strategy_of},
    math,
    registry::{Block, Health},
    select::{self, Question, Ranked},
    table::{DeploymentIndex, VirtualModel},
    time::Timestamp,
};

/// A shut gate is waited for so long before a lower tier is used,
const GATE_WAIT_IN_TIER: Duration = Duration::from_secs(3);
/// and so long when nothing else is left.
const GATE_WAIT_LAST: Duration = Duration::from_secs(20);
/// Those who wait for the same gate go on one by one within this time of its opening.
const GATE_SPREAD: Duration = Duration::from_millis(50);
/// Requests wait so long for open breakers and used-up limits.
const PATIENCE: Duration = Duration::from_secs(2);
/// A probe's end has no known time; those who wait look again after so long.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Whether a learned cap is waited for as a gate is: not while a lower tier may serve,
/// since it lets requests through all the time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caps {
    Count,
    PassOver,
}

/// A request waits so long for room at full targets,
const CROWD_PATIENCE: Duration = Duration::from_secs(60);
/// and looks again after so long and a random part of this.
const HOLD_MIN: Duration = Duration::from_millis(20);
const HOLD_SPREAD: Duration = Duration::from_millis(80);

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
        let tiers = 0..context.route.model.tiers.len();
        if let Some(until) = self.hold_back(context) {
            return Choice::Wait(until);
        }
        if let Some((deployment, tier)) = self.pick_tier(context) {
            return Choice::Target { deployment, tier };
        }
        for tier in tiers.clone() {
            if let Some(deployment) = self.pick(context, tier) {
                return Choice::Target { deployment, tier };
            }
            if let Some(until) = self.gate_before_lower_tier(context, tier) {
                return Choice::Wait(until);
            }
        }
        if self.begin_round(context) {
            return Choice::Wait(self.not_before);
        }
        let gate = tiers.filter_map(|tier| self.first_gate(context, tier, Caps::Count)).min();
        let latest = context.now + GATE_WAIT_LAST;
        if let Some(gate) = gate.filter(|gate| *gate <= latest && *gate < self.deadline) {
            // Something else may open before the gate does.
            let opening = self.next_opening(context).map_or(gate, |opening| opening.min(gate));
            return Choice::Wait(spread(opening, latest.min(self.deadline), context.rng));
        }
        self.wait_for_opening(context)
    }

    /// A target that may start beside a silent one: another deployment, without
    /// waiting for anything.
    pub(super) fn choose_beside<R: Rng>(
        &mut self,
        context: &mut Context<'_, R>,
    ) -> Option<(DeploymentIndex, usize)> {
        if self.attempts >= context.route.model.max_attempts {
            return None;
        }
        (0..context.route.model.tiers.len()).find_map(|tier| Some((self.pick(context, tier)?, tier)))
    }

    /// Takes a turn in the tier among what may be used and was not tried.
    fn pick<R: Rng>(&mut self, context: &mut Context<'_, R>, tier: usize) -> Option<DeploymentIndex> {
        let model = context.route.model;
        let targets = &model.tiers[tier].targets;
        if strategy_of(model, &self.profile).predicts() {
            let ranked = self.rank(context, tier);
            let drawn = math::draw(ranked.iter().map(|one| one.chance), context.rng)?;
            return Some(targets[ranked[drawn].at].deployment);
        }
        let weights = apply_shares(model.strategy, &model.tiers[tier], &self.open_shares(context, tier));
        let first = self.starts == 0;
        let registry = &mut *context.registry;
        let turns = context.route.index.and_then(|index| {
            if first {
                registry.rotation(context.binding, index, tier)
            } else {
                registry.rotation_again(context.binding, index, tier)
            }
        });
        let turn = match turns {
            Some(rotation) => rotation.pick(&weights),
            // A pin, or a table that was replaced meanwhile: its turns are gone.
            None => draw(&weights, context.rng),
        };
        turn.map(|at| targets[at].deployment)
    }

    /// Where all targets are so full that one more request would mean fewer answers, it
    /// waits for its turn here: else a crowd that came once would never go.
    fn hold_back<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Option<Timestamp> {
        let model = context.route.model;
        if !strategy_of(model, &self.profile).predicts() {
            return None;
        }
        let mut any = false;
        for tier in 0..model.tiers.len() {
            let ranked = self.rank(context, tier);
            if ranked.iter().any(|one| !one.is_full()) {
                return None;
            }
            any |= !ranked.is_empty();
        }
        let patience = *self.crowd_patience.get_or_insert(context.now + CROWD_PATIENCE);
        if !any || context.now >= patience {
            return None;
        }
        Some(context.now + HOLD_MIN + HOLD_SPREAD.mul_f64(math::unit(context.rng)))
    }

    /// Of a virtual model with several tiers under a strategy that predicts: the tier is
    /// drawn, since one that is slow or comes back may be passed over.
    fn pick_tier<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Option<(DeploymentIndex, usize)> {
        let model = context.route.model;
        if model.tiers.len() < 2 || !strategy_of(model, &self.profile).predicts() {
            return None;
        }
        let ranked: Vec<_> = (0..model.tiers.len()).map(|tier| self.rank(context, tier)).collect();
        let chances = select::tier_chances(model, &ranked, &self.profile);
        let tier = math::draw(chances.iter().copied(), context.rng)?;
        let drawn = math::draw(ranked[tier].iter().map(|one| one.chance), context.rng)?;
        Some((model.tiers[tier].targets[ranked[tier][drawn].at].deployment, tier))
    }

    /// What may be used of the tier and was not tried, with its predictions and chances.
    pub(super) fn rank<R: Rng>(&self, context: &Context<'_, R>, tier: usize) -> Vec<Ranked> {
        let mut open = self.open_shares(context, tier);
        let tier = &context.route.model.tiers[tier];
        hide_zero_weights(tier, &mut open);
        let question = Question {
            registry: context.registry,
            table: context.table,
            binding: context.binding,
            route: context.route,
            tier,
            profile: &self.profile,
            now: context.now,
            first: self.starts == 0,
        };
        select::rank(&question, &open)
    }

    /// Shares, in percent, of the tier's targets that may be used and were not tried.
    fn open_shares<R: Rng>(&self, context: &Context<'_, R>, tier: usize) -> Vec<u8> {
        let model = context.route.model;
        let repeat = self.may_repeat(context);
        let share = |deployment| match self.health(context, deployment) {
            Some(Health::Ready(share)) if self.is_open(model, tier, deployment, repeat) => share,
            _ => 0,
        };
        model.tiers[tier].targets.iter().map(|target| share(target.deployment)).collect()
    }

    /// Whether the request may call the deployment as part of that tier, whatever its
    /// health. `repeat`: also if it was called before.
    fn is_open(&self, model: &VirtualModel, tier: usize, deployment: DeploymentIndex, repeat: bool) -> bool {
        if self.tried.contains(&deployment) || !repeat && self.met(deployment) {
            return false;
        }
        let met = self.seen.iter().filter(|(seen, _)| *seen == tier).count();
        self.seen.contains(&(tier, deployment)) || met < model.tiers[tier].max_attempts as usize
    }

    /// Whether the request called the deployment before.
    fn met(&self, deployment: DeploymentIndex) -> bool {
        self.seen.iter().any(|(_, seen)| *seen == deployment)
    }

    /// Health of a deployment that fits the request; None for one that does not.
    fn health<R: Rng>(&self, context: &Context<'_, R>, deployment: DeploymentIndex) -> Option<Health> {
        if self.refused.contains(&deployment) {
            return None;
        }
        let model = context.route.model;
        eligibility::check(context.table, deployment, model, &self.profile, self.window_over).ok()?;
        let tokens = self.profile.expected_tokens();
        let tokens = tokens.input + tokens.output;
        let health = context.registry.health(context.binding, deployment, context.now, tokens);
        // The fleet's word alone leaves no request without a target.
        if matches!(health, Health::Blocked(Block::Fleet(_))) && self.is_floor(context, deployment, tokens) {
            return Some(context.registry.local_health(context.binding, deployment, context.now, tokens));
        }
        Some(health)
    }

    fn is_floor<R: Rng>(&self, context: &Context<'_, R>, deployment: DeploymentIndex, tokens: u64) -> bool {
        let model = context.route.model;
        let fits = |other| {
            !self.refused.contains(&other)
                && eligibility::check(context.table, other, model, &self.profile, self.window_over).is_ok()
        };
        context.registry.floor(context.binding, model, context.now, tokens, fits) == Some(deployment)
    }

    pub(super) fn is_ready<R: Rng>(&self, context: &Context<'_, R>, deployment: DeploymentIndex) -> bool {
        matches!(self.health(context, deployment), Some(Health::Ready(_)))
    }

    pub(super) fn any_ready<R: Rng>(&self, context: &Context<'_, R>) -> bool {
        targets(context.route).any(|deployment| self.is_ready(context, deployment))
    }

    /// The tier's earliest gate that opens before the request's patience with gates
    /// ends; that is one span for all its waits.
    fn gate_before_lower_tier<R: Rng>(
        &mut self,
        context: &mut Context<'_, R>,
        tier: usize,
    ) -> Option<Timestamp> {
        let until = self.first_gate(context, tier, Caps::PassOver)?;
        let latest = self.gate_patience.unwrap_or(context.now + GATE_WAIT_IN_TIER);
        if until > latest || until >= self.deadline {
            return None;
        }
        self.gate_patience = Some(latest);
        Some(spread(until, latest.min(self.deadline), context.rng))
    }

    /// The tier's earliest gate of a deployment that may be called once it opens.
    fn first_gate<R: Rng>(&self, context: &Context<'_, R>, tier: usize, caps: Caps) -> Option<Timestamp> {
        let model = context.route.model;
        let repeat = self.may_repeat(context);
        let open = model.tiers[tier].targets.iter().map(|target| target.deployment);
        let open = open.filter(|deployment| self.is_open(model, tier, *deployment, repeat));
        let gates = open.filter_map(|deployment| match self.health(context, deployment)? {
            Health::Blocked(Block::Gate(until)) => Some(until),
            Health::Blocked(Block::LearnedCap(until)) if caps == Caps::Count => Some(until),
            _ => None,
        });
        gates.min()
    }

    /// Everything usable was tried: forget that, after a pause. False if nothing usable
    /// was tried. What runs now stays tried.
    pub(super) fn begin_round<R: Rng>(&mut self, context: &mut Context<'_, R>) -> bool {
        let running = |deployment| self.live.iter().any(|live| live.deployment == deployment);
        let again = |tried: &&DeploymentIndex| !running(**tried) && self.is_ready(context, **tried);
        if !self.tried.iter().any(|tried| again(&tried)) {
            return false;
        }
        self.tried = self.live.iter().map(|live| live.deployment).collect();
        let longest = (ROUND_BACKOFF_BASE * (1 << self.rounds.min(5))).min(ROUND_BACKOFF_MAX);
        self.rounds += 1;
        self.not_before = context.now + longest.mul_f64(math::unit(context.rng));
        true
    }

    /// All that is left is shut for a time that may end soon.
    fn wait_for_opening<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Choice {
        let waits = targets(context.route).any(|deployment| {
            matches!(
                self.health(context, deployment),
                Some(Health::Blocked(Block::Breaker(_) | Block::Fleet(_) | Block::Limit(_)))
            )
        });
        let patience = *self.patience.get_or_insert(context.now + PATIENCE);
        if waits && context.now < patience {
            return Choice::Wait((context.now + LOOK_AGAIN_AFTER).min(patience));
        }
        Choice::Nothing
    }

    /// When the first of the targets may be used again, if that is known.
    pub(super) fn next_opening<R: Rng>(&self, context: &Context<'_, R>) -> Option<Timestamp> {
        let openings =
            targets(context.route).filter_map(|deployment| match self.health(context, deployment)? {
                Health::Blocked(
                    Block::Gate(until)
                    | Block::Breaker(until)
                    | Block::Fleet(until)
                    | Block::LearnedCap(until),
                ) => Some(until),
                Health::Blocked(Block::Limit(_)) => Some(context.now + Duration::from_secs(1)),
                Health::Ready(_) | Health::Blocked(Block::Forced | Block::Quarantine(..)) => None,
            });
        openings.min()
    }

    /// Whether a deployment that was called before may be called again: one call must
    /// stay for one that was not.
    pub(super) fn may_repeat<R: Rng>(&self, context: &Context<'_, R>) -> bool {
        let left = context.route.model.max_attempts.saturating_sub(self.attempts);
        if left != 1 || self.seen.is_empty() {
            return left > 0;
        }
        let model = context.route.model;
        let new = |tier: usize, deployment| {
            self.is_open(model, tier, deployment, false) && self.is_ready(context, deployment)
        };
        let mut tiers = model.tiers.iter().enumerate();
        !tiers.any(|(at, tier)| tier.targets.iter().any(|target| new(at, target.deployment)))
    }

    /// Pays for an attempt beside silent ones. Under a strategy that predicts it is free
    /// only where those answer nobody: under overload all are slow.
    pub(super) fn pay_beside<R: Rng>(
        &mut self,
        context: &mut Context<'_, R>,
        deployment: DeploymentIndex,
    ) -> bool {
        let predicts = strategy_of(context.route.model, &self.profile).predicts();
        if predicts && self.live.iter().any(|live| context.registry.is_alive(live.ticket)) {
            return context.registry.bucket().spend();
        }
        self.pay(context, deployment)
    }

    /// Pays for an extra attempt at `deployment`. Free: a move after a rate limit, and
    /// the first move of a request to a deployment that is well.
    pub(super) fn pay<R: Rng>(&mut self, context: &mut Context<'_, R>, deployment: DeploymentIndex) -> bool {
        if self.attempts == 0 || self.move_is_free {
            return true;
        }
        let well = context.registry.recently_clean(context.binding, deployment, context.now);
        if !self.spent.free_move && !self.met(deployment) && well {
            self.spent.free_move = true;
            return true;
        }
        context.registry.bucket().spend()
    }
}

/// A moment soon after `opening`, and before `latest`.
fn spread(opening: Timestamp, latest: Timestamp, rng: &mut impl Rng) -> Timestamp {
    opening + GATE_SPREAD.min(latest.since(opening)).mul_f64(math::unit(rng))
}

/// All targets, tier by tier.
fn targets(route: Route<'_>) -> impl Iterator<Item = DeploymentIndex> {
    route.model.tiers.iter().flat_map(|tier| tier.targets.iter().map(|target| target.deployment))
}
