//! A provider while a run goes on: what it does with a call, and what a call would
//! truly have to expect.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};
use trunkline_routing::{
    money::{NanoUsd, Tokens},
    time::Timestamp,
};

use crate::{
    limits::{RateGate, RateLimits},
    math,
    model::ErrorRates,
    outage::OutageKind,
    scenario::{Effect, Incident, PriceSpec, ProviderSpec, Scenario},
    script::Chance,
    traffic::Arrival,
};

/// A refusal needs no model run, so it comes back quickly.
const REFUSAL: Duration = Duration::from_millis(15);
/// Retry-After of a 429 that came by chance.
const CHANCE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// What a first pick that fails costs in [`Truth::expected_s`]: the time after which a
/// client that knows nothing would notice.
const NOTICED_AFTER_S: f64 = 10.0;

/// One provider.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) spec: ProviderSpec,
    incidents: Vec<Incident>,
    gate: RateGate,
    /// Calls that it works on.
    pub(crate) in_flight: u32,
}

/// What it does with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Course {
    /// An error status.
    Refused { status: u16, after: Duration, retry_after: Option<Duration> },
    /// The connection is reset.
    Reset { after: Duration },
    /// Nothing, ever.
    Silent,
    /// A 200 without content.
    Empty { after: Duration },
    /// An answer; cut off at `breaks` if that is there.
    Answer { ttft: Duration, total: Duration, output_tokens: u32, breaks: Option<Duration> },
}

/// What a call would have to expect now. Nobody but the run knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truth {
    /// Whether the deployment may serve the request at all.
    pub(crate) fits: bool,
    /// Mean time to first token, if it answers.
    pub(crate) ttft_s: f64,
    /// Mean time to last token, if it answers.
    pub(crate) total_s: f64,
    /// Chance that no content comes.
    pub(crate) fails: f64,
    /// Chance that the answer breaks off.
    pub(crate) breaks: f64,
    /// Mean cost.
    pub(crate) cost: NanoUsd,
}

/// The provider's state now.
struct Now {
    outage: Option<OutageKind>,
    slow: f64,
    errors: ErrorRates,
    limits: RateLimits,
}

impl Provider {
    /// The providers of a scenario, each with what will happen to it.
    pub(crate) fn all(scenario: &Scenario) -> Vec<Self> {
        let specs = (1..).zip(scenario.providers());
        let provider = |(place, spec): (usize, &ProviderSpec)| {
            let incidents = scenario.incidents.iter().filter(|incident| incident.provider == place);
            Self {
                spec: spec.clone(),
                incidents: incidents.cloned().collect(),
                gate: RateGate::default(),
                in_flight: 0,
            }
        };
        specs.map(provider).collect()
    }

    /// Whether the scenario does something to it.
    pub(crate) fn watched(&self) -> bool {
        !self.incidents.is_empty()
    }

    /// Whether it is configured.
    pub(crate) fn is_present(&self, now: Timestamp) -> bool {
        !self.incidents.iter().any(|incident| incident.effect == Effect::Absent && incident.is_active(now))
    }

    /// What it charges.
    pub(crate) fn price(&self, now: Timestamp) -> PriceSpec {
        let active = self.incidents.iter().rev().filter(|incident| incident.is_active(now));
        let mut prices = active.filter_map(|incident| match incident.effect {
            Effect::Price(price) => Some(price),
            _ => None,
        });
        prices.next().unwrap_or(self.spec.price)
    }

    /// When its price last changed.
    pub(crate) fn priced_since(&self, now: Timestamp) -> Timestamp {
        let priced = self.incidents.iter().filter(|incident| matches!(incident.effect, Effect::Price(_)));
        let moments = priced.flat_map(|incident| {
            [Some(incident.start_s), incident.duration_s.map(|duration| incident.start_s + duration)]
        });
        let moments = moments.flatten().map(|moment| Timestamp::ZERO + math::seconds(moment));
        moments.filter(|moment| *moment <= now).max().unwrap_or(Timestamp::ZERO)
    }

    /// What so many tokens cost.
    pub(crate) fn cost(&self, now: Timestamp, input: u64, output: u64) -> NanoUsd {
        self.price(now).rates().cost(Tokens { input, cached_input: 0, output })
    }

    /// Whether it can serve the request at all.
    pub(crate) fn fits(&self, request: &Arrival, now: Timestamp) -> bool {
        let spec = &self.spec;
        let output = spec.max_output_tokens.is_none_or(|most| request.max_output_tokens.unwrap_or(0) <= most);
        let window = spec.context_window.is_none_or(|window| request.input_tokens <= window);
        output && window && self.is_present(now)
    }

    /// Tokens of its answer.
    pub(crate) fn output_tokens(&self, request: &Arrival) -> u32 {
        let wanted = (f64::from(request.output_tokens) * self.spec.verbosity).max(1.0) as u32;
        let most = [request.max_output_tokens, self.spec.max_output_tokens].into_iter().flatten().min();
        wanted.min(most.unwrap_or(u32::MAX)).max(1)
    }

    fn now(&self, now: Timestamp) -> Now {
        let model = &self.spec.model;
        let mut state = Now { outage: None, slow: 1.0, errors: model.errors, limits: model.limits };
        let mut suffer = |kind| match kind {
            OutageKind::Slow(factor) => state.slow *= factor,
            kind => state.outage = state.outage.or(Some(kind)),
        };
        model.outages.iter().filter(|outage| outage.is_active(now)).for_each(|outage| suffer(outage.kind));
        for incident in self.incidents.iter().filter(|incident| incident.is_active(now)) {
            match incident.effect {
                Effect::Outage(kind) => suffer(kind),
                Effect::Errors(rates) => state.errors = state.errors.with(&rates),
                Effect::Limits(limits) => state.limits = limits,
                Effect::Absent | Effect::Price(_) => {}
            }
        }
        state
    }

    /// Takes a call. `chance` is the call's own: drawn in the same order whatever comes,
    /// so that two policies that send the same call here meet the same luck.
    pub(crate) fn take(&mut self, now: Timestamp, request: &Arrival, chance: &mut StdRng) -> Course {
        let state = self.now(now);
        let noise = Noise::draw(chance);
        match state.outage {
            Some(OutageKind::Errors503) => {
                return Course::Refused { status: 503, after: REFUSAL, retry_after: None };
            }
            Some(OutageKind::Reset) => return Course::Reset { after: REFUSAL },
            Some(OutageKind::BlackHole) => return Course::Silent,
            Some(OutageKind::Slow(_)) | None => {}
        }
        let asked = u64::from(request.input_tokens) + u64::from(request.max_output_tokens.unwrap_or(0));
        if let Err(wait) = self.gate.admit(&state.limits, now, asked) {
            return Course::Refused { status: 429, after: REFUSAL, retry_after: Some(wait) };
        }
        let refused = |status, retry_after| Course::Refused { status, after: REFUSAL, retry_after };
        let (ttft, total, output_tokens) = self.answer(request, &state, &noise);
        match state.errors.pick(noise.fate) {
            Chance::Refused(429, _) => refused(429, Some(CHANCE_RETRY_AFTER)),
            Chance::Refused(status, retry_after) => refused(status, retry_after),
            Chance::Silent => Course::Silent,
            Chance::Empty => Course::Empty { after: ttft },
            Chance::Break => {
                let breaks = Some(ttft + total.saturating_sub(ttft).mul_f64(noise.place));
                Course::Answer { ttft, total, output_tokens, breaks }
            }
            Chance::Fine => Course::Answer { ttft, total, output_tokens, breaks: None },
        }
    }

    fn answer(&self, request: &Arrival, state: &Now, noise: &Noise) -> (Duration, Duration, u32) {
        let model = &self.spec.model;
        let load = model.congestion.multiplier(self.in_flight + 1);
        let idle = model.ttft.base_s + model.ttft.per_1k_input_s * f64::from(request.input_tokens) / 1000.0;
        let ttft = idle * math::exp(model.ttft.sigma * noise.ttft) * load * state.slow;
        let tokens = self.output_tokens(request);
        // The sum of so many lognormal gaps, by the central limit theorem.
        let count = f64::from(tokens - 1);
        let mean = model.tpot.median_s * math::exp(model.tpot.sigma * model.tpot.sigma / 2.0);
        let spread = math::sqrt(math::exp(model.tpot.sigma * model.tpot.sigma) - 1.0);
        let gaps = mean * (count + spread * math::sqrt(count) * noise.gaps).max(0.1 * count);
        let speed = math::exp(self.spec.answer_sigma * noise.answer);
        let rest = gaps * speed * model.congestion.decode(load) * state.slow;
        let ttft = math::seconds(ttft);
        (ttft, ttft + math::seconds(rest), tokens)
    }

    /// What a call would have to expect, were it sent now.
    pub(crate) fn truth(&self, now: Timestamp, request: &Arrival) -> Truth {
        let state = self.now(now);
        let model = &self.spec.model;
        let load = model.congestion.multiplier(self.in_flight + 1);
        let idle = model.ttft.base_s + model.ttft.per_1k_input_s * f64::from(request.input_tokens) / 1000.0;
        let mean = |sigma: f64| math::exp(sigma * sigma / 2.0);
        let ttft_s = idle * mean(model.ttft.sigma) * load * state.slow;
        let tokens = self.output_tokens(request);
        let tpot = model.tpot.median_s * mean(model.tpot.sigma) * mean(self.spec.answer_sigma);
        let rest_s = f64::from(tokens - 1) * tpot * model.congestion.decode(load) * state.slow;
        let asked = u64::from(request.input_tokens) + u64::from(request.max_output_tokens.unwrap_or(0));
        let limited = self.gate.clone().admit(&state.limits, now, asked).is_err();
        let certain = state.outage.is_some() || limited;
        let breaks = state.errors.mid_stream_break;
        Truth {
            fits: self.fits(request, now),
            ttft_s,
            total_s: ttft_s + rest_s,
            fails: if certain { 1.0 } else { (state.errors.sum() - breaks).clamp(0.0, 1.0) },
            breaks,
            cost: self.cost(now, request.input_tokens.into(), tokens.into()),
        }
    }
}

impl Truth {
    /// The mean time to a whole answer of a request that is sent here first, where
    /// `other_s` is that of the best other deployment.
    pub(crate) fn expected_s(&self, other_s: f64) -> f64 {
        (1.0 - self.fails) * self.total_s + self.fails * (NOTICED_AFTER_S + other_s)
    }
}

/// All the luck of one call.
struct Noise {
    fate: f64,
    place: f64,
    ttft: f64,
    answer: f64,
    gaps: f64,
}

impl Noise {
    fn draw(chance: &mut StdRng) -> Self {
        Self {
            fate: chance.random(),
            place: chance.random(),
            ttft: math::standard_normal(chance),
            answer: math::standard_normal(chance),
            gaps: math::standard_normal(chance),
        }
    }
}
