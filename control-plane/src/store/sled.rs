//! The store on sled 0.34.7. Nothing else may import it: its files are damaged quietly
//! (it can open with keys missing), it panics on some damage, and its `flush` is no
//! barrier against power loss. So each record has a checksum, every call is guarded
//! against panics, and a commit ends with fsync on sled's own file.
//!
//! What is kept here must be possible to rebuild or to lose.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::directory::sync_directory;
use super::{Change, Entry, Guard, Snapshot, Store, StoreError, StoreHealth, check_sizes};

/// sled's own default is 1 GiB; the whole control plane has less.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Waited for a dropped database to let go of its files: it takes some milliseconds,
/// more on a busy machine.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// Between looks at whether it did.
const RELEASE_STEP: Duration = Duration::from_millis(5);

/// Before the keys of callers.
const DATA: u8 = b'd';

/// Holds the version of the newest commit.
const VERSION: &[u8] = b"mversion";

/// Holds the newest term.
const TERM: &[u8] = b"mterm";

/// The layout of a record: format, CRC-32C of key and value, version, value.
const FORMAT: u8 = 1;

/// Bytes of a record before its value.
const RECORD_HEAD: usize = 1 + 4 + 8;

/// A sled database in a directory of its own.
#[derive(Debug)]
pub struct SledStore {
    /// One at a time; the version and the guards hold meanwhile.
    inner: Mutex<Inner>,
    version: watch::Sender<u64>,
}

struct Inner {
    db: ::sled::Db,
    /// sled's file, for fsync.
    file: File,
    version: u64,
    term: u64,
    failed: Option<String>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("version", &self.version).finish_non_exhaustive()
    }
}

impl SledStore {
    /// Opens or makes the database in `directory` and reads all of it once, so that
    /// damage shows now.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it cannot be trusted, [`StoreError::Io`] if the file
    /// system refuses, as when the disk is full.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        guarded(|| {
            let db = open_when_released(directory)?;
            let file = File::options().read(true).write(true).open(directory.join("db"))?;
            file.sync_all()?;
            sync_directory(directory)?;
            let version = number(&db, VERSION)?;
            let term = number(&db, TERM)?;
            let inner = Inner { db, file, version, term, failed: None };
            inner.read(&[])?;
            Ok(Self { inner: Mutex::new(inner), version: watch::Sender::new(version) })
        })
    }
}

impl Store for SledStore {
    fn read(&self, prefix: &[u8]) -> Result<Snapshot, StoreError> {
        let inner = self.inner.lock();
        guarded(|| inner.read(prefix))
    }

    fn commit(&self, guards: &[Guard], changes: &[Change]) -> Result<u64, StoreError> {
        check_sizes(changes)?;
        let mut inner = self.inner.lock();
        for guard in guards {
            if !guarded(|| inner.holds(guard))? {
                return Err(StoreError::Conflict);
            }
        }
        let version = inner.version + 1;
        let mut batch = ::sled::Batch::default();
        for change in changes {
            match change {
                Change::Put { key, value } => batch.insert(data(key), encode(key, value, version)),
                Change::Delete { key } => batch.remove(data(key)),
            }
        }
        batch.insert(VERSION, &version.to_be_bytes());
        inner.write(batch)?;
        inner.version = version;
        self.version.send_replace(version);
        Ok(version)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn campaign(&self) -> Result<u64, StoreError> {
        let mut inner = self.inner.lock();
        let term = inner.term + 1;
        let mut batch = ::sled::Batch::default();
        batch.insert(TERM, &term.to_be_bytes());
        inner.write(batch)?;
        inner.term = term;
        Ok(term)
    }

    fn health(&self) -> StoreHealth {
        match &self.inner.lock().failed {
            None => StoreHealth::Ok,
            Some(reason) => StoreHealth::ReadOnly { reason: reason.clone() },
        }
    }
}

impl Inner {
    fn read(&self, prefix: &[u8]) -> Result<Snapshot, StoreError> {
        let mut entries = Vec::new();
        for item in self.db.scan_prefix(data(prefix)) {
            let (key, record) = item.map_err(of_sled)?;
            entries.push(decode(&key[1..], &record)?);
        }
        Ok(Snapshot { version: self.version, entries })
    }

    fn holds(&self, guard: &Guard) -> Result<bool, StoreError> {
        let version = |key: &[u8]| match self.db.get(data(key)).map_err(of_sled)? {
            Some(record) => decode(key, &record).map(|entry| Some(entry.version)),
            None => Ok(None),
        };
        Ok(match guard {
            Guard::Unchanged { key, version: expected } => version(key)? == Some(*expected),
            Guard::Absent { key } => version(key)?.is_none(),
            Guard::Term(term) => self.term == *term,
        })
    }

    /// Atomic, and on disk when it returns. After a failure sled takes no more writes,
    /// even if there is space again, so none is tried.
    fn write(&mut self, batch: ::sled::Batch) -> Result<(), StoreError> {
        if let Some(reason) = &self.failed {
            return Err(StoreError::ReadOnly { reason: reason.clone() });
        }
        let written = guarded(|| {
            self.db.apply_batch(batch).map_err(of_sled)?;
            self.db.flush().map_err(of_sled)?;
            self.file.sync_data()?;
            Ok(())
        });
        if let Err(cause) = &written {
            self.failed = Some(cause.to_string());
        }
        written
    }
}

/// Opens sled's files. A database that was dropped in this process keeps its lock until
/// its background threads are done; the data directory's own lock keeps others out.
pub(super) fn open_when_released(directory: &Path) -> Result<::sled::Db, StoreError> {
    let started = Instant::now();
    loop {
        let opened = ::sled::Config::new()
            .path(directory)
            .cache_capacity(CACHE_BYTES)
            .mode(::sled::Mode::LowSpace)
            .open();
        match opened {
            // sled has no kind of error for this, only words.
            Err(::sled::Error::Io(cause))
                if cause.to_string().contains("could not acquire lock")
                    && started.elapsed() < RELEASE_MAX =>
            {
                std::thread::sleep(RELEASE_STEP);
            }
            other => return other.map_err(of_sled),
        }
    }
}

/// Makes an error of sled's panics on damaged files.
fn guarded<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // What a panic leaves behind is not used again: the caller gives the store up.
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(StoreError::Damaged { reason: "sled panicked".into() }))
}

fn of_sled(error: ::sled::Error) -> StoreError {
    match error {
        ::sled::Error::Io(cause) if cause.kind() != io::ErrorKind::UnexpectedEof => StoreError::Io(cause),
        other => StoreError::Damaged { reason: other.to_string() },
    }
}

fn number(db: &::sled::Db, key: &[u8]) -> Result<u64, StoreError> {
    let Some(value) = db.get(key).map_err(of_sled)? else { return Ok(0) };
    let bytes = value.as_ref().try_into();
    bytes.map(u64::from_be_bytes).map_err(|_| damaged(key))
}

fn data(key: &[u8]) -> Vec<u8> {
    [&[DATA], key].concat()
}

fn checksum(key: &[u8], versioned: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), versioned)
}

fn encode(key: &[u8], value: &[u8], version: u64) -> Vec<u8> {
    let versioned = [&version.to_be_bytes(), value].concat();
    let checksum = checksum(key, &versioned).to_be_bytes();
    [&[FORMAT][..], &checksum, &versioned].concat()
}

fn decode(key: &[u8], record: &[u8]) -> Result<Entry, StoreError> {
    let (head, value) = record.split_first_chunk::<RECORD_HEAD>().ok_or_else(|| damaged(key))?;
    let [format, a, b, c, d, version @ ..] = *head;
    let intact = format == FORMAT && checksum(key, &record[5..]) == u32::from_be_bytes([a, b, c, d]);
    if !intact {
        return Err(damaged(key));
    }
    Ok(Entry { key: key.to_vec(), value: value.to_vec(), version: u64::from_be_bytes(version) })
}

fn damaged(key: &[u8]) -> StoreError {
    StoreError::Damaged { reason: format!("the record of {}", key.escape_ascii()) }
}
