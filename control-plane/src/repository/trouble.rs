//! When nothing can be written: why, who is told, and what ends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::CommitError;
use super::open::{FoundView, open_view, refuse_rollback};
use super::view::View;
use super::writer::Writer;
use crate::store::journal::{AppendError, PAYLOAD_BYTES_MAX};
use crate::store::{StoreError, StoreHealth};

/// Between looks at whether a full disk has room again: a look writes some megabytes.
/// Callers are told to try again after as long.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why nothing is written.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// Goes away when there is room again for the ballast and as much beside it.
    Full(String),
    /// Needs a restart.
    Broken(String),
}

impl Writer {
    /// Takes over what opening found.
    pub(super) fn begin(&mut self, lost: Option<String>, trouble: Option<String>) {
        self.lost = lost;
        match trouble {
            Some(reason) => self.stop_writing(Trouble::Full(reason)),
            None => self.publish_health(),
        }
    }

    /// Refuses while operators' writes must not happen.
    pub(super) fn check_writable(&mut self) -> Result<(), CommitError> {
        self.check_disk()?;
        match &self.rolled_back {
            None => Ok(()),
            Some(reason) => Err(CommitError::RolledBack { reason: reason.clone() }),
        }
    }

    /// Refuses while there is trouble, after looking whether it is over.
    pub(super) fn check_disk(&mut self) -> Result<(), CommitError> {
        self.look_at_claims();
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

    /// Operators may write again when nobody has said for long that the store is old.
    /// Telemetry is written every few seconds, so health tells it soon too.
    fn look_at_claims(&mut self) {
        if self.rolled_back.is_some() && !self.shared.claims.hold(Instant::now()) {
            self.rolled_back = None;
            self.publish_health();
            tracing::warn!("no agent says any more that the store was rolled back; it takes writes again");
        }
    }

    /// An agent knows more of this store than the store itself.
    pub(super) fn note_ahead(&mut self, agent_id: &str, held_revision: u64, seen_sequence: u64) {
        let (revision, sequence) = (self.folded.revision, self.folded.sequence);
        // What was asked may have waited behind the commit that the agent saw.
        let behind = held_revision > revision || seen_sequence > sequence;
        if !behind || self.rolled_back.is_some() {
            return;
        }
        let reason = format!(
            "the store was rolled back: agent {agent_id:?} holds revision {held_revision} and saw commit \
             {seen_sequence} of it, but it ends at revision {revision} and commit {sequence}; restore the \
             journal from a backup, or restart with --accept-rollback, which starts a new epoch: all agents \
             then take over this older state. If the agent is wrong, withdraw its token: an hour after it \
             is gone this ends by itself"
        );
        tracing::error!(reason, "the store takes no writes of operators");
        self.rolled_back = Some(reason);
        self.publish_health();
    }

    /// Stops writing, if the cause is not the record itself.
    pub(super) fn journal_failed(&mut self, cause: AppendError) -> CommitError {
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

    pub(super) fn view_failed(&mut self, cause: &StoreError) {
        if let StoreError::TooLarge { .. } = cause {
            return;
        }
        self.stop_writing(Trouble::Full(format!("writing the view failed: {cause}")));
    }

    /// Room for the ballast and more is room for going on, with a view opened again: sled takes
    /// no writes after one failed.
    fn try_again(&mut self) {
        let Some(disk) = &self.disk else { return };
        if disk.ballast.load_again().is_err() {
            return;
        }
        // The old one holds sled's lock on the same files.
        self.view = View::stand_in("it is being opened".into());
        let mut found = open_view(&disk.data_dir);
        let ahead = self.rollback_of(&found);
        let before = found.view.mark().ok().flatten();
        if before.is_none() && found.trouble.is_none() && found.lost.is_none() && self.folded.sequence > 0 {
            // sled can open damaged files as empty ones, and say nothing.
            found.lost = Some("the view was gone; telemetry totals before now are lost".into());
        }
        self.lost = found.lost.or(self.lost.take());
        self.use_view(found.view);
        if let Some(reason) = found.trouble {
            self.stop_writing(Trouble::Full(reason));
            return;
        }
        self.trouble = None;
        if let Some(reason) = ahead {
            // Its mark stays: it is what shows that the journal is short.
            tracing::error!(reason, "the store takes no writes of operators");
            self.rolled_back = Some(reason);
            self.publish_health();
            return;
        }
        self.publish_health();
        tracing::info!("the store takes writes again");
        let state = Arc::clone(&self.shared.config.borrow());
        self.show(&state);
    }

    /// How it shows in a view that could not be read before that the journal is short.
    fn rollback_of(&self, found: &FoundView) -> Option<String> {
        let disk = self.disk.as_ref().filter(|disk| !disk.accept_rollback)?;
        let checked = refuse_rollback(found, disk.journal.tip().0, &disk.data_dir.join("journal"));
        checked.err().map(|error| error.to_string())
    }

    pub(super) fn stop_writing(&mut self, trouble: Trouble) {
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
        let trouble = self.trouble.as_ref().map(|(Trouble::Full(reason) | Trouble::Broken(reason))| reason);
        let health = match (trouble.or(self.rolled_back.as_ref()), &self.lost) {
            (Some(reason), _) => StoreHealth::ReadOnly { reason: reason.clone() },
            (None, Some(lost)) => StoreHealth::Degraded { reason: lost.clone() },
            (None, None) => StoreHealth::Ok,
        };
        self.shared.health.send_if_modified(|known| {
            let changed = *known != health;
            *known = health;
            changed
        });
    }

    /// Stops writing as if the disk were full, and looks at once when somebody asks.
    #[cfg(test)]
    pub(super) fn pretend_full(&mut self) {
        self.stop_writing(Trouble::Full("a test says that the disk is full".into()));
        self.looked = None;
    }

    #[cfg(test)]
    pub(super) fn break_journal(&mut self) {
        self.disk.as_mut().unwrap().journal.break_file();
    }
}
