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
    /// One more value; what is older fades at the time constant `tau_s`.
    pub(crate) fn add(&mut self, now: Timestamp, value: f64, weight: f64, tau_s: f64) {
        let old = self.sums.after(now.since(self.at), tau_s);
        self.sums = old.with(Sums { sum: value * weight, weight });
        self.at = self.at.max(now);
    }

    /// All that was seen says less.
    pub(crate) fn shrink(&mut self, share: f64) {
        self.sums = self.sums.times(share);
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
