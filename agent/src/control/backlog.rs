//! Telemetry that was counted and is not acknowledged: reports that have a number, and
//! windows that have none yet. Pure; bounded by merging, never by dropping.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, SystemTime},
};

use trunkline_proto::{
    convert::{histogram, wire_histogram},
    telemetry::v1::{Histogram, StreamReportsRequest, TargetStats},
    types::v1::Version,
};

use super::{duration_from_wire, duration_to_wire};

/// Reports with a number; with one a second, a minute of a slow control plane.
const NUMBERED_MAX: usize = 64;
/// Bytes of numbered reports beyond which no further one is made.
const NUMBERED_BYTES_MAX: usize = 4 << 20;
/// Windows without a number. Over a day each is some 20 minutes long, and so history is
/// right to that.
const WAITING_MAX: usize = 64;
/// Bytes of windows beyond which two are merged. The last one may be larger: all pairs
/// of deployment and model that were ever used in it, some 300 bytes each.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// Targets in one report: keeps it far below the 1 MiB that the control plane takes.
const TARGETS_MAX: usize = 200;

/// What is not acknowledged yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Backlog {
    /// Numbered and never changed. By incarnation, the oldest first; then by number.
    numbered: VecDeque<StreamReportsRequest>,
    /// The oldest first.
    waiting: VecDeque<Window>,
}

/// Counts of some time, without a number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    /// On this machine's clock.
    pub(super) end: SystemTime,
    /// From the first count's window to the last's.
    pub(super) covered: Duration,
    pub(super) targets: Vec<TargetStats>,
    bytes: usize,
}

/// Who makes a report, and what it holds besides counts.
pub(super) struct Stamp<'a> {
    pub(super) agent_id: &'a str,
    pub(super) incarnation: &'a str,
    pub(super) seq: u64,
    pub(super) applied: Option<Version>,
    pub(super) lost_before: Option<Duration>,
}

impl Window {
    pub(super) fn new(end: SystemTime, covered: Duration, targets: Vec<TargetStats>) -> Self {
        let bytes = targets.iter().map(prost::Message::encoded_len).sum();
        Self { end, covered, targets, bytes }
    }

    /// As the spool keeps it: a report without a number.
    pub(super) fn to_wire(&self) -> StreamReportsRequest {
        StreamReportsRequest {
            covered: Some(duration_to_wire(self.covered)),
            end_time: Some(self.end.into()),
            targets: self.targets.clone(),
            ..StreamReportsRequest::default()
        }
    }

    /// `now` stands in for a time that is missing.
    pub(super) fn from_wire(wire: StreamReportsRequest, now: SystemTime) -> Self {
        let end = wire.end_time.and_then(|end| SystemTime::try_from(end).ok()).unwrap_or(now);
        let covered = wire.covered.and_then(duration_from_wire).unwrap_or_default();
        Self::new(end, covered, wire.targets)
    }

    /// How long both together are, with the time between them.
    fn span(&self, later: &Self) -> Duration {
        let between = later.end.duration_since(self.end).unwrap_or_default();
        // Clocks step; what was counted in is never less than both.
        self.covered.saturating_add(between.max(later.covered))
    }

    fn merge(self, later: Self) -> Self {
        let covered = self.span(&later);
        let end = self.end.max(later.end);
        let mut targets = self.targets;
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
        Self::new(end, covered, targets)
    }
}

impl Backlog {
    pub(super) fn new(numbered: Vec<StreamReportsRequest>, waiting: Vec<Window>) -> Self {
        Self { numbered: numbered.into(), waiting: waiting.into() }
    }

    pub(super) fn numbered(&self) -> impl ExactSizeIterator<Item = &StreamReportsRequest> {
        self.numbered.iter()
    }

    pub(super) fn waiting(&self) -> impl ExactSizeIterator<Item = &Window> {
        self.waiting.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbered.is_empty() && self.waiting.is_empty()
    }

    /// Adds the newest window. Beyond the bounds the two neighbours that are shortest
    /// together become one, so that all stay about even.
    pub(super) fn push(&mut self, window: Window) {
        self.waiting.push_back(window);
        let bytes = |all: &VecDeque<Window>| all.iter().map(|one| one.bytes).sum::<usize>();
        while self.waiting.len() > WAITING_MAX
            || (self.waiting.len() > 1 && bytes(&self.waiting) > WAITING_BYTES_MAX)
        {
            let spans = self.waiting.iter().zip(self.waiting.iter().skip(1));
            let shortest = spans.enumerate().min_by_key(|(_, (one, next))| one.span(next));
            let Some(at) = shortest.map(|(at, _)| at) else { return };
            if let Some((one, next)) = self.waiting.remove(at).zip(self.waiting.remove(at)) {
                self.waiting.insert(at, one.merge(next));
            }
        }
    }

    /// Gives the oldest counts without a number one. False: there are none, or too much
    /// is numbered already.
    pub(super) fn number(&mut self, stamp: Stamp<'_>) -> bool {
        let bytes: usize = self.numbered.iter().map(prost::Message::encoded_len).sum();
        if self.numbered.len() >= NUMBERED_MAX || bytes > NUMBERED_BYTES_MAX {
            return false;
        }
        let Some(mut window) = self.waiting.pop_front() else { return false };
        if window.targets.len() > TARGETS_MAX {
            let rest = window.targets.split_off(TARGETS_MAX);
            self.waiting.push_front(Window::new(window.end, window.covered, rest));
        }
        self.numbered.push_back(StreamReportsRequest {
            agent_id: stamp.agent_id.to_owned(),
            incarnation: stamp.incarnation.to_owned(),
            seq: stamp.seq,
            applied: stamp.applied,
            lost_before: stamp.lost_before.map(duration_to_wire),
            ..window.to_wire()
        });
        true
    }

    /// Whose reports are to be sent first.
    pub(super) fn first_incarnation(&self) -> Option<&str> {
        self.numbered.front().map(|report| report.incarnation.as_str())
    }

    /// The report at `index` of those that `incarnation` has first in the queue.
    pub(super) fn report(&self, incarnation: &str, index: usize) -> Option<&StreamReportsRequest> {
        self.numbered.get(index).filter(|report| report.incarnation == incarnation)
    }

    /// Forgets what was acknowledged, gives how many reports that were.
    pub(super) fn acknowledge(&mut self, incarnation: &str, seq: u64) -> usize {
        let done = |report: &&StreamReportsRequest| report.incarnation == incarnation && report.seq <= seq;
        let count = self.numbered.iter().take_while(done).count();
        self.numbered.drain(..count);
        count
    }
}

/// Adds up what two windows counted for the same target.
fn add(sum: &mut TargetStats, more: &TargetStats) {
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

#[cfg(test)]
mod tests {
    use trunkline_proto::telemetry::v1::OutcomeCount;

    use super::*;

    const HOUR: u64 = 3_600;

    fn targets(names: usize, count: u64) -> Vec<TargetStats> {
        let mut seen = trunkline_routing::histogram::Histogram::default();
        seen.record(count);
        let target = |at: usize| TargetStats {
            deployment: format!("p/{at}"),
            model: "chat".to_owned(),
            outcomes: vec![OutcomeCount { outcome: 1, count }],
            cost_nano_usd: 3 * count,
            faulted: count,
            duration: Some(wire_histogram(&seen)),
            ..TargetStats::default()
        };
        (0..names).map(target).collect()
    }

    fn stamp(seq: u64) -> Stamp<'static> {
        Stamp { agent_id: "a", incarnation: "i", seq, applied: None, lost_before: None }
    }

    fn window(end_seconds: u64, targets: Vec<TargetStats>) -> Window {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(end_seconds);
        Window::new(end, Duration::from_secs(1), targets)
    }

    #[test]
    fn a_day_of_windows_stays_bounded_even_and_complete() {
        let mut backlog = Backlog::default();
        for second in 1..=24 * HOUR {
            backlog.push(window(second, targets(2, 1)));
        }
        assert_eq!(backlog.waiting().len(), WAITING_MAX);
        let mut end = SystemTime::UNIX_EPOCH;
        for one in backlog.waiting() {
            assert_eq!(one.end - one.covered, end, "windows follow each other");
            assert!(one.covered <= Duration::from_secs(HOUR), "{:?}", one.covered);
            end = one.end;
        }
        assert_eq!(end, SystemTime::UNIX_EPOCH + Duration::from_secs(24 * HOUR));
        let all = || backlog.waiting().flat_map(|one| &one.targets);
        assert_eq!(all().map(|one| one.outcomes[0].count).sum::<u64>(), 2 * 24 * HOUR);
        assert_eq!(all().map(|one| one.cost_nano_usd + one.faulted).sum::<u64>(), 4 * 2 * 24 * HOUR);
        let counted = all().map(|one| histogram(one.duration.clone().unwrap()).unwrap().count());
        assert_eq!(counted.sum::<u64>(), 2 * 24 * HOUR);
    }

    #[test]
    fn large_windows_are_merged_before_there_are_many() {
        let mut backlog = Backlog::default();
        for second in 1..=40 {
            backlog.push(window(second, targets(10_000, 1)));
        }
        let bytes: usize = backlog.waiting().map(|one| one.bytes).sum();
        assert!(bytes <= WAITING_BYTES_MAX, "{bytes}");
        let all = backlog.waiting().flat_map(|one| &one.targets);
        assert_eq!(all.map(|one| one.outcomes[0].count).sum::<u64>(), 400_000);
    }

    #[test]
    fn numbered_reports_are_bounded_and_lose_nothing() {
        let mut backlog = Backlog::default();
        backlog.push(window(1, targets(450, 1)));
        let mut seq = 1;
        while backlog.number(stamp(seq)) {
            seq += 1;
        }
        let sizes: Vec<_> = backlog.numbered().map(|report| report.targets.len()).collect();
        assert_eq!((sizes, backlog.waiting().len()), (vec![200, 200, 50], 0));
        for second in 2..=200 {
            backlog.push(window(second, targets(1, 1)));
            backlog.number(stamp(seq + second));
        }
        assert_eq!((backlog.numbered().len(), backlog.waiting().len()), (NUMBERED_MAX, WAITING_MAX));
        let reported = backlog.numbered().flat_map(|report| &report.targets);
        let all = reported.chain(backlog.waiting().flat_map(|one| &one.targets));
        assert_eq!(all.map(|one| one.outcomes[0].count).sum::<u64>(), 450 + 199);
    }

    #[test]
    fn an_acknowledgement_is_for_one_incarnation_only() {
        let mut backlog = Backlog::default();
        for (incarnation, seq) in [("old", 4), ("old", 5), ("new", 1), ("new", 2)] {
            backlog.push(window(1, vec![]));
            assert!(backlog.number(Stamp { incarnation, ..stamp(seq) }));
        }
        assert_eq!(backlog.acknowledge("new", 9), 0);
        assert_eq!(backlog.acknowledge("old", 4), 1);
        assert_eq!(backlog.report("old", 0).unwrap().seq, 5);
        assert!(backlog.report("old", 1).is_none());
        assert_eq!(backlog.acknowledge("old", 9), 1);
        assert_eq!(backlog.first_incarnation(), Some("new"));
        assert_eq!(backlog.acknowledge("new", 9), 2);
        assert!(backlog.is_empty());
    }
}
