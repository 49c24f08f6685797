//! The repository: the control plane's durable state behind one door. gRPC services
//! read it without waiting; writes queue up for one thread that persists, publishes,
//! then acknowledges.
//!
//! ```text
//! services -- job --> writer thread: check each -> journal (one fdatasync) -> view -> publish
//!     ^                                                                               |
//!     +------------------------------ acknowledge ------------------------------------+
//! ```

mod claims;
mod drain;
mod error;
mod export;
mod fault;
mod fold;
mod history;
mod open;
mod orders;
mod recent;
mod requests;
mod scan;
mod stage;
mod state;
#[cfg(test)]
mod tests;
mod transfer;
mod trouble;
mod verdict;
mod view;
mod writer;
mod writes;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use claims::Claim;
pub use drain::{DRAINS_MAX, DrainSet};
pub use error::{CommitError, OpenError};
pub use fault::{DRILLS_MAX, Drill, FaultSet};
pub use history::{AuditQuery, Audited, Commit, HistoryError, HistoryPage, Place};
pub use requests::Remembered;
pub use stage::Edited;
pub use state::ConfigState;
pub use transfer::{ExportError, Exported};
pub use verdict::{
    FORCED_DEPLOYMENTS_MAX, FleetChange, FleetVerdict, Verdict, VerdictOutcome, VerdictSet, VerdictState,
};
pub use writes::{ConfigWrite, Intent};

use crate::store::journal::JournalReader;
pub use crate::store::{StoreHealth, VALUE_BYTES_MAX};
use claims::Claims;
use history::Places;
use recent::Recent;
use stage::Stage;
use writer::{Job, Writer};

/// Writes that wait. One takes some milliseconds, so a full queue is seconds behind;
/// callers then wait for a place.
const JOBS_MAX: usize = 256;

/// The durable state. Shared by `Arc`; dropping the last one waits for the writes that
/// were asked for and closes the files.
#[derive(Debug)]
pub struct Repository {
    shared: Arc<Shared>,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Where things are.
#[derive(Clone, Debug, Default)]
pub struct RepositoryOptions {
    /// The data directory, made if missing. None: in memory, for tests.
    pub data_dir: Option<PathBuf>,
    /// Go on from a store that is older than what agents, or its own view, know of it:
    /// under a new epoch, so that no version ever names two states.
    pub accept_rollback: bool,
    /// A file of [`Repository::export_state`] to make the store from. Refused where
    /// there is a store already.
    pub import: Option<PathBuf>,
}

/// A key and its value, opaque to the repository.
pub type Blob = (Vec<u8>, Vec<u8>);

/// What the writer publishes and others read.
#[derive(Debug)]
pub(crate) struct Shared {
    config: watch::Sender<Arc<ConfigState>>,
    sequence: watch::Sender<u64>,
    verdicts: watch::Sender<Arc<VerdictSet>>,
    faults: watch::Sender<Arc<FaultSet>>,
    drains: watch::Sender<Arc<DrainSet>>,
    recent: RwLock<Recent>,
    /// None: everything is in memory.
    journal: Option<JournalReader>,
    /// Which opening of the view is in use. None: it is not open.
    view: watch::Sender<Option<u64>>,
    /// Places for those who list what is in the journal.
    listings: Places,
    /// Places for those who look up a former configuration.
    lookups: Places,
    /// The place for who exports.
    exports: Arc<Semaphore>,
    health: watch::Sender<StoreHealth>,
    claims: Arc<Claims>,
}

impl Repository {
    /// Opens the journal, checks all of it, and brings the view up to date. Blocks.
    ///
    /// # Errors
    /// If another process has the directory, the journal is damaged or short of what
    /// was acknowledged, or the file system refuses.
    #[expect(clippy::needless_pass_by_value, reason = "callers make options for one store")]
    pub fn open(options: RepositoryOptions) -> Result<Arc<Self>, OpenError> {
        let (writer, shared) = open::open(&options)?;
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let run = move || writer.run(queue);
        let thread = std::thread::Builder::new().name("repository".into()).spawn(run);
        let thread = thread.map_err(|cause| OpenError::Io {
            action: "start the thread",
            path: "repository".into(),
            cause,
        })?;
        Ok(Arc::new(Self { shared, jobs: Some(jobs), thread: Some(thread) }))
    }

    /// The configuration now.
    pub fn state(&self) -> Arc<ConfigState> {
        Arc::clone(&self.shared.config.borrow())
    }

    /// The configuration, now and whenever it changes; the newest only.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ConfigState>> {
        self.shared.config.subscribe()
    }

    /// A former configuration, if it is one of the newest.
    pub fn recent(&self, revision: u64) -> Option<Arc<ConfigState>> {
        self.shared.recent.read().get(revision)
    }

    /// The number of the newest durable commit of whatever kind: counts from 1, grows
    /// over restarts. It is published before what the commit changed.
    pub fn sequence(&self) -> u64 {
        *self.shared.sequence.borrow()
    }

    /// The number of the newest durable commit, now and whenever it grows.
    pub fn subscribe_sequence(&self) -> watch::Receiver<u64> {
        self.shared.sequence.subscribe()
    }

    /// All verdicts now. What has expired stays until [`Self::expire`].
    pub fn verdicts(&self) -> Arc<VerdictSet> {
        Arc::clone(&self.shared.verdicts.borrow())
    }

    /// All verdicts, now and whenever one changes; the newest only.
    pub fn subscribe_verdicts(&self) -> watch::Receiver<Arc<VerdictSet>> {
        self.shared.verdicts.subscribe()
    }

    /// The drills that are active. What has expired stays until [`Self::expire`].
    pub fn faults(&self) -> Arc<FaultSet> {
        Arc::clone(&self.shared.faults.borrow())
    }

    /// The drills that are active, now and whenever they change; the newest only.
    pub fn subscribe_faults(&self) -> watch::Receiver<Arc<FaultSet>> {
        self.shared.faults.subscribe()
    }

    /// The agents that shall be out of service.
    pub fn drains(&self) -> Arc<DrainSet> {
        Arc::clone(&self.shared.drains.borrow())
    }

    /// The agents that shall be out of service, now and whenever they change; the newest
    /// only.
    pub fn subscribe_drains(&self) -> watch::Receiver<Arc<DrainSet>> {
        self.shared.drains.subscribe()
    }

    /// When the next verdict or drill ends, as wall time in ms since 1970.
    pub fn next_expiry_unix_ms(&self) -> Option<u64> {
        let ends = [self.verdicts().next_expiry_unix_ms(), self.faults().next_expiry_unix_ms()];
        ends.into_iter().flatten().min()
    }

    /// Whether writes are taken, and what is missing.
    pub fn health(&self) -> StoreHealth {
        self.shared.health.borrow().clone()
    }

    /// The health, now and whenever it changes.
    pub fn subscribe_health(&self) -> watch::Receiver<StoreHealth> {
        self.shared.health.subscribe()
    }

    /// Which opening of the view is in use, now and whenever it is opened again: what
    /// blobs are there may then have changed. None: it does not open, and blobs can
    /// neither be read nor written.
    pub fn subscribe_view(&self) -> watch::Receiver<Option<u64>> {
        self.shared.view.subscribe()
    }

    /// Has the writer's thread stage a commit and answer when it is settled.
    async fn stage<T: Send + 'static, E: From<CommitError> + Send + 'static>(
        &self,
        commit: impl FnOnce(&mut Stage<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Commit(Box::new(move |stage| {
            let answer = commit(stage);
            Box::new(move |settled| {
                // What was made or refused from a state that never came to be is neither.
                let answer = match settled {
                    Ok(()) => answer,
                    Err(error) => Err(error.into()),
                };
                // The caller may be gone; its write happened all the same.
                drop(reply.send(answer));
            })
        }));
        self.send(job).await?;
        answer.await.map_err(|_| CommitError::Unavailable)?
    }

    /// Has the writer's thread do something else. It is carried out even if the caller
    /// stops waiting.
    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> Result<T, CommitError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Run(Box::new(move |writer| drop(reply.send(job(writer)))));
        self.send(job).await?;
        answer.await.map_err(|_| CommitError::Unavailable)
    }

    /// The disk is full, as far as anybody can tell, and will have room when somebody
    /// looks next.
    #[cfg(test)]
    pub(crate) async fn pretend_full(&self) {
        self.ask(Writer::pretend_full).await.unwrap();
    }

    async fn send(&self, job: Job) -> Result<(), CommitError> {
        let jobs = self.jobs.as_ref().ok_or(CommitError::Unavailable)?;
        jobs.send(job).await.map_err(|_| CommitError::Unavailable)
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the writer was logged and made the repository read-only.
            drop(thread.join());
        }
    }
}

/// Wall time in ms since 1970.
fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
