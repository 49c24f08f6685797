//! How long whole (unary) answers of a deployment take, learned by output limit.
//!
//! A silent unary attempt says nothing until it is done, so the soft timeout must
//! allow for the generation. Until enough answers were seen, 50 tokens per second
//! are assumed.

use core::time::Duration;

/// Assumed until learned: 50 tokens per second, at most 1,000 tokens.
const ASSUMED_PER_TOKEN: Duration = Duration::from_millis(20);
const ASSUMED_TOKENS_MAX: u32 = 1_000;
/// A request without a limit is taken for this long.
const ASSUMED_TOKENS: u32 = 256;
/// Answers seen before the estimate is believed.
const SAMPLES_MIN: u32 = 8;
/// Weight of a new answer: one in eight.
const SMOOTHING_SHIFT: u32 = 3;
/// Sizes by powers of two; the last holds everything larger.
const SIZES: usize = 16;
/// No estimate is longer: beyond it the deadline should speak.
const EXPECTED_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
struct Estimate {
    samples: u32,
    mean_micros: i64,
    deviation_micros: i64,
}

/// What was learned.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    by_size: [Estimate; SIZES],
}

impl Pace {
    /// A whole answer came after `took`.
    pub fn learn(&mut self, max_output_tokens: Option<u32>, took: Duration) {
        let estimate = &mut self.by_size[size(max_output_tokens)];
        let micros = i64::try_from(took.as_micros()).unwrap_or(i64::MAX / 4);
        if estimate.samples == 0 {
            *estimate = Estimate { samples: 1, mean_micros: micros, deviation_micros: micros / 2 };
            return;
        }
        let error = micros - estimate.mean_micros;
        estimate.samples = estimate.samples.saturating_add(1);
        estimate.mean_micros += error >> SMOOTHING_SHIFT;
        estimate.deviation_micros += (error.abs() - estimate.deviation_micros) >> SMOOTHING_SHIFT;
    }

    /// Time that generating the answer is expected to take: mean and two deviations,
    /// as TCP sets its retransmission timer (Jacobson 1988).
    pub fn expected(&self, max_output_tokens: Option<u32>) -> Duration {
        let estimate = self.by_size[size(max_output_tokens)];
        if estimate.samples < SAMPLES_MIN {
            return ASSUMED_PER_TOKEN * max_output_tokens.unwrap_or(ASSUMED_TOKENS).min(ASSUMED_TOKENS_MAX);
        }
        let micros = estimate.mean_micros.saturating_add(estimate.deviation_micros.saturating_mul(2));
        Duration::from_micros(micros.max(0) as u64).min(EXPECTED_MAX)
    }
}

fn size(max_output_tokens: Option<u32>) -> usize {
    max_output_tokens.map_or(0, |tokens| (1 + (tokens.max(1).ilog2() as usize)).min(SIZES - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_tokens_a_second_until_learned() {
        assert_eq!(Pace::default().expected(Some(100)), Duration::from_secs(2));
        assert_eq!(Pace::default().expected(None), Duration::from_millis(5_120));
        assert_eq!(Pace::default().expected(Some(100_000)), Duration::from_secs(20));
    }

    #[test]
    fn steady_answers_teach_a_steady_pace_for_their_size_only() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.learn(Some(64), Duration::from_millis(400));
        }
        let expected = pace.expected(Some(64));
        assert!(
            expected >= Duration::from_millis(400) && expected < Duration::from_millis(420),
            "{expected:?}"
        );
        assert_eq!(pace.expected(Some(512)), Duration::from_millis(10_240));
    }
}
