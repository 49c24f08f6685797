//! Telemetry that was counted and is not acknowledged: reports that have a number, and
//! windows that have none yet. Pure; bounded by merging, never by dropping.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use trunkline_proto::{telemetry::v1::StreamReportsRequest, types::v1::Version};

use super::{
    duration_from_wire, duration_to_wire,
    window::{Report, Window},
};

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

/// The control plane learns from no window that ended longer ago.
const SAMPLES_KEPT_FOR: Duration = Duration::from_secs(60);

/// What is not acknowledged yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Backlog {
    /// Numbered and never changed. By incarnation, the oldest first; then by number.
    numbered: VecDeque<Arc<Report>>,
    /// The oldest first.
    waiting: VecDeque<Arc<Window>>,
    /// What was counted since the last report was due. Grows until the next one is.
    open: Option<Arc<Window>>,
}

/// Who makes a report, and what it holds besides counts.
pub(super) struct Stamp<'a> {
    pub(super) agent_id: &'a str,
    pub(super) incarnation: &'a str,
    pub(super) seq: u64,
    pub(super) applied: Option<Version>,
    pub(super) lost_before: Option<Duration>,
}

/// What became of reports that another name of this agent had left.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Adopted {
    /// How many there were.
    pub(super) reports: usize,
    /// What they said is missing.
    pub(super) lost_before: Duration,
}

impl Backlog {
    pub(super) fn new(numbered: Vec<StreamReportsRequest>, waiting: Vec<Window>) -> Self {
        Self {
            numbered: numbered.into_iter().map(|wire| Arc::new(Report::new(wire))).collect(),
            waiting: waiting.into_iter().map(Arc::new).collect(),
            open: None,
        }
    }

    pub(super) fn numbered(&self) -> impl ExactSizeIterator<Item = &Arc<Report>> {
        self.numbered.iter()
    }

    /// The last one may still grow.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Arc<Window>> {
        self.waiting.iter().chain(&self.open)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbered.is_empty() && self.waiting.is_empty() && self.open.is_none()
    }

    /// Adds the newest counts to those of the report that comes next.
    pub(super) fn add(&mut self, window: Window) {
        let open = match self.open.take() {
            Some(open) => Arc::unwrap_or_clone(open).merge(window),
            None => window,
        };
        self.open = Some(Arc::new(open));
    }

    /// The next report is due. False: nothing was counted for it.
    pub(super) fn close(&mut self) -> bool {
        let Some(window) = self.open.take() else { return false };
        // Nobody learns from what is reported so late.
        for old in &mut self.waiting {
            let late = window.end.duration_since(old.end).is_ok_and(|age| age >= SAMPLES_KEPT_FOR);
            if late && !old.samples.is_empty() {
                Arc::make_mut(old).forget_samples();
            }
        }
        self.waiting.push_back(window);
        self.bound();
        true
    }

    /// Beyond the bounds the two neighbours that are shortest together become one, so that
    /// all stay about even.
    fn bound(&mut self) {
        let bytes = |all: &VecDeque<Arc<Window>>| all.iter().map(|one| one.bytes).sum::<usize>();
        while self.waiting.len() > WAITING_MAX
            || (self.waiting.len() > 1 && bytes(&self.waiting) > WAITING_BYTES_MAX)
        {
            let spans = self.waiting.iter().zip(self.waiting.iter().skip(1));
            let shortest = spans.enumerate().min_by_key(|(_, (one, next))| one.span(next));
            let Some(at) = shortest.map(|(at, _)| at) else { return };
            if let Some((one, next)) = self.waiting.remove(at).zip(self.waiting.remove(at)) {
                let merged = Arc::unwrap_or_clone(one).merge(Arc::unwrap_or_clone(next));
                self.waiting.insert(at, Arc::new(merged));
            }
        }
    }

    /// Takes back the numbers of reports that are not of `agent_id`: under another name
    /// than the stream's the control plane may take none of them, and they are first in
    /// the queue. `now` stands in for a time that is missing.
    pub(super) fn adopt(&mut self, agent_id: &str, now: SystemTime) -> Adopted {
        let mut adopted = Adopted::default();
        let (own, others): (VecDeque<_>, VecDeque<_>) =
            self.numbered.drain(..).partition(|report| report.wire.agent_id == agent_id);
        self.numbered = own;
        for report in others.into_iter().rev() {
            adopted.reports += 1;
            let lost = report.wire.lost_before.and_then(duration_from_wire).unwrap_or_default();
            adopted.lost_before = adopted.lost_before.saturating_add(lost);
            // One that only opened a stream says nothing.
            if !report.wire.targets.is_empty() || !report.wire.samples.is_empty() {
                self.waiting.push_front(Arc::new(Window::from_wire(report.wire.clone(), now)));
            }
        }
        self.bound();
        adopted
    }

    /// Gives the oldest counts without a number one. False: there are none, or too much
    /// is numbered already.
    pub(super) fn number(&mut self, stamp: Stamp<'_>) -> bool {
        let bytes: usize = self.numbered.iter().map(|report| report.bytes).sum();
        if self.numbered.len() >= NUMBERED_MAX || bytes > NUMBERED_BYTES_MAX {
            return false;
        }
        let Some(window) = self.waiting.pop_front() else { return false };
        let mut window = Arc::unwrap_or_clone(window);
        if window.targets.len() > TARGETS_MAX {
            let rest = window.targets.split_off(TARGETS_MAX);
            self.waiting.push_front(Arc::new(Window::new(window.end, window.covered, rest)));
        }
        self.numbered.push_back(Arc::new(Report::new(StreamReportsRequest {
            agent_id: stamp.agent_id.to_owned(),
            incarnation: stamp.incarnation.to_owned(),
            seq: stamp.seq,
            applied: stamp.applied,
            lost_before: stamp.lost_before.map(duration_to_wire),
            ..window.into_wire()
        })));
        true
    }

    /// Whose reports are to be sent first.
    pub(super) fn first_incarnation(&self) -> Option<&str> {
        self.numbered.front().map(|report| report.wire.incarnation.as_str())
    }

    /// The report at `index` of those that `incarnation` has first in the queue.
    pub(super) fn report(&self, incarnation: &str, index: usize) -> Option<&StreamReportsRequest> {
        self.numbered.get(index).map(|report| &report.wire).filter(|wire| wire.incarnation == incarnation)
    }

    /// Forgets what was acknowledged, gives how many reports that were.
    pub(super) fn acknowledge(&mut self, incarnation: &str, seq: u64) -> usize {
        let done = |report: &&Arc<Report>| report.wire.incarnation == incarnation && report.wire.seq <= seq;
        let count = self.numbered.iter().take_while(done).count();
        self.numbered.drain(..count);
        count
    }
}

#[cfg(test)]
mod tests {
    use trunkline_proto::{
        convert::{histogram, wire_histogram},
        telemetry::v1::{OutcomeCount, TargetStats},
    };

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

    fn push(backlog: &mut Backlog, window: Window) {
        backlog.add(window);
        assert!(backlog.close());
    }

    #[test]
    fn a_day_of_windows_stays_bounded_even_and_complete() {
        let mut backlog = Backlog::default();
        for second in 1..=24 * HOUR {
            push(&mut backlog, window(second, targets(2, 1)));
        }
        assert_eq!(backlog.waiting().count(), WAITING_MAX);
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
            push(&mut backlog, window(second, targets(10_000, 1)));
        }
        let bytes: usize = backlog.waiting().map(|one| one.bytes).sum();
        assert!(bytes <= WAITING_BYTES_MAX, "{bytes}");
        let all = backlog.waiting().flat_map(|one| &one.targets);
        assert_eq!(all.map(|one| one.outcomes[0].count).sum::<u64>(), 400_000);
    }

    #[test]
    fn numbered_reports_are_bounded_and_lose_nothing() {
        let mut backlog = Backlog::default();
        push(&mut backlog, window(1, targets(450, 1)));
        let mut seq = 1;
        while backlog.number(stamp(seq)) {
            seq += 1;
        }
        let sizes: Vec<_> = backlog.numbered().map(|report| report.wire.targets.len()).collect();
        assert_eq!((sizes, backlog.waiting().count()), (vec![200, 200, 50], 0));
        for second in 2..=200 {
            push(&mut backlog, window(second, targets(1, 1)));
            backlog.number(stamp(seq + second));
        }
        assert_eq!((backlog.numbered().len(), backlog.waiting().count()), (NUMBERED_MAX, WAITING_MAX));
        let reported = backlog.numbered().flat_map(|report| &report.wire.targets);
        let all = reported.chain(backlog.waiting().flat_map(|one| &one.targets));
        assert_eq!(all.map(|one| one.outcomes[0].count).sum::<u64>(), 450 + 199);
    }

    #[test]
    fn an_acknowledgement_is_for_one_incarnation_only() {
        let mut backlog = Backlog::default();
        for (incarnation, seq) in [("old", 4), ("old", 5), ("new", 1), ("new", 2)] {
            push(&mut backlog, window(1, vec![]));
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

    #[test]
    fn counts_of_one_interval_are_one_report_however_often_they_are_taken() {
        let mut backlog = Backlog::default();
        for second in 1..=10 {
            backlog.add(window(second, targets(1, 1)));
            assert!(!backlog.number(stamp(1)), "not due");
            assert_eq!(backlog.waiting().count(), 1, "it is kept all the same");
        }
        assert!(backlog.close() && !backlog.close());
        assert!(backlog.number(stamp(1)) && !backlog.number(stamp(2)));
        let report = &backlog.report("i", 0).unwrap();
        assert_eq!(report.covered.and_then(duration_from_wire), Some(Duration::from_secs(10)));
        assert_eq!(report.targets[0].outcomes[0].count, 10);
    }

    #[test]
    fn reports_of_another_name_wait_for_a_new_number_and_nothing_else_does() {
        let mut backlog = Backlog::default();
        let lost_before = Some(Duration::from_secs(2));
        push(&mut backlog, window(1, targets(1, 5)));
        assert!(backlog.number(Stamp { agent_id: "uuid", lost_before, ..stamp(1) }));
        push(&mut backlog, window(2, vec![]));
        assert!(backlog.number(Stamp { agent_id: "uuid", ..stamp(2) }));
        push(&mut backlog, window(3, targets(1, 7)));
        assert!(backlog.number(stamp(1)));
        push(&mut backlog, window(4, targets(1, 9)));
        let now = SystemTime::UNIX_EPOCH;
        let adopted = backlog.adopt("a", now);
        assert_eq!(adopted, Adopted { reports: 2, lost_before: Duration::from_secs(2) });
        assert_eq!(backlog.adopt("a", now), Adopted::default());
        let own: Vec<_> = backlog.numbered().map(|report| report.wire.targets[0].cost_nano_usd).collect();
        let waiting: Vec<_> = backlog.waiting().map(|one| one.targets[0].cost_nano_usd).collect();
        assert_eq!((own, waiting), (vec![21], vec![15, 27]), "the oldest first");
    }
}
