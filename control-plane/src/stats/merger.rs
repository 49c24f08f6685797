//! The one task that merges telemetry: many reports, one durable write, then publish,
//! then acknowledge.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Key, Stats,
    report::Report,
    sequence::{Action, Sequences},
    stored::{self, Unreadable},
    totals::Totals,
};
use crate::repository::{CommitError, Repository};

/// Reports that wait. Each stream has at most one under way, so this is never the
/// limit before the number of agents is.
const QUEUE_MAX: usize = 1_024;

/// Reports in one durable write: about what arrives while the write before is synced.
const BATCH_MAX: usize = 256;

/// Agents whose sequences are remembered; the longest silent one makes room.
const AGENTS_MAX: usize = 10_000;

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
    /// Pairs of deployment and virtual model for which there was no place. They are not
    /// counted; sending them again would not help.
    pub(crate) left_out: u64,
}

/// Why the totals cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The store did not give them.
    #[error("read telemetry totals: {0}")]
    Store(#[from] CommitError),
    /// They are damaged.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

#[derive(Debug)]
struct Job {
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
}

/// Owns the sequences; runs until all [`Reports`] are gone.
#[derive(Debug)]
pub(crate) struct Merger {
    repository: Arc<Repository>,
    stats: Arc<Stats>,
    agents: HashMap<String, Known>,
    queue: mpsc::Receiver<Job>,
    /// Counts batches, to tell who was silent longest.
    batches: u64,
    /// The first slot that was never used.
    next_slot: u32,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// Where it is stored. None: not yet.
    slot: Option<u32>,
    sequences: Sequences,
    heard: u64,
}

/// What a batch changes, before it is durable.
#[derive(Default)]
struct Batch {
    changes: HashMap<Key, Change>,
    agents: HashMap<String, Known>,
    new_keys: usize,
    merged: bool,
}

struct Change {
    /// Since the beginning.
    total: Totals,
    added: Totals,
}

impl Reports {
    /// Merges a report; durable when this returns.
    ///
    /// # Errors
    /// If the store did not take it. It may be sent again.
    pub(crate) async fn merge(&self, report: Report) -> Result<Merged, CommitError> {
        let Report { agent_id, incarnation, seq, counts, .. } = report;
        self.send(Some(Source { agent_id, incarnation, seq }), counts).await
    }

    /// Adds what the control plane itself was told.
    ///
    /// # Errors
    /// If the store did not take it.
    pub(crate) async fn add(&self, counts: HashMap<Key, Totals>) -> Result<Merged, CommitError> {
        self.send(None, counts).await
    }

    async fn send(
        &self,
        source: Option<Source>,
        counts: HashMap<Key, Totals>,
    ) -> Result<Merged, CommitError> {
        let (reply, answer) = oneshot::channel();
        let job = Job { source, counts, reply };
        self.0.send(job).await.map_err(|_| CommitError::Unavailable)?;
        answer.await.map_err(|_| CommitError::Unavailable)?
    }
}

impl Merger {
    /// Loads what was merged before.
    pub(crate) async fn load(repository: Arc<Repository>) -> Result<(Self, Arc<Stats>, Reports), LoadError> {
        let mut totals = HashMap::new();
        for (_, value) in repository.scan_blobs(stored::TOTALS).await? {
            let (key, counts) = stored::read_totals(&value)?;
            totals.insert(key, counts);
        }
        let (mut agents, mut next_slot) = (HashMap::new(), 0);
        for (key, value) in repository.scan_blobs(stored::SEQUENCES).await? {
            let (slot, agent_id, sequences) = stored::read_sequences(&key, &value)?;
            agents.insert(agent_id, Known { slot: Some(slot), sequences, heard: 0 });
            next_slot = next_slot.max(slot.saturating_add(1));
        }
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let stats = Arc::new(Stats::new(totals));
        let merger = Self { repository, stats: Arc::clone(&stats), agents, queue, batches: 0, next_slot };
        Ok((merger, stats, Reports(sender)))
    }

    /// Merges until nobody can send any more.
    pub(crate) async fn run(mut self) {
        let mut jobs = Vec::with_capacity(BATCH_MAX);
        while self.queue.recv_many(&mut jobs, BATCH_MAX).await > 0 {
            self.batches += 1;
            let mut batch = Batch::default();
            let answers: Vec<_> = jobs
                .drain(..)
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
    }

    /// Adds one report to the batch.
    fn take(&self, batch: &mut Batch, source: Option<Source>, counts: HashMap<Key, Totals>) -> Merged {
        let Some(source) = source else {
            return Merged { acked: 0, resend: false, left_out: self.add(batch, counts) };
        };
        let known = match batch.agents.entry(source.agent_id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let known = self.agents.get(entry.key()).cloned();
                entry.insert(known.unwrap_or_default())
            }
        };
        known.heard = self.batches;
        let (action, acked) = known.sequences.take(&source.incarnation, source.seq);
        let left_out = if action == Action::Merge { self.add(batch, counts) } else { 0 };
        Merged { acked, resend: action == Action::AskAgain, left_out }
    }

    /// Adds counts to the batch; the answer is how many there was no place for.
    fn add(&self, batch: &mut Batch, counts: HashMap<Key, Totals>) -> u64 {
        batch.merged = true;
        let mut left_out = 0;
        for (key, counts) in counts {
            let change = match batch.changes.entry(key) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let before = self.stats.total(entry.key());
                    if before.is_none() && !self.stats.fits(batch.new_keys + 1) {
                        left_out += 1;
                        continue;
                    }
                    batch.new_keys += usize::from(before.is_none());
                    entry.insert(Change { total: before.unwrap_or_default(), added: Totals::default() })
                }
            };
            change.total.merge(&counts);
            change.added.merge(&counts);
        }
        left_out
    }

    /// Makes the batch durable and takes it over. If the store refuses, nothing of it
    /// happened, and the agents send it again.
    async fn write(&mut self, mut batch: Batch) -> Result<(), CommitError> {
        let newcomers: Vec<String> = batch
            .agents
            .iter()
            .filter(|(_, known)| known.slot.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        for agent_id in newcomers {
            let slot = self.make_room(&batch.agents);
            // Until the write is done, the newcomer is one that sent nothing.
            let known = Known { slot: Some(slot), ..Known::default() };
            self.agents.insert(agent_id.clone(), known);
            if let Some(known) = batch.agents.get_mut(&agent_id) {
                known.slot = Some(slot);
            }
        }
        if batch.merged {
            let mut blobs: Vec<_> =
                batch.changes.iter().map(|(key, change)| stored::totals_blob(key, &change.total)).collect();
            blobs.extend(batch.agents.iter().filter_map(|(agent_id, known)| {
                known.slot.map(|slot| stored::sequences_blob(slot, agent_id, &known.sequences))
            }));
            if let Err(error) = self.repository.put_blobs(blobs).await {
                tracing::warn!(%error, "telemetry was not stored; agents will send it again");
                return Err(error);
            }
        }
        self.agents.extend(batch.agents);
        let changes = batch.changes.into_iter();
        let (totals, added) =
            changes.map(|(key, change)| ((key.clone(), change.total), (key, change.added))).unzip();
        self.stats.publish(totals, added);
        Ok(())
    }

    /// A free slot; the longest silent agent is forgotten if there is none.
    fn make_room(&mut self, present: &HashMap<String, Known>) -> u32 {
        let full = self.next_slot as usize >= AGENTS_MAX;
        let absent = self.agents.iter().filter(|(name, _)| full && !present.contains_key(*name));
        let silent = absent.min_by_key(|(_, known)| known.heard).map(|(name, _)| name.clone());
        if let Some(slot) = silent.and_then(|name| self.agents.remove(&name)).and_then(|known| known.slot) {
            return slot;
        }
        self.next_slot += 1;
        self.next_slot - 1
    }
}
