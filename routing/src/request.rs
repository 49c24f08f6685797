//! The life of one request as a state machine: which attempt starts when, what its end
//! means, when to wait, move on or give up.
//!
//! The caller carries out [`Directive`]s and reports what came of them; it holds
//! sockets and bytes, this holds the rules. The agent and the simulator drive the same
//! code.

use alloc::vec::Vec;
use core::time::Duration;

use rand_core::Rng;

use crate::{
    breaker::Sample,
    classify::{BreakerCount, Classified, OutcomeClass, QUARANTINE_DEFAULT, QuarantineScope, Remedy},
    decide::Route,
    eligibility::Profile,
    hold::QuarantineReason,
    math,
    registry::{Binding, Registry, Ticket},
    table::{DeploymentIndex, RoutingTable, Timeouts},
    time::Timestamp,
};

mod choose;
#[cfg(test)]
mod tests;

/// A same-deployment retry comes at a random moment within this.
const SAME_RETRY_WITHIN: Duration = Duration::from_millis(250);
/// A new round over deployments that all failed waits up to this, doubling ...
const ROUND_BACKOFF_BASE: Duration = Duration::from_millis(100);
/// ... up to this.
const ROUND_BACKOFF_MAX: Duration = Duration::from_secs(2);
/// When nothing can start beside a silent attempt, it is tried again after so long.
const BESIDE_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Names an attempt within its request, by order of starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u32);

/// What the caller must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Start an attempt, then ask again.
    Start {
        /// Its name.
        id: AttemptId,
        /// Where it goes.
        deployment: DeploymentIndex,
        /// Its tier, for time limits.
        tier: usize,
    },
    /// End an attempt that ran out of time, report it with [`Request::failed`], then
    /// ask again.
    Kill(AttemptId),
    /// Wait for an attempt to say something, at most until then, then ask again.
    Wait(Timestamp),
    /// It is over; running attempts are to be dropped after [`Request::abandon`].
    Fail(Failure),
}

/// How a request ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What this attempt's provider said goes to the caller.
    Return(AttemptId),
    /// All that was allowed was tried.
    Exhausted {
        /// When it may work again, if known.
        retry_after: Option<Duration>,
        /// Every attempt was refused for its rate.
        rate_limited: bool,
    },
    /// Nothing was tried, since no target may serve the request now.
    NoTarget {
        /// When one may, if known.
        retry_after: Option<Duration>,
    },
    /// The deadline passed.
    Deadline,
}

/// The world in which a request asks: who it is decided on, and what is known.
#[derive(Debug)]
pub struct Context<'a, R> {
    /// What is known of targets.
    pub registry: &'a mut Registry,
    /// The table the request started under.
    pub table: &'a RoutingTable,
    /// Maps that table to the registry.
    pub binding: &'a Binding,
    /// What it was decided on.
    pub route: Route<'a>,
    /// Now.
    pub now: Timestamp,
    /// Chance.
    pub rng: &'a mut R,
}

/// An attempt under way.
#[derive(Clone, Copy, Debug)]
struct Live {
    id: AttemptId,
    deployment: DeploymentIndex,
    ticket: Ticket,
    /// Nothing heard by then: start another beside it.
    soft: Timestamp,
    /// Whether `soft` passed: it was silent.
    overdue: bool,
    /// It ends then.
    kill: Option<Timestamp>,
}

/// A retry at the same deployment that waits for its moment.
#[derive(Clone, Copy, Debug)]
struct SameRetry {
    deployment: DeploymentIndex,
    tier: usize,
    at: Timestamp,
}

/// What a loser of the race was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loser {
    /// Which attempt.
    pub id: AttemptId,
    /// TIMEOUT if it was silent for too long, else OVERTAKEN.
    pub class: OutcomeClass,
}

/// One request.
#[derive(Debug)]
pub struct Request {
    profile: Profile,
    deadline: Timestamp,
    /// The caller set a deadline so short that running into it blames nobody.
    impatient: bool,
    live: Vec<Live>,
    attempts: u32,
    /// Not to be picked again in this round.
    tried: Vec<DeploymentIndex>,
    /// Distinct deployments met per tier in this round.
    seen: Vec<(usize, DeploymentIndex)>,
    rounds: u32,
    same_retry: Option<SameRetry>,
    same_retry_used: bool,
    free_move_used: bool,
    /// The last failure was for rate: the next move is free.
    move_is_free: bool,
    not_before: Timestamp,
    /// When waiting for breakers ends.
    patience: Option<Timestamp>,
    window_over: Option<u32>,
    poison: Vec<Ticket>,
    failure: Option<Failure>,
    last_return: Option<AttemptId>,
    all_rate_limited: bool,
}

impl Request {
    /// A request that came in now. `caller_deadline`: what the caller allows, if
    /// anything.
    pub fn new<R: Rng>(profile: Profile, caller_deadline: Option<Duration>, context: &mut Context<'_, R>) -> Self {
        let model = context.route.model;
        let allowed = caller_deadline.map_or(model.deadline, |caller| caller.min(model.deadline));
        let first_token = model.tiers[0].timeouts.first_token;
        context.registry.bucket().earn(model.retry_budget_percent);
        Self {
            profile,
            deadline: context.now + allowed,
            impatient: caller_deadline.is_some_and(|caller| caller < first_token),
            live: Vec::new(),
            attempts: 0,
            tried: Vec::new(),
            seen: Vec::new(),
            rounds: 0,
            same_retry: None,
            same_retry_used: false,
            free_move_used: false,
            move_is_free: false,
            not_before: context.now,
            patience: None,
            window_over: None,
            poison: Vec::new(),
            failure: None,
            last_return: None,
            all_rate_limited: true,
        }
    }

    /// What the decision knows of it.
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// When it must be over.
    pub const fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// What to do next. Ask after each directive that was carried out and each report.
    pub fn next<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Directive {
        if let Some(failure) = self.failure {
            return Directive::Fail(failure);
        }
        let now = context.now;
        if now >= self.deadline {
            return self.give_up(Failure::Deadline);
        }
        if let Some(live) = self.live.iter().find(|live| live.kill.is_some_and(|kill| kill <= now)) {
            return Directive::Kill(live.id);
        }
        if self.live.is_empty() {
            return self.next_alone(context);
        }
        self.next_beside(context)
    }

    fn next_alone<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Directive {
        let now = context.now;
        if let Some(retry) = self.same_retry {
            if retry.at > now {
                return Directive::Wait(retry.at.min(self.deadline));
            }
            self.same_retry = None;
            if self.pay(context, retry.deployment) && self.is_ready(context, retry.deployment) {
                return self.start(context, retry.deployment, retry.tier);
            }
            self.tried.push(retry.deployment);
        }
        if self.not_before > now {
            return Directive::Wait(self.not_before.min(self.deadline));
        }
        match self.choose(context) {
            choose::Choice::Target { deployment, tier } => {
                if self.attempts > 0 && !self.pay(context, deployment) {
                    return self.exhausted(context);
                }
                self.start(context, deployment, tier)
            }
            choose::Choice::Wait(until) => Directive::Wait(until.min(self.deadline)),
            choose::Choice::Nothing => self.exhausted(context),
        }
    }

    fn next_beside<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Directive {
        let now = context.now;
        for live in &mut self.live {
            live.overdue |= live.soft <= now;
        }
        if self.live.iter().all(|live| live.overdue) {
            if let Some((deployment, tier)) = self.choose_beside(context)
                && self.pay(context, deployment)
            {
                return self.start(context, deployment, tier);
            }
            for live in &mut self.live {
                live.soft = live.soft.max(now + BESIDE_AGAIN_AFTER);
            }
        }
        let soft = self.live.iter().map(|live| live.soft).filter(|soft| *soft > now);
        let kill = self.live.iter().filter_map(|live| live.kill);
        Directive::Wait(soft.chain(kill).chain([self.deadline]).min().unwrap_or(self.deadline))
    }

    fn start<R: Rng>(&mut self, context: &mut Context<'_, R>, deployment: DeploymentIndex, tier: usize) -> Directive {
        let now = context.now;
        let tokens = self.profile.expected_tokens();
        let ticket = context.registry.begin(context.binding, deployment, now, tokens.input + tokens.output);
        let Timeouts { first_token, attempt, .. } = context.route.model.tiers[tier].timeouts;
        let generation = if self.profile.stream {
            Duration::ZERO
        } else {
            context.registry.pace(context.binding, deployment).expected(self.profile.max_output_tokens)
        };
        let id = AttemptId(self.attempts);
        self.attempts += 1;
        self.move_is_free = false;
        self.tried.push(deployment);
        if !self.seen.contains(&(tier, deployment)) {
            self.seen.push((tier, deployment));
        }
        self.live.push(Live {
            id,
            deployment,
            ticket,
            soft: now + first_token + generation,
            overdue: false,
            kill: attempt.map(|attempt| now + attempt),
        });
        Directive::Start { id, deployment, tier }
    }

    /// An attempt failed. `classified` says what it means.
    pub fn failed<R: Rng>(&mut self, context: &mut Context<'_, R>, id: AttemptId, classified: &Classified) -> bool {
        let Some(at) = self.live.iter().position(|live| live.id == id) else { return false };
        let live = self.live.swap_remove(at);
        self.all_rate_limited &= classified.class == OutcomeClass::RateLimited;
        let opened = self.account(context, &live, classified);
        context.registry.release(live.ticket);
        self.remedy(context, &live, classified);
        opened
    }

    /// What breaker, gate and quarantine learn from a failure.
    fn account<R: Rng>(&mut self, context: &mut Context<'_, R>, live: &Live, classified: &Classified) -> bool {
        let now = context.now;
        if let Some(gate) = classified.gate {
            context.registry.gate(live.ticket, now, Some(gate));
        }
        if let Some(scope) = classified.quarantine_scope {
            let reason = match (scope, classified.class) {
                (_, OutcomeClass::Misconfigured) => QuarantineReason::Misconfigured,
                (QuarantineScope::Account, _) => QuarantineReason::Account,
                (QuarantineScope::Credential, _) => QuarantineReason::Credential,
                (QuarantineScope::Deployment, _) => QuarantineReason::Model,
            };
            context.registry.quarantine(live.ticket, now, reason, QUARANTINE_DEFAULT);
        }
        let sample = match classified.breaker {
            BreakerCount::Poisonable => {
                self.poison.push(live.ticket);
                return false;
            }
            BreakerCount::Failure => Sample::Failure,
            BreakerCount::RatioOnly => Sample::RatioFailure,
            BreakerCount::Neutral if classified.class == OutcomeClass::RateLimited => Sample::RateLimited,
            BreakerCount::Neutral => Sample::Neutral,
            BreakerCount::Success => Sample::Success,
        };
        context.registry.record(live.ticket, now, sample, context.rng)
    }

    fn remedy<R: Rng>(&mut self, context: &mut Context<'_, R>, live: &Live, classified: &Classified) {
        let now = context.now;
        let model = context.route.model;
        let tier = self.tier_of(live.deployment);
        match classified.remedy {
            Remedy::Done | Remedy::Other | Remedy::Quarantine => {}
            Remedy::OtherWithGate => {
                // The gate keeps it away; when that opens it may be met again.
                self.tried.retain(|tried| *tried != live.deployment);
                self.move_is_free = classified.class == OutcomeClass::RateLimited;
            }
            Remedy::Replay | Remedy::SameThenOther | Remedy::SameThenReturn => {
                let used = core::mem::replace(&mut self.same_retry_used, true);
                if !used && self.live.is_empty() && self.may_retry_same(context) {
                    let at = now + SAME_RETRY_WITHIN.mul_f64(math::unit(context.rng));
                    self.same_retry = Some(SameRetry { deployment: live.deployment, tier, at });
                } else if classified.remedy == Remedy::SameThenReturn {
                    self.failure = Some(Failure::Return(live.id));
                }
            }
            Remedy::LargerContext if model.context_length_fallback => {
                let window = context.table.deployment(live.deployment).context_window.unwrap_or(0);
                self.window_over = self.window_over.max(Some(window));
                self.last_return = Some(live.id);
            }
            Remedy::ContentFilter if model.content_filter_fallback => self.last_return = Some(live.id),
            Remedy::LargerContext | Remedy::ContentFilter | Remedy::Return | Remedy::EndInBand => {
                self.failure = Some(Failure::Return(live.id));
            }
        }
    }

    /// An attempt has its first content (stream) or its whole answer (unary). The
    /// others lose and are to be dropped. The ticket is the winner's: give it back
    /// with [`Registry::release`] when its answer is over.
    pub fn won<R: Rng>(&mut self, context: &mut Context<'_, R>, id: AttemptId) -> Option<(Ticket, Vec<Loser>)> {
        let at = self.live.iter().position(|live| live.id == id)?;
        let winner = self.live.swap_remove(at);
        context.registry.record(winner.ticket, context.now, Sample::Success, context.rng);
        let losers = self.settle_losers(context);
        self.settle_poison(context);
        Some((winner.ticket, losers))
    }

    /// The request ends without a winner: it failed, or its caller left. What still
    /// runs is to be dropped.
    pub fn abandon<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Vec<Loser> {
        let blame = self.failure == Some(Failure::Deadline) && !self.impatient;
        if !blame {
            for live in &mut self.live {
                live.overdue = false;
            }
        }
        let losers = self.settle_losers(context);
        self.settle_poison(context);
        losers
    }

    fn settle_losers<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Vec<Loser> {
        let now = context.now;
        let stream = self.profile.stream;
        let mut losers = Vec::new();
        for live in self.live.drain(..) {
            let silent = live.overdue || live.soft <= now;
            let (sample, class) = match (silent, stream) {
                (true, true) => (Sample::Failure, OutcomeClass::Timeout),
                (true, false) => (Sample::RatioFailure, OutcomeClass::Timeout),
                (false, _) => (Sample::Neutral, OutcomeClass::Overtaken),
            };
            context.registry.record(live.ticket, now, sample, context.rng);
            context.registry.release(live.ticket);
            losers.push(Loser { id: live.id, class });
        }
        losers
    }

    /// 500s and empty answers at two deployments blame the prompt more than either.
    fn settle_poison<R: Rng>(&mut self, context: &mut Context<'_, R>) {
        let first = self.poison.first().map(Ticket::slot);
        let spread = self.poison.iter().any(|ticket| Some(ticket.slot()) != first);
        let sample = if spread { Sample::RatioFailure } else { Sample::Failure };
        for ticket in self.poison.drain(..) {
            context.registry.record(ticket, context.now, sample, context.rng);
        }
    }

    fn give_up(&mut self, failure: Failure) -> Directive {
        self.failure = Some(failure);
        Directive::Fail(failure)
    }

    fn exhausted<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Directive {
        if let Some(id) = self.last_return {
            return self.give_up(Failure::Return(id));
        }
        let retry_after = self.next_opening(context).map(|at| at.since(context.now));
        let failure = if self.attempts == 0 {
            Failure::NoTarget { retry_after }
        } else {
            Failure::Exhausted { retry_after, rate_limited: self.all_rate_limited }
        };
        self.give_up(failure)
    }

    fn tier_of(&self, deployment: DeploymentIndex) -> usize {
        self.seen.iter().rev().find(|(_, seen)| *seen == deployment).map_or(0, |(tier, _)| *tier)
    }
}
