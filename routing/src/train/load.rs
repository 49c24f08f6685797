//! How much slower a deployment gets with the requests that run there.
//!
//! TTFT = base / (1 - beta n), with n the requests in flight, the new one included. So
//! base / TTFT falls with n along a straight line, and beta is its slope over its value
//! at 0: a linear regression with a Gaussian prior on the slope (ridge). The prior is no
//! 0: a deployment that never had more than a few requests may be small, and the first
//! crowd must not find that out.

use crate::{math, time::Timestamp};

/// Seconds after which a sample weighs 1/e.
const TAU_S: f64 = 900.0;
/// What is assumed first, and how sure: the square of noise over the prior's deviation,
/// which are 0.3 and 0.01.
const PRIOR: f64 = 0.01;
const RIDGE: f64 = 900.0;
/// A beta that was learned before counts up to this.
const PRIOR_MAX: f64 = 0.3;
/// At the mean load, 1 - beta n stays over 1 - 1 / this.
const MEAN_ROOM: f64 = 1.05;
/// Base / TTFT of one sample, at most: a lucky one says little.
const RATIO_MAX: f64 = 3.0;
/// 1 - beta n, at least: beyond it the curve says nothing more.
const LEFT_MIN: f64 = 0.04;
const LEFT_MAX: f64 = 1.2;

/// Sums of the regression.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// None: the usual.
    prior: Option<f64>,
    weight: f64,
    n: f64,
    z: f64,
    nn: f64,
    nz: f64,
    at: Timestamp,
}

impl Load {
    /// One that starts from this beta, as it was learned before.
    pub(crate) fn restored(beta: f64, at: Timestamp) -> Self {
        Self { at, prior: Some(math::finite(beta, 0.0, PRIOR_MAX, PRIOR)), ..Self::default() }
    }

    /// A request that met `in_flight` requests, itself included, and took `ratio` =
    /// expected time without load / time taken.
    pub(crate) fn learn(&mut self, now: Timestamp, in_flight: f64, ratio: f64) {
        if !in_flight.is_finite() || !ratio.is_finite() || in_flight < 0.0 || ratio < 0.0 {
            return;
        }
        let keep = math::decay(now.since(self.at), TAU_S);
        self.at = self.at.max(now);
        let (n, z) = (in_flight.min(1e4), ratio.min(RATIO_MAX));
        let add = |sum: &mut f64, value: f64| *sum = *sum * keep + value;
        add(&mut self.weight, 1.0);
        add(&mut self.n, n);
        add(&mut self.z, z);
        add(&mut self.nn, n * n);
        add(&mut self.nz, n * z);
    }

    /// Share of the unloaded speed that each request in flight takes.
    pub(crate) fn beta(&self) -> f64 {
        let prior = self.prior.unwrap_or(PRIOR);
        if self.weight < 1.0 {
            return prior;
        }
        let (mean_n, mean_z) = (self.n / self.weight, self.z / self.weight);
        let var_n = (self.nn - self.n * mean_n).max(0.0);
        let cov = self.nz - self.n * mean_z;
        let slope = (RIDGE * prior * mean_z - cov) / (var_n + RIDGE);
        let at_zero = mean_z + slope * mean_n;
        if slope <= 0.0 || at_zero <= 0.0 {
            return 0.0;
        }
        math::finite(slope / at_zero, 0.0, 1.0 / (MEAN_ROOM * mean_n.max(1.0)), 0.0)
    }
}

/// How many times slower than without load, at `in_flight` requests, the new one
/// included: 1/1.2 to 25.
pub(crate) fn factor(beta: f64, in_flight: f64) -> f64 {
    1.0 / math::finite(1.0 - beta * in_flight, LEFT_MIN, LEFT_MAX, 1.0)
}
