//! One stream of reports: what was refused on it and must come again. Pure.

use std::collections::HashMap;
use std::time::Duration;

/// Incarnations on one stream: an agent sends for its own and for some that it found on
/// its disk. Reports of further ones wait as if refused.
const INCARNATIONS_MAX: usize = 64;

/// A stream that reports in order, and whether it has to go back.
///
/// A report that was read but not merged is asked for again. Those sent after it were
/// under way by then. Were they merged, or shown to the sequences, the refused one would
/// look like a gap that the agent cannot fill. So they are passed over until the agent
/// begins again.
#[derive(Debug, Default)]
pub(crate) struct ReportStream {
    incarnations: HashMap<String, Progress>,
    /// The interval that was told last.
    told: Option<Duration>,
}

#[derive(Debug, Default)]
struct Progress {
    acked: u64,
    /// The first report that has to come again.
    refused: Option<u64>,
}

impl ReportStream {
    /// Whether a report may be merged. If not, it will come again.
    pub(crate) fn admits(&mut self, incarnation: &str, seq: u64) -> bool {
        if !self.incarnations.contains_key(incarnation) {
            if self.incarnations.len() >= INCARNATIONS_MAX {
                self.incarnations.retain(|_, progress| progress.refused.is_some());
            }
            return self.incarnations.len() < INCARNATIONS_MAX;
        }
        let progress = self.incarnations.entry(incarnation.to_owned()).or_default();
        let again = progress.refused.is_none_or(|refused| seq <= refused);
        progress.refused = progress.refused.filter(|_| !again);
        again
    }

    /// Notes that a report was not merged. If it was not merged before either, it has to
    /// come again.
    pub(crate) fn refuse(&mut self, incarnation: &str, seq: u64) {
        let progress = self.incarnations.entry(incarnation.to_owned()).or_default();
        // The agent knows that this one is durable and will not begin with it.
        progress.refused = Some(seq).filter(|seq| *seq > progress.acked);
    }

    /// Notes what is durable of an incarnation.
    pub(crate) fn acknowledge(&mut self, incarnation: &str, acked: u64) {
        self.incarnations.entry(incarnation.to_owned()).or_default().acked = acked;
    }

    /// What is known to be durable of an incarnation; 0: nothing.
    pub(crate) fn acked(&self, incarnation: &str) -> u64 {
        self.incarnations.get(incarnation).map_or(0, |progress| progress.acked)
    }

    /// The interval to tell, if it differs from the one told by more than a fifth.
    pub(crate) fn tell(&mut self, interval: Duration) -> Option<Duration> {
        let near = |told: Duration| interval.abs_diff(told) * 5 <= told;
        if self.told.is_some_and(near) {
            return None;
        }
        self.told = Some(interval);
        Some(interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_under_way_behind_a_refused_report_waits_for_it() {
        let mut stream = ReportStream::default();
        assert!(stream.admits("i", 3));
        stream.refuse("i", 3);
        assert!(!stream.admits("i", 4) && !stream.admits("i", 5));
        assert!(stream.admits("other", 1));
        assert!(stream.admits("i", 2) && stream.admits("i", 3) && stream.admits("i", 4));
    }

    #[test]
    fn a_report_that_was_merged_before_need_not_come_again() {
        let mut stream = ReportStream::default();
        stream.acknowledge("i", 5);
        stream.refuse("i", 3);
        assert!(stream.admits("i", 6));
    }

    #[test]
    fn an_interval_is_told_first_and_when_it_changes_by_more_than_a_fifth() {
        let mut stream = ReportStream::default();
        let second = Duration::from_secs(1);
        assert_eq!(stream.tell(second), Some(second));
        assert_eq!(stream.tell(second.mul_f64(1.2)), None);
        assert_eq!(stream.tell(second.mul_f64(1.3)), Some(second.mul_f64(1.3)));
        assert_eq!(stream.tell(second), Some(second));
    }

    #[test]
    fn what_is_durable_is_known_by_incarnation() {
        let mut stream = ReportStream::default();
        stream.acknowledge("i", 7);
        assert_eq!((stream.acked("i"), stream.acked("j")), (7, 0));
    }
}
