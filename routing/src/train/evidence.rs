//! Sums that fade with time: what was seen lately, and how much of it.

use core::time::Duration;

use crate::{math, time::Timestamp};

/// A sum and the weight behind it, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Sum of the values, each with what is left of its weight.
    pub sum: f64,
    /// What is left of the weights; at least 0.
    pub weight: f64,
}

impl Sums {
    /// What is left after `elapsed`, at the time constant `tau_s`.
    #[must_use]
    pub fn after(self, elapsed: Duration, tau_s: f64) -> Self {
        self.times(math::decay(elapsed, tau_s))
    }

    /// A share of it.
    #[must_use]
    pub fn times(self, share: f64) -> Self {
        Self { sum: self.sum * share, weight: self.weight * share }
    }

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, weight: self.weight + other.weight }
    }

    /// The mean, drawn towards `prior` as by `strength` further values.
    pub fn mean(self, prior: f64, strength: f64) -> f64 {
        (self.sum + prior * strength) / (self.weight + strength)
    }

    /// Itself if both are numbers that evidence can have, else nothing.
    #[must_use]
    pub fn sane(self) -> Self {
        let fine = self.sum.is_finite() && self.weight.is_finite() && self.weight >= 0.0;
        if fine { self } else { Self::default() }
    }
}

/// Evidence that is added to as time passes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    sums: Sums,
    at: Timestamp,
}

impl Evidence {
    /// One more value; what is older fades at the time constant `tau_s`. One that comes
    /// after newer ones has faded itself: the order in which they come says nothing.
    pub(crate) fn add(&mut self, now: Timestamp, value: f64, weight: f64, tau_s: f64) {
        let old = self.sums.after(now.since(self.at), tau_s);
        let new = Sums { sum: value * weight, weight };
        self.sums = old.with(new.after(self.at.since(now), tau_s));
        self.at = self.at.max(now);
    }

    /// Takes out what is left of a value that was added at `then` with the same `tau_s`.
    pub(crate) fn take_back(&mut self, then: Timestamp, value: f64, weight: f64, tau_s: f64) {
        let left = Sums { sum: value * weight, weight }.after(self.at.since(then), tau_s);
        self.sums.weight = (self.sums.weight - left.weight).max(0.0);
        self.sums.sum -= left.sum;
    }

    /// What is left now, at the time constant `tau_s`.
    pub(crate) fn read(&self, now: Timestamp, tau_s: f64) -> Sums {
        self.sums.after(now.since(self.at), tau_s)
    }

    /// When the newest value came.
    pub(crate) const fn newest(&self) -> Timestamp {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn assert_close(one: Sums, other: Sums) {
        let near = |one: f64, other: f64| (one - other).abs() < 1e-12;
        assert!(near(one.sum, other.sum) && near(one.weight, other.weight), "{one:?} and {other:?}");
    }

    #[test]
    fn a_value_weighs_the_same_whenever_it_is_told() {
        let of = |values: [(u64, f64); 3]| {
            let mut evidence = Evidence::default();
            for (time, value) in values {
                evidence.add(at(time), value, 1.0, 4.0);
            }
            evidence.read(at(20), 30.0)
        };
        assert_close(of([(3, 1.0), (9, -1.0), (12, 5.0)]), of([(12, 5.0), (3, 1.0), (9, -1.0)]));
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        let (mut one, mut other) = (Evidence::default(), Evidence::default());
        one.add(at(1), 0.0, 1.0, 10.0);
        one.add(at(3), 1.0, 0.7, 10.0);
        one.add(at(8), 1.0, 1.0, 10.0);
        one.take_back(at(3), 1.0, 0.7, 10.0);
        other.add(at(1), 0.0, 1.0, 10.0);
        other.add(at(8), 1.0, 1.0, 10.0);
        assert_close(one.read(at(9), 10.0), other.read(at(9), 10.0));
    }
}
