//! What one agent saw in the last seconds, kept so that it can be held against any model.
//!
//! How far times were off a model says something only together with that model. So the
//! times and the inputs are kept, not their distance: when the control plane's model
//! takes the place of the agent's own, or the other way round, it is measured anew. In
//! logarithms models are linear, so sums are enough.

use super::{
    Sums,
    evidence::Evidence,
    learner::{FRESH_TAU_S, IDLE_TAU_S, RESIDUAL_MAX},
    load,
    model::Coefficients,
    regression::{Features, dot, features},
};
use crate::{math, time::Timestamp};

/// The state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moment {
    /// ln(TTFT) without load, and the features of the inputs that it was for.
    ttft: Evidence,
    inputs: [Evidence; 2],
    /// ln(seconds per token) without load.
    tpot: Evidence,
}

impl Moment {
    /// A first token came after `ttft_s`, to so many fresh input tokens, beside
    /// `in_flight` requests, itself included. `slow`: the model in force.
    pub(crate) fn first(
        &mut self,
        now: Timestamp,
        slow: &Coefficients,
        fresh_input: f64,
        ttft_s: f64,
        in_flight: f64,
    ) {
        let x = features(fresh_input);
        let unloaded = math::ln(ttft_s) - math::ln(load::factor(slow.beta, in_flight));
        self.ttft.add(now, near(unloaded, dot(&slow.ln_ttft, &x), slow), 1.0, FRESH_TAU_S);
        for (inputs, x) in self.inputs.iter_mut().zip(&x[1..]) {
            inputs.add(now, *x, 1.0, FRESH_TAU_S);
        }
    }

    /// An answer took `tpot_s` seconds per token.
    pub(crate) fn rest(&mut self, now: Timestamp, slow: &Coefficients, tpot_s: f64, in_flight: f64) {
        let unloaded = math::ln(tpot_s.max(1e-6)) - math::ln(load::factor(slow.tpot_beta, in_flight));
        self.tpot.add(now, near(unloaded, slow.ln_tpot, slow), 1.0, FRESH_TAU_S);
    }

    /// How far ln(TTFT) and ln(seconds per token) were off this model.
    pub(crate) fn against(&self, now: Timestamp, slow: &Coefficients) -> [Sums; 2] {
        let ttft = self.ttft.read(now, IDLE_TAU_S);
        let [one, ten] = self.inputs.each_ref().map(|inputs| inputs.read(now, IDLE_TAU_S).sum);
        let tpot = self.tpot.read(now, IDLE_TAU_S);
        [
            Sums { sum: ttft.sum - dot(&slow.ln_ttft, &[ttft.weight, one, ten]), ..ttft },
            Sums { sum: tpot.sum - tpot.weight * slow.ln_tpot, ..tpot },
        ]
    }

    /// Features of the usual input lately.
    pub(crate) fn inputs(&self) -> Features {
        let weight = self.ttft.read(self.ttft.newest(), IDLE_TAU_S).weight;
        let mean = |inputs: &Evidence| inputs.read(inputs.newest(), IDLE_TAU_S).mean(0.0, 1e-9);
        if weight > 0.0 { [1.0, mean(&self.inputs[0]), mean(&self.inputs[1])] } else { [1.0, 0.0, 0.0] }
    }
}

/// One time alone, however odd, says no more than so much. Without a model: all it says.
fn near(value: f64, expected: f64, slow: &Coefficients) -> f64 {
    if slow.samples == 0 { value } else { value.clamp(expected - RESIDUAL_MAX, expected + RESIDUAL_MAX) }
}
