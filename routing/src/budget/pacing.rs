//! Dual pacing: the better model while the budget lasts, and for those requests where a
//! dollar buys most.
//!
//! Spending until nothing is left gives the good model to whoever comes first and leaves
//! nothing for the rest of the period. An upgrade is bought when its value per dollar beats
//! lambda, the price of a dollar:
//!
//! ```text
//! ln lambda = ln typical + 100 * (share of the limit spent - share of the period gone)
//! ```
//!
//! Adaptive pacing after S. Balseiro and Y. Gur, "Learning in Repeated Auctions with
//! Budgets" (2019), multiplicative, so that lambda stays positive. There each auction moves
//! lambda by a step times what it spent beyond the plan; those steps add up to the
//! difference above. So it needs no memory: all agents that know what was spent find the
//! same lambda, also one that has just started.

use core::time::Duration;

use super::{Budget, period::Span};
use crate::{
    decide::Decision,
    eligibility::{Profile, price_of},
    math,
    table::{DeploymentIndex, RoutingTable},
};

/// Spending that is one hundredth of the limit ahead of the plan makes a dollar dearer by
/// e, the natural logarithm's base.
const GAIN: f64 = 100.0;

/// Weight of a new request in the mean of what a dollar typically buys.
const TYPICAL_WEIGHT: f64 = 0.02;

/// Bounds of natural logarithms of value per dollar: from 1e-9 to 1e9.
const LOG_MAX: f64 = 20.7;

/// Value of an upgrade where a quality is not declared: all requests are worth the same.
const VALUE_UNKNOWN: f64 = 0.1;

/// Least value: the strategy prefers it, if only for its speed.
const VALUE_MIN: f64 = 0.01;

const NANOS: f64 = 1e9;

/// How far a period and its money are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Share of the limit that was spent, by all agents; from 0.
    pub spent: f64,
    /// Share of the period that is gone, 0 to 1.
    pub elapsed: f64,
}

impl Progress {
    /// With `left` of the limit unspent in nano-dollars, and the period `span` lasting for
    /// `remaining` yet.
    pub fn of(budget: &Budget, span: Span, left: u64, remaining: Duration) -> Self {
        let limit = budget.limit.0.max(1) as f64;
        let length = span.end().saturating_sub(span.start).max(1) as f64;
        Self {
            spent: 1.0 - (left as f64 / limit).min(1.0),
            elapsed: 1.0 - (remaining.as_secs_f64() / length).min(1.0),
        }
    }
}

/// What the better model would bring to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Upgrade {
    /// Gain in quality. 0.1 where it is not known, and at least 0.01.
    pub value: f64,
    /// What it is expected to cost beyond the cheapest, in nano-dollars.
    pub extra_nano_usd: u64,
}

impl Upgrade {
    /// From what the cheapest capable target would be to what the strategy would take.
    /// None: one of them is not there.
    pub fn of(
        table: &RoutingTable,
        profile: &Profile,
        taken: &Decision,
        cheapest: &Decision,
    ) -> Option<Self> {
        let cost = |one: DeploymentIndex| {
            let price = price_of(table.deployment(one), profile);
            price.map_or(0.0, |price| price.cost(profile.expected_tokens()).0 as f64)
        };
        let floor = cheapest.candidates.first()?.deployment;
        let floor_quality = table.deployment(floor).quality;
        let (mut weight, mut value, mut extra) = (0.0, 0.0, 0.0);
        for candidate in &taken.candidates {
            let quality = table.deployment(candidate.deployment).quality;
            let gain = quality.zip(floor_quality).map_or(VALUE_UNKNOWN, |(one, floor)| one - floor);
            weight += candidate.probability;
            value += candidate.probability * gain;
            extra += candidate.probability * (cost(candidate.deployment) - cost(floor));
        }
        (weight > 0.0).then(|| Self {
            value: math::finite(value / weight, VALUE_MIN, 1.0, VALUE_MIN),
            extra_nano_usd: math::finite(extra / weight, 0.0, 1e18, 1e18) as u64,
        })
    }
}

/// Decides request by request whether the better model is worth its price now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pacer {
    /// Mean logarithm of the value that a dollar buys.
    typical: f64,
    /// Requests in it.
    seen: u32,
}

impl Pacer {
    /// The value that a dollar must buy.
    pub fn lambda(&self, progress: Progress) -> f64 {
        let ahead = math::finite(GAIN * (progress.spent - progress.elapsed), -LOG_MAX, LOG_MAX, LOG_MAX);
        math::exp(self.typical + ahead)
    }

    /// Whether the upgrade is bought, at the price that a dollar has now. One that costs
    /// nothing always is. The request counts for what is typical.
    pub fn buys(&mut self, upgrade: Upgrade, progress: Progress) -> bool {
        if upgrade.extra_nano_usd == 0 {
            return true;
        }
        let density = upgrade.value * NANOS / upgrade.extra_nano_usd as f64;
        self.seen = self.seen.saturating_add(1);
        let log = math::finite(math::ln(density), -LOG_MAX, LOG_MAX, -LOG_MAX);
        self.typical += TYPICAL_WEIGHT.max(1.0 / f64::from(self.seen)) * (log - self.typical);
        density > self.lambda(progress)
    }
}
