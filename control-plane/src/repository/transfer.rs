//! The whole state out of a store that goes on, and into a place where none is.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use prost::Message;
use tokio::sync::mpsc;
use trunkline_proto::admin::v1::Config;
use trunkline_routing::table::Version;

use super::export::{Export, ImportError};
use super::open::open_view;
use super::{CommitError, ConfigState, OpenError, Repository, now_unix_ms};
use crate::store::journal::Journal;

/// Bytes of a piece of the file.
const PIECE_BYTES: usize = 64 * 1024;

/// Pieces that wait for a slow reader.
const PIECES_MAX: usize = 4;

/// Blobs that are restored in one commit of the view.
const BLOBS_AT_ONCE: usize = 256;

impl Repository {
    /// All durable state as one file, in pieces: the state after the newest commit, with
    /// the telemetry of the same moment. Writes go on meanwhile. One export at a time:
    /// its telemetry is in memory until it is read; others wait.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn export_state(&self) -> Result<mpsc::Receiver<Vec<u8>>, CommitError> {
        let exports = self.shared.exports.clone();
        let turn = exports.acquire_owned().await.map_err(|_| CommitError::Unavailable)?;
        let export = self.ask(|writer| {
            let blobs = writer.view.scan_blobs(b"")?;
            Ok::<_, CommitError>(Export {
                epoch: writer.epoch.clone(),
                unix_ms: now_unix_ms(),
                snapshot: writer.folded.snapshot(&writer.requests),
                blobs,
            })
        });
        let export = export.await??;
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            // A reader that left is the only thing that can go wrong.
            drop(export.write(BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces))));
        });
        Ok(receiver)
    }
}

/// Sends what is written.
struct Pieces(mpsc::Sender<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        let sent = self.0.blocking_send(piece.to_vec());
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a store in `data_dir` from `file`, under a new epoch. All of the file is checked
/// before anything is written. The journal comes last: without one the import can be
/// tried again.
pub(super) fn import(file: &Path, data_dir: &Path) -> Result<(), OpenError> {
    let journal_dir = data_dir.join("journal");
    if Journal::exists(&journal_dir)? {
        return Err(OpenError::NotEmpty { directory: data_dir.to_owned() });
    }
    let refused = |cause: ImportError| OpenError::Import { file: file.to_owned(), cause: cause.to_string() };
    let opened = File::open(file).map_err(|cause| refused(cause.into()))?;
    let export = Export::read(BufReader::new(opened)).map_err(refused)?;
    let revision = export.snapshot.revision;
    let config = Config::decode(export.snapshot.config.as_slice());
    let config = config.map_err(|_| refused(ImportError::Content))?;
    let version = Version { epoch: export.epoch.clone(), revision };
    ConfigState::new(version, config, false).map_err(|problems| OpenError::Refused { revision, problems })?;

    let found = open_view(data_dir);
    let foreign = found.view.mark().ok().flatten().is_some();
    if foreign {
        return Err(OpenError::NotEmpty { directory: data_dir.to_owned() });
    }
    if let Some(trouble) = found.trouble {
        return Err(OpenError::Import { file: file.to_owned(), cause: trouble });
    }
    let failed = |cause: String| OpenError::Import { file: file.to_owned(), cause };
    // Of an import that was interrupted.
    let left = found.view.scan_blobs(b"").map_err(|cause| failed(cause.to_string()))?;
    let left = left.into_iter().map(|(key, _)| key).collect();
    found.view.write_blobs(Vec::new(), left).map_err(|cause| failed(cause.to_string()))?;
    for blobs in export.blobs.chunks(BLOBS_AT_ONCE) {
        let written = found.view.write_blobs(blobs.to_vec(), Vec::new());
        written.map_err(|cause| failed(cause.to_string()))?;
    }
    drop(found);
    let (former, sequence) = (export.epoch, export.snapshot.sequence);
    Journal::create(&journal_dir, export.snapshot)?;
    tracing::info!(file = %file.display(), former, sequence, revision, "the store was made from an export");
    Ok(())
}
