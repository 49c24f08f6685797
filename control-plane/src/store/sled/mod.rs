//! The store on sled 0.34.7. Nothing else may import it: its files are damaged quietly
//! (it can open with keys missing, or as it was earlier), it panics on some damage, it
//! takes no write after one failed, its files grow, and its `flush` is no barrier
//! against power loss. So:
//!
//! - every call is guarded against panics, and a commit ends with fsync on sled's file;
//! - each record has a checksum, and a tip tells how many there are, with a digest of
//!   all of them; opening reads everything and compares (`codec`, `checked`);
//! - a file beside sled's tells which tip was committed last, so that an earlier state
//!   does not pass for the newest;
//! - damage goes down a ladder before anything is given up (`ladder`);
//! - files that are far larger than what is in them are made anew (`space`).
//!
//! `watch_prefix` is not used: a slow subscriber would hold up who writes. What is kept
//! here must be possible to rebuild or to lose.

mod checked;
mod codec;
mod ladder;
mod space;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tokio::sync::watch;

use self::checked::{Checked, guarded, of_sled};
use self::codec::{META_TIP, Tip, data, decode, encode};
pub(crate) use self::ladder::move_aside;
use super::{Change, Entry, Guard, Snapshot, Store, StoreError, StoreHealth, check_sizes};

/// A sled database in a directory of its own.
#[derive(Debug)]
pub struct SledStore {
    directory: PathBuf,
    /// One at a time; the version and the guards hold meanwhile.
    inner: Mutex<Inner>,
    version: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    /// None after a failure to make the files anew.
    checked: Option<Checked>,
    /// Why nothing is written until it is opened again.
    failed: Option<String>,
}

impl SledStore {
    /// Opens or makes the database in `directory` and reads all of it once, so that
    /// damage shows now. Files that waste much space are made anew.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it cannot be trusted: then its files were moved aside,
    /// as the reason says, and the next opening starts empty. [`StoreError::Io`] if the
    /// file system refuses, as when the disk is full: then nothing was moved.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let mut checked = ladder::open(directory)?;
        if space::is_wasteful(&checked)? {
            checked = space::rebuilt(directory, checked)?;
        }
        let version = watch::Sender::new(checked.tip.version);
        let inner = Inner { checked: Some(checked), failed: None };
        Ok(Self { directory: directory.to_owned(), inner: Mutex::new(inner), version })
    }
}

impl Store for SledStore {
    fn read(&self, prefix: &[u8]) -> Result<Snapshot, StoreError> {
        let inner = self.inner.lock();
        let checked = inner.checked()?;
        let entries = guarded(|| {
            let mut entries = Vec::new();
            for item in checked.db().scan_prefix(data(prefix)) {
                let (key, record) = item.map_err(of_sled)?;
                entries.push(decode(&key[1..], &record)?);
            }
            Ok(entries)
        })?;
        Ok(Snapshot { version: checked.tip.version, entries })
    }

    fn read_after(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let inner = self.inner.lock();
        let checked = inner.checked()?;
        let from = after.map_or_else(|| Bound::Included(data(prefix)), |key| Bound::Excluded(data(key)));
        guarded(|| {
            let mut entries: Vec<Entry> = Vec::new();
            let mut bytes = 0;
            for item in checked.db().range((from, Bound::Unbounded)) {
                let (key, record) = item.map_err(of_sled)?;
                if !key.starts_with(&data(prefix)) || (bytes >= bytes_max && !entries.is_empty()) {
                    break;
                }
                let entry = decode(&key[1..], &record)?;
                bytes += entry.bytes();
                entries.push(entry);
            }
            Ok(entries)
        })
    }

    fn commit(&self, guards: &[Guard], changes: &[Change]) -> Result<u64, StoreError> {
        check_sizes(changes)?;
        let mut inner = self.inner.lock();
        for guard in guards {
            if !inner.holds(guard)? {
                return Err(StoreError::Conflict);
            }
        }
        let tip = inner.checked()?.tip;
        let version = tip.version + 1;
        let mut writes = Writes::new();
        for change in changes {
            match change {
                Change::Put { key, value } => {
                    writes.insert(data(key), Some(encode(key, value, version)));
                }
                Change::Delete { key } => {
                    writes.insert(data(key), None);
                }
            }
        }
        inner.write(Tip { version, ..tip }, &writes)?;
        self.version.send_replace(version);
        Ok(version)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn campaign(&self) -> Result<u64, StoreError> {
        let mut inner = self.inner.lock();
        let tip = inner.checked()?.tip;
        let term = tip.term + 1;
        inner.write(Tip { term, ..tip }, &Writes::new())?;
        Ok(term)
    }

    fn health(&self) -> StoreHealth {
        match &self.inner.lock().failed {
            None => StoreHealth::Ok,
            Some(reason) => StoreHealth::ReadOnly { reason: reason.clone() },
        }
    }

    fn maintain(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        if inner.failed.is_some() || !space::is_wasteful(inner.checked()?)? {
            return Ok(());
        }
        let Some(checked) = inner.checked.take() else { return Ok(()) };
        match space::rebuilt(&self.directory, checked) {
            Ok(checked) => {
                inner.checked = Some(checked);
                Ok(())
            }
            Err(cause) => {
                inner.failed = Some(cause.to_string());
                Err(cause)
            }
        }
    }
}

/// What becomes of keys: a record, or none.
type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl Inner {
    fn checked(&self) -> Result<&Checked, StoreError> {
        self.checked.as_ref().ok_or_else(|| self.read_only())
    }

    fn read_only(&self) -> StoreError {
        StoreError::ReadOnly { reason: self.failed.clone().unwrap_or_default() }
    }

    fn holds(&self, guard: &Guard) -> Result<bool, StoreError> {
        let checked = self.checked()?;
        let version = |key: &[u8]| match checked.record(&data(key))? {
            Some(record) => decode(key, &record).map(|entry| Some(entry.version)),
            None => Ok(None),
        };
        Ok(match guard {
            Guard::Unchanged { key, version: expected } => version(key)? == Some(*expected),
            Guard::Absent { key } => version(key)?.is_none(),
            Guard::Term(term) => checked.tip.term == *term,
        })
    }

    /// Atomic, and on disk when it returns. After a failure sled takes no more writes,
    /// even if there is space again, so none is tried.
    fn write(&mut self, tip: Tip, writes: &Writes) -> Result<(), StoreError> {
        let Inner { checked: Some(checked), failed: None } = self else { return Err(self.read_only()) };
        let written = checked.write(tip, writes);
        if let Err(cause) = &written {
            self.failed = Some(cause.to_string());
        }
        written
    }
}

impl Checked {
    fn write(&mut self, mut tip: Tip, writes: &Writes) -> Result<(), StoreError> {
        let mut bytes = self.bytes;
        let mut batch = ::sled::Batch::default();
        for (key, record) in writes {
            if let Some(before) = self.record(key)? {
                tip.remove(key, &before);
                bytes -= (key.len() + before.len()) as u64;
            }
            match record {
                Some(record) => {
                    tip.add(key, record);
                    bytes += (key.len() + record.len()) as u64;
                    batch.insert(key.as_slice(), record.as_slice());
                }
                None => batch.remove(key.as_slice()),
            }
        }
        batch.insert(META_TIP, tip.encode());
        guarded(|| self.db().apply_batch(batch).map_err(of_sled))?;
        self.sync()?;
        self.tip = tip;
        self.bytes = bytes;
        self.witness();
        Ok(())
    }
}
