//! Records what the decision core is told and answers, for `trunkline replay`. Off unless
//! asked for; it holds no text of prompts or answers, and no secret.
//!
//! Entries are made under the registry's lock, so their order is the true one. They wait
//! in memory for at most some tens of milliseconds; one task writes them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use trunkline_proto::{
    admin::v1::Config,
    trace::{header, wire_entry, wire_table},
};
use trunkline_routing::{table::Version, time::Timestamp, trace::Entry};

/// What a trace may take on the disk: about half a million requests. Then recording ends;
/// what is there can be replayed.
pub(crate) const FILE_BYTES_MAX: u64 = 256 << 20;
/// What may wait in memory for a slow disk: a table of 20,000 deployments, twice. A trace
/// with a gap would be worth nothing, so recording ends instead.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// From so much on it is written without waiting for more.
const WRITE_AT_BYTES: usize = 256 << 10;
/// At most this is lost when the agent is killed.
const WRITE_EVERY: Duration = Duration::from_millis(20);

/// A recording.
#[derive(Debug)]
pub(crate) struct Tape {
    path: PathBuf,
    waiting: Mutex<Waiting>,
    /// Woken when enough waits.
    full: Notify,
    runs: AtomicBool,
    limits: Limits,
}

/// What may be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) file: u64,
    pub(crate) waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file: FILE_BYTES_MAX, waiting: WAITING_BYTES_MAX }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Of the file, these included.
    total: u64,
    /// Why it ended, until that was said.
    ended: Option<&'static str>,
}

impl Tape {
    /// Begins a file, which only its owner may read. What was there is replaced.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn open(path: &Path, limits: Limits) -> io::Result<(Arc<Self>, File)> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let tape = Self {
            path: path.to_owned(),
            waiting: Mutex::default(),
            full: Notify::new(),
            runs: AtomicBool::new(true),
            limits,
        };
        tape.put(&header(env!("CARGO_PKG_VERSION")));
        Ok((Arc::new(tape), file))
    }

    /// Whether it still records.
    pub(crate) fn runs(&self) -> bool {
        self.runs.load(Ordering::Relaxed)
    }

    /// Adds what the core was told.
    pub(crate) fn entry(&self, entry: &Entry) {
        if let Some(message) = wire_entry(entry) {
            self.put(&message);
        }
    }

    /// Adds a table.
    pub(crate) fn table(&self, at: Timestamp, version: &Version, config: &Config, number: u64) {
        self.put(&wire_table(at, version, config, number));
    }

    fn put(&self, message: &impl Message) {
        let mut waiting = self.waiting.lock();
        if waiting.ended.is_some() || !self.runs() {
            return;
        }
        let before = waiting.bytes.len();
        let length = message.encoded_len() + prost::length_delimiter_len(message.encoded_len());
        let too_much = if waiting.total + length as u64 > self.limits.file {
            Some("the trace is as large as it may be")
        } else if before + length > self.limits.waiting {
            Some("the disk is too slow")
        } else {
            None
        };
        // A vector takes any message; should that change, a trace must not have a gap.
        let ended =
            too_much.or_else(|| message.encode_length_delimited(&mut waiting.bytes).err().map(|_| "no room"));
        if let Some(why) = ended {
            waiting.bytes.truncate(before);
            waiting.ended = Some(why);
            self.runs.store(false, Ordering::Relaxed);
            self.full.notify_one();
            return;
        }
        waiting.total += length as u64;
        if waiting.bytes.len() >= WRITE_AT_BYTES {
            self.full.notify_one();
        }
    }

    /// Writes what waits. Returns whether there may be more.
    async fn write(&self, file: File) -> Option<File> {
        let (bytes, ended) = {
            let mut waiting = self.waiting.lock();
            (std::mem::take(&mut waiting.bytes), waiting.ended.take())
        };
        let written = tokio::task::spawn_blocking(move || {
            let mut file = file;
            file.write_all(&bytes).map(|()| file)
        });
        let path = self.path.display();
        let file = match written.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(file) => file,
            Err(error) => {
                self.runs.store(false, Ordering::Relaxed);
                tracing::error!(%path, %error, "recording ended: the trace can't be written");
                return None;
            }
        };
        if let Some(why) = ended {
            tracing::warn!(%path, why, "recording ended; what was recorded until then can be replayed");
            return None;
        }
        Some(file)
    }
}

/// Writes the trace until `stop`, or until it ends by itself.
pub(crate) async fn run(tape: Arc<Tape>, mut file: File, stop: CancellationToken) {
    loop {
        let last = tokio::select! {
            biased;
            // What waits is written still.
            () = stop.cancelled() => true,
            () = tape.full.notified() => false,
            () = tokio::time::sleep(WRITE_EVERY) => false,
        };
        match tape.write(file).await {
            Some(written) if !last => file = written,
            _ => break,
        }
    }
    tape.runs.store(false, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use tempfile::TempDir;
    use trunkline_proto::trace::Reader;
    use trunkline_routing::trace::{Answer, Event};

    use super::*;

    fn heard(at: u64) -> Entry {
        let at = Timestamp::from_nanos(at);
        Entry { at, seed: 0, event: Event::Heard(at), answer: Answer::Nothing }
    }

    /// What a recording of so many entries left on the disk.
    async fn recorded(limits: Limits, entries: u64) -> (usize, bool) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("trace");
        let (tape, file) = Tape::open(&path, limits).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for at in 1..=entries {
            tape.entry(&heard(at));
        }
        let runs = tape.runs();
        let stop = CancellationToken::new();
        stop.cancel();
        run(tape, file, stop).await;
        let bytes = fs::read(&path).unwrap();
        let mut reader = Reader::new(&*bytes).unwrap();
        let read: Vec<u64> = reader.by_ref().map(|entry| entry.unwrap().at.as_nanos()).collect();
        assert_eq!(reader.cut(), 0);
        assert_eq!(read, (1..=read.len() as u64).collect::<Vec<_>>(), "a gap");
        (read.len(), runs)
    }

    #[tokio::test]
    async fn what_is_recorded_until_the_stop_is_on_the_disk() {
        assert_eq!(recorded(Limits::default(), 1_000).await, (1_000, true));
    }

    #[tokio::test]
    async fn at_its_limit_a_recording_ends_without_a_gap() {
        let (kept, runs) = recorded(Limits { file: 500, ..Limits::default() }, 1_000).await;
        assert!((1..500 / 10).contains(&kept) && !runs, "{kept}");
    }

    #[tokio::test]
    async fn a_disk_that_does_not_follow_ends_a_recording_without_a_gap() {
        let (kept, runs) = recorded(Limits { waiting: 500, ..Limits::default() }, 1_000).await;
        assert!((1..500 / 10).contains(&kept) && !runs, "{kept}");
    }
}
