//! What a deployment charges and from when. The same code answers for decisions, for
//! accounts and in the simulator; which entries there are is the control plane's matter.

use alloc::{boxed::Box, vec::Vec};

use crate::money::Price;

/// A price and when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Milliseconds of the wall clock since 1970, UTC. 0: since ever.
    pub valid_from_unix_ms: u64,
    /// What is charged from then on.
    pub price: Price,
}

/// The prices of a deployment over time. Empty: unknown, which is never the same as
/// free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Rising by time, each time once.
    entries: Box<[Entry]>,
}

impl Schedule {
    /// No price is known at any time.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// One price at all times.
    pub fn fixed(price: Price) -> Self {
        Self { entries: [Entry { valid_from_unix_ms: 0, price }].into() }
    }

    /// Each entry is valid until the next one. Of entries that begin at the same time the
    /// last one given counts.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        // The order of equal times is kept.
        entries.sort_by_key(|entry| entry.valid_from_unix_ms);
        entries.reverse();
        entries.dedup_by_key(|entry| entry.valid_from_unix_ms);
        entries.reverse();
        Self { entries: entries.into() }
    }

    /// The price at a time of the wall clock, in ms since 1970. None: unknown then.
    /// `unix_ms` 0: the caller has no clock; the newest price there is.
    pub fn at(&self, unix_ms: u64) -> Option<&Price> {
        if unix_ms == 0 {
            return self.entries.last().map(|entry| &entry.price);
        }
        let begun = self.entries.partition_point(|entry| entry.valid_from_unix_ms <= unix_ms);
        begun.checked_sub(1).map(|newest| &self.entries[newest].price)
    }

    /// All entries, rising by time, each time once.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Rates;

    fn entry(valid_from_unix_ms: u64, input: u64) -> Entry {
        let price = Price::flat(Rates { input, cached_input: input, output: input });
        Entry { valid_from_unix_ms, price }
    }

    fn at(schedule: &Schedule, unix_ms: u64) -> Option<u64> {
        schedule.at(unix_ms).map(|price| price.base.input)
    }

    #[test]
    fn the_newest_entry_that_has_begun_counts() {
        let schedule = Schedule::new(alloc::vec![entry(200, 3), entry(0, 1), entry(100, 2)]);
        let found = [1, 99, 100, 199, 200, u64::MAX].map(|unix_ms| at(&schedule, unix_ms));
        assert_eq!(found, [Some(1), Some(1), Some(2), Some(2), Some(3), Some(3)]);
    }

    #[test]
    fn before_the_first_entry_the_price_is_unknown() {
        let schedule = Schedule::new(alloc::vec![entry(100, 2)]);
        assert_eq!((at(&schedule, 99), at(&schedule, 100)), (None, Some(2)));
        assert_eq!(at(&Schedule::unknown(), 1), None);
    }

    #[test]
    fn of_entries_of_one_time_the_last_one_given_counts() {
        let schedule = Schedule::new(alloc::vec![entry(5, 1), entry(5, 2), entry(5, 3)]);
        assert_eq!((at(&schedule, 5), schedule.entries().len()), (Some(3), 1));
    }

    #[test]
    fn without_a_clock_the_newest_price_counts() {
        let schedule = Schedule::new(alloc::vec![entry(0, 1), entry(100, 2)]);
        assert_eq!((at(&schedule, 0), at(&Schedule::unknown(), 0)), (Some(2), None));
        assert_eq!(at(&Schedule::fixed(entry(9, 7).price), 1), Some(7));
    }
}
