//! Where durable state lives: one small trait over bytes, and the journal that is the
//! truth behind it.
//!
//! The repository is the caller. Everything here blocks, so it runs on the
//! repository's own thread and never on one that serves requests. What the bytes mean
//! is not known here.

pub(crate) mod ballast;
#[cfg(test)]
mod conformance;
pub(crate) mod directory;
pub(crate) mod failpoints;
pub(crate) mod journal;
pub mod memory;
pub mod sled;

use std::fmt;

use tokio::sync::watch;

/// Ordered keys and values with versions. Every engine passes the same conformance
/// suite.
pub trait Store: Send + Sync + fmt::Debug {
    /// All entries whose key starts with `prefix`, by key, as of one version.
    ///
    /// # Errors
    /// If the engine cannot read, or what it read is damaged.
    fn read(&self, prefix: &[u8]) -> Result<Snapshot, StoreError>;

    /// The entries whose key starts with `prefix` and comes after `after`, by key: all of
    /// them, or the first until their keys and values have `bytes_max` bytes, but at
    /// least one if there is one. For much data, read bit by bit.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_after(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Carries out all of `changes` if all of `guards` hold, else none. Durable when it
    /// returns. The answer is the new version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a guard does not hold; others as the engine has it.
    fn commit(&self, guards: &[Guard], changes: &[Change]) -> Result<u64, StoreError>;

    /// The version of the newest commit. A notice to read again, never a queue: who is
    /// slow sees the newest one only.
    fn watch(&self) -> watch::Receiver<u64>;

    /// Takes the leadership and answers its term, for [`Guard::Term`]. An engine with
    /// one process always grants it; former terms end at once.
    ///
    /// # Errors
    /// If the engine cannot write.
    fn campaign(&self) -> Result<u64, StoreError>;

    /// Whether it takes writes.
    fn health(&self) -> StoreHealth;

    /// Gives back space that it wastes, if that is much. For a quiet time: reads and
    /// writes wait meanwhile, seconds at worst.
    ///
    /// # Errors
    /// If the engine cannot go on; it takes no more writes then.
    fn maintain(&self) -> Result<(), StoreError>;
}

/// What a prefix held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The version of the store.
    pub version: u64,
    /// By key.
    pub entries: Vec<Entry>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Vec<u8>,
    /// What it holds.
    pub value: Vec<u8>,
    /// The version of the commit that wrote it.
    pub version: u64,
}

impl Entry {
    /// Bytes of key and value.
    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// What must hold for a commit to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The key was last written by the commit of that version.
    Unchanged {
        /// The key.
        key: Vec<u8>,
        /// The version.
        version: u64,
    },
    /// There is no such key.
    Absent {
        /// The key.
        key: Vec<u8>,
    },
    /// Nobody campaigned since.
    Term(u64),
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes a key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// What it shall hold; at most [`VALUE_BYTES_MAX`].
        value: Vec<u8>,
    },
    /// Removes a key, if there.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

/// From a quarter of a segment on, sled 0.34.7 keeps a value in a file of its own and
/// never removes it; half of that leaves room for its headers.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else was there first; read again.
    #[error("a guard of the commit does not hold any more; read again")]
    Conflict,
    /// Too long for the engine.
    #[error("the value of a key has {bytes} bytes; at most {VALUE_BYTES_MAX} are possible")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A former write failed; only reads are possible.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// What failed.
        reason: String,
    },
    /// What is stored cannot be trusted.
    #[error("the store is damaged: {reason}")]
    Damaged {
        /// How it shows.
        reason: String,
    },
    /// The file system said no.
    #[error("the store: {0}")]
    Io(#[from] std::io::Error),
}

/// Whether writes are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreHealth {
    /// All is well.
    #[default]
    Ok,
    /// Takes writes, but something was lost or is missing.
    Degraded {
        /// What, for people.
        reason: String,
    },
    /// Takes no writes; reads go on.
    ReadOnly {
        /// Why and what helps, for people.
        reason: String,
    },
}

/// Refuses what no engine could store.
fn check_sizes(changes: &[Change]) -> Result<(), StoreError> {
    for change in changes {
        if let Change::Put { value, .. } = change
            && value.len() > VALUE_BYTES_MAX
        {
            return Err(StoreError::TooLarge { bytes: value.len() });
        }
    }
    Ok(())
}
