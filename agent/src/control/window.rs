//! Counts of some time, and reports made of them. Both are shared with the spool's writer,
//! so that nobody copies them to write them.

use std::{
    collections::HashMap,
    sync::OnceLock,
    time::{Duration, SystemTime, SystemTimeError},
};

use prost::Message as _;
use trunkline_proto::{
    convert::{histogram, wire_histogram},
    telemetry::v1::{AttemptSample, Histogram, StreamReportsRequest, TargetStats},
};

use super::{duration_from_wire, duration_to_wire, samples::SAMPLES_MAX};

/// The bytes of what it stands beside, made by whoever writes them first: once, and on
/// that thread.
#[derive(Debug, Default)]
struct Encoded(OnceLock<Vec<u8>>);

/// A copy is made to be changed.
impl Clone for Encoded {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Follows from what it stands beside.
impl PartialEq for Encoded {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A report with a number. Never changes.
#[derive(Debug, PartialEq)]
pub(super) struct Report {
    pub(super) wire: StreamReportsRequest,
    /// Encoded.
    pub(super) bytes: usize,
    encoded: Encoded,
}

impl Report {
    pub(super) fn new(wire: StreamReportsRequest) -> Self {
        let bytes = wire.encoded_len();
        Self { wire, bytes, encoded: Encoded::default() }
    }

    /// As the spool keeps it.
    pub(super) fn encoded(&self) -> &[u8] {
        self.encoded.0.get_or_init(|| self.wire.encode_to_vec())
    }
}

/// Counts of some time, without a number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    /// On this machine's clock.
    pub(super) end: SystemTime,
    /// From the first count's window to the last's.
    pub(super) covered: Duration,
    pub(super) targets: Vec<TargetStats>,
    /// At most [`SAMPLES_MAX`].
    pub(super) samples: Vec<AttemptSample>,
    pub(super) bytes: usize,
    encoded: Encoded,
}

impl Window {
    pub(super) fn new(end: SystemTime, covered: Duration, targets: Vec<TargetStats>) -> Self {
        let bytes = targets.iter().map(prost::Message::encoded_len).sum();
        Self { end, covered, targets, samples: Vec::new(), bytes, encoded: Encoded::default() }
    }

    /// With some of the attempts that it counts.
    #[must_use]
    pub(super) fn with_samples(mut self, samples: Vec<AttemptSample>) -> Self {
        self.bytes += samples.iter().map(prost::Message::encoded_len).sum::<usize>();
        self.samples = samples;
        self
    }

    /// Without the attempts one by one.
    pub(super) fn forget_samples(&mut self) {
        let plain = Self::new(self.end, self.covered, std::mem::take(&mut self.targets));
        *self = plain;
    }

    /// As the spool keeps it.
    pub(super) fn encoded(&self) -> &[u8] {
        self.encoded.0.get_or_init(|| self.to_wire().encode_to_vec())
    }

    /// A report without a number.
    fn to_wire(&self) -> StreamReportsRequest {
        self.clone().into_wire()
    }

    /// The same without a copy.
    pub(super) fn into_wire(self) -> StreamReportsRequest {
        StreamReportsRequest {
            covered: Some(duration_to_wire(self.covered)),
            end_time: Some(self.end.into()),
            targets: self.targets,
            samples: self.samples,
            ..StreamReportsRequest::default()
        }
    }

    /// `now` stands in for a time that is missing.
    pub(super) fn from_wire(wire: StreamReportsRequest, now: SystemTime) -> Self {
        let end = wire.end_time.and_then(|end| SystemTime::try_from(end).ok()).unwrap_or(now);
        let covered = wire.covered.and_then(duration_from_wire).unwrap_or_default();
        Self::new(end, covered, wire.targets).with_samples(wire.samples)
    }

    /// How long both together are, with the time between them.
    pub(super) fn span(&self, later: &Self) -> Duration {
        let between = later.end.duration_since(self.end).unwrap_or_default();
        // Clocks step; what was counted in is never less than both.
        self.covered.saturating_add(between.max(later.covered))
    }

    /// Both as one.
    pub(super) fn merge(self, later: Self) -> Self {
        let covered = self.span(&later);
        let end = self.end.max(later.end);
        let samples = merge_samples(self.samples, end.duration_since(self.end), later.samples);
        let mut targets = self.targets;
        // What ran at the end of the earlier one is of the past.
        for one in &mut targets {
            one.in_flight = 0;
        }
        let mut places: HashMap<(String, String), usize> = HashMap::with_capacity(targets.len());
        for (at, one) in targets.iter().enumerate() {
            places.insert((one.deployment.clone(), one.model.clone()), at);
        }
        for one in later.targets {
            match places.get(&(one.deployment.clone(), one.model.clone())) {
                Some(at) => add(&mut targets[*at], &one),
                None => targets.push(one),
            }
        }
        Self::new(end, covered, targets).with_samples(samples)
    }
}

/// Those of both, the newest if they are too many: they say more about now. `moved`: how
/// much later the window of the earlier ones ends now.
fn merge_samples(
    earlier: Vec<AttemptSample>,
    moved: Result<Duration, SystemTimeError>,
    later: Vec<AttemptSample>,
) -> Vec<AttemptSample> {
    let moved = moved.unwrap_or_default();
    let earlier = earlier.into_iter().map(|mut sample| {
        let before = sample.started_before_end.and_then(duration_from_wire).unwrap_or_default();
        sample.started_before_end = Some(duration_to_wire(before.saturating_add(moved)));
        sample
    });
    let mut samples: Vec<_> = earlier.chain(later).collect();
    samples.drain(..samples.len().saturating_sub(SAMPLES_MAX));
    samples
}

/// Adds up what two windows counted for the same target.
fn add(sum: &mut TargetStats, more: &TargetStats) {
    sum.in_flight = more.in_flight;
    for outcome in &more.outcomes {
        match sum.outcomes.iter_mut().find(|known| known.outcome == outcome.outcome) {
            Some(known) => known.count = known.count.saturating_add(outcome.count),
            None => sum.outcomes.push(*outcome),
        }
    }
    for (sum, more) in [
        (&mut sum.input_tokens, more.input_tokens),
        (&mut sum.cached_input_tokens, more.cached_input_tokens),
        (&mut sum.output_tokens, more.output_tokens),
        (&mut sum.cost_nano_usd, more.cost_nano_usd),
        (&mut sum.usage_from_provider, more.usage_from_provider),
        (&mut sum.usage_estimated, more.usage_estimated),
        (&mut sum.unpriced, more.unpriced),
        (&mut sum.breaker_openings, more.breaker_openings),
        (&mut sum.faulted, more.faulted),
    ] {
        *sum = sum.saturating_add(more);
    }
    add_histogram(&mut sum.ttft, more.ttft.as_ref());
    add_histogram(&mut sum.duration, more.duration.as_ref());
}

fn add_histogram(sum: &mut Option<Histogram>, more: Option<&Histogram>) {
    let Some(more) = more else { return };
    let merged = sum.as_ref().and_then(|sum| {
        let mut merged = histogram(sum.clone()).ok()?;
        merged.merge(&histogram(more.clone()).ok()?);
        Some(wire_histogram(&merged))
    });
    // Without a sum, or with one that can't be read, the other one is all there is.
    *sum = Some(merged.unwrap_or_else(|| more.clone()));
}
