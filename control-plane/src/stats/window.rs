//! The last hour, or month, in steps.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{Key, totals::Totals};

/// Pairs of deployment and virtual model over all steps of a window, of 1 KiB or so. With
/// more than 80 that are in use all the time an hour reaches less far back; with more
/// than 40, a month.
const ENTRIES_MAX: usize = 30_000;

/// How far back a window reaches, and how exactly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) length: Duration,
    /// Resolution.
    pub(super) step: Duration,
}

/// Steps of counts, oldest first; steps in which nothing came are left out.
#[derive(Debug)]
pub(super) struct Window {
    extent: Extent,
    start: Instant,
    steps: VecDeque<(u64, HashMap<Key, Totals>)>,
    entries: usize,
}

impl Window {
    pub(super) fn new(extent: Extent, start: Instant) -> Self {
        Self { extent, start, steps: VecDeque::new(), entries: 0 }
    }

    /// Adds counts to the step of `now`.
    pub(super) fn add(&mut self, added: HashMap<Key, Totals>, now: Instant) {
        let step = self.step(now);
        if self.steps.back().is_none_or(|(number, _)| *number != step) {
            self.steps.push_back((step, HashMap::new()));
        }
        if let Some((_, counts)) = self.steps.back_mut() {
            let before = counts.len();
            for (key, totals) in added {
                counts.entry(key).or_default().merge(&totals);
            }
            self.entries += counts.len() - before;
        }
        let oldest = self.first_step(self.extent.length, now);
        while let Some((number, counts)) = self.steps.front()
            && (*number < oldest || (self.entries > ENTRIES_MAX && self.steps.len() > 1))
        {
            self.entries -= counts.len();
            self.steps.pop_front();
        }
    }

    /// The sum of the last `window`, and of the rest of the step in which that began.
    pub(super) fn sum(
        &self,
        window: Duration,
        now: Instant,
        wanted: impl Fn(&Key) -> bool,
    ) -> Vec<(Key, Totals)> {
        let mut sums: HashMap<&Key, Totals> = HashMap::new();
        for (key, totals) in self.counts(window, now).filter(|(key, _)| wanted(key)) {
            sums.entry(key).or_default().merge(totals);
        }
        sums.into_iter().map(|(key, totals)| (key.clone(), totals)).collect()
    }

    /// All counts of the last `window`.
    pub(super) fn counts(&self, window: Duration, now: Instant) -> impl Iterator<Item = (&Key, &Totals)> {
        let first = self.first_step(window, now);
        self.steps.iter().filter(move |(number, _)| *number >= first).flat_map(|(_, counts)| counts)
    }

    /// The step in which the last `window` began.
    fn first_step(&self, window: Duration, now: Instant) -> u64 {
        now.checked_sub(window).map_or(0, |began| self.step(began))
    }

    fn step(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / self.extent.step.as_secs().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::HOUR;
    use super::*;

    fn add(window: &mut Window, tokens: u64, now: Instant) {
        let key = Key { deployment: "p/d".into(), model: "chat".into() };
        let totals = Totals { input_tokens: tokens, ..Totals::default() };
        window.add(HashMap::from([(key, totals)]), now);
    }

    fn tokens(window: &Window, length: u64, now: Instant) -> u64 {
        let sums = window.sum(Duration::from_secs(length), now, |_| true);
        sums.iter().map(|(_, totals)| totals.input_tokens).sum()
    }

    #[test]
    fn a_window_sums_the_steps_that_it_covers() {
        let start = Instant::now();
        let mut window = Window::new(HOUR, start);
        add(&mut window, 1, start);
        add(&mut window, 10, start + Duration::from_secs(15));
        add(&mut window, 100, start + Duration::from_secs(16));
        let now = start + Duration::from_secs(21);
        // What came six seconds ago is in the last ten, though a step ended meanwhile.
        assert_eq!(tokens(&window, 10, now), 110);
        assert_eq!(tokens(&window, 11, now), 110);
        assert_eq!(tokens(&window, 12, now), 111);
    }

    #[test]
    fn what_is_older_than_an_hour_is_dropped() {
        let start = Instant::now();
        let mut window = Window::new(HOUR, start);
        for step in 0..1_000 {
            add(&mut window, 1, start + HOUR.step * step);
        }
        assert_eq!(window.steps.len(), 361);
        assert_eq!(tokens(&window, 3_600, start + HOUR.step * 999), 361);
        assert_eq!(tokens(&window, 3_600, start + HOUR.step * 1_000 + HOUR.length), 0);
    }

    #[test]
    fn many_pairs_shorten_the_window_instead_of_filling_the_memory() {
        let start = Instant::now();
        let mut window = Window::new(HOUR, start);
        let pairs = |step: u32| {
            let key = |number| Key { deployment: format!("p/{number}"), model: "chat".into() };
            let totals = Totals { input_tokens: u64::from(step), ..Totals::default() };
            (0..ENTRIES_MAX / 4).map(move |number| (key(number), totals.clone())).collect()
        };
        for step in 1..=9 {
            window.add(pairs(step), start + HOUR.step * step);
        }
        assert_eq!((window.steps.len(), window.entries), (4, ENTRIES_MAX));
        let sums = window.sum(HOUR.length, start + HOUR.step * 9, |key| key.deployment == "p/7");
        assert_eq!(sums[0].1.input_tokens, 6 + 7 + 8 + 9);
    }
}
