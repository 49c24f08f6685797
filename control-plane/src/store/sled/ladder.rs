//! What happens to a database that is damaged: first it is tried without sled's
//! snapshots, which are often all that is wrong; then it is moved aside. The damaged
//! files are kept in any case.
//!
//! ```text
//! open, read all --damaged--> copy without snap.*; open, read all --damaged--> move aside: Damaged
//!       |                                 | all is there
//!       v                                 v
//!      use                 move the damaged one aside, use the copy
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::checked::Checked;
use super::space;
use crate::store::StoreError;
use crate::store::directory::sync_directory;

/// Damaged databases that are kept, the newest ones: more would fill the disk when it
/// is the disk that is broken.
const ASIDE_MAX: usize = 3;

/// sled's snapshots can be made anew from its other files.
const SNAPSHOT: &str = "snap.";

/// Opens the database in `directory` by the ladder.
pub(super) fn open(directory: &Path) -> Result<Checked, StoreError> {
    space::finish_swap(directory)?;
    let reason = match Checked::open(directory) {
        Err(StoreError::Damaged { reason }) => reason,
        other => return other,
    };
    let copy = space::new_of(directory);
    let recovered = copy_without_snapshots(directory, &copy).map_err(StoreError::Io);
    let recovered = recovered.and_then(|()| Checked::open(&copy)?.close(&copy));
    match recovered {
        Ok(()) => {
            let aside = aside_of(directory);
            space::swap(directory, &copy, &aside)?;
            forget_oldest(directory);
            let aside = aside.display();
            tracing::warn!(reason, %aside, "the view was damaged; all of it was recovered without sled's snapshot");
            Checked::open(directory)
        }
        Err(StoreError::Damaged { .. }) => {
            fs::remove_dir_all(&copy)?;
            let aside = move_aside(directory)?;
            Err(StoreError::Damaged { reason: format!("{reason}; its files are in {}", aside.display()) })
        }
        Err(cause) => {
            // As without space for the copy: there may be some later.
            drop(fs::remove_dir_all(&copy));
            Err(cause)
        }
    }
}

/// Moves a damaged directory out of the way, and removes the oldest of those that were
/// moved before.
pub(crate) fn move_aside(directory: &Path) -> io::Result<PathBuf> {
    let aside = aside_of(directory);
    fs::rename(directory, &aside)?;
    sync_directory(space::parent_of(directory))?;
    forget_oldest(directory);
    Ok(aside)
}

/// Ends in a number of as many digits for the next 250 years, so names sort by age.
fn aside_of(directory: &Path) -> PathBuf {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut unix_ms = since.as_millis();
    loop {
        let aside = space::beside(directory, &format!("damaged-{unix_ms}"));
        if !aside.exists() {
            return aside;
        }
        unix_ms += 1;
    }
}

/// A copy too many is no reason not to start.
fn forget_oldest(directory: &Path) {
    let removed = asides(directory)
        .and_then(|asides| asides.iter().rev().skip(ASIDE_MAX).try_for_each(fs::remove_dir_all));
    if let Err(cause) = removed {
        tracing::warn!(%cause, "an old damaged view could not be removed");
    }
}

/// The damaged ones, oldest first.
fn asides(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = space::beside(directory, "damaged-");
    let mut found = Vec::new();
    for entry in fs::read_dir(space::parent_of(directory))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.as_encoded_bytes().to_vec());
        let wanted = prefix.file_name().map(|name| name.as_encoded_bytes().to_vec());
        if let (Some(name), Some(wanted)) = (name, wanted)
            && name.starts_with(&wanted)
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn copy_without_snapshots(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if !entry.file_type()?.is_file() || name.as_encoded_bytes().starts_with(SNAPSHOT.as_bytes()) {
            continue;
        }
        let target = to.join(&name);
        fs::copy(entry.path(), &target)?;
        File::open(&target)?.sync_all()?;
    }
    sync_directory(to)
}
