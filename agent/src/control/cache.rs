//! The last good configuration on disk, so that an agent serves after a restart without
//! a control plane. Two generations; what can't be read is moved aside and never fatal.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use trunkline_proto::{admin::v1::Config, convert::sync::State};
use trunkline_routing::table::Version;

/// Says what the file is.
const MAGIC: [u8; 8] = *b"TRUNKTBL";
/// Grows when the layout below changes.
const FORMAT: u32 = 2;
/// The one before it: no hashes of resources. Still read; later ones are moved aside.
const FORMAT_WITHOUT_HASHES: u32 = 1;
/// The newest and the one before it.
const GENERATIONS: [&str; 2] = ["table.bin", "table.previous.bin"];
/// Epochs are UUIDs; this is far more.
pub(super) const EPOCH_BYTES_MAX: usize = 256;
/// An update with a resource's key in it is smaller.
const KEY_BYTES_MAX: usize = 64 << 20;

/// A directory that holds the last good configuration.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Those that are whole, the newest first. One may still not be valid for this build.
    pub states: Vec<(Version, State)>,
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
    #[error("format {0} is not known; this program reads 1 to {FORMAT}")]
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

    /// All generations that are whole. Blocks.
    pub fn load(&self) -> Loaded {
        let mut loaded = Loaded::default();
        for name in GENERATIONS {
            let path = self.directory.join(name);
            match read(&path) {
                Ok(None) => {}
                Ok(Some(state)) => loaded.states.push(state),
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
    pub fn store(&self, version: &Version, state: &State) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let [newest, previous] = GENERATIONS.map(|name| self.directory.join(name));
        let temporary = newest.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&encode(version, state))?;
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
/// number of resources, each with its key's length, key and hash, configuration.
/// Integers are little-endian.
fn encode(version: &Version, state: &State) -> Vec<u8> {
    let mut body = (state.hashes().len() as u32).to_le_bytes().to_vec();
    for (key, hash) in state.hashes() {
        body.extend((key.len() as u32).to_le_bytes());
        body.extend(key.as_bytes());
        body.extend(hash);
    }
    body.extend(state.config().encode_to_vec());
    framed(FORMAT, version, body)
}

fn framed(format: u32, version: &Version, body: Vec<u8>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(format.to_le_bytes());
    bytes.extend((version.epoch.len() as u32).to_le_bytes());
    bytes.extend(version.epoch.as_bytes());
    bytes.extend(version.revision.to_le_bytes());
    let checksum = checksum(&bytes, &body);
    bytes.extend(checksum);
    bytes.extend(body);
    bytes
}

pub(super) fn checksum(header: &[u8], body: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(header).chain_update(body).finalize().into()
}

fn read(path: &Path) -> Result<Option<(Version, State)>, BadCache> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BadCache::Read(error)),
    };
    decode(&bytes).map(Some)
}

fn decode(bytes: &[u8]) -> Result<(Version, State), BadCache> {
    let mut rest = bytes;
    if take(&mut rest)? != MAGIC {
        return Err(BadCache::Layout);
    }
    let format = u32::from_le_bytes(take(&mut rest)?);
    if !(FORMAT_WITHOUT_HASHES..=FORMAT).contains(&format) {
        return Err(BadCache::Format(format));
    }
    let epoch = text(&mut rest, EPOCH_BYTES_MAX)?;
    let revision = u64::from_le_bytes(take(&mut rest)?);
    let header = &bytes[..bytes.len() - rest.len()];
    let expected: [u8; 32] = take(&mut rest)?;
    if checksum(header, rest) != expected {
        return Err(BadCache::Checksum);
    }
    let hashes = if format == FORMAT { Some(hashes(&mut rest)?) } else { None };
    let config = Config::decode(rest).map_err(BadCache::Decode)?;
    let state = match hashes {
        Some(hashes) => State::restored(config, hashes),
        // Written by a build that knew all that it held, or it would have refused it.
        None => State::of(&config),
    };
    Ok((Version { epoch, revision }, state))
}

fn hashes(rest: &mut &[u8]) -> Result<BTreeMap<String, [u8; 32]>, BadCache> {
    let count = u32::from_le_bytes(take(rest)?);
    (0..count).map(|_| Ok((text(rest, KEY_BYTES_MAX)?, take(rest)?))).collect()
}

pub(super) fn text(rest: &mut &[u8], max: usize) -> Result<String, BadCache> {
    let length = u32::from_le_bytes(take(rest)?) as usize;
    let (text, after) = rest.split_at_checked(length.min(max + 1)).ok_or(BadCache::Layout)?;
    *rest = after;
    let text = String::from_utf8(text.to_vec()).map_err(|_| BadCache::Layout)?;
    if text.len() > max { Err(BadCache::Layout) } else { Ok(text) }
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BadCache> {
    let (taken, after) = rest.split_first_chunk().ok_or(BadCache::Layout)?;
    *rest = after;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use trunkline_proto::{agent::v1::Resource, types::v1::Provider};

    use super::*;

    fn state(revision: u64) -> (Version, State) {
        let provider = Provider { name: format!("p{revision}"), ..Provider::default() };
        let config = Config { providers: vec![provider], ..Config::default() };
        let unknown = Resource { key: "budget/b".to_owned(), sha256: vec![9; 32], resource: None };
        (Version { epoch: "e".to_owned(), revision }, State::of(&config).apply(vec![unknown], &[]))
    }

    fn cache_of(revisions: &[u64]) -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path().join("cache"));
        for revision in revisions {
            let (version, state) = state(*revision);
            cache.store(&version, &state).unwrap();
        }
        (directory, cache)
    }

    #[test]
    fn nothing_there_is_nothing_loaded() {
        let (_directory, cache) = cache_of(&[]);
        let loaded = cache.load();
        assert!(loaded.states.is_empty() && loaded.set_aside.is_empty());
    }

    #[test]
    fn the_newest_is_loaded() {
        let (_directory, cache) = cache_of(&[1, 2, 3]);
        assert_eq!(cache.load().states, [state(3), state(2)]);
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
            assert_eq!(loaded.states, [state(1)], "byte {position}");
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
            assert_eq!(cache.load().states, [state(1)], "{length} bytes");
        }
    }

    #[test]
    fn two_bad_generations_are_both_set_aside_and_nothing_is_loaded() {
        let (_directory, cache) = cache_of(&[1, 2]);
        for name in GENERATIONS {
            fs::write(cache.directory.join(name), b"TRUNKTBL and then nothing").unwrap();
        }
        let loaded = cache.load();
        assert!(loaded.states.is_empty());
        let aside: Vec<_> = loaded.set_aside.iter().map(|(path, _)| path.exists()).collect();
        assert_eq!(aside, [true, true]);
        assert!(cache.load().set_aside.is_empty(), "they are reported once");
        let (version, newest) = state(3);
        cache.store(&version, &newest).unwrap();
        assert_eq!(cache.load().states, [state(3)]);
    }

    #[test]
    fn a_file_of_the_format_before_is_loaded() {
        let (_directory, cache) = cache_of(&[1]);
        let (version, _) = state(2);
        let config = Config {
            providers: vec![Provider { name: "p".to_owned(), ..Provider::default() }],
            ..Config::default()
        };
        let old = framed(FORMAT_WITHOUT_HASHES, &version, config.encode_to_vec());
        fs::write(cache.directory.join(GENERATIONS[0]), old).unwrap();
        assert_eq!(cache.load().states, [(version, State::of(&config))]);
    }
}
