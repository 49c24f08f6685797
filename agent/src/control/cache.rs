//! The last good configuration on disk, so that an agent serves after a restart without
//! a control plane. Two generations; what can't be read is moved aside and never fatal.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use trunkline_proto::admin::v1::Config;
use trunkline_routing::table::Version;

/// Says what the file is.
const MAGIC: [u8; 8] = *b"TRUNKTBL";
/// Grows when the layout below changes; others are moved aside.
const FORMAT: u32 = 1;
/// The newest and the one before it.
const GENERATIONS: [&str; 2] = ["table.bin", "table.previous.bin"];
/// Epochs are UUIDs; this is far more.
const EPOCH_BYTES_MAX: usize = 256;

/// A directory that holds the last good configuration.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The newest that is whole.
    pub state: Option<(Version, Config)>,
    /// Files that were moved aside, and why.
    pub set_aside: Vec<(PathBuf, BadCache)>,
}

/// Why a cache file is not used.
#[derive(Debug, Error)]
pub enum BadCache {
    /// It can't be read.
    #[error("read cached table")]
    Read(#[source] io::Error),
    /// Another program's file, or one that was cut.
    #[error("not a cached table, or cut off")]
    Layout,
    /// Of another version of this program.
    #[error("format {0} is not known; this program writes {FORMAT}")]
    Format(u32),
    /// Changed since it was written.
    #[error("checksum differs from content")]
    Checksum,
    /// The content is no configuration.
    #[error("decode cached configuration")]
    Decode(#[source] prost::DecodeError),
}

impl Cache {
    /// In `directory`, which is made when it is first written to.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The newest state that is whole. Blocks.
    pub fn load(&self) -> Loaded {
        let mut loaded = Loaded::default();
        for name in GENERATIONS {
            let path = self.directory.join(name);
            match read(&path) {
                Ok(None) => {}
                Ok(Some(state)) => {
                    loaded.state = Some(state);
                    break;
                }
                Err(why) => {
                    let aside = path.with_extension("bad");
                    // If even that fails the next write replaces it.
                    fs::rename(&path, &aside).ok();
                    loaded.set_aside.push((aside, why));
                }
            }
        }
        loaded
    }

    /// Replaces the newest generation and keeps the one before. Blocks.
    ///
    /// # Errors
    /// If the disk refuses; what was there stays usable.
    pub fn store(&self, version: &Version, config: &Config) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let [newest, previous] = GENERATIONS.map(|name| self.directory.join(name));
        let temporary = newest.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&encode(version, config))?;
        file.sync_all()?;
        match fs::rename(&newest, &previous) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&temporary, &newest)?;
        File::open(&self.directory)?.sync_all()
    }
}

/// magic, format, epoch length, epoch, revision, SHA-256 of all before and after it,
/// configuration. Integers are little-endian.
fn encode(version: &Version, config: &Config) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend((version.epoch.len() as u32).to_le_bytes());
    bytes.extend(version.epoch.as_bytes());
    bytes.extend(version.revision.to_le_bytes());
    let body = config.encode_to_vec();
    let checksum = checksum(&bytes, &body);
    bytes.extend(checksum);
    bytes.extend(body);
    bytes
}

fn checksum(header: &[u8], body: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(header).chain_update(body).finalize().into()
}

fn read(path: &Path) -> Result<Option<(Version, Config)>, BadCache> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BadCache::Read(error)),
    };
    decode(&bytes).map(Some)
}

fn decode(bytes: &[u8]) -> Result<(Version, Config), BadCache> {
    let mut rest = bytes;
    if take(&mut rest)? != MAGIC {
        return Err(BadCache::Layout);
    }
    let format = u32::from_le_bytes(take(&mut rest)?);
    if format != FORMAT {
        return Err(BadCache::Format(format));
    }
    let epoch_bytes = u32::from_le_bytes(take(&mut rest)?) as usize;
    if epoch_bytes > EPOCH_BYTES_MAX {
        return Err(BadCache::Layout);
    }
    let (epoch, after) = rest.split_at_checked(epoch_bytes).ok_or(BadCache::Layout)?;
    rest = after;
    let revision = u64::from_le_bytes(take(&mut rest)?);
    let header = &bytes[..bytes.len() - rest.len()];
    let expected: [u8; 32] = take(&mut rest)?;
    if checksum(header, rest) != expected {
        return Err(BadCache::Checksum);
    }
    let epoch = String::from_utf8(epoch.to_vec()).map_err(|_| BadCache::Layout)?;
    let config = Config::decode(rest).map_err(BadCache::Decode)?;
    Ok((Version { epoch, revision }, config))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BadCache> {
    let (taken, after) = rest.split_first_chunk().ok_or(BadCache::Layout)?;
    *rest = after;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use trunkline_proto::types::v1::Provider;

    use super::*;

    fn state(revision: u64) -> (Version, Config) {
        let provider = Provider { name: format!("p{revision}"), ..Provider::default() };
        let config = Config { providers: vec![provider], ..Config::default() };
        (Version { epoch: "e".to_owned(), revision }, config)
    }

    fn cache_of(revisions: &[u64]) -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path().join("cache"));
        for revision in revisions {
            let (version, config) = state(*revision);
            cache.store(&version, &config).unwrap();
        }
        (directory, cache)
    }

    #[test]
    fn nothing_there_is_nothing_loaded() {
        let (_directory, cache) = cache_of(&[]);
        let loaded = cache.load();
        assert!(loaded.state.is_none() && loaded.set_aside.is_empty());
    }

    #[test]
    fn the_newest_is_loaded() {
        let (_directory, cache) = cache_of(&[1, 2, 3]);
        assert_eq!(cache.load().state, Some(state(3)));
    }

    #[test]
    fn any_changed_byte_falls_back_to_the_generation_before() {
        let (_directory, cache) = cache_of(&[1, 2]);
        let newest = cache.directory.join(GENERATIONS[0]);
        let good = fs::read(&newest).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&newest, &bad).unwrap();
            let loaded = cache.load();
            assert_eq!(loaded.state, Some(state(1)), "byte {position}");
            assert_eq!(loaded.set_aside.len(), 1);
            assert!(loaded.set_aside[0].0.exists() && !newest.exists());
        }
    }

    #[test]
    fn a_file_that_was_cut_anywhere_falls_back() {
        let (_directory, cache) = cache_of(&[1, 2]);
        let newest = cache.directory.join(GENERATIONS[0]);
        let good = fs::read(&newest).unwrap();
        for length in 0..good.len() {
            fs::write(&newest, &good[..length]).unwrap();
            assert_eq!(cache.load().state, Some(state(1)), "{length} bytes");
        }
    }
}
