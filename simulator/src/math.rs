//! The float maths of the models, by libm, so that a seed gives the same script on
//! every platform.

use std::time::Duration;

use rand::{Rng, RngExt};

/// A draw further out than this is cut off: one in 1.7 million, and without the cut
/// a single call could take hours.
const NORMAL_MAX: f64 = 5.0;

/// No modelled wait is longer than a day.
const SECONDS_MAX: f64 = 86_400.0;

/// A normal draw with mean 0 and deviation 1 (Box and Muller).
pub(crate) fn standard_normal(rng: &mut (impl Rng + ?Sized)) -> f64 {
    let radius = 1.0 - rng.random::<f64>();
    let angle = rng.random::<f64>() * core::f64::consts::TAU;
    let normal = libm::sqrt(-2.0 * libm::log(radius)) * libm::cos(angle);
    normal.clamp(-NORMAL_MAX, NORMAL_MAX)
}

/// A lognormal draw with the given median; `sigma` is the deviation of its logarithm.
pub(crate) fn lognormal(median: f64, sigma: f64, rng: &mut (impl Rng + ?Sized)) -> f64 {
    median * libm::exp(sigma * standard_normal(rng))
}

/// An exponential draw with the given mean.
pub(crate) fn exponential(mean: f64, rng: &mut (impl Rng + ?Sized)) -> f64 {
    -mean * libm::log(1.0 - rng.random::<f64>())
}

/// The sine of so many turns.
pub(crate) fn sine(turns: f64) -> f64 {
    libm::sin(turns * core::f64::consts::TAU)
}

/// `base` to the power of `exponent`.
pub(crate) fn power(base: f64, exponent: f64) -> f64 {
    libm::pow(base, exponent)
}

/// Seconds as a duration. Anything that is not a sane wait becomes the nearest one.
pub(crate) fn seconds(seconds: f64) -> Duration {
    if seconds.is_nan() {
        return Duration::ZERO;
    }
    Duration::from_secs_f64(seconds.clamp(0.0, SECONDS_MAX))
}

/// e to the power of `exponent`.
pub(crate) fn exp(exponent: f64) -> f64 {
    libm::exp(exponent)
}

/// The square root; of what is negative, 0.
pub(crate) fn sqrt(value: f64) -> f64 {
    libm::sqrt(value.max(0.0))
}
