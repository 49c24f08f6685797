//! What the registry learns of answers, and what it knows when a request is scored.

use core::time::Duration;

use super::{Binding, Registry, Ticket};
use crate::math;
use crate::{
    breaker,
    score::{Basis, Estimate, SAMPLES_MIN},
    table::DeploymentIndex,
    time::Timestamp,
    train::{
        self, Coefficients, DeploymentModel, FleetModels, OutputKey, Sample, SampleKind, Sums,
        learner::{BREAK_TAU_S, ERROR_TAU_S, IDLE_TAU_S},
        outputs,
    },
};

/// News of the control plane are used for so long.
const FLEET_AGE_MAX: Duration = Duration::from_secs(30);
/// What it said of requests in flight fades with this time constant.
const IN_FLIGHT_TAU_S: f64 = 4.0;
/// A silent attempt counts as this much of a failure until its end is known.
const SUSPECT_WEIGHT: f64 = 0.7;

/// A whole answer, as its provider and the clock tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// All input tokens, cached ones included.
    pub input_tokens: u64,
    /// The part of them that the provider had cached.
    pub cached_input_tokens: u64,
    /// Limit that the request set on the output.
    pub max_output_tokens: Option<u32>,
    /// Output tokens.
    pub output_tokens: u64,
    /// From the attempt's start to its first content.
    pub ttft: Duration,
    /// From the attempt's start to its end.
    pub duration: Duration,
    /// Answered piece by piece; else `ttft` says nothing.
    pub stream: bool,
}

/// What the control plane published, and when it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adopted {
    at: Timestamp,
    agents: u32,
    model: DeploymentModel,
}

/// What is known of a deployment when a request is scored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knowledge {
    pub(crate) slow: Coefficients,
    pub(crate) basis: Basis,
    /// ln TTFT, ln TPOT, failures, breaks: of the last seconds.
    pub(crate) moments: [Sums; 4],
    pub(crate) in_flight: f64,
    pub(crate) age_s: f64,
    pub(crate) unseen_s: f64,
}

impl Ticket {
    /// Attempts that this agent had running there as it started, itself included.
    pub const fn in_flight_own(&self) -> u32 {
        self.in_flight_own
    }

    /// Seconds until the first content, as predicted. 0: not predicted.
    pub const fn predicted_ttft_s(&self) -> f32 {
        self.predicted_ttft_s
    }

    /// When it started.
    pub const fn started(&self) -> Timestamp {
        self.started
    }

    /// It is made for a request of that route and session, with that prediction.
    #[must_use]
    pub fn of_route(self, route: u64, session: Option<u64>, estimate: Option<&Estimate>) -> Self {
        let predicted_ttft_s = estimate.map_or(0.0, |estimate| estimate.ttft_s as f32);
        Self { predicted_ttft_s, route, session, ..self }
    }
}

impl Registry {
    /// A whole answer came. Failures, silence and broken streams enter through
    /// [`Self::record`].
    pub fn observe(&mut self, ticket: Ticket, now: Timestamp, seen: &Observation) {
        let sample = Sample {
            route: ticket.route,
            started: ticket.started,
            input_tokens: seen.input_tokens,
            cached_input_tokens: seen.cached_input_tokens,
            max_output_tokens: seen.max_output_tokens,
            output_tokens: seen.output_tokens,
            ttft: seen.stream.then_some(seen.ttft),
            duration: seen.duration,
            kind: SampleKind::Ok,
            in_flight_own: ticket.in_flight_own,
            predicted_ttft_s: ticket.predicted_ttft_s,
        };
        let key = train::output_key(ticket.route, seen.input_tokens, seen.max_output_tokens);
        let expected = outputs::expected(self.outputs.sums(now, key));
        let Some(slot) = self.slot_mut(ticket.slot) else { return };
        let in_flight = f64::from(ticket.in_flight_own.max(1));
        if ticket.begun {
            slot.learner.rest(now, &sample, in_flight, expected);
        } else if let Some(ratio) = slot.learner.answer(now, &sample, in_flight, expected) {
            slot.learner.learn_load(now, in_flight, ratio);
        }
        let verbosity = slot.learner.verbosity(now);
        if seen.output_tokens > 0 {
            self.outputs.learn(now, key, seen.output_tokens as f64, verbosity);
        }
        if let Some(session) = ticket.session {
            // Its next request begins with this one and its answer.
            let tokens = seen.input_tokens.saturating_add(seen.output_tokens);
            self.sessions.note(session, ticket.slot, tokens, now);
        }
    }

    /// The first content of a stream came, of a request with so many input tokens. The
    /// ticket that is returned knows so.
    pub(crate) fn first_content(&mut self, ticket: Ticket, now: Timestamp, input_tokens: u32) -> Ticket {
        let cached =
            ticket.session.map_or(0.0, |session| self.sessions.cached(session, ticket.slot, ticket.started));
        let Some(slot) = self.slot_mut(ticket.slot) else { return ticket };
        let fresh = (f64::from(input_tokens) - cached).max(0.0);
        let in_flight = f64::from(ticket.in_flight_own.max(1));
        slot.learner.first(now, fresh, now.since(ticket.started), in_flight);
        Ticket { begun: true, ..ticket }
    }

    /// What a result says of failures and breaks.
    pub(super) fn tally(&mut self, ticket: Ticket, now: Timestamp, sample: breaker::Sample) {
        let Some(slot) = self.slot_mut(ticket.slot) else { return };
        match sample {
            breaker::Sample::Begun => slot.learner.attempt(now, false),
            breaker::Sample::Success => {
                slot.learner.attempt(now, false);
                slot.learner.stream_ended(now, false);
            }
            breaker::Sample::Ended => slot.learner.stream_ended(now, false),
            breaker::Sample::BrokeOff => slot.learner.stream_ended(now, true),
            breaker::Sample::Failure | breaker::Sample::RatioFailure => slot.learner.attempt(now, true),
            breaker::Sample::RateLimited | breaker::Sample::Neutral => {}
        }
        if matches!(sample, breaker::Sample::Begun | breaker::Sample::Success) {
            slot.heard = Some(now);
        }
    }

    /// An attempt is silent for longer than predicted.
    pub(crate) fn doubt(&mut self, ticket: Ticket, now: Timestamp) {
        if let Some(slot) = self.slot_mut(ticket.slot) {
            slot.learner.suspect(now, SUSPECT_WEIGHT);
        }
    }

    /// Whether the deployment's breaker waits for the result of a first attempt.
    pub(crate) fn asks_for_probe(
        &self,
        binding: &Binding,
        deployment: DeploymentIndex,
        now: Timestamp,
    ) -> bool {
        self.slot(binding.slot(deployment)).is_some_and(|slot| {
            slot.forced(now).is_none() && slot.breaker.admission(now) == breaker::Admission::Probe
        })
    }

    /// Whether any attempt at the ticket's deployment began to answer since it started.
    pub(crate) fn is_alive(&self, ticket: Ticket) -> bool {
        let heard = self.slot(ticket.slot).and_then(|slot| slot.heard);
        heard.is_some_and(|heard| heard >= ticket.started)
    }

    /// The control plane published what it learned. What was known of deployments that
    /// it does not name, and of lengths if it names none, stays until it is too old.
    pub fn adopt(&mut self, models: &FleetModels, now: Timestamp) {
        for (name, model) in &models.models {
            let Some(id) = self.by_name.get(name) else { continue };
            if let Some(slot) = self.slots.get_mut(id.index as usize)
                && model.slow.is_sane()
            {
                let model = DeploymentModel {
                    ttft_now: model.ttft_now.sane(),
                    tpot_now: model.tpot_now.sane(),
                    errors: model.errors.sane(),
                    breaks: model.breaks.sane(),
                    in_flight: math::finite(model.in_flight, 0.0, 1e6, 0.0),
                    ..*model
                };
                slot.fleet = Some(Adopted { at: now, agents: models.agents.max(1), model });
            }
        }
        if !models.outputs.is_empty() {
            self.fleet_outputs.adopt(&models.outputs, now);
        }
        self.adopted = Some(now);
    }

    pub(crate) fn output_sums(&self, now: Timestamp, key: OutputKey) -> (Sums, Sums) {
        let own = self.outputs.sums(now, key);
        let fresh = self.adopted.is_some_and(|at| now.since(at) <= FLEET_AGE_MAX);
        let fleet = if fresh { self.fleet_outputs.sums(now, key) } else { Default::default() };
        // The fleet's sums hold the own ones: the larger of the two, never both.
        let larger = |own: Sums, fleet: Sums| if fleet.weight > own.weight { fleet } else { own };
        (larger(own.0, fleet.0), larger(own.1, fleet.1))
    }

    /// Prompt tokens of the session that the deployment is expected to hold.
    pub(crate) fn cached_tokens(
        &self,
        binding: &Binding,
        deployment: DeploymentIndex,
        session: u64,
        now: Timestamp,
    ) -> f64 {
        self.sessions.cached(session, binding.slot(deployment), now)
    }

    pub(crate) fn knowledge(
        &self,
        binding: &Binding,
        deployment: DeploymentIndex,
        now: Timestamp,
    ) -> Knowledge {
        let Some(slot) = self.slot(binding.slot(deployment)) else { return Knowledge::nothing() };
        let own = slot.learner.model(now);
        let own_in_flight = f64::from(slot.in_flight);
        let own_unseen = slot.learner.newest().map(|newest| now.since(newest));
        let fleet = slot.fleet.filter(|fleet| now.since(fleet.at) <= FLEET_AGE_MAX);
        let basis = |samples: u64, basis| match samples {
            0 => Basis::Unknown,
            few if few < SAMPLES_MIN => Basis::Mean,
            _ => basis,
        };
        let moments = [own.ttft_now, own.tpot_now, own.errors, own.breaks];
        let Some(fleet) = fleet.filter(|fleet| fleet.model.slow.samples > own.slow.samples) else {
            return Knowledge {
                slow: own.slow,
                basis: basis(own.slow.samples, Basis::Own),
                moments,
                in_flight: own_in_flight,
                age_s: 0.0,
                unseen_s: unseen(own_unseen),
            };
        };
        let age = now.since(fleet.at);
        let others = 1.0 - 1.0 / f64::from(fleet.agents);
        let theirs = [
            fleet.model.ttft_now.after(age, IDLE_TAU_S),
            fleet.model.tpot_now.after(age, IDLE_TAU_S),
            fleet.model.errors.after(age, ERROR_TAU_S),
            fleet.model.breaks.after(age, BREAK_TAU_S),
        ];
        let load_age = age + fleet.model.in_flight_age;
        let fresh = math::decay(load_age, IN_FLIGHT_TAU_S);
        let known = fleet.model.in_flight * others + own_in_flight;
        let scaled = f64::from(fleet.agents) * own_in_flight;
        let theirs_unseen = fleet.model.newest_age.map(|newest| newest + age);
        Knowledge {
            slow: fleet.model.slow,
            basis: basis(fleet.model.slow.samples, Basis::Fleet),
            moments: core::array::from_fn(|at| moments[at].with(theirs[at].times(others))),
            in_flight: fresh * known + (1.0 - fresh) * scaled,
            age_s: if fleet.agents > 1 { load_age.as_secs_f64() } else { 0.0 },
            unseen_s: unseen(own_unseen.into_iter().chain(theirs_unseen).min()),
        }
    }
}

impl Knowledge {
    fn nothing() -> Self {
        Self {
            slow: Coefficients::default(),
            basis: Basis::Unknown,
            moments: [Sums::default(); 4],
            in_flight: 0.0,
            age_s: 0.0,
            unseen_s: unseen(None),
        }
    }
}

fn unseen(age: Option<Duration>) -> f64 {
    const DAY_S: f64 = 86_400.0;
    age.map_or(DAY_S, |age| age.as_secs_f64().min(DAY_S))
}
