//! Baselines that go by price, above the quality floor.

use rand::{RngExt, rngs::StdRng};

use super::{Ask, At, Ended, Picker, cooldown::Cooldown, litellm::note, smallest};

/// OpenRouter's rule of 2025: a deployment is stable if it had no failure for so long.
const STABLE_AFTER_S: f64 = 30.0;
/// Weight of a new answer's length.
const EWMA_SHARE: f64 = 0.05;
/// Tokens of an answer before one was seen.
const OUTPUT_TOKENS: f64 = 200.0;

/// Shares by the inverse square of the price among the stable ones.
pub(super) struct InverseSquare {
    failed_at_s: Vec<f64>,
}

impl InverseSquare {
    pub(super) fn new(count: usize) -> Self {
        Self { failed_at_s: vec![f64::NEG_INFINITY; count] }
    }
}

impl Picker for InverseSquare {
    fn pick(&mut self, ask: &Ask<'_, '_>, chance: &mut StdRng) -> Option<usize> {
        let above = ask.above_floor();
        let stable = |at: &usize| ask.now_s - self.failed_at_s[*at] >= STABLE_AFTER_S;
        let mut usable: Vec<usize> = above.iter().copied().filter(stable).collect();
        if usable.is_empty() {
            usable = above;
        }
        let weight = |at: usize| {
            let price = ask.world.providers[at].price(ask.world.now);
            1.0 / (price.input + price.output).max(1e-6).powi(2)
        };
        let total: f64 = usable.iter().map(|at| weight(*at)).sum();
        let mut point = chance.random::<f64>() * total;
        let drawn = usable.iter().copied().find(|at| {
            point -= weight(*at);
            point < 0.0
        });
        drawn.or_else(|| usable.last().copied())
    }

    fn ended(&mut self, at: At, ended: &Ended) {
        if let Ended::Failed { .. } | Ended::TimedOut { .. } = ended {
            self.failed_at_s[at.deployment] = at.now_s;
        }
    }
}

/// The cheapest by the request's input and the mean length of answers so far, with a
/// cooldown.
pub(super) struct CheapestExpected {
    cooldown: Cooldown,
    output_tokens: f64,
}

impl CheapestExpected {
    pub(super) fn new(count: usize) -> Self {
        Self { cooldown: Cooldown::new(count), output_tokens: OUTPUT_TOKENS }
    }
}

impl Picker for CheapestExpected {
    fn pick(&mut self, ask: &Ask<'_, '_>, _chance: &mut StdRng) -> Option<usize> {
        let warm = self.cooldown.filter(&ask.above_floor(), ask.now_s);
        smallest(&warm, |at| {
            let price = ask.world.providers[at].price(ask.world.now);
            price.input * f64::from(ask.request.input_tokens) + price.output * self.output_tokens
        })
    }

    fn ended(&mut self, at: At, ended: &Ended) {
        note(&mut self.cooldown, at, ended);
        if let Ended::Answered { output_tokens, .. } = ended {
            self.output_tokens += EWMA_SHARE * (f64::from(*output_tokens) - self.output_tokens);
        }
    }
}
