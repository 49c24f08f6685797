//! The whole state out of a store that goes on, and into a place where none is.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use trunkline_proto::admin::v1::Config;
use trunkline_routing::table::Version;

use super::export::{Export, FileWriter, ImportError};
use super::open::open_view;
use super::writer::Job;
use super::{CommitError, ConfigState, OpenError, Repository, now_unix_ms};
use crate::store::journal::Journal;

/// Bytes of a piece of the file.
const PIECE_BYTES: usize = 64 * 1024;

/// Pieces that wait for a slow reader.
const PIECES_MAX: usize = 4;

/// A reader that takes no piece for so long is given up.
const STALL_MAX: Duration = Duration::from_secs(30);

/// After which another export may be possible.
const BUSY_RETRY: Duration = Duration::from_secs(10);

/// Blobs that are restored in one commit of the view.
const BLOBS_AT_ONCE: usize = 256;

/// Why there is no export, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// One at a time.
    #[error("another export of the state is under way; try again in {} s", retry_after.as_secs())]
    Busy {
        /// When it may be over.
        retry_after: Duration,
    },
    /// The reader was too slow, so that the place is free for others.
    #[error("no piece of the export was taken for {} s; what was sent is of no use", STALL_MAX.as_secs())]
    Stalled,
    /// Telemetry changed faster than it was read.
    #[error(
        "the export was given up: more telemetry changed meanwhile than is kept for it; try again over a \
         faster connection"
    )]
    Overtaken,
    /// See there.
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// A file that is being made; dropping it ends that.
#[derive(Debug)]
pub struct Exported {
    pieces: mpsc::Receiver<Result<Piece, ExportError>>,
    ended: bool,
    _making: JoinSet<()>,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    End,
}

impl Exported {
    /// The next piece; None after the last.
    ///
    /// # Errors
    /// If the file will not be whole. Nothing comes after that.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, ExportError>> {
        if self.ended {
            return None;
        }
        match self.pieces.recv().await {
            Some(Ok(Piece::Bytes(bytes))) => return Some(Ok(bytes)),
            Some(Ok(Piece::End)) => self.ended = true,
            Some(Err(error)) => {
                self.ended = true;
                return Some(Err(error));
            }
            None => {
                self.ended = true;
                return Some(Err(ExportError::Stalled));
            }
        }
        None
    }
}

impl Repository {
    /// All durable state as one file, in pieces: the state after the newest commit, with
    /// the telemetry of the same moment. Writes go on meanwhile and wait for a
    /// millisecond at a time; what they change of the telemetry is put aside until it is
    /// read. One export at a time, and none without a reader.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub async fn export_state(&self) -> Result<Exported, ExportError> {
        let busy = |_| ExportError::Busy { retry_after: BUSY_RETRY };
        let turn = Arc::clone(&self.shared.exports).try_acquire_owned().map_err(busy)?;
        let begun = self.ask(|writer| {
            let snapshot = writer.folded.snapshot(&writer.requests);
            (writer.epoch.clone(), snapshot, writer.view.begin_scan())
        });
        let (epoch, snapshot, ticket) = begun.await?;
        let first = move || FileWriter::begin(epoch, now_unix_ms(), &snapshot);
        let file = tokio::task::spawn_blocking(first).await.map_err(|_| CommitError::Unavailable)?;
        let jobs = self.jobs.as_ref().ok_or(CommitError::Unavailable)?.downgrade();
        let (to, pieces) = mpsc::channel(PIECES_MAX);
        let mut making = JoinSet::new();
        making.spawn(async move {
            let _held = (turn, ticket);
            match make(file, &jobs, &to).await {
                // Such a reader finds that the pieces end too early.
                Ok(()) | Err(ExportError::Stalled) => {}
                Err(error) => drop(tokio::time::timeout(STALL_MAX, to.send(Err(error))).await),
            }
        });
        Ok(Exported { pieces, ended: false, _making: making })
    }
}

/// Makes and sends the file. It does not keep the repository open.
async fn make(
    mut file: FileWriter,
    jobs: &mpsc::WeakSender<Job>,
    to: &mpsc::Sender<Result<Piece, ExportError>>,
) -> Result<(), ExportError> {
    loop {
        let made = file.take();
        for piece in made.chunks(PIECE_BYTES) {
            send(to, Piece::Bytes(piece.to_vec())).await?;
        }
        let (reply, answer) = oneshot::channel();
        let scan = Job::Run(Box::new(move |writer| drop(reply.send(writer.view.scan_on()))));
        let jobs = jobs.upgrade().ok_or(CommitError::Unavailable)?;
        jobs.send(scan).await.map_err(|_| CommitError::Unavailable)?;
        drop(jobs);
        let read = answer.await.map_err(|_| CommitError::Unavailable)?;
        let blobs = read.map_err(CommitError::from)?.ok_or(ExportError::Overtaken)?;
        if blobs.is_empty() {
            break;
        }
        for blob in blobs {
            file.blob(blob);
        }
    }
    file.end();
    send(to, Piece::Bytes(file.take())).await?;
    send(to, Piece::End).await
}

async fn send(to: &mpsc::Sender<Result<Piece, ExportError>>, piece: Piece) -> Result<(), ExportError> {
    let sent = tokio::time::timeout(STALL_MAX, to.send(Ok(piece))).await;
    // A reader that is gone is told nothing.
    sent.map_err(|_| ExportError::Stalled)?.map_err(|_| ExportError::Stalled)
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

    let mut found = open_view(data_dir);
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
