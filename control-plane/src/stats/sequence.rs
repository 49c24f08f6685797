//! Which reports were merged already, by agent and incarnation. Pure.

/// Incarnations remembered per agent. An agent sends for its own one only; others are
/// kept for reports that were under way when it restarted.
const INCARNATIONS_MAX: usize = 8;

/// What to do with a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It is the next one; with `gap`, those before it will never come. Of an incarnation
    /// that is not known, it may be that they were merged before, and forgotten here.
    Merge { gap: bool },
    /// It was merged before: acknowledge again, count nothing.
    Ignore,
    /// Reports before it are missing.
    AskAgain,
}

/// The incarnations of one agent, the least recently heard first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequences(Vec<Sequence>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) incarnation: String,
    /// The last number that was merged; 0: none.
    pub(super) last: u64,
    /// The number that showed a gap. When it comes again, the agent has nothing older
    /// to send, and the gap is accepted.
    pub(super) gap: Option<u64>,
}

impl Sequences {
    pub(super) fn new(sequences: impl IntoIterator<Item = (String, u64)>) -> Self {
        let sequences =
            sequences.into_iter().map(|(incarnation, last)| Sequence { incarnation, last, gap: None });
        Self(sequences.collect())
    }

    /// Takes a number, says what to do with its report and what is acknowledged now.
    pub(super) fn take(&mut self, incarnation: &str, seq: u64) -> (Action, u64) {
        let mut sequence = match self.0.iter().position(|sequence| sequence.incarnation == incarnation) {
            Some(index) => self.0.remove(index),
            None => Sequence { incarnation: incarnation.to_owned(), last: 0, gap: None },
        };
        let action = if seq <= sequence.last {
            Action::Ignore
        } else if seq == sequence.last + 1 || sequence.gap == Some(seq) {
            let gap = sequence.last > 0 && seq != sequence.last + 1;
            sequence.last = seq;
            sequence.gap = None;
            Action::Merge { gap }
        } else {
            sequence.gap = Some(sequence.gap.map_or(seq, |gap| gap.min(seq)));
            Action::AskAgain
        };
        let acked = sequence.last;
        if self.0.len() >= INCARNATIONS_MAX {
            self.0.remove(0);
        }
        self.0.push(sequence);
        (action, acked)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_report_is_merged_once() {
        let mut sequences = Sequences::default();
        assert_eq!(sequences.take("i", 1), (Action::Merge { gap: false }, 1));
        assert_eq!(sequences.take("i", 1), (Action::Ignore, 1));
        assert_eq!(sequences.take("i", 2), (Action::Merge { gap: false }, 2));
        assert_eq!(sequences.take("j", 1), (Action::Merge { gap: false }, 1));
    }

    #[test]
    fn a_gap_is_asked_for_and_accepted_when_nothing_older_comes() {
        let mut sequences = Sequences::default();
        sequences.take("i", 1);
        assert_eq!(sequences.take("i", 3), (Action::AskAgain, 1));
        assert_eq!(sequences.take("i", 4), (Action::AskAgain, 1));
        let mut healed = sequences.clone();
        assert_eq!(healed.take("i", 2), (Action::Merge { gap: false }, 2));
        assert_eq!(healed.take("i", 3), (Action::Merge { gap: false }, 3));
        assert_eq!(sequences.take("i", 3), (Action::Merge { gap: true }, 3));
        assert_eq!(sequences.take("i", 4), (Action::Merge { gap: false }, 4));
    }

    #[test]
    fn what_this_side_forgot_is_no_gap_of_the_agent() {
        let mut sequences = Sequences::default();
        assert_eq!(sequences.take("i", 57), (Action::AskAgain, 0));
        assert_eq!(sequences.take("i", 57), (Action::Merge { gap: false }, 57));
    }

    #[test]
    fn the_longest_silent_incarnation_is_forgotten() {
        let mut sequences = Sequences::default();
        for number in 0..=INCARNATIONS_MAX {
            sequences.take(&number.to_string(), 1);
        }
        assert_eq!(sequences.iter().count(), INCARNATIONS_MAX);
        assert_eq!(sequences.iter().next().unwrap().incarnation, "1");
    }
}
