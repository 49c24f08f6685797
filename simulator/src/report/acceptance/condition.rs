//! One condition of the acceptance table: a figure of a policy and what it must be.

use std::fmt;

use serde::Serialize;

use crate::report::Metric;

/// `metric` of `policy` must stand to `bound` as `sense` says.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// The scenario, by id.
    pub scenario: &'static str,
    /// Whose figure.
    pub policy: &'static str,
    /// Which figure, as mean over seeds.
    pub metric: Metric,
    /// The relation.
    pub sense: Sense,
    /// To what.
    pub bound: Bound,
    /// The only traffic that it is about. None: any.
    pub only_with: Option<&'static str>,
}

/// How a figure stands to its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    /// Not larger.
    AtMost,
    /// Not smaller.
    AtLeast,
    /// Smaller.
    Below,
    /// Larger.
    Above,
}

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// A number.
    Value(f64),
    /// So many times that policy's figure.
    Times(f64, &'static str),
    /// That policy's figure and so much more.
    Plus(f64, &'static str),
}

/// A condition in the making: of which figure it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    scenario: &'static str,
    policy: &'static str,
    metric: Metric,
}

/// Begins a condition.
pub(super) const fn figure(scenario: &'static str, policy: &'static str, metric: Metric) -> Figure {
    Figure { scenario, policy, metric }
}

impl Figure {
    /// Not larger than a number.
    pub(super) const fn at_most(self, value: f64) -> Condition {
        self.is(Sense::AtMost, Bound::Value(value))
    }

    /// Not smaller than a number.
    pub(super) const fn at_least(self, value: f64) -> Condition {
        self.is(Sense::AtLeast, Bound::Value(value))
    }

    /// Smaller than a number.
    pub(super) const fn below(self, value: f64) -> Condition {
        self.is(Sense::Below, Bound::Value(value))
    }

    /// Larger than a number.
    pub(super) const fn above(self, value: f64) -> Condition {
        self.is(Sense::Above, Bound::Value(value))
    }

    /// Not larger than so many times another policy's figure.
    pub(super) const fn at_most_times(self, factor: f64, policy: &'static str) -> Condition {
        self.is(Sense::AtMost, Bound::Times(factor, policy))
    }

    /// Not smaller than another policy's figure and so much more.
    pub(super) const fn at_least_above(self, more: f64, policy: &'static str) -> Condition {
        self.is(Sense::AtLeast, Bound::Plus(more, policy))
    }

    /// Smaller than another policy's figure.
    pub(super) const fn below_that_of(self, policy: &'static str) -> Condition {
        self.is(Sense::Below, Bound::Plus(0.0, policy))
    }

    const fn is(self, sense: Sense, bound: Bound) -> Condition {
        let Self { scenario, policy, metric } = self;
        Condition { scenario, policy, metric, sense, bound, only_with: None }
    }
}

impl Condition {
    /// The same, for one traffic only.
    pub(super) const fn only_with(self, traffic: &'static str) -> Self {
        Self { only_with: Some(traffic), ..self }
    }

    /// Every policy that must be run for it.
    pub fn policies(&self) -> impl Iterator<Item = &'static str> {
        let other = match self.bound {
            Bound::Value(_) => None,
            Bound::Times(_, policy) | Bound::Plus(_, policy) => Some(policy),
        };
        std::iter::once(self.policy).chain(other)
    }

    /// Holds it against what was measured; `mean` gives a policy's mean of the figure.
    /// What was not measured does not hold.
    pub fn judge(&self, mean: impl Fn(&str) -> Option<f64>) -> Verdict {
        let measured = mean(self.policy);
        let (other, bound) = match self.bound {
            Bound::Value(value) => (None, Some(value)),
            Bound::Times(factor, policy) => (mean(policy), mean(policy).map(|base| base * factor)),
            Bound::Plus(more, policy) => (mean(policy), mean(policy).map(|base| base + more)),
        };
        let holds = match (measured, bound) {
            (Some(measured), Some(bound)) => self.sense.holds(measured, bound),
            _ => false,
        };
        Verdict { measured, other, bound, holds }
    }
}

impl Sense {
    fn holds(self, measured: f64, bound: f64) -> bool {
        match self {
            Self::AtMost => measured <= bound,
            Self::AtLeast => measured >= bound,
            Self::Below => measured < bound,
            Self::Above => measured > bound,
        }
    }

    const fn sign(self) -> &'static str {
        match self {
            Self::AtMost => "<=",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::Above => ">",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = self.sense.sign();
        write!(f, "{} {} {sign} ", self.policy, self.metric.label())?;
        match self.bound {
            Bound::Value(value) => write!(f, "{value}"),
            Bound::Times(factor, policy) => write!(f, "{factor} x {policy}"),
            Bound::Plus(0.0, policy) => write!(f, "{policy}"),
            Bound::Plus(more, policy) => write!(f, "{policy} + {more}"),
        }
    }
}

/// What became of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The policy's mean.
    pub measured: Option<f64>,
    /// Mean of the policy it is compared with.
    pub other: Option<f64>,
    /// What the mean is held against.
    pub bound: Option<f64>,
    /// Whether the condition holds.
    pub holds: bool,
}

impl Verdict {
    /// How far the figure is on the right side of its bound, as a share of the bound;
    /// negative on the wrong side. None: not measured, or a bound of 0.
    pub fn margin(&self, sense: Sense) -> Option<f64> {
        let (measured, bound) = (self.measured?, self.bound?);
        if bound.abs() < f64::EPSILON {
            return None;
        }
        let above = (measured - bound) / bound.abs();
        Some(match sense {
            Sense::AtMost | Sense::Below => -above,
            Sense::AtLeast | Sense::Above => above,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(policy: &str) -> Option<f64> {
        match policy {
            "latency" => Some(0.2),
            "naive-round-robin" => Some(1.0),
            _ => None,
        }
    }

    fn judged(condition: Condition) -> bool {
        condition.judge(mean).holds
    }

    #[test]
    fn bounds_are_numbers_or_other_policies() {
        let regret = figure("01", "latency", Metric::Regret);
        assert!(judged(regret.at_most(0.2)) && !judged(regret.below(0.2)));
        assert!(judged(regret.at_most_times(0.25, "naive-round-robin")));
        assert!(!judged(regret.at_most_times(0.15, "naive-round-robin")));
        assert!(!judged(regret.at_least_above(0.1, "naive-round-robin")));
        assert!(judged(regret.below_that_of("naive-round-robin")));
        assert!(judged(figure("01", "naive-round-robin", Metric::Regret).at_least_above(0.8, "latency")));
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        assert!(!judged(figure("01", "oracle", Metric::Regret).at_most(9.0)));
        assert!(!judged(figure("01", "latency", Metric::Regret).at_most_times(9.0, "oracle")));
    }

    #[test]
    fn the_margin_is_negative_on_the_wrong_side() {
        let condition = figure("01", "latency", Metric::Regret).at_most(0.1);
        let margin = condition.judge(mean).margin(condition.sense).unwrap();
        assert!((margin + 1.0).abs() < 1e-9, "{margin}");
    }

    #[test]
    fn a_condition_is_written_as_it_is_read() {
        let regret = figure("01", "latency", Metric::Regret);
        assert_eq!(regret.at_most(0.12).to_string(), "latency regret <= 0.12");
        assert_eq!(
            regret.at_most_times(0.25, "peak-ewma-p2c").to_string(),
            "latency regret <= 0.25 x peak-ewma-p2c"
        );
        assert_eq!(regret.below_that_of("oracle").to_string(), "latency regret < oracle");
    }
}
