//! All float maths of the core, so that every machine computes the same.

use core::time::Duration;

use rand_core::Rng;

/// 2 to the power of `exponent`.
pub fn exp2(exponent: f64) -> f64 {
    libm::exp2(exponent)
}

/// e to the power of `exponent`.
pub fn exp(exponent: f64) -> f64 {
    libm::exp(exponent)
}

/// The natural logarithm.
pub fn ln(value: f64) -> f64 {
    libm::log(value)
}

/// The square root.
pub fn sqrt(value: f64) -> f64 {
    libm::sqrt(value)
}

/// What is left, 0 to 1, of something that decays with the time constant `tau_s`,
/// after `elapsed`.
pub fn decay(elapsed: Duration, tau_s: f64) -> f64 {
    if elapsed.is_zero() { 1.0 } else { libm::exp(-elapsed.as_secs_f64() / tau_s) }
}

/// `value` within the bounds; `or` if it is not a finite number.
pub const fn finite(value: f64, least: f64, most: f64, or: f64) -> f64 {
    if value.is_finite() { value.clamp(least, most) } else { or }
}

/// So many seconds, at least none and at most a day.
pub fn seconds(value: f64) -> Duration {
    const DAY: f64 = 86_400.0;
    Duration::from_secs_f64(finite(value, 0.0, DAY, DAY))
}

/// A uniform number in 0 (included) to 1 (excluded), from 53 random bits.
pub fn unit(rng: &mut impl Rng) -> f64 {
    const SCALE: f64 = 1.0 / (1_u64 << 53) as f64;
    (rng.next_u64() >> 11) as f64 * SCALE
}

/// Draws an index by the chances, which need not add up to 1. None: none is over 0.
pub fn draw(chances: impl Iterator<Item = f64> + Clone, rng: &mut impl Rng) -> Option<usize> {
    let total: f64 = chances.clone().sum();
    let mut point = unit(rng) * total;
    let mut last = None;
    for (index, chance) in chances.enumerate().filter(|(_, chance)| *chance > 0.0) {
        last = Some(index);
        if point < chance {
            break;
        }
        point -= chance;
    }
    last
}
