//! What the registry learns of answers, and what it knows when a request is scored.

use core::time::Duration;

use super::{Binding, Registry, Ticket, slot::Slot};
use crate::math;
use crate::{
    breaker,
    score::{Basis, Estimate, SAMPLES_MIN},
    table::DeploymentIndex,
    time::Timestamp,
    train::{
        self, Coefficients, DeploymentModel, FleetModels, OutputKey, Sample, SampleKind, Sums,
        learner::{self, BREAK_TAU_S, ERROR_TAU_S, IDLE_TAU_S},
        load, outputs, regression,
    },
};

/// News of the control plane are used for so long.
const FLEET_AGE_MAX: Duration = Duration::from_secs(30);
/// What it said of requests in flight fades with this time constant.
const IN_FLIGHT_TAU_S: f64 = 4.0;

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
    /// Attempts that this agent had running there as it started, itself included. 0: not
    /// known.
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

    /// Its end is known: its silence counts no more.
    #[must_use]
    pub(crate) fn proven(self) -> Self {
        Self { doubted: None, ..self }
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
        let in_flight = ticket.in_flight;
        let in_force = slot.slow(now).0;
        let (ttft_s, tpot_s) = learner::times(&sample, || in_force, in_flight);
        if ticket.begun {
            slot.learner.rest(now, &sample, in_flight, expected);
        } else {
            let ratios = slot.learner.answer(now, &sample, in_flight, expected);
            if let Some(ratios) = ratios.filter(|_| ticket.in_flight_own > 0) {
                slot.learner.learn_load(now, in_flight, ratios);
            }
            slot.moment.first(now, &in_force, sample.fresh_input(), ttft_s, in_flight);
        }
        if let Some(tpot_s) = tpot_s {
            slot.moment.rest(now, &in_force, tpot_s, in_flight);
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
        let (ttft, in_force) = (now.since(ticket.started), slot.slow(now).0);
        slot.learner.first(now, fresh, ttft, ticket.in_flight);
        slot.moment.first(now, &in_force, fresh, ttft.as_secs_f64().max(1e-4), ticket.in_flight);
        Ticket { begun: true, ..ticket.proven() }
    }

    /// What a result says of failures and breaks.
    pub(super) fn tally(&mut self, ticket: Ticket, now: Timestamp, sample: breaker::Sample) {
        let Some(slot) = self.slot_mut(ticket.slot) else { return };
        // The outcome takes the place of the doubt. An attempt that was dropped has none:
        // it stays in doubt unless the deployment answered another meanwhile.
        let alive = slot.heard.is_some_and(|heard| heard >= ticket.started);
        if let Some(then) = ticket.doubted.filter(|_| sample != breaker::Sample::Neutral || alive) {
            slot.learner.clear(then);
        }
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

    /// An attempt is silent for longer than predicted. The ticket that is returned knows
    /// so: with its result that is replaced.
    pub(crate) fn doubt(&mut self, ticket: Ticket, now: Timestamp) -> Ticket {
        match self.slot_mut(ticket.slot) {
            Some(slot) if ticket.doubted.is_none() => {
                slot.learner.suspect(now);
                Ticket { doubted: Some(now), ..ticket }
            }
            _ => ticket,
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
        let (in_force, basis) = slot.slow_or(own.slow, now);
        let [ttft_now, tpot_now] = match basis {
            Basis::Fleet => slot.moment.against(now, &in_force),
            _ => [own.ttft_now, own.tpot_now],
        };
        let basis = match in_force.samples {
            0 => Basis::Unknown,
            few if few < SAMPLES_MIN => Basis::Mean,
            _ => basis,
        };
        let mut moments = [ttft_now, tpot_now, own.errors, own.breaks];
        let (in_flight, load_age) = slot.in_flight_of_all(now);
        let mut seen = slot.learner.newest().map(|newest| now.since(newest));
        let fresh = slot.fleet.filter(|fleet| fleet.is_fresh(now));
        if let Some(Adopted { at, agents, model }) = fresh {
            let age = now.since(at);
            let [ttft_off, tpot_off] = slot.between(&model.slow, &in_force, in_flight);
            let shifted = |sums: Sums, off: f64| Sums { sum: sums.sum + sums.weight * off, ..sums };
            let theirs = [
                shifted(model.ttft_now.after(age, IDLE_TAU_S), ttft_off),
                shifted(model.tpot_now.after(age, IDLE_TAU_S), tpot_off),
                model.errors.after(age, ERROR_TAU_S),
                model.breaks.after(age, BREAK_TAU_S),
            ];
            let others = 1.0 - 1.0 / f64::from(agents);
            moments = core::array::from_fn(|at| moments[at].with(theirs[at].times(others)));
            seen = seen.into_iter().chain(model.newest_age.map(|newest| newest + age)).min();
        }
        let alone = fresh.is_none_or(|fleet| fleet.agents <= 1);
        Knowledge {
            slow: in_force,
            basis,
            moments,
            in_flight,
            age_s: if alone { 0.0 } else { load_age.as_secs_f64() },
            unseen_s: unseen(seen),
        }
    }
}

impl Adopted {
    fn is_fresh(&self, now: Timestamp) -> bool {
        now.since(self.at) <= FLEET_AGE_MAX
    }
}

impl Slot {
    /// The slow model in force: of the fleet's and the own one that which saw more lately.
    fn slow(&self, now: Timestamp) -> (Coefficients, Basis) {
        self.slow_or(self.learner.slow(now), now)
    }

    fn slow_or(&self, own: Coefficients, now: Timestamp) -> (Coefficients, Basis) {
        match self.fleet.filter(|fleet| fleet.is_fresh(now)) {
            Some(fleet) if fleet.model.slow.samples > own.samples => (fleet.model.slow, Basis::Fleet),
            _ => (own, Basis::Own),
        }
    }

    /// What ln(TTFT) and ln(seconds per token) are by the one model less by the other, for
    /// the usual input beside so many requests.
    fn between(&self, one: &Coefficients, other: &Coefficients, in_flight: f64) -> [f64; 2] {
        if one == other {
            return [0.0; 2];
        }
        let inputs = self.moment.inputs();
        let ttft = |slow: &Coefficients| {
            regression::dot(&slow.ln_ttft, &inputs) + math::ln(load::factor(slow.beta, in_flight + 1.0))
        };
        let tpot =
            |slow: &Coefficients| slow.ln_tpot + math::ln(load::factor(slow.tpot_beta, in_flight + 1.0));
        [ttft(one) - ttft(other), tpot(one) - tpot(other)]
    }

    /// Requests that run there over all agents, and how old the news of the others' are.
    /// What is not known of them any more is taken to be as it is here: where models are
    /// learned against the load of all agents, the own one alone would say nothing.
    pub(super) fn in_flight_of_all(&self, now: Timestamp) -> (f64, Duration) {
        let own = f64::from(self.in_flight);
        let Some(fleet) = self.fleet else { return (own, Duration::ZERO) };
        let age = now.since(fleet.at) + fleet.model.in_flight_age;
        let agents = f64::from(fleet.agents);
        let fresh = math::decay(age, IN_FLIGHT_TAU_S);
        let known = fleet.model.in_flight * (1.0 - 1.0 / agents) + own;
        (fresh * known + (1.0 - fresh) * agents * own, age)
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
