//! What can go wrong with the repository, by what the caller does about it.

use std::path::PathBuf;

use trunkline_proto::problems::Problems;

use crate::store::StoreError;
use crate::store::journal::JournalError;

/// Why the repository does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the data directory {} is in use by another control plane; stop that one or name another directory",
        directory.display()
    )]
    InUse {
        /// The data directory.
        directory: PathBuf,
    },
    /// The journal is not what was written.
    #[error(
        "the journal is damaged: {} at byte {offset}: {cause}; restore the file from a backup",
        file.display()
    )]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// How it shows.
        cause: String,
    },
    /// Commits that were acknowledged are gone.
    #[error(
        "the journal {} ends at record {journal}, but record {seen} was acknowledged before: restore the journal from a backup, or start with --accept-rollback to go on without what is lost, under a new epoch (the view is in {})",
        directory.display(),
        view.display()
    )]
    RolledBack {
        /// The journal's directory.
        directory: PathBuf,
        /// The view's directory.
        view: PathBuf,
        /// The journal's last record.
        journal: u64,
        /// The last record that the view knows of.
        seen: u64,
    },
    /// There is a store where one was to be made.
    #[error(
        "there is a store in {} already: start without --import-state to use it, or name an empty data directory",
        directory.display()
    )]
    NotEmpty {
        /// The data directory.
        directory: PathBuf,
    },
    /// No store can be made from that file. Nothing of the store was written.
    #[error("import {}: {cause}", file.display())]
    Import {
        /// The file of ExportState.
        file: PathBuf,
        /// Why not.
        cause: String,
    },
    /// The stored configuration does not pass the checks of this program.
    #[error(
        "the stored configuration of revision {revision} is refused by this version:\n{problems}\nNothing was \
         changed. Start the version that wrote it, correct these fields with `trunkline apply`, and start \
         this one again; or start this one with another data directory and a corrected --config"
    )]
    Refused {
        /// Its revision.
        revision: u64,
        /// What is wrong.
        problems: Problems,
    },
    /// The file system said no.
    #[error("{action} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        #[source]
        cause: std::io::Error,
    },
}

impl OpenError {
    /// Whether an operator has to decide or to repair something: opening again, which may
    /// mean to read all of the journal, won't help.
    pub const fn is_input(&self) -> bool {
        match self {
            Self::Damaged { .. }
            | Self::RolledBack { .. }
            | Self::NotEmpty { .. }
            | Self::Import { .. }
            | Self::Refused { .. } => true,
            // The other one may end, and a file system may come back.
            Self::InUse { .. } | Self::Io { .. } => false,
        }
    }
}

/// Why a write did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// It was computed from a state that is not the newest.
    #[error("the configuration changed meanwhile and is at revision {current}; read it again")]
    Conflict {
        /// The revision now.
        current: u64,
    },
    /// The configuration is wrong.
    #[error("{0}")]
    Invalid(Problems),
    /// More than is possible.
    #[error("{what}: at most {max} are possible")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// Nothing can be written until an operator helps.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// Why and what helps.
        reason: String,
    },
    /// Agents know a newer state of this store than it has itself. Reads go on.
    #[error("{reason}")]
    RolledBack {
        /// How it shows and what helps.
        reason: String,
    },
    /// The write could not be worked out. Nothing was changed.
    #[error("a bug in the control plane: the write could not be worked out; nothing was changed")]
    Bug,
    /// The control plane is stopping. Whether the write happened is unknown.
    #[error("the store is closing; whether the write happened is unknown")]
    Unavailable,
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLarge { .. } => {
                Self::TooMuch { what: "bytes of a value", max: crate::store::VALUE_BYTES_MAX as u64 }
            }
            StoreError::ReadOnly { reason } | StoreError::Damaged { reason } => Self::ReadOnly { reason },
            StoreError::Conflict => {
                Self::ReadOnly { reason: "another writer has taken the store over".into() }
            }
            StoreError::Io(cause) => Self::ReadOnly { reason: cause.to_string() },
        }
    }
}

impl From<JournalError> for OpenError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Damaged { file, offset, cause } => Self::Damaged { file, offset, cause },
            JournalError::Io { action, path, cause } => Self::Io { action, path, cause },
        }
    }
}
