//! The writer: the one thread that changes durable state. Each change goes the same way:
//! check, journal, view, publish, and only then the answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use tokio::sync::{mpsc, watch};
use trunkline_proto::convert::canonical;
use trunkline_routing::table::Version;

use super::fold::Folded;
use super::open::open_view;
use super::view::{Mark, View};
use super::{Blob, CommitError, ConfigState, ConfigWrite, Shared, now_unix_ms};
use crate::store::ballast::Ballast;
use crate::store::directory::DirectoryLock;
use crate::store::journal::{AppendError, Journal, PAYLOAD_BYTES_MAX, Record};
use crate::store::{StoreError, StoreHealth};

/// Something for the writer to do.
pub(super) type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// Encoded bytes of a configuration: 10,000 virtual models of usual size are 5 MB.
const CONFIG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Between looks at whether a full disk has room again: a look writes some megabytes.
/// Callers are told to try again after as long.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Owner of the durable state.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    epoch: String,
    pub(super) folded: Folded,
    view: View,
    /// None: everything is in memory.
    disk: Option<Disk>,
    trouble: Option<Trouble>,
    /// When it was last looked at whether the trouble is over.
    looked: Option<Instant>,
    /// What was lost before this start.
    lost: Option<String>,
}

/// What is on disk beside the view.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) journal: Journal,
    pub(super) ballast: Ballast,
    pub(super) data_dir: PathBuf,
    #[expect(dead_code, reason = "held until dropped")]
    pub(super) lock: DirectoryLock,
}

/// Why nothing is written.
#[derive(Clone, Debug)]
enum Trouble {
    /// Goes away when there is room again for the ballast and as much beside it.
    Full(String),
    /// Needs a restart.
    Broken(String),
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        epoch: String,
        folded: Folded,
        view: View,
        disk: Option<Disk>,
    ) -> Self {
        Self { shared, epoch, folded, view, disk, trouble: None, looked: None, lost: None }
    }

    /// Takes over what opening found.
    pub(super) fn begin(&mut self, lost: Option<String>, trouble: Option<String>) {
        self.lost = lost;
        match trouble {
            Some(reason) => self.stop_writing(Trouble::Full(reason)),
            None => self.publish_health(),
        }
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let work = || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut self);
            }
        };
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.stop_writing(Trouble::Broken("the writer panicked; restart".into()));
        }
    }

    pub(super) fn commit(&mut self, write: ConfigWrite) -> Result<Arc<ConfigState>, CommitError> {
        let current = Arc::clone(&self.shared.config.borrow());
        if write.expected_revision != current.version.revision {
            return Err(CommitError::Conflict { current: current.version.revision });
        }
        let config = canonical(write.config);
        let changed = config != current.config;
        if !changed && write.request_id.is_none() {
            return Ok(current);
        }
        if config.encoded_len() > CONFIG_BYTES_MAX {
            let max = CONFIG_BYTES_MAX as u64;
            return Err(CommitError::TooMuch { what: "encoded bytes of a configuration", max });
        }
        let revision = current.version.revision + u64::from(changed);
        let version = Version { epoch: self.epoch.clone(), revision };
        let next = if changed {
            let state = ConfigState::new(version, config, write.force);
            Arc::new(state.map_err(CommitError::Invalid)?)
        } else {
            current
        };
        let has_request_id = write.request_id.is_some();
        let record = Record {
            revision,
            principal: write.principal,
            method: write.method.to_owned(),
            request_id: write.request_id,
            request_sha256: write.request_sha256.to_vec(),
            force: write.force,
            config: changed.then(|| next.config.encode_to_vec()),
            ..Record::default()
        };
        self.persist(record)?;
        self.show(&next);
        if has_request_id && let Some(done) = self.folded.requests.newest() {
            self.shared.requests.write().insert(done.clone());
        }
        if changed {
            self.shared.recent.write().push(Arc::clone(&next));
            self.shared.config.send_replace(Arc::clone(&next));
        }
        Ok(next)
    }

    pub(super) fn write_blobs(&mut self, puts: Vec<Blob>, deletes: Vec<Vec<u8>>) -> Result<(), CommitError> {
        self.check_writable()?;
        self.view.write_blobs(puts, deletes).map_err(|cause| {
            self.view_failed(&cause);
            CommitError::from(cause)
        })
    }

    pub(super) fn scan_blobs(&mut self, prefix: &[u8]) -> Result<Vec<Blob>, CommitError> {
        Ok(self.view.scan_blobs(prefix)?)
    }

    /// Makes a record durable and part of the state.
    pub(super) fn persist(&mut self, mut record: Record) -> Result<(), CommitError> {
        self.check_writable()?;
        record.unix_ms = now_unix_ms();
        match &mut self.disk {
            None => record.sequence = self.folded.sequence + 1,
            Some(disk) => {
                let written = disk.journal.append(&mut record);
                written.map_err(|cause| self.journal_failed(cause))?;
            }
        }
        self.folded.apply(record);
        // Before the change itself: who saw a change saw its number.
        self.shared.sequence.send_replace(self.folded.sequence);
        self.rotate_if_full();
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn break_journal(&mut self) {
        self.disk.as_mut().unwrap().journal.break_file();
    }

    /// Stops writing, if the cause is not the record itself.
    fn journal_failed(&mut self, cause: AppendError) -> CommitError {
        let directory = self.disk.as_ref().map(|disk| disk.data_dir.display().to_string());
        let directory = directory.unwrap_or_default();
        let (trouble, reason): (fn(String) -> Trouble, _) = match cause {
            AppendError::TooLong => {
                let max = PAYLOAD_BYTES_MAX as u64;
                return CommitError::TooMuch { what: "bytes of a record", max };
            }
            AppendError::Full(cause) => {
                (Trouble::Full, format!("the disk of {directory} is full: {cause}; free some space"))
            }
            AppendError::Broken(cause) => (
                Trouble::Broken,
                format!("writing the journal in {directory} failed: {cause}; check the disk and restart"),
            ),
        };
        self.stop_writing(trouble(reason.clone()));
        CommitError::ReadOnly { reason }
    }

    fn rotate_if_full(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        if !disk.journal.is_full() {
            return;
        }
        if let Err(cause) = disk.journal.rotate(self.folded.snapshot()) {
            tracing::warn!(%cause, "the journal could not start a new segment; it goes on with the old one");
        }
    }

    /// Brings the view up to date. The journal has it: a failure loses nothing.
    fn show(&mut self, state: &ConfigState) {
        let tip = self.disk.as_ref().map(|disk| disk.journal.tip());
        let mark = Mark::new(&self.epoch, tip.unwrap_or((self.folded.sequence, [0; 32])));
        if let Err(cause) = self.view.show(&mark, &state.config, &self.folded.verdicts) {
            self.view_failed(&cause);
        }
    }

    /// Publishes what else than the configuration changed.
    pub(super) fn publish_orders(&mut self) {
        let state = Arc::clone(&self.shared.config.borrow());
        self.show(&state);
        let Shared { verdicts, faults, drains, .. } = &*self.shared;
        publish_change(verdicts, &self.folded.verdicts);
        publish_change(faults, &self.folded.faults);
        publish_change(drains, &self.folded.drains);
    }

    fn view_failed(&mut self, cause: &StoreError) {
        if let StoreError::TooLarge { .. } = cause {
            return;
        }
        self.stop_writing(Trouble::Full(format!("writing the view failed: {cause}")));
    }

    /// Refuses while there is trouble, after looking whether it is over.
    fn check_writable(&mut self) -> Result<(), CommitError> {
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN);
        if due && let Some(Trouble::Full(_)) = &self.trouble {
            self.looked = Some(Instant::now());
            self.try_again();
        }
        match &self.trouble {
            None => Ok(()),
            Some(Trouble::Full(reason) | Trouble::Broken(reason)) => {
                Err(CommitError::ReadOnly { reason: reason.clone() })
            }
        }
    }

    /// Room for the ballast and more is room for going on, with a view opened again: sled takes
    /// no writes after one failed.
    fn try_again(&mut self) {
        let Some(disk) = &self.disk else { return };
        if disk.ballast.load_again().is_err() {
            return;
        }
        // The old one holds sled's lock on the same files.
        self.view = View::in_memory();
        let found = open_view(&disk.data_dir);
        self.view = found.view;
        self.lost = found.lost.or(self.lost.take());
        if let Some(reason) = found.trouble {
            self.stop_writing(Trouble::Full(reason));
            return;
        }
        self.trouble = None;
        self.publish_health();
        tracing::info!("the store takes writes again");
        let state = Arc::clone(&self.shared.config.borrow());
        self.show(&state);
    }

    fn stop_writing(&mut self, trouble: Trouble) {
        let (Trouble::Full(reason) | Trouble::Broken(reason)) = &trouble;
        if self.trouble.is_none() {
            tracing::error!(reason, "the store is read-only");
        }
        self.trouble = Some(trouble);
        if let Some(disk) = &self.disk
            && let Err(cause) = disk.ballast.release()
        {
            tracing::warn!(%cause, "the ballast could not be given up");
        }
        self.publish_health();
    }

    fn publish_health(&self) {
        let health = match (&self.trouble, &self.lost) {
            (Some(Trouble::Full(reason) | Trouble::Broken(reason)), _) => {
                StoreHealth::ReadOnly { reason: reason.clone() }
            }
            (None, Some(lost)) => StoreHealth::Degraded { reason: lost.clone() },
            (None, None) => StoreHealth::Ok,
        };
        self.shared.health.send_if_modified(|known| {
            let changed = *known != health;
            *known = health;
            changed
        });
    }
}

/// Wakes those who wait for a change only if there is one.
fn publish_change<T: Clone + PartialEq>(published: &watch::Sender<Arc<T>>, newest: &T) {
    published.send_if_modified(|known| {
        let changed = **known != *newest;
        if changed {
            *known = Arc::new(newest.clone());
        }
        changed
    });
}
