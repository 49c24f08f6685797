//! Dual pacing: the better model while the budget lasts, and for those requests where a
//! dollar buys most.
//!
//! Spending until nothing is left gives the good model to whoever comes first and leaves
//! nothing for the rest of the period. The price of a dollar, lambda, instead rises when
//! money goes faster than planned and falls when it goes slower; an upgrade is bought when
//! it is worth that price. Adaptive pacing after S. Balseiro and Y. Gur, "Learning in
//! Repeated Auctions with Budgets" (2019); multiplicative, so that lambda stays positive.

use crate::math;

/// How far one request that costs the mean moves the logarithm of lambda.
const STEP: f64 = 0.02;

/// One request moves lambda by at most this factor's logarithm.
const STEP_MAX: f64 = 0.5;

/// Bounds of lambda's natural logarithm: value per dollar from 1e-9 to 1e9.
const LOG_MAX: f64 = 20.7;

/// Weight of a new cost in the mean.
const MEAN_WEIGHT: f64 = 0.02;

/// Decides request by request whether the better model is worth its price now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pacer {
    /// Natural logarithm of the value that a dollar must buy.
    log_lambda: f64,
    /// Mean extra cost of an upgrade, in nano-dollars. 0: none was seen.
    mean_cost: f64,
}

impl Pacer {
    /// One that values a dollar at `lambda` to begin with: what a typical upgrade is worth
    /// per dollar, if nothing better is known.
    pub fn new(lambda: f64) -> Self {
        let log = if lambda.is_finite() && lambda > 0.0 { math::ln(lambda) } else { 0.0 };
        Self { log_lambda: log.clamp(-LOG_MAX, LOG_MAX), mean_cost: 0.0 }
    }

    /// The value that a dollar must buy.
    pub fn lambda(&self) -> f64 {
        math::exp(self.log_lambda)
    }

    /// Whether an upgrade that is worth `value` and costs `extra_nano_usd` more is bought.
    pub fn upgrades(&self, value: f64, extra_nano_usd: u64) -> bool {
        const NANOS: f64 = 1e9;
        if !value.is_finite() {
            return false;
        }
        extra_nano_usd == 0 || value * NANOS > self.lambda() * extra_nano_usd as f64
    }

    /// A request was decided: it took `spent` nano-dollars of the money for upgrades (0:
    /// none), an upgrade would have cost `extra_nano_usd`, and the plan was to spend
    /// `target` per request.
    pub fn learn(&mut self, spent: u64, extra_nano_usd: u64, target: f64) {
        if extra_nano_usd > 0 {
            let cost = extra_nano_usd as f64;
            self.mean_cost = if self.mean_cost == 0.0 {
                cost
            } else {
                self.mean_cost + MEAN_WEIGHT * (cost - self.mean_cost)
            };
        }
        if self.mean_cost <= 0.0 || !target.is_finite() {
            return;
        }
        let step = STEP * (spent as f64 - target) / self.mean_cost;
        self.log_lambda = (self.log_lambda + step.clamp(-STEP_MAX, STEP_MAX)).clamp(-LOG_MAX, LOG_MAX);
    }
}

/// What to spend per request so that `left` nano-dollars last for `requests_left`.
/// Nothing is left: 0.
pub fn target(left: u64, requests_left: f64) -> f64 {
    if requests_left >= 1.0 { left as f64 / requests_left } else { left as f64 }
}
