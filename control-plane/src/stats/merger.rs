//! The one task that merges telemetry: many reports, one durable write, then publish,
//! then acknowledge.

mod places;

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::agents::{Agents, Known};
use super::clock::{Clock, Doubt};
use super::level::Level;
use super::load::{self, LoadError};
use super::names::Names;
use super::plan::{self, Plan, Read};
use super::report::Report;
use super::sequence::Action;
use super::totals::Totals;
use super::undo::Undo;
use super::{Key, Stats, stored};
use crate::repository::{Blob, CommitError, Repository};

/// Reports that wait. Each stream has at most one under way, so this is never the
/// limit before the number of agents is.
const QUEUE_MAX: usize = 1_024;

/// Reports in one durable write: about what arrives while the write before is synced.
const BATCH_MAX: usize = 256;

/// A report whose window ended longer ago is placed by that; else it counts as of its
/// arrival, whatever the clocks say.
const LATE_SECS: u64 = 60;

/// Between looks at a store that could not be read; the repository itself looks as
/// often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Where to send reports. The task ends when the last of these is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Reports(mpsc::Sender<Job>);

/// What came of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Everything up to here is durable.
    pub(crate) acked: u64,
    /// Reports before this one are missing.
    pub(crate) resend: bool,
    /// Counts before this one are lost: its agent was killed, or has them no more.
    pub(crate) lost_before: bool,
    /// Pairs of deployment and virtual model for which there was no place. They are not
    /// counted; sending them again would not help.
    pub(crate) left_out: u64,
    /// Whether it was counted now; false: it came before, or others are to come first.
    pub(crate) fresh: bool,
}

/// Why a report was not merged. It has to come again.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Too many wait already.
    #[error("{QUEUE_MAX} reports wait to be merged already")]
    Busy,
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] CommitError),
}

#[derive(Debug)]
pub(super) struct Job {
    source: Option<Source>,
    counts: HashMap<Key, Totals>,
    reply: oneshot::Sender<Result<Merged, CommitError>>,
}

/// Which report of which agent. Counts that the control plane made itself have none.
#[derive(Debug)]
struct Source {
    agent_id: String,
    incarnation: String,
    seq: u64,
    end_secs: Option<u64>,
    lost_before: bool,
}

/// Owns the sequences; runs until all [`Reports`] are gone.
#[derive(Debug)]
pub(crate) struct Merger {
    repository: Arc<Repository>,
    stats: Arc<Stats>,
    pub(super) agents: Agents,
    queue: mpsc::Receiver<Job>,
    undo: Undo,
    view: watch::Receiver<Option<u64>>,
    /// The opening of the view that memory agrees with.
    loaded: Option<u64>,
    pub(super) names: Names,
    /// Of a time that is far ahead of the open step.
    doubt: Doubt,
    /// What becomes of the next write, in tests.
    #[cfg(test)]
    pub(super) fate: Option<super::simulation::Fate>,
}

/// What a batch changes, before it is durable.
#[derive(Default)]
struct Batch {
    totals: HashMap<Key, Totals>,
    agents: HashMap<String, Known>,
    new_keys: usize,
    merged: bool,
    now: u64,
    /// Now, or the open step as long as now is not believed: what is older than is kept
    /// before this is removed, and the step that opens is not after it.
    horizon: u64,
    /// Keys that may be given back. None: nobody asked yet.
    spare: Option<Vec<Key>>,
    given_back: HashSet<Key>,
    /// Counts of now.
    added: HashMap<Key, Totals>,
    /// Counts of an earlier time, by the second in which their 10 s step begins.
    late: BTreeMap<u64, HashMap<Key, Totals>>,
}

impl Reports {
    /// Merges a report; durable when this returns.
    ///
    /// # Errors
    /// If it was not merged. It may be sent again.
    pub(crate) async fn merge(&self, report: Report) -> Result<Merged, Refused> {
        let (job, answer) = of_report(report);
        self.0.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Refused::Busy,
            TrySendError::Closed(_) => CommitError::Unavailable.into(),
        })?;
        Ok(answer.await.map_err(|_| CommitError::Unavailable)??)
    }

    /// Adds what the control plane itself was told; waits for a place.
    ///
    /// # Errors
    /// If the store did not take it.
    pub(crate) async fn add(&self, counts: HashMap<Key, Totals>) -> Result<Merged, CommitError> {
        let (job, answer) = job(None, counts);
        self.0.send(job).await.map_err(|_| CommitError::Unavailable)?;
        answer.await.map_err(|_| CommitError::Unavailable)?
    }

    /// Reports that wait, in units of what one write takes.
    pub(crate) fn backlog(&self) -> f64 {
        (self.0.max_capacity() - self.0.capacity()) as f64 / BATCH_MAX as f64
    }
}

pub(super) type Answer = oneshot::Receiver<Result<Merged, CommitError>>;

/// A report to merge, and where its answer comes.
pub(super) fn of_report(report: Report) -> (Job, Answer) {
    let Report { agent_id, incarnation, seq, end_secs, lost_before, counts, .. } = report;
    job(Some(Source { agent_id, incarnation, seq, end_secs, lost_before }), counts)
}

fn opened_again() -> CommitError {
    CommitError::ReadOnly { reason: "the view is being opened; send it again".into() }
}

fn job(source: Option<Source>, counts: HashMap<Key, Totals>) -> (Job, Answer) {
    let (reply, answer) = oneshot::channel();
    (Job { source, counts, reply }, answer)
}

impl Merger {
    /// Loads what was merged before, or begins without while the store cannot be read:
    /// then reports are refused until it can.
    ///
    /// # Errors
    /// If the store is closing, or telemetry in it is damaged.
    pub(crate) async fn load(repository: Arc<Repository>) -> Result<(Self, Arc<Stats>, Reports), LoadError> {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let stats = Arc::new(Stats::unloaded(Arc::clone(&repository), Clock::of_the_machine()));
        let mut merger = Self {
            view: repository.subscribe_view(),
            loaded: None,
            repository,
            stats: Arc::clone(&stats),
            agents: Agents::default(),
            queue,
            undo: Undo::default(),
            names: Names::default(),
            doubt: Doubt::default(),
            #[cfg(test)]
            fate: None,
        };
        match merger.follow_view().await {
            Err(LoadError::Store(error @ CommitError::ReadOnly { .. })) => {
                tracing::error!(%error, "telemetry is not counted until the store can be read");
            }
            loaded => loaded?,
        }
        Ok((merger, stats, Reports(sender)))
    }

    /// Agents that reported until lately, as far as the store knows: those that were there
    /// when it was used last.
    pub(crate) fn known_agents(&self) -> usize {
        self.agents.heard_within(LATE_SECS)
    }

    /// Merges until nobody can send any more.
    pub(crate) async fn run(mut self) {
        let mut jobs = Vec::with_capacity(BATCH_MAX);
        loop {
            let waits = self.loaded.is_none() || self.loaded != *self.view.borrow();
            tokio::select! {
                biased; // What is read anew goes before what is added to it.
                changed = self.view.changed() => {
                    // The repository outlives this task.
                    if changed.is_ok() {
                        self.try_to_follow().await;
                    }
                }
                received = self.queue.recv_many(&mut jobs, BATCH_MAX) => {
                    if received == 0 {
                        return;
                    }
                    let now = self.stats.clock.now();
                    self.merge(now, std::mem::take(&mut jobs)).await;
                }
                () = tokio::time::sleep(LOOK_AGAIN), if waits => self.try_to_follow().await,
            }
        }
    }

    /// Reads everything again if the view was opened since that was done last: it may
    /// have lost something, or hold what a write that failed left in it.
    async fn follow_view(&mut self) -> Result<(), LoadError> {
        // The first read has the repository look whether the view opens now; the second
        // round is for when it did.
        for _ in 0..2 {
            let opening = *self.view.borrow_and_update();
            if opening.is_some() && opening == self.loaded {
                return Ok(());
            }
            let loaded = load::load(&self.repository, self.stats.clock.now()).await;
            let (counts, agents) = loaded.inspect_err(|error| self.stats.note_missing(error.to_string()))?;
            if opening.is_some() && *self.view.borrow() == opening {
                self.stats.replace(counts);
                self.agents = agents;
                self.undo.clear();
                self.loaded = opening;
                return Ok(());
            }
        }
        Err(opened_again().into())
    }

    async fn try_to_follow(&mut self) {
        if let Err(error) = self.follow_view().await {
            // The repository said so aloud when it began.
            tracing::debug!(%error, "telemetry is not read; agents keep what they count");
        }
    }

    /// Merges some jobs with one write, as of `now`, and answers them.
    pub(super) async fn merge(&mut self, now: u64, jobs: Vec<Job>) {
        if let Err(error) = self.follow_view().await {
            let refusal = CommitError::from(error);
            tracing::debug!(%refusal, "telemetry is not merged; agents will send it again");
            for job in jobs {
                // A caller that left has no use for its answer.
                drop(job.reply.send(Err(refusal.clone())));
            }
            return;
        }
        let horizon = self.horizon(now);
        let mut batch = Batch { now, horizon, ..Batch::default() };
        let answers: Vec<_> = jobs
            .into_iter()
            .map(|job| {
                let answer = self.take(&mut batch, job.source, job.counts);
                (job.reply, answer)
            })
            .collect();
        let durable = self.write(batch).await;
        for (reply, answer) in answers {
            // A caller that left has no use for its answer.
            drop(reply.send(durable.clone().map(|()| answer)));
        }
    }

    /// Up to when the past ends. A day without counts is followed by an hour in which
    /// nothing is removed; counts are placed at `now` all the same.
    fn horizon(&mut self, now: u64) -> u64 {
        let open = self.stats.counts.lock().rollups.open;
        if open == 0 || self.doubt.believes(now, open) { now } else { open }
    }

    /// Adds one report to the batch.
    fn take(&mut self, batch: &mut Batch, source: Option<Source>, counts: HashMap<Key, Totals>) -> Merged {
        let Some(source) = source else {
            let left_out = self.add(batch, counts, None);
            return Merged { acked: 0, resend: false, lost_before: false, left_out, fresh: true };
        };
        let now = batch.now;
        let known = match batch.agents.entry(source.agent_id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let known = self.agents.get(entry.key()).cloned();
                entry.insert(known.unwrap_or_default())
            }
        };
        known.heard = known.heard.max(now);
        let (action, acked) = known.sequences.take(&source.incarnation, source.seq);
        let mut merged = Merged {
            acked,
            resend: action == Action::AskAgain,
            lost_before: false,
            left_out: 0,
            fresh: false,
        };
        if let Action::Merge { gap } = action {
            merged.fresh = true;
            merged.lost_before = gap || source.lost_before;
            merged.left_out = self.add(batch, counts, source.end_secs);
        }
        merged
    }

    /// Adds counts to the batch; the answer is how many there was no place for.
    fn add(&mut self, batch: &mut Batch, counts: HashMap<Key, Totals>, end_secs: Option<u64>) -> u64 {
        batch.merged = true;
        let late = end_secs.filter(|end| batch.now.saturating_sub(*end) > LATE_SECS);
        let level = Level::TenSeconds;
        let step =
            late.map(|end| level.start_of(level.step_at(self.stats.clamp(end, batch.horizon, batch.now))));
        let mut left_out = 0;
        for (key, counts) in counts {
            if !batch.totals.contains_key(&key) && !self.admit(batch, &key) {
                left_out += 1;
                continue;
            }
            batch.totals.entry(key.clone()).or_default().merge(&counts);
            let placed = match step {
                Some(step) => batch.late.entry(step).or_default(),
                None => &mut batch.added,
            };
            placed.entry(key).or_default().merge(&counts);
        }
        left_out
    }

    /// Makes the batch durable and takes it over. If the store refuses, nothing of it
    /// happened, and the agents send it again.
    async fn write(&mut self, mut batch: Batch) -> Result<(), CommitError> {
        if !batch.merged {
            self.agents.note(batch.agents);
            return Ok(());
        }
        let forgotten = self.agents.settle(&mut batch.agents);
        let read = self.read(&batch).await?;
        let counts = batch.late.iter().map(|(secs, counts)| (*secs, counts));
        let counts = counts.chain([(batch.now, &batch.added)]);
        let mut plan = {
            let held = self.stats.counts.lock();
            Plan::new(&held.rollups, batch.horizon, counts, &batch.given_back, &read)
        };
        let (mut puts, mut deletes) = plan.take_blobs();
        puts.extend(batch.totals.iter().map(|(key, total)| stored::totals_blob(key, total)));
        deletes.extend(batch.given_back.iter().map(stored::totals_key));
        puts.extend(batch.agents.iter().filter_map(|(agent_id, known)| known.blob(agent_id)));
        self.undo.complete(&mut puts, &mut deletes);
        if let Err(error) = self.commit(puts, deletes).await {
            tracing::warn!(%error, "telemetry was not stored; agents will send it again");
            self.remember_to_undo(&batch, &forgotten, &plan, &read);
            return Err(error);
        }
        self.undo.clear();
        self.agents.publish(batch.agents, &forgotten);
        let times = batch.late.into_iter().chain([(batch.now, batch.added)]);
        let counts = times.collect::<Vec<_>>();
        self.stats.publish(batch.totals, &counts, &batch.given_back, plan);
        Ok(())
    }

    async fn commit(&mut self, puts: Vec<Blob>, deletes: Vec<Vec<u8>>) -> Result<(), CommitError> {
        let view = self.loaded.ok_or_else(opened_again)?;
        #[cfg(test)]
        if let Some(fate) = self.fate.take() {
            return fate.decide(self.repository.write_blobs(view, puts, deletes)).await;
        }
        self.repository.write_blobs(view, puts, deletes).await
    }

    /// Attempts of all pairs that `wanted` accepts.
    #[cfg(test)]
    pub(super) fn attempts(&self, wanted: impl Fn(&Key) -> bool) -> u64 {
        self.stats.totals(wanted).iter().map(|(_, totals)| totals.attempts()).sum()
    }

    /// Reads the rows that are not in memory and that the batch changes or removes.
    async fn read(&self, batch: &Batch) -> Result<Read, CommitError> {
        let prefixes: Vec<_> = {
            let counts = self.stats.counts.lock();
            let rollups = &counts.rollups;
            let open = plan::opened(rollups, batch.horizon);
            let times = batch.late.keys().chain([&batch.now]);
            let mut steps = rollups.steps_to_read(times, open, batch.horizon);
            steps.extend(rollups.victims(batch.horizon).iter().map(|victim| (victim.level, victim.step)));
            steps.into_iter().map(|(level, step)| stored::rows_of(level, step)).collect()
        };
        if prefixes.is_empty() {
            return Ok(Read::new());
        }
        let blobs = self.repository.scan_blobs_of(prefixes).await?;
        Ok(stored::read_rows(self.undo.correct(blobs)).collect())
    }

    fn remember_to_undo(&mut self, batch: &Batch, forgotten: &HashSet<String>, plan: &Plan, read: &Read) {
        let rows = plan.inverse(&self.stats.counts.lock().rollups, read);
        let totals = batch.totals.keys().chain(&batch.given_back).map(|key| {
            let before = self.stats.total(key);
            (stored::totals_key(key), before.map(|total| stored::totals_blob(key, &total).1))
        });
        let agents = self.agents.stored(&batch.agents, forgotten);
        self.undo.remember(rows.into_iter().chain(totals).chain(agents));
    }
}
