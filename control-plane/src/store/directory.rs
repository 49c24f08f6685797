//! The data directory: one process at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

/// Holds the directory until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

/// Takes `directory`, which is made if missing. None: another process has it.
pub(crate) fn lock(directory: &Path) -> io::Result<Option<DirectoryLock>> {
    fs::create_dir_all(directory)?;
    let file = File::options().create(true).truncate(false).write(true).open(directory.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(DirectoryLock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

/// Makes new and renamed files of `directory` survive a power loss.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
