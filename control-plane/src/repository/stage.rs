//! A batch of commits before it is on disk: the newest state with all that was staged so
//! far. Others see it only once the disk has it; if that fails it is dropped whole.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use prost::Message;
use trunkline_proto::admin::v1::Config;
use trunkline_proto::convert::canonical;
use trunkline_routing::table::Version;

use super::fold::Folded;
use super::requests::{Remembered, Requests};
use super::{CommitError, ConfigState, Intent, now_unix_ms};
use crate::store::journal::{AppendError, Journal, PAYLOAD_BYTES_MAX, Record, RequestDone};

/// Encoded bytes of a configuration: 10,000 virtual models of usual size are 5 MB.
const CONFIG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What came of an edit.
#[derive(Clone, Debug)]
pub enum Edited<T> {
    /// It was carried out.
    Done {
        /// The state now.
        state: Arc<ConfigState>,
        /// What the edit answered.
        value: T,
    },
    /// A request of that id was carried out before; nothing was changed.
    Repeated(Remembered),
}

/// The newest state and what led to it.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    /// None: everything is in memory.
    journal: Option<&'a mut Journal>,
    /// Requests that are durable.
    done: &'a Requests,
    /// Why nothing can be staged.
    refused: Option<CommitError>,
    epoch: &'a str,
    pub(super) staged: Staged,
}

/// What is staged.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) folded: Folded,
    pub(super) config: Arc<ConfigState>,
    /// New states, oldest first.
    pub(super) states: Vec<Arc<ConfigState>>,
    /// New requests, oldest first.
    pub(super) requests: Vec<RequestDone>,
    /// About how many bytes of memory the new states take.
    pub(super) bytes: usize,
    /// Why the journal took nothing of all this.
    pub(super) failed: Option<AppendError>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        journal: Option<&'a mut Journal>,
        (folded, done): (&Folded, &'a Requests),
        config: Arc<ConfigState>,
        epoch: &'a str,
        refused: Option<CommitError>,
    ) -> Self {
        let staged = Staged {
            folded: folded.clone(),
            config,
            states: Vec::new(),
            requests: Vec::new(),
            bytes: 0,
            failed: None,
        };
        Self { journal, done, refused, epoch, staged }
    }

    /// Makes what `edit` answers the configuration. It is given the newest staged state;
    /// if that never gets to disk, neither does what was made from it.
    pub(super) fn edit<T, E: From<CommitError>>(
        &mut self,
        intent: Intent,
        edit: impl FnOnce(&ConfigState) -> Result<(Config, T), E>,
    ) -> Result<Edited<T>, E> {
        if let Some(known) = intent.request_id.as_deref().and_then(|id| self.remembered(id)) {
            return Ok(Edited::Repeated(known));
        }
        // Others' writes must not end with a mistake in this one.
        let edited = catch_unwind(AssertUnwindSafe(|| edit(&self.staged.config)));
        let (config, value) = edited.map_err(|_| CommitError::Bug)??;
        let state = self.replace(config, intent)?;
        Ok(Edited::Done { state, value })
    }

    /// Makes `config` the configuration. One that is equal to the newest is no new
    /// revision, and no record unless the request has to be remembered.
    fn replace(&mut self, config: Config, intent: Intent) -> Result<Arc<ConfigState>, CommitError> {
        let current = Arc::clone(&self.staged.config);
        let config = canonical(config);
        let changed = config != current.config;
        if !changed && intent.request_id.is_none() {
            return Ok(current);
        }
        let bytes = config.encoded_len();
        if bytes > CONFIG_BYTES_MAX {
            let max = CONFIG_BYTES_MAX as u64;
            return Err(CommitError::TooMuch { what: "encoded bytes of a configuration", max });
        }
        let revision = current.version.revision + u64::from(changed);
        let next = if changed {
            let version = Version { epoch: self.epoch.to_owned(), revision };
            let state = ConfigState::new(version, config, intent.force);
            Arc::new(state.map_err(CommitError::Invalid)?)
        } else {
            current
        };
        self.append(Record {
            revision,
            principal: intent.principal,
            method: intent.method.to_owned(),
            subject: intent.subject,
            request_id: intent.request_id,
            request_sha256: intent.request_sha256.to_vec(),
            force: intent.force,
            config: changed.then(|| next.config.encode_to_vec()),
            ..Record::default()
        })?;
        if changed {
            self.staged.bytes += bytes;
            self.staged.states.push(Arc::clone(&next));
            self.staged.config = Arc::clone(&next);
        }
        Ok(next)
    }

    fn remembered(&self, request_id: &str) -> Option<Remembered> {
        let staged = self.staged.requests.iter().find(|done| done.request_id == request_id);
        staged.map(Remembered::of).or_else(|| self.done.get(request_id, now_unix_ms()))
    }

    /// Makes a record part of the state.
    pub(super) fn append(&mut self, mut record: Record) -> Result<(), CommitError> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        record.unix_ms = now_unix_ms();
        match &mut self.journal {
            None => record.sequence = self.staged.folded.sequence + 1,
            Some(journal) => match journal.append_unsynced(&mut record) {
                Ok(()) => {}
                Err(AppendError::TooLong) => {
                    let max = PAYLOAD_BYTES_MAX as u64;
                    return Err(CommitError::TooMuch { what: "bytes of a record", max });
                }
                Err(cause) => {
                    // Replaced by the true reason when the batch ends.
                    let refused = CommitError::ReadOnly { reason: cause.to_string() };
                    self.staged.failed = Some(cause);
                    self.refused = Some(refused.clone());
                    return Err(refused);
                }
            },
        }
        self.staged.requests.extend(self.staged.folded.apply(record));
        Ok(())
    }
}
