//! Counts of attempts, tokens and costs: what agents reported, merged once each.
//! Totals are durable; the last hour and month are also kept in steps, in memory.

pub(crate) mod merger;
pub(crate) mod report;
mod sequence;
mod stored;
pub(crate) mod totals;
mod window;

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use self::{
    totals::Totals,
    window::{Extent, Window},
};

/// As fine as a person asks: 360 steps.
const HOUR: Extent = Extent { length: Duration::from_hours(1), step: Duration::from_secs(10) };

/// For days and weeks: 744 steps.
const MONTH: Extent = Extent { length: WINDOW_MAX, step: Duration::from_hours(1) };

/// As far back as windows reach.
pub(crate) const WINDOW_MAX: Duration = Duration::from_hours(31 * 24);

/// Pairs of deployment and virtual model that are counted apart, at about 1 KiB each.
/// More are refused: names come from agents, and are kept for good.
const KEYS_MAX: usize = 20_000;

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Full name.
    pub(crate) deployment: String,
    /// The virtual model, or the deployment when pinned.
    pub(crate) model: String,
}

/// Everything that was counted. The merger writes, RPCs and metrics read.
#[derive(Debug)]
pub(crate) struct Stats {
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    totals: HashMap<Key, Totals>,
    hour: Window,
    month: Window,
}

impl Stats {
    fn new(totals: HashMap<Key, Totals>) -> Self {
        let now = Instant::now();
        let (hour, month) = (Window::new(HOUR, now), Window::new(MONTH, now));
        Self { counts: Mutex::new(Counts { totals, hour, month }) }
    }

    /// Totals since the store was made, or of the last `window`, for each pair that
    /// `wanted` accepts.
    pub(crate) fn select(
        &self,
        window: Option<Duration>,
        wanted: impl Fn(&Key) -> bool,
    ) -> Vec<(Key, Totals)> {
        let counts = self.counts.lock();
        if let Some(window) = window {
            let kept = if window <= HOUR.length { &counts.hour } else { &counts.month };
            return kept.sum(window, Instant::now(), wanted);
        }
        let all = counts.totals.iter().filter(|(key, _)| wanted(key));
        all.map(|(key, totals)| (key.clone(), totals.clone())).collect()
    }

    /// Whether requests for this virtual model reached a deployment within the last
    /// hour.
    pub(crate) fn has_traffic(&self, model: &str) -> bool {
        let counts = self.counts.lock();
        let mut recent = counts.hour.counts(HOUR.length, Instant::now());
        recent.any(|(key, totals)| key.model == model && totals.attempts() > 0)
    }

    /// The totals of `key`, for a merge.
    fn total(&self, key: &Key) -> Option<Totals> {
        self.counts.lock().totals.get(key).cloned()
    }

    /// Whether `more` new keys fit.
    fn fits(&self, more: usize) -> bool {
        self.counts.lock().totals.len() + more <= KEYS_MAX
    }

    /// Takes over what is durable now: new totals, and what was added for the window.
    fn publish(&self, totals: HashMap<Key, Totals>, added: HashMap<Key, Totals>) {
        let mut counts = self.counts.lock();
        counts.totals.extend(totals);
        let now = Instant::now();
        counts.month.add(added.clone(), now);
        counts.hour.add(added, now);
    }
}
