//! All float maths of the core, so that every machine computes the same.

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

/// A uniform number in 0 (included) to 1 (excluded), from 53 random bits.
pub fn unit(rng: &mut impl Rng) -> f64 {
    const SCALE: f64 = 1.0 / (1_u64 << 53) as f64;
    (rng.next_u64() >> 11) as f64 * SCALE
}
