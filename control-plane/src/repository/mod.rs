//! The repository: the control plane's durable state behind one door. gRPC services
//! read it without waiting; writes queue up for one thread that persists, publishes,
//! then acknowledges.
//!
//! ```text
//! services -- job --> writer thread: check -> journal (fdatasync) -> view -> publish
//!     ^                                                                        |
//!     +------------------------- acknowledge ----------------------------------+
//! ```

mod drain;
mod error;
mod fault;
mod fold;
mod open;
mod orders;
mod requests;
mod state;
#[cfg(test)]
mod tests;
mod verdict;
mod view;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};
use trunkline_proto::admin::v1::Config;
use trunkline_proto::types::v1::Fault;

pub use drain::{DRAINS_MAX, DrainSet};
pub use error::{CommitError, OpenError};
pub use fault::{DRILLS_MAX, Drill, FaultSet};
pub use requests::Remembered;
pub use state::ConfigState;
pub use verdict::{FORCED_DEPLOYMENTS_MAX, Verdict, VerdictOutcome, VerdictSet, VerdictState};

pub use crate::store::{StoreHealth, VALUE_BYTES_MAX};
use requests::Requests;
use state::Recent;
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
}

/// A new configuration.
#[derive(Clone, Debug)]
pub struct ConfigWrite {
    /// All of it.
    pub config: Config,
    /// The revision of the state it was computed from.
    pub expected_revision: u64,
    /// Who.
    pub principal: String,
    /// Called what.
    pub method: &'static str,
    /// The caller's name for the request, if it gave one.
    pub request_id: Option<String>,
    /// SHA-256 of the request.
    pub request_sha256: [u8; 32],
    /// Whether checks were overruled.
    pub force: bool,
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
    requests: RwLock<Requests>,
    health: watch::Sender<StoreHealth>,
}

impl Repository {
    /// Opens the journal, checks all of it, and brings the view up to date. Blocks.
    ///
    /// # Errors
    /// If another process has the directory, the journal is damaged or short of what
    /// was acknowledged, or the file system refuses.
    pub fn open(options: RepositoryOptions) -> Result<Arc<Self>, OpenError> {
        let (writer, shared) = open::open(options)?;
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

    /// Makes `write` the configuration: durable and published when this returns. One
    /// that is equal to the newest is no new revision.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&self, write: ConfigWrite) -> Result<Arc<ConfigState>, CommitError> {
        self.ask(move |writer| writer.commit(write)).await?
    }

    /// The request of that id, if it was carried out in the last 24 hours.
    pub fn remembered(&self, request_id: &str) -> Option<Remembered> {
        self.shared.requests.read().get(request_id, now_unix_ms())
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

    /// What operators force now. What has expired stays until [`Self::expire`].
    pub fn verdicts(&self) -> Arc<VerdictSet> {
        Arc::clone(&self.shared.verdicts.borrow())
    }

    /// What operators force, now and whenever it changes; the newest only.
    pub fn subscribe_verdicts(&self) -> watch::Receiver<Arc<VerdictSet>> {
        self.shared.verdicts.subscribe()
    }

    /// Forces the breaker of a deployment, for a time if one is given, or with None
    /// gives it back. Durable and published when this returns.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn set_verdict(
        &self,
        deployment: String,
        forced: Option<(VerdictState, Option<Duration>)>,
        reason: String,
        principal: String,
    ) -> Result<VerdictOutcome, CommitError> {
        self.ask(move |writer| writer.set_verdict(deployment, forced, reason, principal)).await?
    }

    /// The drills that are active. What has expired stays until [`Self::expire`].
    pub fn faults(&self) -> Arc<FaultSet> {
        Arc::clone(&self.shared.faults.borrow())
    }

    /// The drills that are active, now and whenever they change; the newest only.
    pub fn subscribe_faults(&self) -> watch::Receiver<Arc<FaultSet>> {
        self.shared.faults.subscribe()
    }

    /// Begins a drill that ends by itself after `ttl`; one of the same name ends now.
    /// `fault` is taken as it is: checking it is the caller's. Durable and published
    /// when this returns.
    ///
    /// # Errors
    /// [`CommitError::TooMuch`] beyond [`DRILLS_MAX`], and see [`CommitError`].
    pub async fn inject_fault(
        &self,
        fault: Fault,
        ttl: Duration,
        principal: String,
    ) -> Result<Drill, CommitError> {
        self.ask(move |writer| writer.inject_fault(fault, ttl, principal)).await?
    }

    /// Ends a drill before its time. The answer is whether it was active.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn clear_fault(&self, name: String, principal: String) -> Result<bool, CommitError> {
        self.ask(move |writer| writer.clear_fault(name, principal)).await?
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

    /// Takes an agent out of service for a reason, possibly an empty one, or with None
    /// brings it back. Durable and published when this returns.
    ///
    /// # Errors
    /// [`CommitError::TooMuch`] beyond [`DRAINS_MAX`], and see [`CommitError`].
    pub async fn set_drain(
        &self,
        agent_id: String,
        reason: Option<String>,
        principal: String,
    ) -> Result<(), CommitError> {
        self.ask(move |writer| writer.set_drain(agent_id, reason, principal)).await?
    }

    /// Ends the verdicts and drills whose time is over. The answer is when the next one
    /// ends, as wall time in ms since 1970. Works in a read-only repository as well: an
    /// operator's word on the end holds.
    pub async fn expire(&self, now_unix_ms: u64) -> Option<u64> {
        let next = self.ask(move |writer| writer.expire(now_unix_ms)).await;
        next.ok().flatten()
    }

    /// When the next verdict or drill ends, as wall time in ms since 1970.
    pub fn next_expiry_unix_ms(&self) -> Option<u64> {
        let ends = [self.verdicts().next_expiry_unix_ms(), self.faults().next_expiry_unix_ms()];
        ends.into_iter().flatten().min()
    }

    /// Writes all of `blobs` or none, durable when this returns. They live beside the
    /// journal: if the view is damaged they are lost, and [`Self::health`] says so.
    ///
    /// # Errors
    /// See [`CommitError`]; a value has at most [`VALUE_BYTES_MAX`].
    pub async fn put_blobs(&self, blobs: Vec<Blob>) -> Result<(), CommitError> {
        self.write_blobs(blobs, Vec::new()).await
    }

    /// As [`Self::put_blobs`], and removes the blobs of the keys in `deletes`, if there:
    /// all of it or nothing. A key is in one of the two at most.
    ///
    /// # Errors
    /// See [`CommitError`]; a value has at most [`VALUE_BYTES_MAX`].
    pub async fn write_blobs(&self, puts: Vec<Blob>, deletes: Vec<Vec<u8>>) -> Result<(), CommitError> {
        self.ask(move |writer| writer.write_blobs(puts, deletes)).await?
    }

    /// The blobs whose key starts with `prefix`, by key.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn scan_blobs(&self, prefix: &[u8]) -> Result<Vec<Blob>, CommitError> {
        let prefix = prefix.to_vec();
        self.ask(move |writer| writer.scan_blobs(&prefix)).await?
    }

    /// The blobs under each of `prefixes`, in the order of these. Writes wait meanwhile,
    /// so the caller bounds how many there are.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn scan_blobs_of(&self, prefixes: Vec<Vec<u8>>) -> Result<Vec<Blob>, CommitError> {
        let scan = move |writer: &mut Writer| {
            let found = prefixes.iter().map(|prefix| writer.scan_blobs(prefix));
            found.collect::<Result<Vec<_>, _>>().map(|found| found.into_iter().flatten().collect())
        };
        self.ask(scan).await?
    }

    /// Whether writes are taken, and what is missing.
    pub fn health(&self) -> StoreHealth {
        self.shared.health.borrow().clone()
    }

    /// The health, now and whenever it changes.
    pub fn subscribe_health(&self) -> watch::Receiver<StoreHealth> {
        self.shared.health.subscribe()
    }

    /// Has the writer's thread do something. The job is carried out even if the caller
    /// stops waiting.
    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> Result<T, CommitError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            let answer = job(writer);
            // The caller may be gone; its write happened all the same.
            drop(reply.send(answer));
        });
        let jobs = self.jobs.as_ref().ok_or(CommitError::Unavailable)?;
        jobs.send(job).await.map_err(|_| CommitError::Unavailable)?;
        answer.await.map_err(|_| CommitError::Unavailable)
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
