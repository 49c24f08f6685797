//! Prices and costs in integers: nano-dollars, rounded up once per attempt.

use alloc::boxed::Box;

/// Nano-dollars (10^-9 USD).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(pub u64);

/// What a million tokens cost, in nano-dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Input tokens that were not cached.
    pub input: u64,
    /// Input tokens that the provider had cached.
    pub cached_input: u64,
    /// Output tokens.
    pub output: u64,
}

/// Rates for long requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceTier {
    /// They hold when the input, cached tokens included, has more tokens than this.
    pub above_input_tokens: u32,
    /// For all tokens of such a request, not only for those above.
    pub rates: Rates,
}

/// What a deployment charges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// For requests that no tier takes.
    pub base: Rates,
    /// By `above_input_tokens`, rising. The last one that takes a request counts.
    pub tiers: Box<[PriceTier]>,
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

impl Rates {
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

impl Price {
    /// The same for requests of any length.
    pub fn flat(rates: Rates) -> Self {
        Self { base: rates, tiers: Box::default() }
    }

    /// What a request with so many input tokens, cached ones included, is charged by.
    ///
    /// As long-context prices of providers work: one rate for the whole request, chosen by
    /// the length of its input.
    pub fn rates(&self, input_tokens: u64) -> &Rates {
        let taken = self.tiers.iter().rev().find(|tier| input_tokens > tier.above_input_tokens.into());
        taken.map_or(&self.base, |tier| &tier.rates)
    }

    /// The cost of `tokens`, at the rates for so much input. See [`Rates::cost`].
    pub fn cost(&self, tokens: Tokens) -> NanoUsd {
        self.rates(tokens.input).cost(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // 0.15, 0.075 and 0.60 USD per million tokens.
    const MINI: Rates = Rates { input: 150_000_000, cached_input: 75_000_000, output: 600_000_000 };

    #[test]
    fn cost_counts_cached_input_at_its_own_price() {
        let tokens = Tokens { input: 1_000, cached_input: 400, output: 100 };
        assert_eq!(MINI.cost(tokens), NanoUsd(600 * 150 + 400 * 75 + 100 * 600));
    }

    #[test]
    fn cost_is_rounded_up_once() {
        let rates = Rates { input: 1, cached_input: 1, output: 1 };
        assert_eq!(rates.cost(Tokens { input: 1, cached_input: 0, output: 1 }), NanoUsd(1));
    }

    #[test]
    fn absurd_counts_saturate() {
        let tokens = Tokens { input: u64::MAX, cached_input: u64::MAX, output: u64::MAX };
        assert_eq!(MINI.cost(tokens), NanoUsd(u64::MAX));
    }

    #[test]
    fn a_long_request_is_charged_whole_at_the_rates_of_its_tier() {
        let tier = |above_input_tokens, factor: u64| {
            let rates = Rates { input: factor * 1_000_000, cached_input: 0, output: factor * 2_000_000 };
            PriceTier { above_input_tokens, rates }
        };
        let price = Price { base: tier(0, 1).rates, tiers: [tier(100, 2), tier(200, 5)].into() };
        let cost = |input| price.cost(Tokens { input, cached_input: 0, output: 10 }).0;
        assert_eq!([cost(100), cost(101), cost(200), cost(201)], [120, 242, 440, 1_105]);
        // The cached part counts as input.
        assert_eq!(price.cost(Tokens { input: 201, cached_input: 201, output: 0 }), NanoUsd(0));
    }
}
