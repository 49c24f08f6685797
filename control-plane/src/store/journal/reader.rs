//! Reading the journal beside the thread that writes it: for the audit log and former
//! configurations.
//!
//! Segments only grow at their end, and whoever asks says how far it is on disk, so
//! nothing here waits for the writer. One segment at a time is in memory. Old segments
//! may be removed meanwhile: that ends a listing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::frame::{self, Found};
use super::record::{Header, Record};
use super::segment::{self, Start, path_of, sha256};
use super::{Hash, JournalError};

/// Reads a journal. Clones share what they know of its segments.
#[derive(Clone, Debug)]
pub(crate) struct JournalReader {
    directory: Arc<Path>,
    /// Where segments start, by their first record: few, as segments are.
    starts: Arc<Mutex<BTreeMap<u64, Start>>>,
}

/// A record as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) record: Record,
    /// SHA-256 of its frame.
    pub(crate) sha256: Hash,
    /// The same of the record before; empty for the very first. The record itself names
    /// the frame before, which for the first of a segment is the segment's header.
    pub(crate) previous_sha256: Vec<u8>,
    segment: Arc<Loaded>,
    index: usize,
}

impl JournalReader {
    pub(super) fn new(directory: PathBuf, starts: Vec<Start>) -> Self {
        let starts = starts.into_iter().map(|start| (start.sequence, start)).collect();
        Self { directory: directory.into(), starts: Arc::new(Mutex::new(starts)) }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes note of a new segment.
    pub(super) fn started(&self, start: Start) {
        self.starts.lock().insert(start.sequence, start);
    }

    /// The records from number `newest` down to the oldest that is kept. Records after
    /// the durable end are not to be asked for.
    pub(crate) fn newest_first(&self, newest: u64) -> NewestFirst<'_> {
        NewestFirst { reader: self, next: newest, segment: None, done: false }
    }

    /// A number from which [`Self::newest_first`] meets every record that is not newer
    /// than `unix_ms`, at most `durable`. Whole segments that were made later are left
    /// out; if the clock was set back meanwhile, records in them may be left out too.
    ///
    /// # Errors
    /// If a segment cannot be read.
    pub(crate) fn newest_at(&self, unix_ms: u64, durable: u64) -> Result<u64, JournalError> {
        Ok(newest_before(&self.starts()?, unix_ms, durable))
    }

    /// The encoded configuration of `revision`, at most as new as the record `durable`.
    /// None: there was none, or it is not kept any more.
    ///
    /// # Errors
    /// If a segment cannot be read or is damaged.
    pub(crate) fn config_at(&self, revision: u64, durable: u64) -> Result<Option<Vec<u8>>, JournalError> {
        let starts = self.starts()?;
        let usable = starts.iter().filter(|start| start.sequence <= durable + 1);
        let Some(start) = usable.rev().find(|start| start.revision <= revision) else { return Ok(None) };
        if start.revision == revision {
            let header = read_header(&self.path(start.sequence))?;
            return Ok(header.map(|header| header.snapshot.config));
        }
        let Some(segment) = Loaded::read(&self.path(start.sequence), durable)? else { return Ok(None) };
        segment.config_of(revision)
    }

    fn path(&self, sequence: u64) -> PathBuf {
        path_of(&self.directory, sequence)
    }

    /// Where the segments that are there now start, oldest first.
    fn starts(&self) -> Result<Vec<Start>, JournalError> {
        let present = segment::first_sequences(&self.directory)?;
        let mut known = self.starts.lock().clone();
        known.retain(|sequence, _| present.contains(sequence));
        for sequence in present {
            if known.contains_key(&sequence) {
                continue;
            }
            if let Some(header) = read_header(&self.path(sequence))? {
                known.insert(sequence, Start::of(&header));
            }
        }
        let starts = known.values().copied().collect();
        *self.starts.lock() = known;
        Ok(starts)
    }
}

/// The last record before the oldest segment, but the very first, made after `unix_ms`.
pub(super) fn newest_before(starts: &[Start], unix_ms: u64, durable: u64) -> u64 {
    let later = starts.iter().skip(1).find(|start| start.unix_ms > unix_ms);
    later.map_or(durable, |start| durable.min(start.sequence - 1))
}

/// See [`JournalReader::newest_first`]. Ends after an error.
#[derive(Debug)]
pub(crate) struct NewestFirst<'a> {
    reader: &'a JournalReader,
    next: u64,
    segment: Option<Arc<Loaded>>,
    done: bool,
}

impl Iterator for NewestFirst<'_> {
    type Item = Result<Logged, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done || self.next == 0 {
            return None;
        }
        let found = self.find().transpose();
        self.done = !matches!(found, Some(Ok(_)));
        self.next -= 1;
        found
    }
}

impl NewestFirst<'_> {
    fn find(&mut self) -> Result<Option<Logged>, JournalError> {
        let held = self.segment.as_ref().filter(|segment| segment.first <= self.next);
        let segment = if let Some(segment) = held {
            Arc::clone(segment)
        } else {
            // Before the next one is read: only one is in memory.
            self.segment = None;
            let starts = segment::first_sequences(&self.reader.directory)?;
            let Some(start) = starts.into_iter().rev().find(|start| *start <= self.next) else {
                return Ok(None);
            };
            let loaded = Loaded::read(&self.reader.path(start), self.next)?;
            let Some(segment) = loaded.map(Arc::new) else { return Ok(None) };
            self.segment = Some(Arc::clone(&segment));
            segment
        };
        let index = self.next.checked_sub(segment.first);
        index.map_or(Ok(None), |index| segment.logged(index as usize))
    }
}

impl Logged {
    /// The encoded configuration before this record.
    ///
    /// # Errors
    /// If the segment is damaged.
    pub(crate) fn config_before(&self) -> Result<Vec<u8>, JournalError> {
        self.segment.config_before(self.index)
    }
}

/// A segment in memory.
#[derive(Debug)]
struct Loaded {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Of the first record.
    first: u64,
    /// SHA-256 of the last frame of the segment before.
    previous_sha256: Vec<u8>,
    records: Vec<Place>,
}

/// A frame in a segment.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: usize,
    sha256: Hash,
    /// The newest record of the segment, before this one, that has a configuration.
    config_before: Option<usize>,
    /// Of the configuration, if the record has one.
    revision: Option<u64>,
}

impl Loaded {
    /// Reads the records of a segment up to number `newest`. None: it is gone.
    fn read(path: &Path, newest: u64) -> Result<Option<Self>, JournalError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(JournalError::io("read", path)(cause)),
        };
        let (payload, mut at) = frame_of(path, &bytes, 0)?;
        let header = segment::read_header(payload).map_err(|cause| damaged(path, 0, cause))?;
        let first = header.snapshot.sequence + 1;
        let mut last_sha256 = sha256(payload);
        let mut records: Vec<Place> = Vec::new();
        let mut config = None;
        for sequence in first..=newest {
            if at == bytes.len() {
                break;
            }
            let (payload, end) = frame_of(path, &bytes, at)?;
            let record = segment::read_record(payload, sequence, &last_sha256);
            let record = record.map_err(|cause| damaged(path, at, cause))?;
            let revision = record.config.is_some().then_some(record.revision);
            last_sha256 = sha256(payload);
            let place = Place { at, sha256: last_sha256, config_before: config, revision };
            if revision.is_some() {
                config = Some(records.len());
            }
            records.push(place);
            at = end;
        }
        let previous_sha256 = header.previous_sha256;
        Ok(Some(Self { path: path.to_owned(), bytes, first, previous_sha256, records }))
    }

    fn logged(self: Arc<Self>, index: usize) -> Result<Option<Logged>, JournalError> {
        let Some(place) = self.records.get(index) else { return Ok(None) };
        let (record, sha256) = (self.record(place)?, place.sha256);
        let before = index.checked_sub(1).and_then(|before| self.records.get(before));
        let previous_sha256 = match before {
            Some(before) => before.sha256.to_vec(),
            None => self.previous_sha256.clone(),
        };
        Ok(Some(Logged { record, sha256, previous_sha256, segment: self, index }))
    }

    fn config_before(&self, index: usize) -> Result<Vec<u8>, JournalError> {
        let before = self.records.get(index).and_then(|place| place.config_before);
        if let Some(place) = before.and_then(|before| self.records.get(before)) {
            return Ok(self.record(place)?.config.unwrap_or_default());
        }
        let (payload, _) = frame_of(&self.path, &self.bytes, 0)?;
        let header = segment::read_header(payload);
        let header = header.map_err(|cause| damaged(&self.path, 0, cause))?;
        Ok(header.snapshot.config)
    }

    fn config_of(&self, revision: u64) -> Result<Option<Vec<u8>>, JournalError> {
        let place = self.records.iter().find(|place| place.revision == Some(revision));
        place.map_or(Ok(None), |place| self.record(place).map(|record| record.config))
    }

    fn record(&self, place: &Place) -> Result<Record, JournalError> {
        let (payload, _) = frame_of(&self.path, &self.bytes, place.at)?;
        prost::Message::decode(payload)
            .map_err(|cause: prost::DecodeError| damaged(&self.path, place.at, cause.to_string()))
    }
}

/// The header of the segment at `path`, without its records. None: it is gone.
fn read_header(path: &Path) -> Result<Option<Header>, JournalError> {
    let read = || {
        let mut file = File::open(path)?;
        let mut bytes = vec![0; frame::HEAD_BYTES];
        file.read_exact(&mut bytes)?;
        let rest = frame::rest_bytes(&bytes).unwrap_or_default() as u64;
        file.take(rest).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = match read() {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(JournalError::io("read", path)(cause)),
    };
    let (payload, _) = frame_of(path, &bytes, 0)?;
    segment::read_header(payload).map(Some).map_err(|cause| damaged(path, 0, cause))
}

/// The payload of the frame at `at`, which is there, and where the next one starts.
fn frame_of<'a>(path: &Path, bytes: &'a [u8], at: usize) -> Result<(&'a [u8], usize), JournalError> {
    match frame::decode(bytes, at) {
        Found::Frame { payload, end } => Ok((payload, end)),
        Found::Damaged(cause) => Err(damaged(path, at, cause.to_owned())),
        Found::End | Found::Torn => Err(damaged(path, at, "a record is incomplete".to_owned())),
    }
}

fn damaged(path: &Path, at: usize, cause: String) -> JournalError {
    JournalError::Damaged { file: path.to_owned(), offset: at as u64, cause }
}
