//! Recursive least squares on the logarithm of the time to first token.
//!
//! Features: 1, ln(1 + input/1,000), ln(1 + input/10,000). In logarithms a factor is a
//! sum, so that load and the state of the moment can be told apart from the size of the
//! input. Exponential forgetting by elapsed time; residuals are clipped (Huber 1964), so
//! that a stall does not bend the model. See Haykin, "Adaptive Filter Theory", ch. 10.

use core::time::Duration;

use crate::math;

/// Features of one request.
pub(crate) type Features = [f64; 3];

/// Seconds after which a sample weighs 1/e.
const TAU_S: f64 = 1_800.0;
/// Variance of ln(TTFT) around the model that the gain assumes.
const NOISE: f64 = 0.1;
/// Variance of the coefficients before the first sample, and the most it may grow to.
const DOUBT: Features = [1.0, 0.15, 0.15];
/// Share of the first doubt that is left in what was kept over a restart.
const RESTORED_DOUBT: f64 = 0.1;
/// No input makes the time to first token grow faster than by its square.
const SLOPE_MAX: f64 = 2.0;
/// Before anything is known: a long input takes somewhat longer.
const SLOPES: [f64; 2] = [0.05, 0.15];

/// Features of a request with so many tokens to read.
pub(crate) fn features(input_tokens: f64) -> Features {
    let tokens = input_tokens.max(0.0);
    [1.0, math::ln(1.0 + tokens / 1_000.0), math::ln(1.0 + tokens / 10_000.0)]
}

/// The model's value for these features.
pub(crate) fn dot(coefficients: &Features, x: &Features) -> f64 {
    coefficients[0] * x[0] + coefficients[1] * x[1] + coefficients[2] * x[2]
}

/// The state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regression {
    coefficients: Features,
    covariance: [Features; 3],
    samples: u64,
    /// What is left of their weight.
    weight: f64,
}

impl Default for Regression {
    fn default() -> Self {
        let mut covariance = [[0.0; 3]; 3];
        for (at, row) in covariance.iter_mut().enumerate() {
            row[at] = DOUBT[at];
        }
        Self { coefficients: [0.0, SLOPES[0], SLOPES[1]], covariance, samples: 0, weight: 0.0 }
    }
}

impl Regression {
    /// One that learned these from so many samples; doubt as after some.
    pub(crate) fn restored(coefficients: Features, samples: u64) -> Self {
        let fresh = Self::default();
        let covariance = fresh.covariance.map(|row| row.map(|value| value * RESTORED_DOUBT));
        Self { coefficients, covariance, samples, weight: samples as f64 }
    }

    pub(crate) const fn coefficients(&self) -> &Features {
        &self.coefficients
    }

    pub(crate) const fn samples(&self) -> u64 {
        self.samples
    }

    /// How many samples of this moment those are worth, `elapsed` after the newest.
    pub(crate) fn weight(&self, elapsed: Duration) -> f64 {
        self.weight * math::decay(elapsed, TAU_S)
    }

    /// One sample, `elapsed` after the one before; its error is clipped to `clip`.
    pub(crate) fn learn(&mut self, x: &Features, y: f64, clip: f64, elapsed: Duration) {
        if self.samples == 0 {
            self.coefficients[0] = y - self.coefficients[1] * x[1] - self.coefficients[2] * x[2];
        }
        self.samples = self.samples.saturating_add(1);
        self.weight = self.weight(elapsed) + 1.0;
        self.forget(elapsed);
        let px: Features = core::array::from_fn(|row| dot(&self.covariance[row], x));
        let scale = NOISE + dot(&px, x);
        let error = (y - dot(&self.coefficients, x)).clamp(-clip, clip);
        let gain: Features = core::array::from_fn(|row| px[row] / scale);
        let next: Features = core::array::from_fn(|at| self.coefficients[at] + gain[at] * error);
        if !next.iter().all(|value| value.is_finite()) {
            *self = Self::default();
            return;
        }
        self.coefficients = [next[0], next[1].clamp(0.0, SLOPE_MAX), next[2].clamp(0.0, SLOPE_MAX)];
        for (row, gain) in self.covariance.iter_mut().zip(gain) {
            for (value, px) in row.iter_mut().zip(px) {
                *value -= gain * px;
            }
        }
    }

    /// Doubt grows as samples age, up to what it was at first: where nothing is seen for
    /// long the gain must not grow without end.
    fn forget(&mut self, elapsed: Duration) {
        let keep = math::decay(elapsed, TAU_S);
        let grown = |at: usize| self.covariance[at][at] / keep <= DOUBT[at];
        if keep > 0.0 && (0..3).all(grown) {
            for value in self.covariance.iter_mut().flatten() {
                *value /= keep;
            }
        }
    }
}
