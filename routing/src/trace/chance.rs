//! Chance that can be told again: one number starts all that a call of the core draws.

use core::convert::Infallible;

use rand_core::TryRng;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014). The same on every machine and in every version of every crate, which the
/// generators of `rand` do not promise; it is free to start anew for each call. Not for
/// secrets.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// What follows from that seed.
    pub const fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.next() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand_core::Rng as _;

    use super::*;

    #[test]
    fn it_draws_the_published_numbers() {
        let mut chance = Chance::from_seed(1_234_567);
        let drawn = [chance.next_u64(), chance.next_u64(), chance.next_u64()];
        // The reference implementation's, for this seed.
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn bytes_are_those_of_its_numbers() {
        let mut bytes = [0; 11];
        Chance::from_seed(5).fill_bytes(&mut bytes);
        let mut chance = Chance::from_seed(5);
        let expected = [chance.next_u64().to_le_bytes(), chance.next_u64().to_le_bytes()].concat();
        assert_eq!(bytes, expected[..11]);
    }
}
