//! Prices and costs in integers: nano-dollars, rounded up once per attempt.

/// Nano-dollars (10^-9 USD).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(pub u64);

/// What a deployment charges, in nano-dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Input tokens that were not cached.
    pub input: u64,
    /// Input tokens that the provider had cached.
    pub cached_input: u64,
    /// Output tokens.
    pub output: u64,
}

/// Tokens of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// All input, cached included.
    pub input: u64,
    /// The part of `input` that was cached.
    pub cached_input: u64,
    /// Output.
    pub output: u64,
}

impl Price {
    /// The cost of `tokens`, exact in between and rounded up once.
    /// Saturates at 18.4 billion dollars.
    pub fn cost(&self, tokens: Tokens) -> NanoUsd {
        const MILLION: u128 = 1_000_000;
        let cached = tokens.cached_input.min(tokens.input);
        let fresh = tokens.input - cached;
        let total = u128::from(fresh) * u128::from(self.input)
            + u128::from(cached) * u128::from(self.cached_input)
            + u128::from(tokens.output) * u128::from(self.output);
        NanoUsd(u64::try_from(total.div_ceil(MILLION)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // 0.15, 0.075 and 0.60 USD per million tokens.
    const MINI: Price = Price { input: 150_000_000, cached_input: 75_000_000, output: 600_000_000 };

    #[test]
    fn cost_counts_cached_input_at_its_own_price() {
        let tokens = Tokens { input: 1_000, cached_input: 400, output: 100 };
        assert_eq!(MINI.cost(tokens), NanoUsd(600 * 150 + 400 * 75 + 100 * 600));
    }

    #[test]
    fn cost_is_rounded_up_once() {
        let price = Price { input: 1, cached_input: 1, output: 1 };
        assert_eq!(price.cost(Tokens { input: 1, cached_input: 0, output: 1 }), NanoUsd(1));
    }

    #[test]
    fn absurd_counts_saturate() {
        let tokens = Tokens { input: u64::MAX, cached_input: u64::MAX, output: u64::MAX };
        assert_eq!(MINI.cost(tokens), NanoUsd(u64::MAX));
    }
}
