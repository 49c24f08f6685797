//! One file of the journal: read and checked as a whole, or made new.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use sha2::{Digest, Sha256};

use super::frame::{self, Found};
use super::record::{FORMAT, Header, Record, Snapshot};
use super::{Hash, JournalError};
use crate::store::directory::sync_directory;
use crate::store::failpoints::{self, failpoint};

/// A segment that passed its checks.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: Header,
    pub(super) records: Vec<Record>,
    /// SHA-256 of the last frame.
    pub(super) last_sha256: Hash,
    /// The journal's name after the last record.
    pub(super) epoch: String,
    /// Where the header ends.
    pub(super) first_record: u64,
    /// Where the last whole frame ends.
    pub(super) whole_bytes: u64,
    /// Bytes of an interrupted write behind it.
    pub(super) torn_bytes: u64,
}

impl Segment {
    /// The last record's number.
    pub(super) fn sequence(&self) -> u64 {
        self.records.last().map_or(self.header.snapshot.sequence, |record| record.sequence)
    }

    /// Reads and checks the file. Its link to the segment before is the caller's.
    pub(super) fn read(path: &Path) -> Result<Self, JournalError> {
        let bytes = fs::read(path).map_err(JournalError::io("read", path))?;
        let damaged = |at: usize, cause: String| JournalError::Damaged {
            file: path.to_owned(),
            offset: at as u64,
            cause,
        };
        let mut records = Vec::new();
        let (header, mut last_sha256, mut at) = match frame::decode(&bytes, 0) {
            Found::Frame { payload, end } => {
                let header = read_header(payload).map_err(|cause| damaged(0, cause))?;
                (header, sha256(payload), end)
            }
            Found::Damaged(cause) => return Err(damaged(0, cause.into())),
            Found::End | Found::Torn => return Err(damaged(0, "the file has no header".into())),
        };
        let first_record = at as u64;
        let mut sequence = header.snapshot.sequence;
        loop {
            match frame::decode(&bytes, at) {
                Found::Frame { payload, end } => {
                    let record = read_record(payload, sequence + 1, &last_sha256);
                    records.push(record.map_err(|cause| damaged(at, cause))?);
                    sequence += 1;
                    last_sha256 = sha256(payload);
                    at = end;
                }
                Found::Damaged(cause) => return Err(damaged(at, cause.into())),
                Found::End | Found::Torn => break,
            }
        }
        let torn_bytes = (bytes.len() - at) as u64;
        let whole_bytes = at as u64;
        let renamed = records.iter().rev().find_map(|record: &Record| record.epoch.clone());
        let epoch = renamed.unwrap_or_else(|| header.epoch.clone());
        Ok(Self { header, records, last_sha256, epoch, first_record, whole_bytes, torn_bytes })
    }

    /// Refuses a segment that ends in an interrupted write though others follow.
    pub(super) fn check_ended(&self, path: &Path) -> Result<(), JournalError> {
        if self.torn_bytes == 0 {
            return Ok(());
        }
        Err(JournalError::Damaged {
            file: path.to_owned(),
            offset: self.whole_bytes,
            cause: "a record is incomplete, and newer segments follow".into(),
        })
    }

    /// Refuses a segment that does not continue `before`.
    pub(super) fn check_follows(&self, path: &Path, before: &Self) -> Result<(), JournalError> {
        let linked = self.header.epoch == before.epoch
            && self.header.snapshot.sequence == before.sequence()
            && self.header.previous_sha256 == before.last_sha256;
        if linked {
            return Ok(());
        }
        let cause = format!(
            "it continues from record {}, but the segment before ends at {}, or their hashes differ",
            self.header.snapshot.sequence,
            before.sequence()
        );
        Err(JournalError::Damaged { file: path.to_owned(), offset: 0, cause })
    }

    /// Makes a segment that starts from `snapshot`. It is there as a whole or not at all.
    pub(super) fn create(
        directory: &Path,
        epoch: &str,
        previous_sha256: Option<&Hash>,
        snapshot: Snapshot,
    ) -> io::Result<Created> {
        let path = path_of(directory, snapshot.sequence + 1);
        let header = Header {
            format: FORMAT,
            epoch: epoch.to_owned(),
            previous_sha256: previous_sha256.map(|hash| hash.to_vec()).unwrap_or_default(),
            snapshot,
            unix_ms: now_unix_ms(),
        };
        let payload = header.encode_to_vec();
        let frame = frame::encode(&payload)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "snapshot too long"))?;
        let unfinished = path.with_extension(UNFINISHED);
        let written = write_new(&unfinished, &frame).and_then(|file| {
            fs::rename(&unfinished, &path)?;
            failpoint(failpoints::ROTATE_AFTER_RENAME);
            sync_directory(directory)?;
            Ok(file)
        });
        let file = written.inspect_err(|_| {
            // A new segment that is not used would belie the records that the old one
            // still gets. At most one of the two is there.
            drop(fs::remove_file(&unfinished));
            drop(fs::remove_file(&path));
        })?;
        let start = Start::of(&header);
        Ok(Created { path, file, bytes: frame.len() as u64, sha256: sha256(&payload), start })
    }
}

/// A new segment.
#[derive(Debug)]
pub(super) struct Created {
    pub(super) path: PathBuf,
    /// Open for appending.
    pub(super) file: File,
    pub(super) bytes: u64,
    pub(super) sha256: Hash,
    pub(super) start: Start,
}

/// Where a segment starts: what a reader needs to choose one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// Of its first record.
    pub(super) sequence: u64,
    /// Of the configuration before its first record.
    pub(super) revision: u64,
    /// Wall time in ms since 1970 at which it was made; 0: not known.
    pub(super) unix_ms: u64,
}

impl Start {
    pub(super) fn of(header: &Header) -> Self {
        Self {
            sequence: header.snapshot.sequence + 1,
            revision: header.snapshot.revision,
            unix_ms: header.unix_ms,
        }
    }
}

/// Of segments.
const FINISHED: &str = "log";

/// Of segments whose making was interrupted.
const UNFINISHED: &str = "new";

/// Where the segment is whose first record is `sequence`.
pub(super) fn path_of(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:020}.{FINISHED}"))
}

/// The numbers of the first records of the segments in `directory`, oldest first.
pub(super) fn first_sequences(directory: &Path) -> Result<Vec<u64>, JournalError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(JournalError::io("list", directory))? {
        let path = entry.map_err(JournalError::io("list", directory))?.path();
        let finished = path.extension().is_some_and(|extension| extension == FINISHED);
        let name = path.file_stem().and_then(|name| name.to_str());
        found.extend(name.filter(|_| finished).and_then(|name| name.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// The segments of `directory`, oldest first.
pub(super) fn list(directory: &Path) -> Result<Vec<PathBuf>, JournalError> {
    files(directory, FINISHED)
}

/// Removes what was left unfinished.
pub(super) fn remove_unfinished(directory: &Path) -> Result<(), JournalError> {
    for path in files(directory, UNFINISHED)? {
        fs::remove_file(&path).map_err(JournalError::io("remove", &path))?;
    }
    Ok(())
}

/// The files with this extension, by name.
fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, JournalError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(JournalError::io("list", directory))? {
        let path = entry.map_err(JournalError::io("list", directory))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn sha256(payload: &[u8]) -> Hash {
    Sha256::digest(payload).into()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let mut file = File::options().append(true).create_new(true).open(path)?;
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    file.write_all(half)?;
    failpoint(failpoints::ROTATE_HALF_SEGMENT);
    file.write_all(rest)?;
    file.sync_all()?;
    Ok(file)
}

pub(super) fn read_header(payload: &[u8]) -> Result<Header, String> {
    let header = Header::decode(payload).map_err(|cause| cause.to_string())?;
    if header.format != FORMAT {
        return Err(format!(
            "its format is {}, and this program reads {FORMAT}: use the one that wrote it",
            header.format
        ));
    }
    Ok(header)
}

pub(super) fn read_record(payload: &[u8], sequence: u64, previous: &Hash) -> Result<Record, String> {
    let record = Record::decode(payload).map_err(|cause| cause.to_string())?;
    if record.sequence != sequence {
        return Err(format!("record {} stands where {sequence} belongs", record.sequence));
    }
    if record.previous_sha256 != previous {
        return Err(format!("record {sequence} does not follow the one before: hashes differ"));
    }
    Ok(record)
}

fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
