//! A database whose content was read and compared with its tip.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::codec::{META_TIP, Tip, callers, damaged, decode};
use crate::store::StoreError;
use crate::store::directory::sync_directory;

/// sled's own default is 1 GiB; the whole control plane has less.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Waited for a dropped database to let go of its files: it takes some milliseconds,
/// more on a busy machine.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// Between looks at whether it did.
const RELEASE_STEP: Duration = Duration::from_millis(5);

/// The file beside sled's that holds the newest tip that was committed.
const WITNESS: &str = "committed";

/// sled's file.
const DB: &str = "db";

/// An open database that is what it should be.
pub(super) struct Checked {
    /// None while it is being dropped.
    db: Option<::sled::Db>,
    /// sled's file, for fsync.
    file: File,
    witness: PathBuf,
    pub(super) tip: Tip,
    /// Of all keys and records.
    pub(super) bytes: u64,
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checked").field("tip", &self.tip).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        let db = self.db.take();
        let dropped = guarded(|| {
            drop(db);
            Ok(())
        });
        // sled writes when it is dropped, and can panic at that; nothing depends on it.
        drop(dropped);
    }
}

impl Checked {
    /// Opens or makes the database in `directory`, and reads all of it.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let db = guarded(|| open_when_released(directory))?;
        let mut checked = Self {
            db: Some(db),
            file: File::options().read(true).write(true).open(directory.join(DB))?,
            witness: directory.join(WITNESS),
            tip: Tip::default(),
            bytes: 0,
        };
        checked.file.sync_all()?;
        sync_directory(directory)?;
        let (tip, bytes) = guarded(|| read_all(checked.db()))?;
        checked.tip = tip;
        checked.bytes = bytes;
        checked.compare_with_witness()?;
        checked.witness();
        Ok(checked)
    }

    pub(super) fn db(&self) -> &::sled::Db {
        // Only `drop` and `close` take it out.
        #[expect(clippy::expect_used, reason = "it is there until it is dropped")]
        self.db.as_ref().expect("an open database")
    }

    /// What is under sled's `key`.
    pub(super) fn record(&self, key: &[u8]) -> Result<Option<::sled::IVec>, StoreError> {
        guarded(|| self.db().get(key).map_err(of_sled))
    }

    /// Puts on disk what was written.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        guarded(|| self.db().flush().map_err(of_sled))?;
        self.file.sync_data()?;
        Ok(())
    }

    /// Notes that the tip is on disk. Not synced: it tells of less than is there at
    /// worst, and what it tells was on disk before.
    pub(super) fn witness(&self) {
        let write = || {
            // In place: a full disk is no obstacle.
            let mut file = File::options().create(true).truncate(false).write(true).open(&self.witness)?;
            file.write_all(&self.tip.encode())
        };
        if let Err(cause) = write() {
            tracing::debug!(%cause, "the view's newest version could not be noted");
        }
    }

    /// sled opens a file that lost its end as an earlier state.
    fn compare_with_witness(&self) -> Result<(), StoreError> {
        let bytes = match fs::read(&self.witness) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes?,
        };
        // One that is damaged tells nothing.
        let Some(committed) = Tip::decode(&bytes) else { return Ok(()) };
        let order = |tip: &Tip| (tip.version, tip.term);
        let lost = self.tip.version < committed.version || self.tip.term < committed.term;
        if lost || (order(&self.tip) == order(&committed) && self.tip != committed) {
            let (found, committed) = (self.tip.version, committed.version);
            let reason = format!("it is at version {found}, but version {committed} was committed");
            return Err(StoreError::Damaged { reason });
        }
        Ok(())
    }

    /// Makes syncing depend on another file.
    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: File) {
        self.file = file;
    }

    /// Drops it and waits until its files are free.
    pub(super) fn close(self, directory: &Path) -> Result<(), StoreError> {
        drop(self);
        when_released(directory)
    }
}

/// The tip, and how many bytes there are, if all is as the tip says.
fn read_all(db: &::sled::Db) -> Result<(Tip, u64), StoreError> {
    let mut written = Tip::default();
    let mut found = Tip::default();
    let mut bytes = 0;
    for item in db.iter() {
        let (key, record) = item.map_err(of_sled)?;
        if &*key == META_TIP {
            written = Tip::decode(&record).ok_or_else(|| damaged(META_TIP))?;
            continue;
        }
        decode(callers(&key).ok_or_else(|| damaged(&key))?, &record)?;
        found.add(&key, &record);
        bytes += (key.len() + record.len()) as u64;
    }
    if (found.count, found.digest) != (written.count, written.digest) {
        let (count, expected) = (found.count, written.count);
        let reason = format!("it has {count} keys that are not the {expected} that were written");
        return Err(StoreError::Damaged { reason });
    }
    Ok((written, bytes))
}

/// Opens sled's files. A database that was dropped in this process keeps its lock until
/// its background threads are done; the data directory's own lock keeps others out.
fn open_when_released(directory: &Path) -> Result<::sled::Db, StoreError> {
    when_released(directory)?;
    let config = ::sled::Config::new().path(directory).cache_capacity(CACHE_BYTES);
    config.mode(::sled::Mode::LowSpace).open().map_err(of_sled)
}

/// Waits until no database has the files of `directory`.
fn when_released(directory: &Path) -> Result<(), StoreError> {
    let file = match File::options().read(true).write(true).open(directory.join(DB)) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if started.elapsed() < RELEASE_MAX => {
                std::thread::sleep(RELEASE_STEP);
            }
            Err(cause) => return Err(StoreError::Io(cause.into())),
        }
    }
}

/// Makes an error of sled's panics on damaged files.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // What a panic leaves behind is not used again: the caller gives the database up.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
        Err(StoreError::Damaged { reason: format!("sled panicked: {said}") })
    })
}

pub(super) fn of_sled(error: ::sled::Error) -> StoreError {
    match error {
        ::sled::Error::Io(cause) if !means_damage(cause.kind()) => StoreError::Io(cause),
        other => StoreError::Damaged { reason: other.to_string() },
    }
}

/// Whether a file of ours, and not the file system, is at fault.
fn means_damage(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(kind, UnexpectedEof | InvalidData | InvalidInput)
}
