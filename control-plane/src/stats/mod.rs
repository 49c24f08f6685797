//! Counts of attempts, tokens and costs: what agents reported, merged once each. Totals
//! and steps of 10 s, 1 min and 1 h are durable; each report is in all of them or in
//! none.

#[cfg(test)]
mod admission;
mod agents;
mod clock;
#[cfg(test)]
mod forgetting;
mod gate;
pub(crate) mod level;
mod load;
pub(crate) mod merger;
mod names;
pub(crate) mod pace;
mod pairs;
mod plan;
pub(crate) mod query;
#[cfg(test)]
mod reopening;
pub(crate) mod report;
#[cfg(test)]
mod retention;
mod rollups;
mod sequence;
#[cfg(test)]
mod simulation;
mod stored;
pub(crate) mod stream;
pub(crate) mod totals;
mod undo;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use trunkline_routing::histogram::Histogram;

use self::clock::Clock;
use self::gate::Gate;
pub(crate) use self::load::LoadError;
use self::plan::Plan;
use self::rollups::Rollups;
use self::totals::Totals;
use crate::repository::{CommitError, Repository};

/// Pairs of deployment and virtual model that are counted apart, at about 1 KiB each,
/// and up to as much again for each of the three open steps. New ones must be in the
/// configuration, once there is one; when there are so many, those make room that are not and have no rows
/// any more, and if there are none, more are refused.
const KEYS_MAX: usize = 20_000;

/// A virtual model that had a request since is in use.
const TRAFFIC_SECS: u64 = 3_600;

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
    repository: Arc<Repository>,
    clock: Clock,
    counts: Mutex<Counts>,
    gate: Gate,
}

#[derive(Debug)]
struct Counts {
    totals: HashMap<Key, Totals>,
    rollups: Rollups,
    /// By virtual model, when an attempt ended last, in seconds since 1970. No more
    /// than there are keys.
    traffic: HashMap<String, u64>,
    /// Why what was counted before is not in here.
    missing: Option<String>,
    keys_max: usize,
}

/// What the steps take, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Occupied {
    /// Over all levels.
    pub(crate) rows: u64,
    /// Of keys and values.
    pub(crate) bytes: u64,
    /// Rows that were dropped for want of room since the start.
    pub(crate) dropped: u64,
}

impl Stats {
    /// Without what was counted before: nothing is counted until [`Self::replace`].
    fn unloaded(repository: Arc<Repository>, clock: Clock) -> Self {
        let counts = Counts {
            totals: HashMap::new(),
            rollups: Rollups::new(),
            traffic: HashMap::new(),
            missing: Some("it was not read yet".into()),
            keys_max: KEYS_MAX,
        };
        Self { repository, clock, counts: Mutex::new(counts), gate: Gate::new() }
    }

    /// Refuses while nothing can be told: what was counted before could not be read.
    ///
    /// # Errors
    /// [`CommitError::ReadOnly`] with the reason.
    pub(crate) fn check_loaded(&self) -> Result<(), CommitError> {
        match &self.counts.lock().missing {
            None => Ok(()),
            Some(reason) => Err(CommitError::ReadOnly {
                reason: format!("telemetry can't be read, so none is counted or shown: {reason}"),
            }),
        }
    }

    /// Takes over what the store holds, in place of what was known of it.
    fn replace(&self, counts: Counts) {
        let mut held = self.counts.lock();
        // A counter since the start of the program.
        let dropped = held.rollups.dropped;
        *held = counts;
        held.rollups.dropped = dropped;
    }

    /// Notes why nothing could be loaded, unless something was before.
    fn note_missing(&self, reason: String) {
        let mut held = self.counts.lock();
        if held.missing.is_some() {
            held.missing = Some(reason);
        }
    }

    /// Totals since the store was made, for each pair that `wanted` accepts.
    pub(crate) fn totals(&self, wanted: impl Fn(&Key) -> bool) -> Vec<(Key, Totals)> {
        let counts = self.counts.lock();
        let all = counts.totals.iter().filter(|(key, _)| wanted(key));
        all.map(|(key, totals)| (key.clone(), totals.clone())).collect()
    }

    /// Whether requests for this virtual model reached a deployment within the last
    /// hour. While nothing is known it must be taken for granted.
    pub(crate) fn has_traffic(&self, model: &str) -> bool {
        let counts = self.counts.lock();
        if counts.missing.is_some() {
            return true;
        }
        let last = counts.traffic.get(model).copied();
        drop(counts);
        last.is_some_and(|last| last.saturating_add(TRAFFIC_SECS) >= self.clock.now())
    }

    /// The time to first content that 99 of 100 attempts of a deployment stayed below, as
    /// far as it is known.
    pub(crate) fn ttft_p99(&self, deployment: &str) -> Option<Duration> {
        let counts = self.counts.lock();
        let all = counts.totals.iter().filter(|(key, _)| key.deployment == deployment);
        let mut ttft = Histogram::default();
        all.for_each(|(_, totals)| ttft.merge(&totals.ttft));
        ttft.quantile(0.99).map(Duration::from_micros)
    }

    /// What the steps take.
    pub(crate) fn occupied(&self) -> Occupied {
        let counts = self.counts.lock();
        let start = Occupied { dropped: counts.rollups.dropped, ..Occupied::default() };
        counts.rollups.levels.iter().fold(start, |sum, steps| Occupied {
            rows: sum.rows + steps.total.rows,
            bytes: sum.bytes + steps.total.bytes,
            ..sum
        })
    }

    /// The totals of `key`, for a merge.
    fn total(&self, key: &Key) -> Option<Totals> {
        self.counts.lock().totals.get(key).cloned()
    }

    /// How many keys there may be.
    fn places(&self) -> usize {
        self.counts.lock().keys_max
    }

    /// How many keys there are.
    fn taken(&self) -> usize {
        self.counts.lock().totals.len()
    }

    /// Keys of which nothing but the totals is kept: their last rows were removed.
    fn without_rows(&self) -> Vec<Key> {
        let counts = self.counts.lock();
        let (pairs, oldest) = (&counts.rollups.pairs, counts.rollups.oldest_hour());
        let gone = |key: &&Key| {
            let newest = pairs.id(key).and_then(|id| pairs.get(id)).map(|(_, hour)| hour);
            newest.is_none_or(|newest| oldest.is_none_or(|oldest| newest < oldest))
        };
        counts.totals.keys().filter(gone).cloned().collect()
    }

    /// The time of a late count, within what is kept.
    fn clamp(&self, secs: u64, horizon: u64, now: u64) -> u64 {
        self.counts.lock().rollups.clamp(secs, horizon, now)
    }

    /// Takes over what is durable now: new totals, and counts by the second of their
    /// making with what they change in the steps. Those that are given back are no more.
    fn publish(
        &self,
        totals: HashMap<Key, Totals>,
        counts: &[(u64, HashMap<Key, Totals>)],
        given_back: &HashSet<Key>,
        plan: Plan,
    ) {
        let mut held = self.counts.lock();
        if !given_back.is_empty() {
            held.totals.retain(|key, _| !given_back.contains(key));
            let now = self.clock.now();
            held.traffic.retain(|_, last| last.saturating_add(TRAFFIC_SECS) >= now);
        }
        held.totals.extend(totals);
        for (secs, counts) in counts {
            for (key, _) in counts.iter().filter(|(_, totals)| totals.attempts() > 0) {
                match held.traffic.get_mut(&key.model) {
                    Some(last) => *last = (*last).max(*secs),
                    None => {
                        held.traffic.insert(key.model.clone(), *secs);
                    }
                }
            }
        }
        let dropped = held.rollups.dropped;
        plan.apply(&mut held.rollups);
        if dropped == 0 && held.rollups.dropped > 0 {
            tracing::warn!("steps of the past take all their room; the oldest are dropped before their time");
        }
    }
}
