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
}

/// Why a report was not merged. It may be sent again.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// No place for so many deployments and virtual models.
    #[error("too many pairs of deployment and virtual model are counted already")]
    Full,
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] CommitError),
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
    reply: oneshot::Sender<Result<Merged, MergeError>>,
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
    totals: HashMap<Key, Totals>,
    added: HashMap<Key, Totals>,
    agents: HashMap<String, Known>,
    new_keys: usize,
    merged: bool,
}

impl Reports {
    /// Merges a report; durable when this returns.
    pub(crate) async fn merge(&self, report: Report) -> Result<Merged, MergeError> {
        let Report { agent_id, incarnation, seq, counts } = report;
        self.send(Some(Source { agent_id, incarnation, seq }), counts).await
    }

    /// Adds what the control plane itself was told.
    pub(crate) async fn add(&self, counts: HashMap<Key, Totals>) -> Result<Merged, MergeError> {
        self.send(None, counts).await
    }

    async fn send(&self, source: Option<Source>, counts: HashMap<Key, Totals>) -> Result<Merged, MergeError> {
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
                drop(reply.send(durable.clone().map_err(MergeError::Store).and(answer)));
            }
        }
    }

    /// Adds one report to the batch.
    fn take(
        &self,
        batch: &mut Batch,
        source: Option<Source>,
        counts: HashMap<Key, Totals>,
    ) -> Result<Merged, MergeError> {
        let new_keys =
            counts.keys().filter(|key| !batch.totals.contains_key(key) && self.stats.total(key).is_none());
        let new_keys = new_keys.count();
        if !self.stats.fits(batch.new_keys + new_keys) {
            return Err(MergeError::Full);
        }
        if let Some(source) = source {
            let known = batch.agents.entry(source.agent_id);
            let known = match known {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let known = self.agents.get(entry.key()).cloned();
                    entry.insert(known.unwrap_or_default())
                }
            };
            known.heard = self.batches;
            let (action, acked) = known.sequences.take(&source.incarnation, source.seq);
            match action {
                Action::Ignore => return Ok(Merged { acked, resend: false }),
                Action::AskAgain => return Ok(Merged { acked, resend: true }),
                Action::Merge => {}
            }
            self.add(batch, counts, new_keys);
            return Ok(Merged { acked, resend: false });
        }
        self.add(batch, counts, new_keys);
        Ok(Merged { acked: 0, resend: false })
    }

    fn add(&self, batch: &mut Batch, counts: HashMap<Key, Totals>, new_keys: usize) {
        batch.merged = true;
        batch.new_keys += new_keys;
        for (key, counts) in counts {
            batch.added.entry(key.clone()).or_default().merge(&counts);
            let before = || self.stats.total(&key).unwrap_or_default();
            batch.totals.entry(key.clone()).or_insert_with(before).merge(&counts);
        }
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
                batch.totals.iter().map(|(key, totals)| stored::totals_blob(key, totals)).collect();
            blobs.extend(batch.agents.iter().filter_map(|(agent_id, known)| {
                known.slot.map(|slot| stored::sequences_blob(slot, agent_id, &known.sequences))
            }));
            if let Err(error) = self.repository.put_blobs(blobs).await {
                tracing::warn!(%error, "telemetry was not stored; agents will send it again");
                return Err(error);
            }
        }
        self.agents.extend(batch.agents);
        self.stats.publish(batch.totals, batch.added);
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
