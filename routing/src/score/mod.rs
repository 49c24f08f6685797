//! Predicts one request at one deployment: time to first token, time per output token,
//! length of the answer, failures, cost.
//!
//! ```text
//! TTFT    = exp(w.x + ln load + moment)     x: input size; load: requests in flight
//! J       = TTFT + output * TPOT
//! seconds = J + odds of failure * (min(8 s, 2 TTFT) + J) + chance of a break * 200 s
//! ```
//!
//! What an agent saw itself and what the control plane says of the others' evidence are
//! added, each faded by its age. Without a model that can be used the mean of the few
//! answers seen stands in; without any the caller balances by requests in flight.

use crate::math;
use crate::{
    decide::Route,
    eligibility::{Profile, price_of},
    money::{NanoUsd, Tokens},
    registry::{Binding, Knowledge, Registry},
    table::{Affinity, DeploymentIndex, RoutingTable},
    time::Timestamp,
    train::{self, Sums, learner, load, outputs, regression},
};

pub(crate) mod sessions;

/// Price of a stream that broke off: it can't be repeated behind the caller's back.
const BREAK_PRICE_S: f64 = 200.0;
/// A failure is noticed after twice the usual wait, at most after so long.
const NOTICED_MAX_S: f64 = 8.0;
/// Failures that are assumed before any are seen: a rate, and its strength in attempts.
const ERROR_PRIOR: (f64, f64) = (0.01, 2.0);
/// The same for streams that break off.
const BREAK_PRIOR: (f64, f64) = (0.0, 20.0);
/// The odds of failure count to that chance only, so that no price is infinite.
const ERROR_MAX: f64 = 0.95;
/// Answers seen before a model is believed.
pub(crate) const SAMPLES_MIN: u64 = 5;
/// Range of predicted seconds.
const SECONDS: (f64, f64) = (1e-4, 3_600.0);
/// Most output tokens expected.
const OUTPUT_MAX: f64 = 1e6;

/// What a prediction rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Basis {
    /// The control plane's model, learned from all agents.
    Fleet,
    /// This agent's own model.
    Own,
    /// A few answers.
    Mean,
    /// Nothing: the numbers are guesses.
    #[default]
    Unknown,
}

impl Basis {
    /// As shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Own => "own",
            Self::Mean => "mean",
            Self::Unknown => "unknown",
        }
    }
}

/// The terms behind a prediction, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Seconds to the first token by input size alone.
    pub base_ttft_s: f64,
    /// How many times slower by the requests in flight.
    pub load_factor: f64,
    /// How many times slower by the last seconds.
    pub moment_factor: f64,
    /// Seconds for the output.
    pub output_s: f64,
    /// Seconds that failures are expected to cost.
    pub error_s: f64,
    /// Seconds that streams breaking off are priced at.
    pub break_s: f64,
    /// Input tokens expected to be cached there.
    pub cached_tokens: f64,
}

/// A prediction of one request at one deployment. All numbers are finite.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Seconds until the first token.
    pub ttft_s: f64,
    /// Seconds per output token.
    pub tpot_s: f64,
    /// Output tokens.
    pub output_tokens: f64,
    /// Standard deviation of ln(actual / predicted TTFT).
    pub sigma: f64,
    /// Requests that run there, over all agents, without this one.
    pub in_flight: f64,
    /// Share of its unloaded speed that is used up: beta times requests, 0 to 1.
    pub load: f64,
    /// By how many percent an answer takes longer per percent of further requests in
    /// flight. Over 1: with every further request fewer are answered.
    pub crowding: f64,
    /// Seconds since the newest news of other agents' load. 0: there are none.
    pub age_s: f64,
    /// Chance that an attempt fails before its first content.
    pub p_error: f64,
    /// Chance that an answer breaks off.
    pub p_break: f64,
    /// Expected seconds with failures priced in: what LATENCY minimises.
    pub seconds: f64,
    /// Expected cost. None: no price is known.
    pub cost: Option<NanoUsd>,
    /// Seconds since an answer was last seen from there, at most a day.
    pub unseen_s: f64,
    /// What it rests on.
    pub basis: Basis,
    /// The terms of it.
    pub terms: Terms,
}

impl Estimate {
    /// Seconds until the first content that the caller sees: of a stream the first
    /// token, else the whole answer.
    pub const fn first_s(&self, stream: bool) -> f64 {
        if stream { self.ttft_s } else { self.ttft_s + self.output_tokens * self.tpot_s }
    }

    /// Seconds until the answer is whole, if nothing fails.
    pub const fn total_s(&self) -> f64 {
        self.ttft_s + self.output_tokens * self.tpot_s
    }
}

/// Elasticity of an answer's time by the requests in flight. What is answered per second
/// is in flight / time (Little 1961): it falls from where this is over 1.
fn crowding(ttft_s: f64, output_s: f64, slow: &train::Coefficients, in_flight: f64) -> f64 {
    let part = |beta: f64| load::factor(beta, in_flight) * beta * in_flight;
    let parts = ttft_s * part(slow.beta) + output_s * part(slow.tpot_beta);
    math::finite(parts / (ttft_s + output_s), 0.0, 1e6, 0.0)
}

/// Predicts the request at one deployment.
pub fn estimate(
    registry: &Registry,
    table: &RoutingTable,
    binding: &Binding,
    route: Route<'_>,
    deployment: DeploymentIndex,
    profile: &Profile,
    now: Timestamp,
) -> Estimate {
    let scorer = Scorer::new(registry, table, binding, route, profile, now);
    scorer.estimate(deployment)
}

/// Predicts one request at several deployments: what they share is looked up once.
#[derive(Debug)]
pub(crate) struct Scorer<'a> {
    registry: &'a Registry,
    table: &'a RoutingTable,
    binding: &'a Binding,
    profile: &'a Profile,
    now: Timestamp,
    /// Output tokens before verbosity.
    output_tokens: f64,
    /// Session, if it counts.
    session: Option<u64>,
}

impl<'a> Scorer<'a> {
    pub(crate) fn new(
        registry: &'a Registry,
        table: &'a RoutingTable,
        binding: &'a Binding,
        route: Route<'_>,
        profile: &'a Profile,
        now: Timestamp,
    ) -> Self {
        let id = train::route_id(&route.model.name);
        let key = train::output_key(id, profile.input_tokens.into(), profile.max_output_tokens);
        let output_tokens = outputs::expected(registry.output_sums(now, key));
        let session = profile.session.filter(|_| route.model.affinity == Affinity::Session);
        Self { registry, table, binding, profile, now, output_tokens, session }
    }

    pub(crate) fn estimate(&self, deployment: DeploymentIndex) -> Estimate {
        let Knowledge { slow, basis, moments, in_flight, age_s, unseen_s } =
            self.registry.knowledge(self.binding, deployment, self.now);
        let [ttft_now, tpot_now, failures, broken] = moments;
        let input = f64::from(self.profile.input_tokens);
        let cached = self
            .session
            .map_or(0.0, |session| self.registry.cached_tokens(self.binding, deployment, session, self.now))
            .min(input);
        let clamp = |seconds: f64| math::finite(seconds, SECONDS.0, SECONDS.1, SECONDS.1);
        let base = regression::dot(&slow.ln_ttft, &regression::features(input - cached));
        let load_factor = load::factor(slow.beta, in_flight + 1.0);
        let moment = |sums: Sums| math::finite(sums.mean(0.0, learner::MOMENT_STRENGTH), -3.0, 3.0, 0.0);
        let moment_factor = math::exp(moment(ttft_now));
        let base_ttft_s = clamp(math::exp(base));
        let ttft_s = clamp(base_ttft_s * load_factor * moment_factor);
        let tpot = math::exp(slow.ln_tpot + moment(tpot_now)) * load::factor(slow.tpot_beta, in_flight + 1.0);
        let tpot_s = math::finite(tpot, 1e-6, 60.0, 60.0);
        let limit = self.profile.max_output_tokens.map_or(OUTPUT_MAX, f64::from).min(OUTPUT_MAX);
        let output_tokens = math::finite(self.output_tokens * slow.verbosity, 1.0, OUTPUT_MAX, OUTPUT_MAX);
        let output_tokens = output_tokens.min(limit);
        let p_error = math::finite(failures.mean(ERROR_PRIOR.0, ERROR_PRIOR.1), 0.0, ERROR_MAX, ERROR_MAX);
        let p_break = math::finite(broken.mean(BREAK_PRIOR.0, BREAK_PRIOR.1), 0.0, 1.0, 1.0);
        let output_s = output_tokens * tpot_s;
        let whole = ttft_s + output_s;
        let error_s = p_error / (1.0 - p_error) * ((2.0 * ttft_s).min(NOTICED_MAX_S) + whole);
        let break_s = p_break * BREAK_PRICE_S;
        Estimate {
            ttft_s,
            tpot_s,
            output_tokens,
            sigma: math::finite(math::sqrt(slow.sigma2), 0.05, 1.0, 0.3),
            in_flight,
            crowding: crowding(ttft_s, output_s, &slow, in_flight + 1.0),
            load: math::finite(slow.beta * (in_flight + 1.0), 0.0, 1.0, 0.0),
            age_s,
            p_error,
            p_break,
            seconds: math::finite(whole + error_s + break_s, SECONDS.0, f64::MAX, f64::MAX),
            cost: self.cost(deployment, cached, output_tokens, p_error),
            unseen_s,
            basis,
            terms: Terms {
                base_ttft_s,
                load_factor,
                moment_factor,
                output_s,
                error_s,
                break_s,
                cached_tokens: cached,
            },
        }
    }

    /// Failed attempts are paid for too, as far as they got.
    fn cost(&self, deployment: DeploymentIndex, cached: f64, output: f64, p_error: f64) -> Option<NanoUsd> {
        let price = price_of(self.table.deployment(deployment), self.profile)?;
        let tokens = Tokens {
            input: self.profile.input_tokens.into(),
            cached_input: cached as u64,
            output: (output as u64).saturating_mul(self.profile.answers()),
        };
        let cost = price.cost(tokens).0;
        Some(NanoUsd(cost.saturating_add((cost as f64 * p_error) as u64)))
    }
}
