//! Ballast: a file that is given up when the disk is full, so that an operator, the log
//! and the next start have some room. While it can be made again there is space.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// More than a start needs: a view of its size plus a segment's header.
const BALLAST_BYTES: u64 = 16 * 1024 * 1024;

/// Written at once; not the whole file in memory.
static PIECE: [u8; 64 * 1024] = [0xB7; 64 * 1024];

/// The ballast of a data directory.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
}

impl Ballast {
    pub(crate) fn of(directory: &Path) -> Self {
        Self { path: directory.join("ballast") }
    }

    /// Makes it if it is not there. Fails if there is no space, and then takes none.
    pub(crate) fn load(&self) -> io::Result<()> {
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == BALLAST_BYTES) {
            return Ok(());
        }
        let written = write(&self.path);
        if written.is_err() {
            // The first failure is the one to tell.
            drop(self.release());
        }
        written
    }

    /// Makes it again if there is room for twice as much: what was given up is not by
    /// itself a sign that there is space.
    pub(crate) fn load_again(&self) -> io::Result<()> {
        self.load()?;
        let probe = self.path.with_extension("probe");
        let written = write(&probe);
        // Without the probe there is more space, not less.
        drop(fs::remove_file(&probe));
        if written.is_err() {
            drop(self.release());
        }
        written
    }

    /// Gives it up.
    pub(crate) fn release(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
            _ => Ok(()),
        }
    }
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    for _ in 0..BALLAST_BYTES / PIECE.len() as u64 {
        file.write_all(&PIECE)?;
    }
    // Space is taken when the data is placed, not before.
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_takes_its_place_and_gives_it_up() {
        let directory = tempfile::tempdir().unwrap();
        let ballast = Ballast::of(directory.path());
        ballast.load().unwrap();
        let file = directory.path().join("ballast");
        assert_eq!(fs::metadata(&file).unwrap().len(), BALLAST_BYTES);
        ballast.release().unwrap();
        assert!(!file.exists());
        ballast.load_again().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        ballast.release().unwrap();
        ballast.release().unwrap();
    }
}
