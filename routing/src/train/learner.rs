//! What is learned of one deployment, online and in constant space.
//!
//! Slow parts: the time to first token by input size, the time per output token, the
//! load curve. Fast parts: how far the last seconds were off the slow parts, failures,
//! streams that broke off. All fades by elapsed time, never by samples.

use core::time::Duration;

use super::{
    Sample, SampleKind,
    evidence::Evidence,
    load::{self, Load},
    model::{Coefficients, DeploymentModel},
    regression::{Regression, dot, features},
};
use crate::{math, score::SAMPLES_MIN, time::Timestamp};

/// Seconds after which a sample of the moment weighs 1/e, once newer ones came ...
pub(crate) const FRESH_TAU_S: f64 = 4.0;
/// ... and while none come.
pub(crate) const IDLE_TAU_S: f64 = 30.0;
/// The same for failures, and for streams that broke off.
pub(crate) const ERROR_TAU_S: f64 = 10.0;
pub(crate) const BREAK_TAU_S: f64 = 150.0;
/// The same for the time per output token and the verbosity.
const SLOW_TAU_S: f64 = 1_800.0;
/// Samples that draw the state of the moment to the slow model.
pub(crate) const MOMENT_STRENGTH: f64 = 1.5;
/// The state that is no load is that of so many seconds: longer than bursts, shorter
/// than incidents.
const LATELY_TAU_S: f64 = 30.0;
const LATELY_STRENGTH: f64 = 3.0;
/// Answers after which the reference for load is set.
const REFERENCE_SAMPLES: f64 = 10.0;
/// Answers shorter than this say nothing about the time per token.
const TPOT_TOKENS_MIN: u64 = 8;
/// Residuals beyond these factors (e^3 is 20) say no more than these.
pub(crate) const RESIDUAL_MAX: f64 = 3.0;
/// A silent attempt counts as this much of a failure until its end is known.
const SUSPECT_WEIGHT: f64 = 0.7;
/// Standard deviations at which the slow model clips its error, and the least clip.
const CLIP_SIGMAS: f64 = 2.5;
const CLIP_MIN: f64 = 0.5;
/// Variance of ln(actual / predicted) that is assumed first, as by so many samples, and
/// the weight of a new one later.
const SIGMA2_FIRST: f64 = 0.09;
const SIGMA2_FIRST_SAMPLES: f64 = 20.0;
const SIGMA2_WEIGHT: f64 = 0.01;
const SIGMA2_RANGE: (f64, f64) = (0.0025, 1.0);
/// Seconds that a sample may say.
const SECONDS_RANGE: (f64, f64) = (1e-4, 3_600.0);
/// Seconds per token that a sample may say at least.
const TPOT_MIN_S: f64 = 1e-6;
/// Answers that draw the verbosity to 1, and the range it is in.
const VERBOSITY_STRENGTH: f64 = 5.0;
const VERBOSITY_RANGE: (f64, f64) = (0.05, 20.0);
/// Of a whole answer of which nothing is known, this share is taken for the wait.
const WAIT_SHARE: f64 = 0.2;
/// What was kept over a restart counts as so many samples at most.
const RESTORED_SAMPLES: u64 = 50;
/// Seconds per token that are assumed first.
pub(crate) const TPOT_GUESS_S: f64 = 0.02;

/// Times expected without load over the times taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratios {
    ttft: f64,
    tpot: Option<f64>,
}

/// The state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learner {
    ttft: Regression,
    tpot: Evidence,
    load: Load,
    tpot_load: Load,
    /// Intercepts that load is measured against. They stay as they were: with the running
    /// ones, which move with beta, beta would chase itself.
    reference: Option<f64>,
    tpot_reference: Option<f64>,
    ttft_now: Evidence,
    /// The same over a longer time: what is no load.
    ttft_lately: Evidence,
    tpot_lately: Evidence,
    tpot_now: Evidence,
    errors: Evidence,
    breaks: Evidence,
    verbosity: Evidence,
    sigma2: Option<f64>,
    newest: Option<Timestamp>,
}

impl Learner {
    /// One that knows what was published of it at `at`.
    pub(crate) fn restored(model: &DeploymentModel, at: Timestamp) -> Self {
        let Coefficients { samples, ln_ttft, ln_tpot, beta, tpot_beta, sigma2, verbosity } = model.slow;
        let mut learner = Self {
            ttft: Regression::restored(ln_ttft, samples.min(RESTORED_SAMPLES)),
            load: Load::restored(beta, at),
            tpot_load: Load::restored(tpot_beta, at),
            sigma2: Some(sigma2),
            newest: model.newest_age.map(|age| at - age),
            ..Self::default()
        };
        let weight = samples.min(RESTORED_SAMPLES) as f64;
        learner.tpot.add(at, ln_tpot, weight, SLOW_TAU_S);
        learner.verbosity.add(at, verbosity, weight, SLOW_TAU_S);
        learner
    }

    /// One attempt that ended. `in_flight`: requests it met there, itself included.
    /// `expected_output`: tokens that its kind has on average.
    /// The answer is what [`Self::answer`] says.
    pub(crate) fn learn(
        &mut self,
        now: Timestamp,
        sample: &Sample,
        in_flight: f64,
        expected_output: f64,
    ) -> Option<Ratios> {
        match sample.kind {
            SampleKind::Ok => {
                self.attempt(now, false);
                self.stream_ended(now, false);
                return self.answer(now, sample, in_flight, expected_output);
            }
            SampleKind::Broke => {
                self.attempt(now, false);
                self.stream_ended(now, true);
            }
            SampleKind::Failed | SampleKind::Silent => self.attempt(now, true),
            // It was dropped while it may have been well: its time says "at least".
            SampleKind::Overtaken => {}
        }
        None
    }

    /// An attempt began to answer, or failed.
    pub(crate) fn attempt(&mut self, now: Timestamp, failed: bool) {
        self.errors.add(now, f64::from(u8::from(failed)), 1.0, ERROR_TAU_S);
    }

    /// An attempt looks bad so far, and no other began to answer meanwhile.
    pub(crate) fn suspect(&mut self, now: Timestamp) {
        self.errors.add(now, 1.0, SUSPECT_WEIGHT, ERROR_TAU_S);
    }

    /// What came of an attempt that was suspected `then` is known, or it proved nothing.
    pub(crate) fn clear(&mut self, then: Timestamp) {
        self.errors.take_back(then, 1.0, SUSPECT_WEIGHT, ERROR_TAU_S);
    }

    /// An answer that had begun ended, or broke off.
    pub(crate) fn stream_ended(&mut self, now: Timestamp, broke_off: bool) {
        self.breaks.add(now, f64::from(u8::from(broke_off)), 1.0, BREAK_TAU_S);
    }

    /// The first content of an answer to so many fresh input tokens.
    pub(crate) fn first(&mut self, now: Timestamp, fresh_input: f64, ttft: Duration, in_flight: f64) {
        let ttft = math::finite(ttft.as_secs_f64(), SECONDS_RANGE.0, SECONDS_RANGE.1, SECONDS_RANGE.1);
        if let Some(ttft) = self.learn_ttft(now, ttft, &features(fresh_input), in_flight) {
            self.load.learn(now, in_flight, ttft);
        }
    }

    /// The rest of an answer whose first content was told to [`Self::first`].
    pub(crate) fn rest(&mut self, now: Timestamp, sample: &Sample, in_flight: f64, expected_output: f64) {
        let (_, tpot) = times(sample, || self.slow(now), in_flight);
        if let Some(tpot) = self.learn_tpot(now, tpot, in_flight) {
            self.tpot_load.learn(now, in_flight, tpot);
        }
        self.learn_length(now, sample, expected_output);
    }

    /// A whole answer. Returns the times expected without load over those taken, for
    /// [`Self::learn_load`].
    pub(crate) fn answer(
        &mut self,
        now: Timestamp,
        sample: &Sample,
        in_flight: f64,
        expected_output: f64,
    ) -> Option<Ratios> {
        let x = features(sample.fresh_input());
        let (ttft, tpot) = times(sample, || self.slow(now), in_flight);
        let tpot = self.learn_tpot(now, tpot, in_flight);
        let ttft = self.learn_ttft(now, ttft, &x, in_flight);
        self.learn_length(now, sample, expected_output);
        ttft.map(|ttft| Ratios { ttft, tpot })
    }

    /// What an answer says of load, once the requests that it met are known.
    pub(crate) fn learn_load(&mut self, now: Timestamp, in_flight: f64, ratios: Ratios) {
        self.load.learn(now, in_flight, ratios.ttft);
        if let Some(tpot) = ratios.tpot {
            self.tpot_load.learn(now, in_flight, tpot);
        }
    }

    fn learn_length(&mut self, now: Timestamp, sample: &Sample, expected_output: f64) {
        let tokens = sample.output_tokens as f64;
        if tokens > 0.0 && expected_output > 0.0 {
            let length = math::finite(tokens / expected_output, 0.0, VERBOSITY_RANGE.1, 1.0);
            self.verbosity.add(now, length, 1.0, SLOW_TAU_S);
        }
    }

    fn learn_tpot(&mut self, now: Timestamp, tpot: Option<f64>, in_flight: f64) -> Option<f64> {
        let actual = math::ln(math::finite(tpot?, TPOT_MIN_S, SECONDS_RANGE.1, SECONDS_RANGE.1));
        let value = actual - math::ln(load::factor(self.tpot_load.beta(), in_flight));
        let first = self.tpot.read(now, SLOW_TAU_S).weight < 0.5;
        let clip = if first { f64::INFINITY } else { 1.0 };
        let slow = self.ln_tpot(now);
        self.tpot.add(now, slow + (value - slow).clamp(-clip, clip), 1.0, SLOW_TAU_S);
        let residual = (value - slow).clamp(-RESIDUAL_MAX, RESIDUAL_MAX);
        self.tpot_now.add(now, if first { 0.0 } else { residual }, 1.0, FRESH_TAU_S);
        let lately = self.tpot_lately.read(now, LATELY_TAU_S).mean(0.0, LATELY_STRENGTH);
        self.tpot_lately.add(now, if first { 0.0 } else { residual }, 1.0, LATELY_TAU_S);
        if self.tpot_reference.is_none() && self.tpot.read(now, SLOW_TAU_S).weight >= REFERENCE_SAMPLES {
            self.tpot_reference = Some(self.ln_tpot(now));
        }
        Some(math::exp((self.tpot_reference? + lately - actual).clamp(-5.0, 5.0)))
    }

    fn learn_ttft(&mut self, now: Timestamp, ttft: f64, x: &[f64; 3], in_flight: f64) -> Option<f64> {
        let actual = math::ln(ttft);
        let curve = math::ln(load::factor(self.load.beta(), in_flight));
        let known = self.ttft.samples() > 0;
        let base = dot(self.ttft.coefficients(), x);
        let moment = self.ttft_now.read(now, IDLE_TAU_S).mean(0.0, MOMENT_STRENGTH);
        let sigma2 = self.sigma2(now);
        let clip = (CLIP_SIGMAS * math::sqrt(sigma2)).max(CLIP_MIN);
        let elapsed = self.newest.map_or(Duration::ZERO, |newest| now.since(newest));
        if known {
            let surprise = (actual - base - curve - moment).clamp(-1.0, 1.0);
            let samples = self.ttft.samples() as f64;
            let weight = SIGMA2_WEIGHT.max(1.0 / (samples + SIGMA2_FIRST_SAMPLES));
            let next = sigma2 + weight * (surprise * surprise - sigma2);
            self.sigma2 = Some(math::finite(next, SIGMA2_RANGE.0, SIGMA2_RANGE.1, SIGMA2_FIRST));
        }
        self.ttft.learn(x, actual - curve, clip, elapsed);
        let residual = if known { actual - base - curve } else { 0.0 };
        self.ttft_now.add(now, residual.clamp(-RESIDUAL_MAX, RESIDUAL_MAX), 1.0, FRESH_TAU_S);
        self.newest = self.newest.max(Some(now));
        let lately = self.ttft_lately.read(now, LATELY_TAU_S).mean(0.0, LATELY_STRENGTH);
        self.ttft_lately.add(now, residual.clamp(-RESIDUAL_MAX, RESIDUAL_MAX), 1.0, LATELY_TAU_S);
        let coefficients = self.ttft.coefficients();
        if self.reference.is_none() && self.ttft.samples() as f64 >= REFERENCE_SAMPLES {
            self.reference = Some(coefficients[0]);
        }
        let unloaded = self.reference? + dot(coefficients, x) - coefficients[0];
        Some(math::exp((unloaded + lately - actual).clamp(-5.0, 5.0)))
    }

    fn ln_tpot(&self, now: Timestamp) -> f64 {
        let sums = self.tpot.read(now, SLOW_TAU_S);
        if sums.weight > 0.0 { sums.sum / sums.weight } else { math::ln(TPOT_GUESS_S) }
    }

    fn sigma2(&self, _now: Timestamp) -> f64 {
        self.sigma2.unwrap_or(SIGMA2_FIRST)
    }

    /// How much longer than others it answers.
    pub(crate) fn verbosity(&self, now: Timestamp) -> f64 {
        let mean = self.verbosity.read(now, SLOW_TAU_S).mean(1.0, VERBOSITY_STRENGTH);
        math::finite(mean, VERBOSITY_RANGE.0, VERBOSITY_RANGE.1, 1.0)
    }

    /// When the newest whole answer came.
    pub(crate) const fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// The slow parts.
    pub(crate) fn slow(&self, now: Timestamp) -> Coefficients {
        let elapsed = self.newest.map_or(Duration::ZERO, |newest| now.since(newest));
        let left = (self.ttft.weight(elapsed) + 0.5) as u64;
        Coefficients {
            // A model that was good enough to be believed stays one, however old.
            samples: left.max(self.ttft.samples().min(SAMPLES_MIN)),
            ln_ttft: *self.ttft.coefficients(),
            ln_tpot: self.ln_tpot(now),
            beta: self.load.beta(),
            tpot_beta: self.tpot_load.beta(),
            sigma2: self.sigma2(now),
            verbosity: self.verbosity(now),
        }
    }

    /// What it knows.
    pub(crate) fn model(&self, now: Timestamp) -> DeploymentModel {
        DeploymentModel {
            slow: self.slow(now),
            ttft_now: self.ttft_now.read(now, IDLE_TAU_S),
            tpot_now: self.tpot_now.read(now, IDLE_TAU_S),
            errors: self.errors.read(now, ERROR_TAU_S),
            breaks: self.breaks.read(now, BREAK_TAU_S),
            newest_age: self.newest.map(|newest| now.since(newest)),
            ..DeploymentModel::default()
        }
    }
}

/// Seconds to the first token and per token after it; none of the latter if they were
/// few. Of an answer in one piece only the end is seen: its time is split as the model
/// would, and both parts get their share of the surprise.
pub(crate) fn times(
    sample: &Sample,
    slow: impl FnOnce() -> Coefficients,
    in_flight: f64,
) -> (f64, Option<f64>) {
    let clamp = |seconds: f64| math::finite(seconds, SECONDS_RANGE.0, SECONDS_RANGE.1, SECONDS_RANGE.1);
    let total = clamp(sample.duration.as_secs_f64());
    let tokens = sample.output_tokens as f64;
    let many = sample.output_tokens >= TPOT_TOKENS_MIN;
    if let Some(ttft) = sample.ttft {
        let ttft = clamp(ttft.as_secs_f64()).min(total);
        return (ttft, many.then(|| clamp((total - ttft) / (tokens - 1.0).max(1.0))));
    }
    if !many {
        return (total, None);
    }
    let slow = slow();
    if slow.samples == 0 {
        return (total * WAIT_SHARE, Some(total * (1.0 - WAIT_SHARE) / tokens));
    }
    let ttft = math::exp(dot(&slow.ln_ttft, &features(sample.fresh_input())));
    let ttft = ttft * load::factor(slow.beta, in_flight);
    let tpot = math::exp(slow.ln_tpot) * load::factor(slow.tpot_beta, in_flight);
    let surprise = total / (ttft + tokens * tpot);
    (ttft * surprise, Some(tpot * surprise))
}
