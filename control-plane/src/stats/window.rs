//! The last hour in steps of ten seconds.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{Key, totals::Totals};

/// How far back it reaches.
pub(super) const LENGTH: Duration = Duration::from_hours(1);

/// Resolution: as fine as a person asks, and 360 steps for the hour.
const STEP: Duration = Duration::from_secs(10);

/// Steps of counts, oldest first; steps in which nothing came are left out.
#[derive(Debug)]
pub(super) struct Window {
    start: Instant,
    steps: VecDeque<(u64, HashMap<Key, Totals>)>,
}

impl Window {
    pub(super) fn new(start: Instant) -> Self {
        Self { start, steps: VecDeque::new() }
    }

    /// Adds counts to the step of `now`.
    pub(super) fn add(&mut self, added: HashMap<Key, Totals>, now: Instant) {
        let step = self.step(now);
        let oldest = (step + 1).saturating_sub(steps(LENGTH));
        while self.steps.front().is_some_and(|(number, _)| *number < oldest) {
            self.steps.pop_front();
        }
        match self.steps.back_mut() {
            Some((number, counts)) if *number == step => {
                for (key, totals) in added {
                    counts.entry(key).or_default().merge(&totals);
                }
            }
            _ => self.steps.push_back((step, added)),
        }
    }

    /// The sum of the last `window`, rounded up to whole steps; the running step counts
    /// as one.
    pub(super) fn sum(
        &self,
        window: Duration,
        now: Instant,
        wanted: impl Fn(&Key) -> bool,
    ) -> Vec<(Key, Totals)> {
        let first = (self.step(now) + 1).saturating_sub(steps(window));
        let mut sums: HashMap<&Key, Totals> = HashMap::new();
        for (_, counts) in self.steps.iter().filter(|(number, _)| *number >= first) {
            for (key, totals) in counts.iter().filter(|(key, _)| wanted(key)) {
                sums.entry(key).or_default().merge(totals);
            }
        }
        sums.into_iter().map(|(key, totals)| (key.clone(), totals)).collect()
    }

    fn step(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / STEP.as_secs()
    }
}

fn steps(window: Duration) -> u64 {
    window.as_millis().div_ceil(STEP.as_millis()) as u64
}

#[cfg(test)]
mod tests {
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
        let mut window = Window::new(start);
        add(&mut window, 1, start);
        add(&mut window, 10, start + Duration::from_secs(15));
        add(&mut window, 100, start + Duration::from_secs(16));
        let now = start + Duration::from_secs(19);
        assert_eq!(tokens(&window, 10, now), 110);
        assert_eq!(tokens(&window, 11, now), 111);
    }

    #[test]
    fn what_is_older_than_an_hour_is_dropped() {
        let start = Instant::now();
        let mut window = Window::new(start);
        for step in 0..1_000 {
            add(&mut window, 1, start + STEP * step);
        }
        assert_eq!(window.steps.len(), 360);
        assert_eq!(tokens(&window, 3_600, start + STEP * 999), 360);
        assert_eq!(tokens(&window, 3_600, start + STEP * 999 + LENGTH), 0);
    }
}
