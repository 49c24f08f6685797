//! The telemetry backlog on disk, so that a restart sends what its predecessor counted.
//! Written whole, beside the old file and renamed over it. It survives the process, not
//! a loss of power: nothing is synced, for that would cost each second more than a
//! second of counts is worth.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use thiserror::Error;
use trunkline_proto::telemetry::v1::StreamReportsRequest;

use super::{
    backlog::Backlog,
    duration_from_wire, duration_to_wire,
    window::{Report, Window},
};

/// Says what the file is.
const MAGIC: [u8; 8] = *b"TRUNKSPL";
/// Grows when the layout changes; others are moved aside.
const FORMAT: u32 = 1;
/// Magic, format, CRC-32C of all after it.
const HEAD_BYTES: usize = 16;
/// The fields of [`Body`] that are put together from parts.
const NUMBERED_TAG: u32 = 4;
const WAITING_TAG: u32 = 5;

/// What the file holds after its head.
#[derive(Clone, PartialEq, prost::Message)]
struct Body {
    /// The agent stopped in order after writing it.
    #[prost(bool, tag = "1")]
    clean: bool,
    #[prost(message, optional, tag = "2")]
    written: Option<prost_types::Timestamp>,
    /// How often the agent would write at least, if it had counted something.
    #[prost(message, optional, tag = "3")]
    interval: Option<prost_types::Duration>,
    #[prost(message, repeated, tag = "4")]
    numbered: Vec<StreamReportsRequest>,
    #[prost(message, repeated, tag = "5")]
    waiting: Vec<StreamReportsRequest>,
}

/// A file that holds what is not acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    path: PathBuf,
    /// Held while writing: a write that was given up on goes on in its thread, and must
    /// neither meet nor undo a later one.
    written: Arc<Mutex<Written>>,
    next: u64,
    moves: u64,
}

/// What is on disk.
#[derive(Debug, Default)]
struct Written {
    /// The newest content.
    number: u64,
    /// How many moves it knows.
    moves: u64,
}

/// What a start found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) backlog: Backlog,
    /// The predecessor did not stop in order: counts of at most so long are in no report.
    pub(super) lost: Option<Duration>,
    /// Where a file went that is damaged, and why.
    pub(super) set_aside: Option<(PathBuf, BadSpool)>,
}

/// Why a spool is not used.
#[derive(Debug, Error)]
pub(super) enum BadSpool {
    #[error("read telemetry spool")]
    Read(#[source] io::Error),
    #[error("not a telemetry spool, cut off, or of another version of this program")]
    Layout,
    #[error("checksum differs from content")]
    Checksum,
    #[error("decode telemetry spool")]
    Decode(#[source] prost::DecodeError),
}

impl Spool {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, written: Arc::default(), next: 0, moves: 0 }
    }

    /// What the predecessor left at `now`. Blocks.
    pub(super) fn load(&self, now: SystemTime) -> Found {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::default(),
            Err(error) => Err(BadSpool::Read(error)),
        };
        match bytes.and_then(|bytes| decode(&bytes)) {
            Ok(body) => found(body, now),
            Err(why) => {
                // All that it held is lost, whenever it was counted.
                let modified = fs::metadata(&self.path).and_then(|data| data.modified()).ok();
                let lost = modified.map_or(Duration::ZERO, |at| now.duration_since(at).unwrap_or_default());
                let aside = self.path.with_extension("spool.bad");
                // If even that fails the next write replaces it.
                fs::rename(&self.path, &aside).ok();
                Found { lost: Some(lost), set_aside: Some((aside, why)), ..Found::default() }
            }
        }
    }

    /// Counts got a number or were acknowledged. What is on disk would from now on have
    /// them counted again, under another number.
    pub(super) fn moved(&mut self) {
        self.moves += 1;
    }

    /// Makes the content of the next write; copies nothing of it. Writes take effect in the order they were
    /// made in.
    pub(super) fn prepare(
        &mut self,
        backlog: &Backlog,
        clean: bool,
        interval: Duration,
        now: SystemTime,
    ) -> Write {
        self.next += 1;
        let body = Body {
            clean,
            written: Some(now.into()),
            interval: Some(duration_to_wire(interval)),
            ..Body::default()
        };
        Write {
            path: self.path.clone(),
            written: Arc::clone(&self.written),
            number: self.next,
            moves: self.moves,
            body,
            numbered: backlog.numbered().cloned().collect(),
            waiting: backlog.waiting().cloned().collect(),
        }
    }
}

/// A content to be written.
#[derive(Debug)]
pub(super) struct Write {
    path: PathBuf,
    written: Arc<Mutex<Written>>,
    number: u64,
    moves: u64,
    /// Without its parts.
    body: Body,
    numbered: Vec<Arc<Report>>,
    waiting: Vec<Arc<Window>>,
}

impl Write {
    /// Replaces the file, unless a later content did. Blocks.
    ///
    /// # Errors
    /// If the disk refuses. The file is then as it was; or empty, if what it held would be
    /// counted twice: the next start then tells a loss.
    pub(super) fn run(self) -> io::Result<()> {
        let mut written = self.written.lock();
        if written.number > self.number {
            return Ok(());
        }
        self.path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let bytes = self.encode();
        let mut stored = self.store(&bytes);
        if stored.is_err() && self.moves > written.moves && self.path.exists() {
            // Emptied and not removed: that needs no room either, and the next start sees
            // that something was there. What it took may be what the disk lacks.
            let emptied = fs::File::options().write(true).truncate(true).open(&self.path);
            if let Err(error) = &emptied {
                tracing::debug!(%error, "stale telemetry spool not emptied");
            }
            emptied?;
            written.moves = self.moves;
            stored = self.store(&bytes);
        }
        stored?;
        *written = Written { number: self.number, moves: self.moves };
        Ok(())
    }

    fn store(&self, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path.with_extension("spool.tmp");
        let stored = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &self.path));
        if stored.is_err() {
            // What is left of it takes room that the disk may not have.
            remove(&temporary);
        }
        stored
    }

    /// Parts that an earlier write encoded are only copied.
    fn encode(&self) -> Vec<u8> {
        let numbered = self.numbered.iter().map(|report| (NUMBERED_TAG, report.encoded()));
        let waiting = self.waiting.iter().map(|window| (WAITING_TAG, window.encoded()));
        let mut body = self.body.encode_to_vec();
        for (tag, part) in numbered.chain(waiting) {
            encode_key(tag, WireType::LengthDelimited, &mut body);
            encode_varint(part.len() as u64, &mut body);
            body.extend_from_slice(part);
        }
        framed(&body)
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(%error, "temporary telemetry spool not removed");
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend(crc32c::crc32c(body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Body, BadSpool> {
    let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or(BadSpool::Layout)?;
    let expected = [&MAGIC[..], &FORMAT.to_le_bytes()].concat();
    let checksum = head.strip_prefix(expected.as_slice()).ok_or(BadSpool::Layout)?;
    if checksum != crc32c::crc32c(body).to_le_bytes() {
        return Err(BadSpool::Checksum);
    }
    Body::decode(body).map_err(BadSpool::Decode)
}

fn found(body: Body, now: SystemTime) -> Found {
    let written = body.written.and_then(|at| SystemTime::try_from(at).ok());
    let since = written.map_or(Duration::ZERO, |at| now.duration_since(at).unwrap_or_default());
    // An agent that counted nothing wrote nothing. One that counted wrote each interval:
    // missing are those of one interval, and of the one that was being written.
    let interval = body.interval.and_then(duration_from_wire).unwrap_or_default();
    let lost = (!body.clean).then(|| since.min(2 * interval));
    let waiting = body.waiting.into_iter().map(|wire| Window::from_wire(wire, now)).collect();
    Found { backlog: Backlog::new(body.numbered, waiting), lost, set_aside: None }
}

#[cfg(test)]
mod tests {
    use trunkline_proto::telemetry::v1::TargetStats;

    use super::{super::backlog::Stamp, *};

    const INTERVAL: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn backlog() -> Backlog {
        let target = |name: &str| vec![TargetStats { deployment: name.to_owned(), ..TargetStats::default() }];
        let mut backlog = Backlog::default();
        backlog.add(Window::new(at(7), INTERVAL, target("p/a")));
        assert!(backlog.close());
        let stamp = Stamp { agent_id: "a", incarnation: "i", seq: 3, applied: None, lost_before: None };
        assert!(backlog.number(stamp));
        backlog.add(Window::new(at(8), INTERVAL, target("p/b")));
        assert!(backlog.close());
        backlog
    }

    fn spool() -> (tempfile::TempDir, Spool) {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path().join("data/telemetry.spool"));
        (directory, spool)
    }

    #[test]
    fn what_was_written_is_found_and_an_end_without_a_stop_is_noticed() {
        let (_directory, mut spool) = spool();
        assert_eq!(spool.load(at(9)).lost, None);
        spool.prepare(&backlog(), false, INTERVAL, at(9)).run().unwrap();
        let found = spool.load(at(9_000));
        assert_eq!((found.backlog, found.lost), (backlog(), Some(2 * INTERVAL)));
        spool.prepare(&backlog(), true, INTERVAL, at(9)).run().unwrap();
        assert_eq!(spool.load(at(9_000)).lost, None);
    }

    #[test]
    fn a_write_that_comes_late_undoes_nothing() {
        let (_directory, mut spool) = spool();
        let early = spool.prepare(&backlog(), false, INTERVAL, at(9));
        spool.prepare(&Backlog::default(), true, INTERVAL, at(10)).run().unwrap();
        early.run().unwrap();
        assert!(spool.load(at(11)).backlog.is_empty());
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_is_no_stop_in_order() {
        let (_directory, mut spool) = spool();
        spool.prepare(&backlog(), true, INTERVAL, at(9)).run().unwrap();
        let good = fs::read(&spool.path).unwrap();
        let cut = (0..good.len()).map(|length| good[..length].to_vec());
        let flipped = (0..good.len()).map(|at| {
            let mut bad = good.clone();
            bad[at] ^= 1;
            bad
        });
        for bad in cut.chain(flipped) {
            fs::write(&spool.path, &bad).unwrap();
            let found = spool.load(SystemTime::now());
            let (aside, _) = found.set_aside.expect("set aside");
            assert!(found.backlog.is_empty() && found.lost.is_some());
            assert!(aside.exists() && !spool.path.exists());
        }
    }

    #[test]
    fn parts_put_together_are_what_a_whole_message_would_be() {
        let (_directory, mut spool) = spool();
        let backlog = backlog();
        // Twice: what was encoded for the first write is used for the second.
        for _ in 0..2 {
            spool.prepare(&backlog, true, INTERVAL, at(9)).run().unwrap();
            let body = Body {
                clean: true,
                written: Some(at(9).into()),
                interval: Some(duration_to_wire(INTERVAL)),
                numbered: backlog.numbered().map(|report| report.wire.clone()).collect(),
                waiting: backlog.waiting().map(|one| Window::clone(one).into_wire()).collect(),
            };
            assert_eq!(fs::read(&spool.path).unwrap(), framed(&body.encode_to_vec()));
        }
    }

    #[test]
    fn a_disk_that_refuses_more_counts_leaves_what_was_there() {
        let (_directory, mut spool) = spool();
        spool.prepare(&backlog(), false, INTERVAL, at(9)).run().unwrap();
        // The temporary file can't be made.
        let temporary = spool.path.with_extension("spool.tmp");
        fs::create_dir(&temporary).unwrap();
        let mut more = backlog();
        more.add(Window::new(at(9), INTERVAL, Vec::new()));
        spool.prepare(&more, false, INTERVAL, at(9)).run().unwrap_err();
        assert_eq!(spool.load(at(9)).backlog, backlog());
        fs::remove_dir(&temporary).unwrap();
        spool.prepare(&Backlog::default(), false, INTERVAL, at(9)).run().unwrap();
        assert!(spool.load(at(9)).backlog.is_empty());
    }

    #[test]
    fn a_disk_that_refuses_keeps_nothing_that_would_be_counted_twice() {
        let (_directory, mut spool) = spool();
        let mut counted = backlog();
        spool.prepare(&counted, false, INTERVAL, at(9)).run().unwrap();
        let temporary = spool.path.with_extension("spool.tmp");
        fs::create_dir(&temporary).unwrap();
        let stamp = Stamp { agent_id: "a", incarnation: "i", seq: 4, applied: None, lost_before: None };
        assert!(counted.number(stamp));
        spool.moved();
        spool.prepare(&counted, false, INTERVAL, at(9)).run().unwrap_err();
        // It is sent and acknowledged from memory; the next start must not count it again.
        let found = spool.load(SystemTime::now());
        assert!(found.backlog.is_empty());
        assert!(found.lost.is_some(), "the loss is told");
        // The disk takes something again.
        fs::remove_dir(&temporary).unwrap();
        spool.prepare(&counted, false, INTERVAL, at(9)).run().unwrap();
        assert_eq!(spool.load(at(9)).backlog, counted);
    }
}
