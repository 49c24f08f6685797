//! The last verdicts on disk, beside the routing table: an agent that starts without a
//! control plane still keeps away from what an operator closed or the fleet saw fail.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use prost::Message as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use trunkline_proto::agent::v1::Publication;

use super::{
    Verdicts,
    cache::{BadCache, EPOCH_BYTES_MAX, checksum, take, text},
};

/// Says what the file is.
const MAGIC: [u8; 8] = *b"TRUNKVRD";
/// Grows when the layout below changes. Later ones are moved aside.
const FORMAT: u32 = 1;
const FILE: &str = "verdicts.bin";
/// Verdicts change in bursts; the disk needs the last of each.
const QUIET_FOR: Duration = Duration::from_millis(100);
/// At the end: how long a disk may take for the last verdicts.
const KEEP_LIMIT: Duration = Duration::from_secs(2);

/// A directory that holds the last verdicts.
#[derive(Clone, Debug)]
pub struct VerdictCache {
    directory: PathBuf,
}

impl VerdictCache {
    /// In `directory`, which is made when it is first written to.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// What was kept, as it holds now. What can't be read is moved aside and never fatal.
    /// Blocks.
    pub fn load(&self) -> Verdicts {
        let path = self.directory.join(FILE);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Verdicts::default(),
            bytes => bytes.map_err(BadCache::Read),
        };
        bytes.and_then(|bytes| decode(&bytes)).unwrap_or_else(|why| {
            let aside = path.with_extension("bad");
            tracing::warn!(path = %aside.display(), error = %why, "kept verdicts set aside");
            // If even that fails the next write replaces it.
            fs::rename(&path, &aside).ok();
            Verdicts::default()
        })
    }

    /// Replaces what is kept. Blocks.
    ///
    /// # Errors
    /// If the disk refuses; what was there stays usable.
    pub fn store(&self, verdicts: &Verdicts) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = self.directory.join(FILE);
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&encode(verdicts))?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.directory)?.sync_all()
    }

    /// Keeps the newest verdicts until `shutdown`, then the last ones. A disk that refuses
    /// or hangs holds nothing up.
    pub(super) async fn keep(
        &self,
        mut verdicts: watch::Receiver<Arc<Verdicts>>,
        shutdown: &CancellationToken,
    ) {
        let mut kept: Option<Arc<Verdicts>> = None;
        loop {
            tokio::select! {
                biased; // At the end what came last is still kept.
                Ok(()) = verdicts.changed() => {}
                () = shutdown.cancelled() => return,
            }
            let newest = Arc::clone(&verdicts.borrow_and_update());
            if kept.as_ref().is_some_and(|kept| kept.same_words(&newest)) {
                continue;
            }
            let (cache, writing) = (self.clone(), Arc::clone(&newest));
            let too_late = async {
                shutdown.cancelled().await;
                sleep(KEEP_LIMIT).await;
            };
            tokio::select! {
                biased; // A disk that is done is not late.
                stored = tokio::task::spawn_blocking(move || cache.store(&writing)) => match stored {
                    Ok(Ok(())) => kept = Some(newest),
                    Ok(Err(error)) => tracing::warn!(%error, "verdicts not kept on disk"),
                    Err(error) => tracing::error!(%error, "verdicts not kept on disk"),
                },
                () = too_late => return,
            }
            shutdown.run_until_cancelled(sleep(QUIET_FOR)).await;
        }
    }
}

/// magic, format, epoch length, epoch, wall time in ms of the publication, SHA-256 of all
/// before and after it, publication. Integers are little-endian.
fn encode(verdicts: &Verdicts) -> Vec<u8> {
    let publication = Publication { verdicts: verdicts.wire.clone(), ..Publication::default() };
    let body = publication.encode_to_vec();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend((verdicts.epoch.len() as u32).to_le_bytes());
    bytes.extend(verdicts.epoch.as_bytes());
    bytes.extend(verdicts.received_unix_ms.to_le_bytes());
    let checksum = checksum(&bytes, &body);
    bytes.extend(checksum);
    bytes.extend(body);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Verdicts, BadCache> {
    let mut rest = bytes;
    if take(&mut rest)? != MAGIC {
        return Err(BadCache::Layout);
    }
    let format = u32::from_le_bytes(take(&mut rest)?);
    if format != FORMAT {
        return Err(BadCache::Format(format));
    }
    let epoch = text(&mut rest, EPOCH_BYTES_MAX)?;
    let received_unix_ms = u64::from_le_bytes(take(&mut rest)?);
    let header = &bytes[..bytes.len() - rest.len()];
    let expected: [u8; 32] = take(&mut rest)?;
    if checksum(header, rest) != expected {
        return Err(BadCache::Checksum);
    }
    let publication = Publication::decode(rest).map_err(BadCache::Decode)?;
    Ok(Verdicts::remembered(publication.verdicts, &epoch, received_unix_ms, Instant::now()))
}

#[cfg(test)]
mod tests {
    use trunkline_proto::{agent::v1::BreakerVerdict, types::v1::BreakerState};

    use super::*;

    fn verdicts() -> Verdicts {
        let verdict = |deployment: &str, state: BreakerState| BreakerVerdict {
            deployment: deployment.to_owned(),
            state: state as i32,
            generation: 9,
            reason: "drill".to_owned(),
            ..BreakerVerdict::default()
        };
        let verdicts =
            vec![verdict("p/forced", BreakerState::ForcedOpen), verdict("p/open", BreakerState::HalfOpen)];
        let publication = Publication { verdicts, ..Publication::default() };
        Verdicts::from_wire(publication, "e", Instant::now())
    }

    #[test]
    fn what_is_kept_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let cache = VerdictCache::new(directory.path().join("data"));
        assert!(cache.load().wire.is_empty());
        cache.store(&verdicts()).unwrap();
        let loaded = cache.load();
        assert!(loaded.same_words(&verdicts()) && loaded.epoch == "e");
        assert!(loaded.get("p/forced", Instant::now()).unwrap().forced_open);
        assert_eq!(loaded.fleet().count(), 1);
    }

    #[test]
    fn any_changed_or_missing_byte_is_set_aside_and_nothing_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let cache = VerdictCache::new(directory.path().to_owned());
        let good = encode(&verdicts());
        let bad = (0..good.len()).flat_map(|at| {
            let mut changed = good.clone();
            changed[at] ^= 1;
            [changed, good[..at].to_vec()]
        });
        for bytes in bad {
            fs::write(directory.path().join(FILE), bytes).unwrap();
            assert!(cache.load().wire.is_empty());
            assert!(directory.path().join("verdicts.bad").exists());
        }
    }
}
