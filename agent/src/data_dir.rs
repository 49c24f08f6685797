//! The data directory: one agent at a time, for each would overwrite what the other kept.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

/// Says which agent has the directory. Stays when the agent ends; only the lock counts.
const LOCK_FILE: &str = "lock";

/// Holds the directory until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

/// Takes `directory`, which is made if missing. None: another agent has it. Blocks.
///
/// # Errors
/// If the directory can't be made or locked.
pub(crate) fn lock(directory: &Path) -> io::Result<Option<DirectoryLock>> {
    fs::create_dir_all(directory)?;
    let file = File::options().create(true).truncate(false).write(true).open(directory.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(DirectoryLock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}
