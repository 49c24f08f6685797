//! The writer: the one thread that changes durable state. Commits that wait at the same
//! time share one wait for the disk. Each batch goes the same way: stage, journal, view,
//! publish, and only then the answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::fold::Folded;
use super::requests::Requests;
use super::stage::{Stage, Staged};
use super::trouble::Trouble;
use super::view::{Mark, View};
use super::{Blob, CommitError, ConfigState, Shared};
use crate::store::ballast::Ballast;
use crate::store::directory::DirectoryLock;
use crate::store::failpoints::{self, failpoint};
use crate::store::journal::Journal;

/// Something for the writer to do.
pub(super) enum Job {
    /// A commit, staged with others.
    Commit(Box<dyn FnOnce(&mut Stage<'_>) -> Answer + Send>),
    /// Anything else, when all commits before it are settled.
    Run(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// Tells the caller, once it is known whether the batch is on disk.
pub(super) type Answer = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// Commits that share one wait for the disk. More would save little of it, and let the
/// first wait for the checks of the last.
const BATCH_MAX: usize = 64;

/// Encoded bytes of new configurations in a batch: each is in memory a few times.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Between looks at whether the view's files waste space: sled needs hours for that.
const MAINTAIN_EVERY: Duration = Duration::from_mins(30);

/// Owner of the durable state.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) epoch: String,
    pub(super) folded: Folded,
    pub(super) requests: Requests,
    pub(super) view: View,
    /// Counts how often the view was opened.
    openings: u64,
    /// None: everything is in memory.
    pub(super) disk: Option<Disk>,
    pub(super) trouble: Option<Trouble>,
    /// When it was last looked at whether the trouble is over.
    pub(super) looked: Option<Instant>,
    /// When the view's files were last looked at.
    maintained: Instant,
    /// What was lost before this start.
    pub(super) lost: Option<String>,
    /// How it shows that this store is older than it was.
    pub(super) rolled_back: Option<String>,
}

/// What is on disk beside the view.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) journal: Journal,
    pub(super) ballast: Ballast,
    pub(super) data_dir: PathBuf,
    /// An operator said that the journal may be older than the view.
    pub(super) accept_rollback: bool,
    #[expect(dead_code, reason = "held until dropped")]
    pub(super) lock: DirectoryLock,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        epoch: String,
        (folded, requests): (Folded, Requests),
        view: View,
        disk: Option<Disk>,
    ) -> Self {
        let mut writer = Self {
            shared,
            epoch,
            folded,
            requests,
            view: View::stand_in("it is not open yet".into()),
            openings: 0,
            disk,
            trouble: None,
            looked: None,
            maintained: Instant::now(),
            lost: None,
            rolled_back: None,
        };
        writer.use_view(view);
        writer
    }

    /// Takes over a view that was opened, and tells those who read from it.
    pub(super) fn use_view(&mut self, view: View) {
        self.view = view;
        self.openings += 1;
        self.shared.view.send_replace(self.view.is_real().then_some(self.openings));
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let work = || {
            let mut held = None;
            while let Some(job) = held.take().or_else(|| queue.blocking_recv()) {
                match job {
                    Job::Run(run) => run(&mut self),
                    Job::Commit(first) => held = self.batch(first, &mut queue),
                }
                if held.is_none() && queue.is_empty() {
                    self.maintain();
                }
            }
        };
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.stop_writing(Trouble::Broken("the writer panicked; restart".into()));
        }
    }

    /// Gives back space that the view wastes, now and then when nobody waits.
    fn maintain(&mut self) {
        if self.trouble.is_some() || self.maintained.elapsed() < MAINTAIN_EVERY {
            return;
        }
        self.maintained = Instant::now();
        if let Err(cause) = self.view.maintain() {
            self.view_failed(&cause);
        }
    }

    /// Stages the commits that wait, and settles them together. The answer is the job
    /// that ended the batch, if one did.
    fn batch(
        &mut self,
        first: Box<dyn FnOnce(&mut Stage<'_>) -> Answer + Send>,
        queue: &mut mpsc::Receiver<Job>,
    ) -> Option<Job> {
        let refused = self.check_writable().err();
        let mut stage = self.stage(refused);
        let mut answers = vec![first(&mut stage)];
        let mut held = None;
        while answers.len() < BATCH_MAX && stage.staged.bytes < BATCH_BYTES_MAX {
            match queue.try_recv() {
                Ok(Job::Commit(next)) => answers.push(next(&mut stage)),
                Ok(job @ Job::Run(_)) => {
                    held = Some(job);
                    break;
                }
                // Whoever comes later waits for the next batch, not this one for them.
                Err(_) => break,
            }
        }
        let staged = stage.staged;
        let settled = self.settle(staged);
        failpoint(failpoints::COMMIT_AFTER_PUBLISH);
        for answer in answers {
            answer(settled.clone());
        }
        self.rotate_if_full();
        held
    }

    pub(super) fn stage(&mut self, refused: Option<CommitError>) -> Stage<'_> {
        let journal = self.disk.as_mut().map(|disk| &mut disk.journal);
        let config = Arc::clone(&self.shared.config.borrow());
        Stage::new(journal, (&self.folded, &self.requests), config, &self.epoch, refused)
    }

    /// Puts what is staged on disk and publishes it, or drops all of it.
    pub(super) fn settle(&mut self, staged: Staged) -> Result<(), CommitError> {
        if let Some(cause) = staged.failed {
            return Err(self.journal_failed(cause));
        }
        if staged.folded.sequence == self.folded.sequence {
            return Ok(());
        }
        if let Some(disk) = &mut self.disk {
            let synced = disk.journal.sync();
            synced.map_err(|cause| self.journal_failed(cause))?;
        }
        self.folded = staged.folded;
        for done in &staged.requests {
            self.requests.insert(done.clone());
        }
        self.show(&staged.config);
        failpoint(failpoints::COMMIT_AFTER_VIEW);
        // Before the changes themselves: who saw one saw its number.
        self.shared.sequence.send_replace(self.folded.sequence);
        if !staged.states.is_empty() {
            let mut recent = self.shared.recent.write();
            staged.states.iter().for_each(|state| recent.push(Arc::clone(state)));
        }
        for state in staged.states {
            self.shared.config.send_replace(state);
        }
        self.publish_orders();
        Ok(())
    }

    /// Ends what has expired; the answer is when the next one does. An end was decided,
    /// durably, with the beginning: it holds even if it cannot be written down.
    pub(super) fn expire(&mut self, now_unix_ms: u64) -> Option<u64> {
        let verdicts = self.folded.verdicts.expired(now_unix_ms);
        let faults = self.folded.faults.expired(now_unix_ms);
        if !verdicts.is_empty() || !faults.is_empty() {
            let refused = self.check_writable().err();
            let mut stage = self.stage(refused);
            let appended = stage.end(verdicts.clone(), faults.clone());
            let staged = stage.staged;
            let settled = self.settle(staged);
            if appended.is_err() || settled.is_err() {
                let known = Arc::make_mut(&mut self.folded.verdicts);
                for change in verdicts {
                    known.apply(change);
                }
                let known = Arc::make_mut(&mut self.folded.faults);
                for change in faults {
                    known.apply(change);
                }
                self.publish_orders();
            }
            self.rotate_if_full();
        }
        let ends = [self.folded.verdicts.next_expiry_unix_ms(), self.folded.faults.next_expiry_unix_ms()];
        ends.into_iter().flatten().min()
    }

    /// `read_from`: the opening of the view from which was read what is written now.
    pub(super) fn write_blobs(
        &mut self,
        read_from: Option<u64>,
        puts: Vec<Blob>,
        deletes: Vec<Vec<u8>>,
    ) -> Result<(), CommitError> {
        self.check_disk()?;
        if read_from.is_some_and(|opening| opening != self.openings) {
            let reason = "the view was opened again since this was read from it; read it again".into();
            return Err(CommitError::ReadOnly { reason });
        }
        self.view.write_blobs(puts, deletes).map_err(|cause| {
            self.view_failed(&cause);
            CommitError::from(cause)
        })
    }

    pub(super) fn scan_blobs(&mut self, prefix: &[u8]) -> Result<Vec<Blob>, CommitError> {
        if !self.view.is_real() {
            // Who reads needs a view as much as who writes.
            self.check_disk()?;
        }
        Ok(self.view.scan_blobs(prefix)?)
    }

    fn rotate_if_full(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        if !disk.journal.is_full() {
            return;
        }
        if let Err(cause) = disk.journal.rotate(self.folded.snapshot(&self.requests)) {
            tracing::warn!(%cause, "the journal could not start a new segment; it goes on with the old one");
        }
    }

    /// Brings the view up to date. The journal has it: a failure loses nothing.
    pub(super) fn show(&mut self, state: &ConfigState) {
        let mark = self.mark();
        if let Err(cause) = self.view.show(&mark, &state.config, &self.folded) {
            self.view_failed(&cause);
        }
    }

    /// What the view has to show.
    pub(super) fn mark(&self) -> Mark {
        let tip = self.disk.as_ref().map(|disk| disk.journal.tip());
        Mark::new(&self.epoch, tip.unwrap_or((self.folded.sequence, [0; 32])))
    }

    /// Publishes what else than the configuration changed.
    fn publish_orders(&self) {
        let Shared { verdicts, faults, drains, .. } = &*self.shared;
        publish_change(verdicts, &self.folded.verdicts);
        publish_change(faults, &self.folded.faults);
        publish_change(drains, &self.folded.drains);
    }
}

/// Wakes those who wait for a change only if there is one.
fn publish_change<T>(published: &watch::Sender<Arc<T>>, newest: &Arc<T>) {
    published.send_if_modified(|known| {
        let changed = !Arc::ptr_eq(known, newest);
        if changed {
            *known = Arc::clone(newest);
        }
        changed
    });
}
