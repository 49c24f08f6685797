//! sled's files grow under rewrites and hardly ever shrink. When they are far larger
//! than what is in them, a new directory takes their place.
//!
//! ```text
//! view/  view.new/ (written, checked, synced)     a crash here: view.new/ is removed
//! view.old/  view.new/                            a crash here: view.new/ becomes view/
//! view.old/  view/                                a crash here: view.old/ is removed
//! view/
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::checked::{Checked, guarded, of_sled};
use crate::store::StoreError;
use crate::store::directory::sync_directory;

/// Less than this is never too much.
const WASTE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Times what is in it; sled needs up to some ten times under usual rewrites.
const WASTE_RATIO: u64 = 20;

/// More than this is too much unless at least half of it is in use.
const WASTE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Bytes that are copied by one batch.
const COPY_BYTES: usize = 1024 * 1024;

/// Whether the files should be made anew.
pub(super) fn is_wasteful(checked: &Checked) -> Result<bool, StoreError> {
    let on_disk = guarded(|| checked.db().size_on_disk().map_err(of_sled))?;
    Ok(is_too_much(on_disk, checked.bytes))
}

pub(super) fn is_too_much(on_disk: u64, logical: u64) -> bool {
    let ratio = if on_disk > WASTE_BYTES_MAX { 2 } else { WASTE_RATIO };
    on_disk > WASTE_BYTES_MIN && on_disk > ratio * logical
}

/// Copies everything into new files and goes on with them. Without the space for it,
/// goes on with the old ones.
pub(super) fn rebuilt(directory: &Path, checked: Checked) -> Result<Checked, StoreError> {
    let new = new_of(directory);
    let bytes = checked.bytes;
    if let Err(cause) = copy(&checked, &new) {
        drop(fs::remove_dir_all(&new));
        tracing::warn!(%cause, "the view's files could not be made smaller");
        return Ok(checked);
    }
    checked.close(directory)?;
    let old = old_of(directory);
    swap(directory, &new, &old)?;
    fs::remove_dir_all(&old)?;
    tracing::info!(bytes, "the view's files were made anew: they had grown far beyond what is in them");
    Checked::open(directory)
}

/// Writes what `from` holds to a new database in `to`, and checks it.
fn copy(from: &Checked, to: &Path) -> Result<(), StoreError> {
    let new = Checked::open(to)?;
    guarded(|| {
        let mut batch = ::sled::Batch::default();
        let mut bytes = 0;
        for item in from.db().iter() {
            let (key, record) = item.map_err(of_sled)?;
            bytes += key.len() + record.len();
            batch.insert(key, record);
            if bytes >= COPY_BYTES {
                new.db().apply_batch(std::mem::take(&mut batch)).map_err(of_sled)?;
                bytes = 0;
            }
        }
        new.db().apply_batch(batch).map_err(of_sled)
    })?;
    new.sync()?;
    new.close(to)?;
    let copied = Checked::open(to)?;
    if copied.tip != from.tip {
        return Err(StoreError::Damaged { reason: "the copy is not what was copied".into() });
    }
    copied.close(to)?;
    for entry in fs::read_dir(to)? {
        let path = entry?.path();
        if path.is_file() {
            File::open(path)?.sync_all()?;
        }
    }
    sync_directory(to)?;
    Ok(())
}

/// Puts `new` in the place of `directory`, which becomes `old`. Both are closed.
pub(super) fn swap(directory: &Path, new: &Path, old: &Path) -> io::Result<()> {
    let parent = parent_of(directory);
    fs::rename(directory, old)?;
    sync_directory(parent)?;
    fs::rename(new, directory)?;
    sync_directory(parent)
}

/// Ends a [`swap`] that a crash interrupted.
pub(super) fn finish_swap(directory: &Path) -> io::Result<()> {
    let (new, old) = (new_of(directory), old_of(directory));
    let parent = parent_of(directory);
    match (directory.exists(), new.exists()) {
        (true, true) => fs::remove_dir_all(&new)?,
        (false, true) => {
            // It was complete before the old one went away.
            fs::rename(&new, directory)?;
            sync_directory(parent)?;
        }
        (_, false) => {}
    }
    match (directory.exists(), old.exists()) {
        (true, true) => fs::remove_dir_all(&old),
        (false, true) => fs::rename(&old, directory),
        (_, false) => Ok(()),
    }
}

pub(super) fn new_of(directory: &Path) -> PathBuf {
    beside(directory, "new")
}

fn old_of(directory: &Path) -> PathBuf {
    beside(directory, "old")
}

/// A path beside `directory`, of the same name and an ending.
pub(super) fn beside(directory: &Path, ending: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    directory.with_file_name(name)
}

pub(super) fn parent_of(directory: &Path) -> &Path {
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
