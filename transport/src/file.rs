//! Files that operators replace while the process runs: certificates, keys, tokens.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

/// A replaced file is in use after at most this time. Reading a few kilobytes that often
/// costs nothing, and contents tell what times of files that are links do not.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Bytes of a file. A chain of ten large certificates has 40 KB, 1,000 tokens 100 KB.
const BYTES_MAX: u64 = 1024 * 1024;

/// A file that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("read {path}: {error}", path = .path.display())]
pub struct Unreadable {
    path: PathBuf,
    #[source]
    error: io::Error,
}

/// The contents of a small file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Unreadable> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 MiB"));
        }
        Ok(bytes)
    };
    read().map_err(|error| Unreadable { path: path.to_owned(), error })
}

/// Files that belong together, with what they had when they were last looked at.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    paths: Vec<PathBuf>,
    /// None: they could not be read.
    seen: Option<[u8; 32]>,
}

impl Watched {
    /// Reads them for the first time.
    pub(crate) fn read(paths: Vec<PathBuf>) -> Result<(Self, Vec<Vec<u8>>), Unreadable> {
        let contents = read_all(&paths)?;
        Ok((Self { paths, seen: Some(fingerprint(&contents)) }, contents))
    }

    /// Waits until they have other contents than when last looked at, good or not. Files
    /// that are gone are logged once.
    pub(crate) async fn changed(&mut self) -> Vec<Vec<u8>> {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let paths = self.paths.clone();
            let read = tokio::task::spawn_blocking(move || read_all(&paths)).await;
            // The runtime ends, or it panicked: either way the next look tells.
            let Ok(read) = read else { continue };
            match read {
                Ok(contents) => {
                    let now = Some(fingerprint(&contents));
                    if std::mem::replace(&mut self.seen, now) != now {
                        return contents;
                    }
                }
                Err(error) => {
                    if self.seen.take().is_some() {
                        tracing::warn!(%error, "what was read before stays in use");
                    }
                }
            }
        }
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Unreadable> {
    paths.iter().map(|path| read(path)).collect()
}

/// What tells contents apart without keeping secrets in memory.
fn fingerprint(contents: &[Vec<u8>]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for bytes in contents {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    hasher.finalize().into()
}
