//! Carries out the life of one request: asks the decision core what to do, runs
//! attempts, reports what came of them, and keeps the account.
//!
//! The rules are in `trunkline_routing::request`; here are sockets, timers and bytes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;
use trunkline_proto::convert::{Binding, binding};
use trunkline_routing::{
    classify::{Classified, OutcomeClass, TransportFault, classify_transport},
    decide::Decision,
    eligibility::Profile,
    hint::{RateHeaders, rate_headers},
    money::Tokens,
    registry::{Observation, Ticket},
    request::{AttemptId, Context, Directive, Failure, Loser, Request, Start},
    table::DeploymentIndex,
    tenant::Tenant,
    trace::{Answer, Call, Chance},
};

mod account;
mod attempt;
mod drilled;
mod job;
mod pay;
mod probe;
mod race;
mod report;
mod tail;

pub(crate) use self::{
    account::Trace,
    attempt::FailedAttempt,
    job::{Endpoint, Forwarded, IMAGE_INPUT_TOKENS_MAX, Job, profile},
    probe::{PROBE_TOKENS, Probed, probe},
    report::report,
    tail::Tail,
};
use self::{
    attempt::AttemptEnd,
    pay::{Funding, Payer},
    race::{Heard, Race},
};
use crate::{
    brain::Numbered,
    budgets::{self, OverBudget, Reservation},
    control::UsageSource,
    decisions::AttemptRecord,
    drills::{Drills, Hold},
    metrics::StartLabels,
    shared::Shared,
    upstream::Upstream,
};

/// One worker thread's part: its own connections, and what all share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upstream: Upstream,
}

/// How a request ended, with the account of it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) trace: Trace,
    pub(crate) result: Result<Success, Refusal>,
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Success {
    /// All of it.
    Whole(Whole),
    /// It begins.
    Stream(Box<Tail>),
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// No answer.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// What a provider said.
    Upstream(Box<FailedAttempt>),
    /// All that was allowed was tried.
    Exhausted { retry_after: Option<Duration>, rate_limited: bool },
    /// No target may serve it now.
    NoTarget {
        retry_after: Option<Duration>,
        /// What stands in the way at the target that came nearest.
        binding: Option<Box<Binding>>,
    },
    /// The deadline passed.
    Deadline,
    /// There is no money for it.
    Budget(OverBudget),
}

/// Runs a request, if there is money for it. Dropping the future cancels what runs upstream
/// and accounts for it.
pub(crate) async fn run(worker: &Arc<Worker>, job: &Arc<Job>) -> Done {
    let shared = &worker.shared;
    match budgets::admit(shared, job).await {
        Ok(job) => fly(worker, &job).await,
        Err(over) => {
            let now = shared.clock.now();
            let mut trace = Trace::new(shared, decide_for(shared, job), now);
            trace.over_budget = Some(over.message());
            trace.keep(shared, job);
            Done { trace, result: Err(Refusal::Budget(over)) }
        }
    }
}

/// What the decision would be, without a turn taken.
fn decide_for(shared: &Shared, job: &Job) -> Decision {
    let (snapshot, now) = (&job.snapshot, shared.clock.now());
    shared.registry.lock().decide(snapshot, job.goal, &job.profile, now)
}

async fn fly(worker: &Arc<Worker>, job: &Arc<Job>) -> Done {
    let mut flight = Flight::start(worker, job);
    let mut race = Race::default();
    loop {
        match flight.consult(Call::Next, Request::next, |next| Answer::Directive(*next)) {
            Directive::Start { id, deployment, tier, why } => match flight.fund(&mut race, id, why).await {
                Funding::Paid(paid) => {
                    let (heard, hold) = flight.begin(id, deployment, why, paid);
                    let (worker, job) = (Arc::clone(worker), Arc::clone(job));
                    race.add(id, heard.clone(), attempt::run(worker, job, deployment, tier, heard, hold));
                }
                Funding::Short(short) if pay::is_needed(why) => {
                    flight.abandon();
                    return flight.finish(Err(Refusal::Budget(short.refuse(&worker.shared))));
                }
                // What runs goes on alone.
                Funding::Short(_) => {}
                Funding::Ended(id, end) => {
                    if let Some(success) = flight.ended(id, end) {
                        return flight.finish(Ok(success));
                    }
                }
            },
            Directive::Kill(id) => {
                race.remove(id);
                let used = flight.estimate(id);
                flight.failed(id, &classify_transport(TransportFault::AttemptTimeout), 0, used);
            }
            Directive::Wait(until) => {
                let until = Instant::from_std(worker.shared.clock.instant(until));
                let ended = race.next_until(until).await;
                for id in race.take_heard() {
                    flight.heard(id);
                }
                if let Some((id, end)) = ended
                    && let Some(success) = flight.ended(id, end)
                {
                    return flight.finish(Ok(success));
                }
            }
            Directive::Fail(failure) => {
                let refusal = flight.refusal(failure);
                return flight.finish(Err(refusal));
            }
        }
    }
}

/// A request under way. Dropped before its end (the caller left), it settles what ran.
struct Flight<'a> {
    worker: &'a Arc<Worker>,
    job: &'a Arc<Job>,
    request: Numbered,
    payer: Payer,
    trace: Trace,
    failures: Vec<(AttemptId, FailedAttempt)>,
    over: bool,
}

impl<'a> Flight<'a> {
    fn start(worker: &'a Arc<Worker>, job: &'a Arc<Job>) -> Self {
        let shared = &worker.shared;
        let now = shared.clock.now();
        let snapshot = &job.snapshot;
        let tenant = Tenant::of(job.tenant.as_deref());
        let (decision, request) =
            shared.registry.lock().arrive(snapshot, job.goal, &job.profile, job.deadline, tenant, now);
        let trace = Trace::new(shared, decision, now);
        Self { worker, job, request, payer: Payer::new(job), trace, failures: Vec::new(), over: false }
    }

    /// Asks the decision core, with the registry locked for that long.
    fn consult<T>(
        &mut self,
        call: Call,
        ask: impl FnOnce(&mut Request, &mut Context<'_, Chance>) -> T,
        answer: impl FnOnce(&T) -> Answer,
    ) -> T {
        let shared = &self.worker.shared;
        let on = (&*self.job.snapshot, self.job.goal);
        let mut registry = shared.registry.lock();
        registry.ask(&mut self.request, on, shared.clock.now(), call, ask, answer)
    }

    fn heard(&mut self, id: AttemptId) {
        let answer = |(): &()| Answer::Nothing;
        self.consult(Call::Heard(id), |request, context| request.heard(context, id), answer);
    }

    /// The core is told that an attempt failed. Returns whether a breaker opened.
    fn told_failed(&mut self, id: AttemptId, classified: &Classified) -> bool {
        self.consult(
            Call::Failed(id, *classified),
            |request, context| request.failed(context, id, classified),
            |opened| Answer::Opened(*opened),
        )
    }

    fn won(&mut self, id: AttemptId) -> Option<(Ticket, Vec<Loser>)> {
        let won = |won: &Option<_>| Answer::won(won.as_ref());
        self.consult(Call::Won(id), |request, context| request.won(context, id), won)
    }

    /// Opens the attempt's record. Some: a drill takes hold of it.
    fn begin(
        &mut self,
        id: AttemptId,
        deployment: DeploymentIndex,
        why: Start,
        paid: Option<Arc<Reservation>>,
    ) -> (Heard, Option<Hold>) {
        debug_assert_eq!(id.0 as usize, self.trace.attempts.len());
        let drills = &self.worker.shared.drills;
        let hold = if drills.is_armed() { self.hold(drills, deployment) } else { None };
        let shared = &self.worker.shared;
        let snapshot = &self.job.snapshot;
        shared.metrics.starts.get_or_create(&StartLabels { start: why.name() }).inc();
        let ticket = self.request.ticket(id);
        let name = snapshot.deployment_name(deployment);
        shared.recorder.started(Arc::clone(name), Arc::clone(snapshot.goal_name(self.job.goal)));
        self.trace.attempts.push(AttemptRecord {
            deployment,
            class: None,
            status: 0,
            started: self.worker.shared.clock.now(),
            ttft: None,
            duration: None,
            tokens: None,
            cost: None,
            fault: hold.as_ref().map(|hold| Arc::clone(&hold.name)),
            why: Some(why),
            in_flight: ticket.map_or(0, |ticket| ticket.in_flight_own()),
            predicted_ttft: ticket.and_then(|ticket| predicted(ticket.predicted_ttft_s())),
        });
        (self.payer.begin(paid), hold)
    }

    fn hold(&self, drills: &Drills, deployment: DeploymentIndex) -> Option<Hold> {
        let Job { snapshot, goal, .. } = &**self.job;
        let model = snapshot.virtual_model(*goal);
        drills.hold(snapshot.deployment_name(deployment), model, &mut rand::rng())
    }

    /// An attempt ended by itself. Some: the request is answered.
    fn ended(&mut self, id: AttemptId, end: AttemptEnd) -> Option<Success> {
        match end {
            AttemptEnd::Failed(failed) => {
                let classified = failed.classified;
                let status = failed.status;
                let told = failed.usage.map(|usage| self.job.tokens(Some(usage), 0));
                let used = if failed.is_untold() { self.estimate(id) } else { told };
                self.failures.push((id, *failed));
                self.failed(id, &classified, status, used);
                None
            }
            AttemptEnd::Whole { headers, body, facts, ttft } => {
                let (ticket, losers) = self.won(id)?;
                let took = self.elapsed(id);
                let (tokens, source) = self.job.tokens(facts.usage, facts.output_bytes);
                {
                    let now = self.worker.shared.clock.now();
                    let mut registry = self.worker.shared.registry.lock();
                    registry.rate_headers(ticket, now, &limits(&headers));
                    registry.learn_pace(ticket, now, self.job.profile.max_output_tokens, took);
                    registry.observe(ticket, now, &observation(&self.job.profile, tokens, ttft, took));
                    registry.release(ticket, now);
                }
                self.trace.attempts[id.0 as usize].ttft = Some(ttft);
                self.close(id, OutcomeClass::Ok, 200, Some((tokens, source)));
                self.lose(&losers);
                self.trace.chosen = Some(id);
                Some(Success::Whole(Whole { headers, body }))
            }
            AttemptEnd::Stream(opened) => {
                let (ticket, losers) = self.won(id)?;
                let (shared, limits) = (&self.worker.shared, limits(&opened.headers));
                if !limits.is_empty() {
                    shared.registry.lock().rate_headers(ticket, shared.clock.now(), &limits);
                }
                let record = &mut self.trace.attempts[id.0 as usize];
                let ttft = self.worker.shared.clock.now().since(record.started);
                record.ttft = Some(ttft);
                record.status = 200;
                self.lose(&losers);
                self.trace.chosen = Some(id);
                Some(Success::Stream(Box::new(Tail::new(
                    Arc::clone(&self.worker.shared),
                    Arc::new(Job { budget: self.payer.take(id), ..self.job.without_body() }),
                    *opened,
                    ticket,
                    ttft,
                    id,
                ))))
            }
        }
    }

    fn failed(
        &mut self,
        id: AttemptId,
        classified: &Classified,
        status: u16,
        used: Option<(Tokens, UsageSource)>,
    ) {
        let opened = self.told_failed(id, classified);
        let shared = &self.worker.shared;
        let deployment = self.trace.attempts[id.0 as usize].deployment;
        let name = self.job.snapshot.deployment_name(deployment);
        tracing::debug!(
            decision = %self.trace.id, deployment = %name, outcome = classified.class.name(), status,
            "attempt failed"
        );
        if opened {
            shared.opened(name, self.job.snapshot.goal_name(self.job.goal));
        }
        if opened || classified.gate.is_some() || classified.quarantine_scope.is_some() {
            shared.protections_changed.notify_one();
        }
        self.close(id, classified.class, status, used);
    }

    fn lose(&mut self, losers: &[Loser]) {
        let snapshot = &self.job.snapshot;
        for deployment in self.request.request_mut().take_opened() {
            let model = snapshot.goal_name(self.job.goal);
            self.worker.shared.opened(snapshot.deployment_name(deployment), model);
        }
        for loser in losers {
            let used = self.estimate(loser.id);
            self.close(loser.id, loser.class, 0, used);
        }
    }

    fn elapsed(&self, id: AttemptId) -> Duration {
        self.worker.shared.clock.now().since(self.trace.attempts[id.0 as usize].started)
    }

    /// It ends without an answer: settles what runs.
    fn abandon(&mut self) {
        let losers = self.consult(Call::Abandon, Request::abandon, |losers| Answer::abandoned(losers));
        self.lose(&losers);
    }

    fn refusal(&mut self, failure: Failure) -> Refusal {
        self.abandon();
        match failure {
            Failure::Return(id) => {
                let at = self.failures.iter().position(|(failed, _)| *failed == id);
                at.map_or(Refusal::Exhausted { retry_after: None, rate_limited: false }, |at| {
                    Refusal::Upstream(Box::new(self.failures.swap_remove(at).1))
                })
            }
            Failure::Exhausted { retry_after, rate_limited } => {
                Refusal::Exhausted { retry_after, rate_limited }
            }
            Failure::NoTarget { retry_after } => {
                // As it is now: the decision at the start may have had candidates.
                let profile = self.job.profile;
                let (shared, snapshot) = (&self.worker.shared, &self.job.snapshot);
                let now = shared.clock.now();
                let decision = shared.registry.lock().decide(snapshot, self.job.goal, &profile, now);
                let model = snapshot.route(self.job.goal).model;
                let binding = binding(snapshot.table(), model, &profile, &decision);
                Refusal::NoTarget { retry_after, binding: binding.map(Box::new) }
            }
            Failure::Deadline => Refusal::Deadline,
        }
    }

    fn finish(mut self, result: Result<Success, Refusal>) -> Done {
        self.over = true;
        let mut trace = std::mem::take(&mut self.trace);
        let kept = trace.keep(&self.worker.shared, self.job);
        let result = result.map(|mut success| {
            if let Success::Stream(tail) = &mut success {
                tail.follow(kept);
            }
            success
        });
        Done { trace, result }
    }
}

/// What is learned of a whole answer.
fn observation(profile: &Profile, tokens: Tokens, ttft: Duration, duration: Duration) -> Observation {
    Observation {
        input_tokens: tokens.input,
        cached_input_tokens: tokens.cached_input,
        max_output_tokens: profile.max_output_tokens,
        // Answers to one request are made side by side.
        output_tokens: tokens.output.div_ceil(profile.answers()),
        ttft,
        duration,
        stream: profile.stream,
    }
}

/// None: nothing was predicted.
fn predicted(seconds: f32) -> Option<Duration> {
    Duration::try_from_secs_f32(seconds).ok().filter(|ttft| !ttft.is_zero())
}

/// What the provider said of its limits.
fn limits(headers: &HeaderMap) -> RateHeaders {
    rate_headers(&|name| headers.get(name)?.to_str().ok())
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.abandon();
        let mut trace = std::mem::take(&mut self.trace);
        trace.keep(&self.worker.shared, self.job);
    }
}
