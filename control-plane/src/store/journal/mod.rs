//! The journal: every commit of an operator, in order, checksummed, chained by hash and
//! on disk before it is acknowledged. It is the truth and the audit log.
//!
//! It is cut into segments. Each starts with the whole state so far, so the newest one
//! is enough to go on from; older ones are kept for the record, and checked.

mod frame;
mod record;
mod segment;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;

pub(crate) use frame::PAYLOAD_BYTES_MAX;
pub(crate) use record::{Forced, Record, RequestDone, Snapshot, VerdictChange};
use segment::{Segment, sha256};

/// A segment is full at so many bytes of records: opening reads it in a blink, and a
/// configuration of usual size fits in some thousand times.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Segments that are kept: 256 MiB of history, some seconds of checking at the start.
/// Keep longer history by copying `*.log` files away; they never change once full.
const SEGMENTS_KEPT: usize = 16;

/// SHA-256.
pub(crate) type Hash = [u8; 32];

/// An open journal. One process and one thread own it.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    epoch: String,
    path: PathBuf,
    file: File,
    /// Where the next frame goes.
    length: u64,
    /// Where the first record of the segment is.
    first_record: u64,
    sequence: u64,
    last_sha256: Hash,
    segment_bytes: u64,
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
    /// Opens or makes the journal in `directory` and checks all of it.
    pub(crate) fn open(directory: &Path) -> Result<Opened, JournalError> {
        Self::open_with(directory, SEGMENT_BYTES)
    }

    fn open_with(directory: &Path, segment_bytes: u64) -> Result<Opened, JournalError> {
        fs::create_dir_all(directory).map_err(JournalError::io("make", directory))?;
        let mut paths = segment::list(directory)?;
        if paths.is_empty() {
            let epoch = uuid::Uuid::new_v4().to_string();
            let made = Segment::create(directory, &epoch, None, Snapshot::default());
            paths.push(made.map_err(JournalError::io("write", directory))?.path);
        }
        let (path, newest) = read_chain(&paths)?;
        let file = OpenOptions::new().append(true).open(path);
        let file = file.map_err(JournalError::io("open", path))?;
        if newest.torn_bytes > 0 {
            let cut = file.set_len(newest.whole_bytes).and_then(|()| file.sync_all());
            cut.map_err(JournalError::io("cut", path))?;
        }
        let sequence = newest.sequence();
        let journal = Self {
            directory: directory.to_owned(),
            epoch: newest.header.epoch,
            path: path.to_owned(),
            file,
            length: newest.whole_bytes,
            first_record: newest.first_record,
            sequence,
            last_sha256: newest.last_sha256,
            segment_bytes,
        };
        Ok(Opened {
            journal,
            snapshot: newest.header.snapshot,
            records: newest.records,
            torn_bytes: newest.torn_bytes,
        })
    }

    /// Names this journal: the same as long as it lives.
    pub(crate) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The newest record, and the hash of its frame.
    pub(crate) fn tip(&self) -> (u64, Hash) {
        (self.sequence, self.last_sha256)
    }

    /// Writes `record` with its number and link. It is on disk when this returns.
    pub(crate) fn append(&mut self, record: &mut Record) -> Result<(), AppendError> {
        record.sequence = self.sequence + 1;
        record.previous_sha256 = self.last_sha256.to_vec();
        let payload = record.encode_to_vec();
        let frame = frame::encode(&payload).ok_or(AppendError::TooLong)?;
        let written = self.file.write_all(&frame).and_then(|()| self.file.sync_data());
        if let Err(cause) = written {
            return Err(self.take_back(cause));
        }
        self.length += frame.len() as u64;
        self.sequence = record.sequence;
        self.last_sha256 = sha256(&payload);
        Ok(())
    }

    /// Whether it is time to [`Self::rotate`].
    pub(crate) fn is_full(&self) -> bool {
        self.length - self.first_record >= self.segment_bytes
    }

    /// Starts a new segment from `snapshot`, the state after the newest record, and
    /// removes the oldest ones. If this fails the journal goes on all the same.
    pub(crate) fn rotate(&mut self, snapshot: Snapshot) -> io::Result<()> {
        debug_assert_eq!(snapshot.sequence, self.sequence, "a snapshot of another state");
        let made = Segment::create(&self.directory, &self.epoch, Some(&self.last_sha256), snapshot)?;
        self.file = made.file;
        self.path = made.path;
        self.length = made.bytes;
        self.first_record = made.bytes;
        self.last_sha256 = made.sha256;
        let paths = segment::list(&self.directory).map_err(io::Error::other)?;
        for path in paths.iter().rev().skip(SEGMENTS_KEPT) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Makes the next write fail as on a broken disk.
    #[cfg(test)]
    pub(crate) fn break_file(&mut self) {
        self.file = File::options().write(true).open("/dev/full").unwrap();
    }

    /// Undoes a write that failed, so that it is not found later.
    fn take_back(&self, cause: io::Error) -> AppendError {
        let undone = self.file.set_len(self.length).and_then(|()| self.file.sync_all());
        let full = matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if undone.is_ok() && full { AppendError::Full(cause) } else { AppendError::Broken(cause) }
    }
}

/// Checks all segments and the links between them. The newest one is the answer.
fn read_chain(paths: &[PathBuf]) -> Result<(&PathBuf, Segment), JournalError> {
    let mut newest: Option<(&PathBuf, Segment)> = None;
    for path in paths {
        let segment = Segment::read(path)?;
        if let Some((before_path, before)) = &newest {
            before.check_ended(before_path)?;
            segment.check_follows(path, before)?;
        }
        newest = Some((path, segment));
    }
    newest.ok_or_else(|| JournalError::Io {
        action: "list",
        path: PathBuf::new(),
        cause: io::ErrorKind::NotFound.into(),
    })
}

impl JournalError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { action, path, cause }
    }
}
