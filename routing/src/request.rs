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
    eligibility::{Profile, strategy_of},
    registry::Ticket,
    table::{DeploymentIndex, Timeouts},
    tenant::Tenant,
    time::Timestamp,
    train,
};

mod blame;
mod choose;
mod directive;
mod outcome;
mod race;
#[cfg(test)]
mod tests;

pub use blame::Loser;
pub use directive::{AttemptId, Context, Directive, Failure, Start};
use race::Foresight;

/// A new round over deployments that all failed waits up to this, doubling ...
const ROUND_BACKOFF_BASE: Duration = Duration::from_millis(100);
/// ... up to this.
const ROUND_BACKOFF_MAX: Duration = Duration::from_secs(2);
/// When nothing can start beside a silent attempt, it is tried again after so long.
const BESIDE_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// An attempt under way.
#[derive(Clone, Copy, Debug)]
struct Live {
    id: AttemptId,
    deployment: DeploymentIndex,
    tier: usize,
    ticket: Ticket,
    /// Nothing heard by then: start another beside it.
    soft: Timestamp,
    /// Whether `soft` passed: it was silent.
    overdue: bool,
    /// What was predicted of it, under a strategy that predicts, until it is heard of.
    foresight: Option<Foresight>,
    /// It ends then.
    kill: Option<Timestamp>,
}

/// A retry at the same deployment that waits for its moment.
#[derive(Clone, Copy, Debug)]
struct SameRetry {
    deployment: DeploymentIndex,
    tier: usize,
    at: Timestamp,
    /// The first call never got there: this one is in its place.
    free: bool,
}

/// What a request gets once, and had.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    same_retry: bool,
    free_move: bool,
}

/// One request.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states")]
#[derive(Debug)]
pub struct Request {
    profile: Profile,
    tenant: Tenant,
    deadline: Timestamp,
    /// The caller set a deadline so short that running into it blames nobody.
    impatient: bool,
    live: Vec<Live>,
    /// Attempts started; names the next.
    starts: u32,
    /// Upstream calls: attempts but for those that never reached the provider.
    attempts: u32,
    replays: u32,
    /// Not to be picked again in this round.
    tried: Vec<DeploymentIndex>,
    /// Distinct deployments met per tier.
    seen: Vec<(usize, DeploymentIndex)>,
    /// These refused the content; asking again would not help.
    refused: Vec<DeploymentIndex>,
    rounds: u32,
    same_retry: Option<SameRetry>,
    spent: Spent,
    /// The last failure was for rate: the next move is free.
    move_is_free: bool,
    not_before: Timestamp,
    /// When waiting for gates ends while a lower tier may be there.
    gate_patience: Option<Timestamp>,
    /// When waiting for room at full targets ends.
    crowd_patience: Option<Timestamp>,
    /// When waiting for breakers ends.
    patience: Option<Timestamp>,
    window_over: Option<u32>,
    poison: Vec<(DeploymentIndex, Ticket)>,
    opened: Vec<DeploymentIndex>,
    failure: Option<Failure>,
    last_return: Option<AttemptId>,
    all_rate_limited: bool,
    /// There is no money for attempts beside others.
    alone: bool,
}

impl Request {
    /// A request that came in now. `caller_deadline`: what the caller allows, if
    /// anything.
    pub fn new<R: Rng>(
        profile: Profile,
        caller_deadline: Option<Duration>,
        context: &mut Context<'_, R>,
    ) -> Self {
        let model = context.route.model;
        let allowed = caller_deadline.map_or(model.deadline, |caller| caller.min(model.deadline));
        let first_token = model.tiers[0].timeouts.first_token;
        context.registry.bucket().earn(model.retry_budget_percent);
        if strategy_of(model, &profile).predicts() {
            context.registry.hedges().earn(model.hedge_budget_percent);
        }
        Self {
            profile,
            tenant: Tenant::NONE,
            deadline: context.now + allowed,
            impatient: caller_deadline.is_some_and(|caller| caller < first_token),
            live: Vec::new(),
            starts: 0,
            attempts: 0,
            replays: 0,
            tried: Vec::new(),
            seen: Vec::new(),
            refused: Vec::new(),
            rounds: 0,
            same_retry: None,
            spent: Spent::default(),
            move_is_free: false,
            not_before: context.now,
            gate_patience: None,
            crowd_patience: None,
            patience: None,
            window_over: None,
            poison: Vec::new(),
            opened: Vec::new(),
            failure: None,
            last_return: None,
            all_rate_limited: true,
            alone: false,
        }
    }

    /// It is made for that tenant. Without this: for none.
    #[must_use]
    pub const fn of_tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = tenant;
        self
    }

    /// What the decision knows of it.
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What an attempt that runs is to the registry.
    pub fn ticket(&self, id: AttemptId) -> Option<Ticket> {
        self.live.iter().find(|live| live.id == id).map(|live| live.ticket)
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
            let waited = [self.patience, self.gate_patience, self.crowd_patience].iter().any(Option::is_some)
                || !self.any_ready(context);
            let no_target = self.attempts == 0 && waited;
            return if no_target { self.exhausted(context) } else { self.give_up(Failure::Deadline) };
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
            let ready = self.is_ready(context, retry.deployment);
            if ready && (retry.free || self.pay(context, retry.deployment)) {
                return self.start(context, retry.deployment, retry.tier, Start::Retry);
            }
        }
        if self.not_before > now {
            return Directive::Wait(self.not_before.min(self.deadline));
        }
        match self.choose(context) {
            choose::Choice::Target { deployment, tier } => {
                if !self.pay(context, deployment) {
                    return self.exhausted(context);
                }
                let why = if self.starts == 0 { Start::First } else { Start::Retry };
                self.start(context, deployment, tier, why)
            }
            choose::Choice::Wait(until) => Directive::Wait(until.min(self.deadline)),
            choose::Choice::Nothing => self.exhausted(context),
        }
    }

    fn next_beside<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Directive {
        let now = context.now;
        self.note_silence(context);
        if !self.alone && self.live.iter().all(|live| live.overdue) {
            if let Some((deployment, tier)) = self.choose_beside(context)
                && self.pay_beside(context, deployment)
            {
                return self.start(context, deployment, tier, Start::Beside);
            }
            if self.attempts < context.route.model.max_attempts && self.not_before <= now {
                self.begin_round(context);
            }
            for live in &mut self.live {
                live.soft = live.soft.max(now + BESIDE_AGAIN_AFTER);
            }
        }
        if !self.alone
            && let Some((deployment, tier, why)) = self.choose_race(context)
        {
            return self.start(context, deployment, tier, why);
        }
        let soft = self.live.iter().map(|live| live.soft);
        let foreseen = self.live.iter().filter_map(Live::looks_again);
        let kill = self.live.iter().filter_map(|live| live.kill);
        let next = soft.chain(foreseen).filter(|at| *at > now).chain(kill).chain([self.deadline]).min();
        Directive::Wait(next.unwrap_or(self.deadline))
    }

    fn start<R: Rng>(
        &mut self,
        context: &mut Context<'_, R>,
        deployment: DeploymentIndex,
        tier: usize,
        why: Start,
    ) -> Directive {
        let now = context.now;
        let estimate = self.estimate(context, deployment);
        let tokens = self.profile.expected_tokens();
        let ticket = context.registry.begin(context.binding, deployment, now, tokens.input + tokens.output);
        let route = train::route_id(&context.route.model.name);
        let ticket = ticket.of_tenant(self.tenant).of_route(route, self.profile.session, Some(&estimate));
        let Timeouts { first_token, attempt, .. } = context.route.model.tiers[tier].timeouts;
        let generation = if self.profile.stream {
            Duration::ZERO
        } else {
            context.registry.expected_generation(context.binding, deployment, self.profile.max_output_tokens)
        };
        let id = AttemptId(self.starts);
        self.starts += 1;
        self.attempts += 1;
        self.move_is_free = false;
        if !self.tried.contains(&deployment) {
            self.tried.push(deployment);
        }
        if !self.seen.contains(&(tier, deployment)) {
            self.seen.push((tier, deployment));
        }
        self.live.push(Live {
            id,
            deployment,
            tier,
            ticket,
            soft: now + first_token + generation,
            overdue: false,
            foresight: self.foresee(context, &estimate),
            kill: attempt.map(|attempt| now + attempt),
        });
        Directive::Start { id, deployment, tier, why }
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
}
