//! Some of the attempts that ended, one by one: what the control plane learns from. The
//! counts beside them are of all.
//!
//! Each attempt draws a number when it ends; those with the smallest are kept. So what is
//! kept is a fair sample of any number of attempts, and two samples merge into a fair one
//! of both (bottom-k sampling; Cohen and Kaplan, "Summarizing data using bottom-k
//! sketches", PODC 2007).

use std::{collections::BinaryHeap, sync::Arc, time::Duration};

use tokio::time::Instant;
use trunkline_proto::{convert::wire_outcome, telemetry::v1};
use trunkline_routing::{classify::OutcomeClass, money::Tokens};

use super::duration_to_wire;

/// Attempts kept of one window, at some 100 bytes each in a report. A model gains little
/// from more in a second.
pub(super) const SAMPLES_MAX: usize = 256;

/// One attempt that ended.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) deployment: Arc<str>,
    pub(super) model: Arc<str>,
    pub(super) outcome: OutcomeClass,
    pub(super) ended: Instant,
    pub(super) duration: Duration,
    /// Of a stream.
    pub(super) ttft: Option<Duration>,
    pub(super) tokens: Tokens,
    pub(super) max_output_tokens: Option<u32>,
    pub(super) in_flight: u32,
    pub(super) predicted_ttft: Option<Duration>,
}

/// Orders by what was drawn alone.
#[derive(Clone, Debug)]
struct Drawn(u64, Sample);

impl PartialEq for Drawn {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Drawn {}

impl PartialOrd for Drawn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Drawn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// A fair sample of attempts, at most [`SAMPLES_MAX`].
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    kept: BinaryHeap<Drawn>,
}

impl Samples {
    /// One more attempt, which drew that number.
    pub(super) fn add(&mut self, drawn: u64, sample: impl FnOnce() -> Sample) {
        if self.kept.len() < SAMPLES_MAX {
            self.kept.push(Drawn(drawn, sample()));
        } else if let Some(mut largest) = self.kept.peek_mut()
            && drawn < largest.0
        {
            *largest = Drawn(drawn, sample());
        }
    }

    /// Those of other attempts.
    pub(super) fn merge(&mut self, other: Self) {
        for Drawn(drawn, sample) in other.kept {
            self.add(drawn, || sample);
        }
    }

    /// As they travel in a report whose window ends `now`, by their ends.
    pub(super) fn into_wire(self, now: Instant) -> Vec<v1::AttemptSample> {
        let mut samples: Vec<Sample> = self.kept.into_iter().map(|Drawn(_, sample)| sample).collect();
        samples.sort_by_key(|sample| sample.ended);
        samples.into_iter().map(|sample| sample.into_wire(now)).collect()
    }
}

impl Sample {
    fn into_wire(self, now: Instant) -> v1::AttemptSample {
        let ended_before = now.saturating_duration_since(self.ended);
        v1::AttemptSample {
            deployment: self.deployment.to_string(),
            model: self.model.to_string(),
            outcome: wire_outcome(self.outcome).into(),
            started_before_end: Some(duration_to_wire(ended_before.saturating_add(self.duration))),
            duration: Some(duration_to_wire(self.duration)),
            ttft: self.ttft.map(duration_to_wire),
            input_tokens: self.tokens.input,
            cached_input_tokens: self.tokens.cached_input,
            output_tokens: self.tokens.output,
            max_output_tokens: self.max_output_tokens,
            in_flight: self.in_flight,
            predicted_ttft: self.predicted_ttft.map(duration_to_wire),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ended: Instant, number: u64) -> Sample {
        Sample {
            deployment: "p/d".into(),
            model: "chat".into(),
            outcome: OutcomeClass::Ok,
            ended,
            duration: Duration::from_secs(2),
            ttft: None,
            tokens: Tokens { input: number, cached_input: 0, output: 1 },
            max_output_tokens: None,
            in_flight: 1,
            predicted_ttft: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_attempts_a_fair_share_of_each_part_is_kept() {
        let now = Instant::now();
        let draw = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (mut one, mut other) = (Samples::default(), Samples::default());
        for number in 1..=1_000 {
            one.add(draw(number), || sample(now, number));
        }
        for number in 1_001..=4_000 {
            other.add(draw(number), || sample(now, number));
        }
        one.merge(other);
        let wire = one.into_wire(now + Duration::from_secs(1));
        assert_eq!(wire.len(), SAMPLES_MAX);
        let early = wire.iter().filter(|sample| sample.input_tokens <= 1_000).count();
        assert!((40..90).contains(&early), "{early} of 256 for a quarter of all");
        assert_eq!(wire[0].started_before_end, Some(duration_to_wire(Duration::from_secs(3))));
    }
}
