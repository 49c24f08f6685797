//! How many requests ran at a deployment at a moment that is past, over all agents.
//!
//! Rebuilt from the starts and ends that agents report. What still runs is not known, so
//! a moment is asked about only some time later.

use alloc::boxed::Box;

use crate::time::Timestamp;

/// Starts and ends are counted in slots of a tenth of a second,
const SLOT_NANOS: u64 = 100_000_000;
/// over 102 seconds: longer than most requests.
const SLOTS: u64 = 1_024;

/// Starts less ends by slot, and what ran before the first of them.
#[derive(Clone, Debug)]
pub(crate) struct Occupancy {
    changes: Box<[i32; SLOTS as usize]>,
    first: u64,
    before: i64,
}

impl Default for Occupancy {
    fn default() -> Self {
        Self { changes: Box::new([0; SLOTS as usize]), first: 0, before: 0 }
    }
}

impl Occupancy {
    /// A request ran from `start` to `end`.
    pub(crate) fn add(&mut self, start: Timestamp, end: Timestamp) {
        let (start, end) = (start.as_nanos() / SLOT_NANOS, end.as_nanos() / SLOT_NANOS);
        self.advance(end.max(start));
        for (slot, change) in [(start, 1), (end.max(start), -1)] {
            if slot < self.first {
                self.before += i64::from(change);
            } else {
                let place = &mut self.changes[(slot % SLOTS) as usize];
                *place = place.saturating_add(change);
            }
        }
    }

    /// Requests that ran at `at`. None: that is too long ago, or in the future.
    pub(crate) fn at(&self, at: Timestamp) -> Option<u32> {
        let slot = at.as_nanos() / SLOT_NANOS;
        if slot < self.first || slot >= self.first + SLOTS {
            return None;
        }
        let changes = (self.first..=slot).map(|slot| i64::from(self.changes[(slot % SLOTS) as usize]));
        u32::try_from((self.before + changes.sum::<i64>()).max(0)).ok()
    }

    fn advance(&mut self, newest: u64) {
        let first = (newest + 1).saturating_sub(SLOTS);
        if first.saturating_sub(self.first) >= SLOTS {
            self.before += self.changes.iter().map(|change| i64::from(*change)).sum::<i64>();
            self.changes.fill(0);
            self.first = first;
        }
        while self.first < first {
            let place = &mut self.changes[(self.first % SLOTS) as usize];
            self.before += i64::from(core::mem::take(place));
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn what_ran_together_is_counted_whatever_the_order_of_reports() {
        let mut occupancy = Occupancy::default();
        occupancy.add(at(1_000), at(5_000));
        occupancy.add(at(500), at(2_000));
        occupancy.add(at(3_000), at(90_000));
        assert_eq!(
            [600, 1_500, 2_500, 4_000, 60_000].map(|time| occupancy.at(at(time)).unwrap()),
            [1, 2, 1, 2, 1]
        );
    }

    #[test]
    fn what_left_the_window_is_summed_up() {
        let mut occupancy = Occupancy::default();
        occupancy.add(at(0), at(200_000));
        occupancy.add(at(150_000), at(150_500));
        occupancy.add(at(1_000_000), at(1_000_100));
        assert_eq!(occupancy.at(at(150_000)), None);
        assert_eq!(occupancy.at(at(999_000)), Some(0));
        assert_eq!(occupancy.at(at(1_000_000)), Some(1));
    }
}
