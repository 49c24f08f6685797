//! Counts by time, in steps of three lengths. Pure: the merger asks what to read, plans
//! a change, makes it durable, then applies it.
//!
//! ```text
//! a report -> row of the open 10 s step      written with the totals, in one commit
//!                  | the step ends
//!                  v
//!             row of the open minute         folded: added in the first commit after
//!                  | the minute ends
//!                  v
//!             row of the hour
//! ```
//!
//! So a count is written once with its report, and again when a step ends, for all
//! reports together. What came since is added when somebody reads a step that is open.
//! A count that comes late goes to each length whose turn to fold it has passed. Rows and
//! mark change in one commit: after a crash each count is in exactly as many lengths as
//! it was before.

use std::collections::{BTreeMap, HashMap};

use super::level::Level;
use super::pairs::{PairId, Pairs};
use super::stored::{Address, Mark, Size};
use super::totals::Totals;

/// Most that each level keeps. A row has some 200 bytes, 10 KiB at the very most. 49
/// pairs that are in use all the time fill a week of minutes; with more, the level
/// reaches less far back.
pub(super) const SIZE_MAX: Size = Size { rows: 500_000, bytes: 128 * 1024 * 1024 };

/// Rows removed with one commit, but for a step that alone has more: a commit stays
/// short, and faster than rows come.
const REMOVED_MAX: u64 = 2_000;

/// Steps stay a little longer than they can be asked for, so that a question for all of
/// it does not come too late by its way here.
const KEPT_LONGER_SECS: u64 = 120;

/// For so long a question for all of it is answered.
const LATE_QUESTION_SECS: u64 = 60;

/// All steps: sizes of all, rows of those that are open.
#[derive(Debug)]
pub(super) struct Rollups {
    /// When the open 10 s step begins, in seconds since 1970. Its minute and hour are
    /// open too. In its hour, no row is of a later step; in later hours some are if the
    /// clock was in doubt.
    pub(super) open: u64,
    pub(super) pairs: Pairs,
    pub(super) levels: [Steps; 3],
    /// Rows that were dropped for want of room since the start.
    pub(super) dropped: u64,
    pub(super) size_max: Size,
}

/// The steps of one level.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) sizes: BTreeMap<u32, Size>,
    pub(super) total: Size,
    /// Steps before this one were dropped for want of room.
    pub(super) reach: u32,
    /// Rows of the open step as they are stored, with their bytes.
    pub(super) live: HashMap<PairId, (Totals, u64)>,
}

/// A step that has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Victim {
    pub(super) level: Level,
    pub(super) step: u32,
    /// Not because it is old.
    pub(super) for_room: bool,
}

impl Rollups {
    pub(super) fn new() -> Self {
        Self { open: 0, pairs: Pairs::default(), levels: Default::default(), dropped: 0, size_max: SIZE_MAX }
    }

    pub(super) fn steps(&self, level: Level) -> &Steps {
        &self.levels[level.index()]
    }

    /// The open step of a level.
    pub(super) fn open_step(&self, level: Level) -> u32 {
        level.step_at(self.open)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { open: self.open, reach: self.levels.iter().map(|steps| steps.reach).collect() }
    }

    /// The hour, since 1970, of the oldest row there is. None: there are none.
    pub(super) fn oldest_hour(&self) -> Option<u32> {
        let first = |level: Level| self.steps(level).sizes.first_key_value().map(|(step, _)| *step);
        let hours = Level::ALL.into_iter().filter_map(|level| Some(level.start_of(first(level)?)));
        hours.min().map(|secs| Level::Hour.step_at(secs))
    }

    /// The first step of a level that is there for all questions, at `now`.
    pub(super) fn kept_from(&self, level: Level, now: u64) -> u32 {
        let oldest = now.saturating_sub(level.kept_secs() + LATE_QUESTION_SECS);
        level.step_at(oldest).max(self.steps(level).reach)
    }

    /// The open step's rows with what was not folded into them yet.
    pub(super) fn open_rows(&self, level: Level) -> HashMap<PairId, Totals> {
        let mut rows: HashMap<PairId, Totals> = HashMap::new();
        for finer in &self.levels[..=level.index()] {
            for (pair, (totals, _)) in &finer.live {
                rows.entry(*pair).or_default().merge(totals);
            }
        }
        rows
    }

    /// Where in time a count belongs that was made at `secs`: there, if anything is kept
    /// of then. What is older than `horizon` says is gone.
    pub(super) fn clamp(&self, secs: u64, horizon: u64, now: u64) -> u64 {
        let hour = Level::Hour;
        let oldest = horizon.saturating_sub(hour.kept_secs());
        secs.max(oldest).max(hour.start_of(self.steps(hour).reach)).min(now)
    }

    /// The steps that have to go now, as many as one commit removes.
    pub(super) fn victims(&self, now: u64) -> Vec<Victim> {
        let mut victims = Vec::new();
        let mut rows = 0;
        for level in Level::ALL {
            let steps = self.steps(level);
            let Size { rows: mut rows_left, bytes: mut bytes_left } = steps.total;
            let expired = level.step_at(now.saturating_sub(level.kept_secs() + KEPT_LONGER_SECS));
            for (step, size) in &steps.sizes {
                let full = rows_left > self.size_max.rows || bytes_left > self.size_max.bytes;
                let over = full && *step < self.open_step(level);
                if rows >= REMOVED_MAX || !(over || *step < expired.min(self.open_step(level))) {
                    break;
                }
                victims.push(Victim { level, step: *step, for_room: *step >= expired });
                rows += size.rows;
                rows_left = rows_left.saturating_sub(size.rows);
                bytes_left = bytes_left.saturating_sub(size.bytes);
            }
        }
        victims
    }

    /// The rows to which counts of `secs` are added, once the open step is that of
    /// `open`: of the finest level that keeps them, and of those whose turn to fold them
    /// has passed.
    pub(super) fn places(&self, secs: u64, open: u64, now: u64) -> impl Iterator<Item = (Level, u32)> {
        let mut folded = true;
        Level::ALL.into_iter().filter_map(move |level| {
            let step = level.step_at(secs);
            let place = folded.then_some((level, step));
            folded &= step != level.step_at(open);
            let kept = step >= self.kept_from(level, now) || level == Level::Hour;
            place.filter(|_| kept)
        })
    }

    /// The steps whose rows must be read before `late` counts can be added.
    pub(super) fn steps_to_read<'a>(
        &self,
        late: impl Iterator<Item = &'a u64>,
        open: u64,
        now: u64,
    ) -> Vec<(Level, u32)> {
        let mut steps: Vec<_> = late.flat_map(|secs| self.places(*secs, open, now)).collect();
        steps.sort_unstable();
        steps.dedup();
        steps.retain(|(level, step)| {
            *step != self.open_step(*level) && self.steps(*level).sizes.contains_key(step)
        });
        steps
    }

    /// The row as it is stored, if it is there; `read` holds what is not in memory.
    pub(super) fn stored<'a>(
        &'a self,
        address: Address,
        read: &'a HashMap<Address, (Totals, u64)>,
    ) -> Option<&'a (Totals, u64)> {
        if address.step == self.open_step(address.level) {
            return self.steps(address.level).live.get(&address.pair);
        }
        read.get(&address)
    }

    /// Takes in a step's size, in place of what it was.
    pub(super) fn resize(&mut self, level: Level, step: u32, size: Option<Size>) {
        let steps = &mut self.levels[level.index()];
        let before = match size {
            Some(size) => steps.sizes.insert(step, size),
            None => steps.sizes.remove(&step),
        };
        let (before, size) = (before.unwrap_or_default(), size.unwrap_or_default());
        steps.total.rows = (steps.total.rows + size.rows).saturating_sub(before.rows);
        steps.total.bytes = (steps.total.bytes + size.bytes).saturating_sub(before.bytes);
    }
}
