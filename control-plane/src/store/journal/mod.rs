//! The journal: every commit of an operator, in order, checksummed, chained by hash and
//! on disk before it is acknowledged. It is the truth and the audit log.
//!
//! It is cut into segments. Each starts with the whole state so far, so the newest one
//! is enough to go on from; older ones are kept for the record, and checked.

mod frame;
mod reader;
mod record;
mod segment;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;

pub(crate) use frame::PAYLOAD_BYTES_MAX;
pub(crate) use reader::{JournalReader, Logged};
pub(crate) use record::{
    DrainChange, FaultChange, FleetState, Forced, Injected, Record, RequestDone, Snapshot, VerdictChange,
};
use segment::{Segment, Start, sha256};

use super::failpoints::{self, failpoint, failpoint_after};

/// A segment is full at so many bytes of records: opening reads it in a blink, and a
/// configuration of usual size fits in some thousand times.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Segments that are kept: 256 MiB of history, some seconds of checking at the start.
/// Keep longer history by copying `*.log` files away; they never change once full.
const SEGMENTS_KEPT: usize = 16;

/// SHA-256.
pub(crate) type Hash = [u8; 32];

/// Frames are collected up to so many bytes before they are written; whole batches of
/// usual writes fit in.
const PENDING_BYTES: usize = 1024 * 1024;

/// An open journal. One process and one thread own it; others read it by
/// [`JournalReader`].
#[derive(Debug)]
pub(crate) struct Journal {
    reader: JournalReader,
    file: File,
    /// Where the first record of the segment is.
    first_record: u64,
    segment_bytes: u64,
    /// After the newest record.
    tip: Tip,
    /// After the newest record that is on disk.
    durable: Tip,
    /// Frames that are not written yet.
    pending: Vec<u8>,
    /// Why nothing more is written.
    broken: Option<String>,
    #[cfg(test)]
    fail_next: Option<io::ErrorKind>,
}

/// The end of the journal at some time.
#[derive(Clone, Debug)]
struct Tip {
    epoch: String,
    sequence: u64,
    sha256: Hash,
    /// Where the next frame goes.
    length: u64,
}

/// A journal and what is in it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    /// The state at the start of the newest segment.
    pub(crate) snapshot: Snapshot,
    /// What came after.
    pub(crate) records: Vec<Record>,
    /// Bytes of an interrupted, never acknowledged write that were cut off.
    pub(crate) torn_bytes: u64,
    /// Why history is missing that this journal would have kept.
    pub(crate) missing: Option<String>,
}

/// What is in a directory, read and checked. Nothing of it was changed yet.
#[derive(Debug)]
pub(crate) struct Found {
    directory: PathBuf,
    /// None: there is no journal.
    newest: Option<(PathBuf, Segment)>,
    starts: Vec<Start>,
    /// See [`Opened::missing`].
    missing: Option<String>,
    segment_bytes: u64,
}

/// Why the journal does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("{} at byte {offset}: {cause}", file.display())]
    Damaged { file: PathBuf, offset: u64, cause: String },
    #[error("{action} {}: {cause}", path.display())]
    Io { action: &'static str, path: PathBuf, cause: io::Error },
}

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("the record is too long")]
    TooLong,
    /// The journal is as it was before and can go on once there is space.
    #[error("no space left: {0}")]
    Full(io::Error),
    /// What is on disk is unknown; only opening it again tells.
    #[error("{0}")]
    Broken(io::Error),
}

impl Journal {
    /// Reads the journal in `directory` and checks all of it. Changes nothing, so that
    /// who refuses it leaves it as it was.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub(crate) fn read(directory: &Path) -> Result<Found, JournalError> {
        let paths = if directory.exists() { segment::list(directory)? } else { Vec::new() };
        read_chain(directory, paths)
    }

    /// Whether there is a journal in `directory`.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn exists(directory: &Path) -> Result<bool, JournalError> {
        Ok(directory.exists() && !segment::first_sequences(directory)?.is_empty())
    }

    /// Makes a journal in `directory`, where there is none, that starts from `snapshot`
    /// under a new epoch. It is there as a whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn create(directory: &Path, snapshot: Snapshot) -> Result<(), JournalError> {
        fs::create_dir_all(directory).map_err(JournalError::io("make", directory))?;
        let epoch = uuid::Uuid::new_v4().to_string();
        let made = Segment::create(directory, &epoch, None, snapshot);
        made.map(drop).map_err(JournalError::io("write", directory))
    }

    /// Reads the journal in `directory` and goes on with it.
    #[cfg(test)]
    pub(crate) fn open(directory: &Path) -> Result<Opened, JournalError> {
        Self::read(directory)?.open()
    }

    #[cfg(test)]
    fn open_with(directory: &Path, segment_bytes: u64) -> Result<Opened, JournalError> {
        Found { segment_bytes, ..Self::read(directory)? }.open()
    }

    /// Names this journal: the same as long as it lives, or until a record renames it.
    pub(crate) fn epoch(&self) -> &str {
        &self.tip.epoch
    }

    /// The newest record, and the hash of its frame. It may not be on disk yet.
    pub(crate) fn tip(&self) -> (u64, Hash) {
        (self.tip.sequence, self.tip.sha256)
    }

    /// The newest record that is on disk: as far as readers may read.
    #[cfg(test)]
    pub(crate) fn durable(&self) -> u64 {
        self.durable.sequence
    }

    /// For other threads, to read what is on disk.
    pub(crate) fn reader(&self) -> JournalReader {
        self.reader.clone()
    }

    /// Writes `record` with its number and link. It is on disk when this returns.
    ///
    /// # Errors
    /// As [`Self::append_unsynced`] and [`Self::sync`].
    #[cfg(test)]
    pub(crate) fn append(&mut self, record: &mut Record) -> Result<(), AppendError> {
        self.append_unsynced(record)?;
        self.sync()
    }

    /// Takes `record`, with its number and link, to be on disk after [`Self::sync`].
    ///
    /// # Errors
    /// [`AppendError::TooLong`] refuses this record alone. After any other error
    /// nothing since the last [`Self::sync`] was written.
    pub(crate) fn append_unsynced(&mut self, record: &mut Record) -> Result<(), AppendError> {
        if let Some(cause) = &self.broken {
            return Err(AppendError::Broken(io::Error::other(cause.clone())));
        }
        record.sequence = self.tip.sequence + 1;
        record.previous_sha256 = self.tip.sha256.to_vec();
        let payload = record.encode_to_vec();
        let frame = frame::encode(&payload).ok_or(AppendError::TooLong)?;
        self.pending.extend_from_slice(&frame);
        self.tip.length += frame.len() as u64;
        self.tip.sequence = record.sequence;
        self.tip.sha256 = sha256(&payload);
        if let Some(epoch) = &record.epoch {
            self.tip.epoch.clone_from(epoch);
        }
        if self.pending.len() >= PENDING_BYTES {
            self.write_pending().map_err(|cause| self.take_back(cause))?;
        }
        Ok(())
    }

    /// Puts all records since the last call on disk, with one wait for the disk.
    ///
    /// # Errors
    /// All of them are taken back, and none is found later: [`Self::tip`] is what it
    /// was after the last call.
    pub(crate) fn sync(&mut self) -> Result<(), AppendError> {
        if self.tip.sequence == self.durable.sequence {
            return Ok(());
        }
        failpoint(failpoints::COMMIT_BEFORE_WRITE);
        let written = self.write_pending().and_then(|()| {
            failpoint(failpoints::COMMIT_BEFORE_SYNC);
            self.file.sync_data()
        });
        written.map_err(|cause| self.take_back(cause))?;
        self.durable = self.tip.clone();
        failpoint(failpoints::COMMIT_AFTER_SYNC);
        Ok(())
    }

    /// Writes what was collected, at once: what a crash leaves of it is its beginning.
    fn write_pending(&mut self) -> io::Result<()> {
        let half = self.pending.len() / 2;
        failpoint_after(failpoints::COMMIT_HALF_WRITTEN, || {
            // The process ends here, whatever this answers.
            drop(self.file.write_all(&self.pending[..half]));
        });
        #[cfg(test)]
        if let Some(kind) = self.fail_next.take() {
            self.file.write_all(&self.pending[..half])?;
            return Err(kind.into());
        }
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        self.pending.shrink_to(PENDING_BYTES);
        Ok(())
    }

    /// Whether it is time to [`Self::rotate`].
    pub(crate) fn is_full(&self) -> bool {
        fail::fail_point!(failpoints::ROTATE_EARLY, |_| {
            self.tip.length - self.first_record >= failpoints::EARLY_BYTES
        });
        self.tip.length - self.first_record >= self.segment_bytes
    }

    /// Starts a new segment from `snapshot`, the state after the newest record, and
    /// removes the oldest ones. If this fails the journal goes on all the same.
    ///
    /// # Errors
    /// If a file cannot be written or removed, or something is not synced.
    pub(crate) fn rotate(&mut self, snapshot: Snapshot) -> io::Result<()> {
        debug_assert_eq!(snapshot.sequence, self.tip.sequence, "a snapshot of another state");
        if self.tip.sequence != self.durable.sequence {
            return Err(io::Error::other("records of the full segment are not on disk yet"));
        }
        let directory = self.reader.directory();
        let made = Segment::create(directory, &self.tip.epoch, Some(&self.tip.sha256), snapshot)?;
        self.reader.started(made.start);
        self.file = made.file;
        self.first_record = made.bytes;
        self.tip.length = made.bytes;
        self.tip.sha256 = made.sha256;
        self.durable = self.tip.clone();
        failpoint(failpoints::ROTATE_BEFORE_REMOVAL);
        let paths = segment::list(self.reader.directory()).map_err(io::Error::other)?;
        for path in paths.iter().rev().skip(SEGMENTS_KEPT) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Makes segments full at so many bytes of records.
    #[cfg(test)]
    pub(crate) fn set_segment_bytes(&mut self, bytes: u64) {
        self.segment_bytes = bytes;
    }

    /// Makes the next write fail as on a broken disk.
    #[cfg(test)]
    pub(crate) fn break_file(&mut self) {
        self.file = File::options().write(true).open("/dev/full").unwrap();
    }

    /// Makes the next write fail half-way as `kind` says, once.
    #[cfg(test)]
    pub(crate) fn fail_next(&mut self, kind: io::ErrorKind) {
        self.fail_next = Some(kind);
    }

    /// Undoes what was written since the last sync, so that it is not found later.
    fn take_back(&mut self, cause: io::Error) -> AppendError {
        self.pending.clear();
        self.tip = self.durable.clone();
        let undone = self.file.set_len(self.durable.length).and_then(|()| self.file.sync_all());
        let full = matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if undone.is_ok() && full {
            return AppendError::Full(cause);
        }
        self.broken = Some(format!("a former write failed: {cause}"));
        AppendError::Broken(cause)
    }
}

impl Found {
    /// Whether there is no journal.
    pub(crate) const fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// The newest record; 0: there is none.
    pub(crate) fn sequence(&self) -> u64 {
        self.newest.as_ref().map_or(0, |(_, segment)| segment.sequence())
    }

    /// Goes on with it: makes the journal if there is none, and cuts off an interrupted
    /// write.
    ///
    /// # Errors
    /// If the file system refuses.
    pub(crate) fn open(self) -> Result<Opened, JournalError> {
        let Self { directory, newest, mut starts, missing, segment_bytes } = self;
        fs::create_dir_all(&directory).map_err(JournalError::io("make", &directory))?;
        segment::remove_unfinished(&directory)?;
        let (path, newest) = if let Some(newest) = newest {
            newest
        } else {
            let epoch = uuid::Uuid::new_v4().to_string();
            let made = Segment::create(&directory, &epoch, None, Snapshot::default());
            let made = made.map_err(JournalError::io("write", &directory))?;
            starts.push(made.start);
            let segment = Segment::read(&made.path)?;
            (made.path, segment)
        };
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(JournalError::io("open", &path))?;
        if newest.torn_bytes > 0 {
            let cut = file.set_len(newest.whole_bytes).and_then(|()| file.sync_all());
            cut.map_err(JournalError::io("cut", &path))?;
        }
        let tip = Tip {
            sequence: newest.sequence(),
            epoch: newest.epoch,
            sha256: newest.last_sha256,
            length: newest.whole_bytes,
        };
        let journal = Journal {
            reader: JournalReader::new(directory, starts),
            file,
            first_record: newest.first_record,
            segment_bytes,
            durable: tip.clone(),
            tip,
            pending: Vec::new(),
            broken: None,
            #[cfg(test)]
            fail_next: None,
        };
        Ok(Opened {
            journal,
            snapshot: newest.header.snapshot,
            records: newest.records,
            torn_bytes: newest.torn_bytes,
            missing,
        })
    }
}

/// Checks all segments and the links between them. Only as many as are kept can be
/// without the one before the oldest: if there are fewer, it was removed from outside.
fn read_chain(directory: &Path, paths: Vec<PathBuf>) -> Result<Found, JournalError> {
    let count = paths.len();
    let mut starts = Vec::new();
    let mut newest: Option<(PathBuf, Segment)> = None;
    let mut missing = None;
    for path in paths {
        let segment = Segment::read(&path)?;
        if let Some((before_path, before)) = &newest {
            before.check_ended(before_path)?;
            segment.check_follows(&path, before)?;
        } else if count < SEGMENTS_KEPT && !segment.header.previous_sha256.is_empty() {
            missing = Some(format!(
                "the audit log is incomplete: {} continues a segment that is not there, and only {} of the \
                 {SEGMENTS_KEPT} that are kept are; commits up to {} were removed from outside: restore the \
                 files from a backup",
                path.display(),
                count,
                segment.header.snapshot.sequence
            ));
        }
        starts.push(Start::of(&segment.header));
        newest = Some((path, segment));
    }
    Ok(Found { directory: directory.to_owned(), newest, starts, missing, segment_bytes: SEGMENT_BYTES })
}

impl JournalError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { action, path, cause }
    }
}
