//! One stream of chance per purpose, so that what a policy does changes no other
//! chance: all policies meet the same requests and the same moods of providers (common
//! random numbers), and a difference between two runs is the policies' own.

use rand::{SeedableRng, rngs::StdRng};

/// What chance is drawn for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Sizes and moments of requests.
    Traffic = 1,
    /// Bursts of the rate.
    Rate = 2,
    /// Agents and quality floors of requests.
    Callers = 3,
    /// What a provider does with a request.
    Provider = 4,
    /// The policy's own draws.
    Policy = 5,
    /// When agents report.
    Reports = 6,
    /// Bytes per token of requests.
    Texts = 7,
}

/// The stream for a purpose; `index` names one of several.
pub(crate) fn rng(seed: u64, purpose: Purpose, index: u64) -> StdRng {
    StdRng::seed_from_u64(mix(mix(seed ^ mix(purpose as u64)) ^ index))
}

/// SplitMix64's finaliser (Steele, Lea and Flood 2014): each bit of the input changes
/// half of the output.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
