//! Owns the newest routing table. A change is checked as a whole, takes effect at once
//! for all readers, and is kept on disk; or it is refused and nothing changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use trunkline_proto::{
    admin::v1::Config,
    agent::v1::Update,
    convert::{
        Lenient, removal_guard, routing_table, routing_table_lenient,
        sync::{self, State},
    },
    problems::Problems,
};
use trunkline_routing::table::{RoutingTable, Version};

use super::{Cache, version_from_wire};

/// At the end: how long a disk may take for the last table.
const KEEP_LIMIT: Duration = Duration::from_secs(2);

/// A configuration and what agents decide by.
#[derive(Debug, Default)]
pub struct LoadedTable {
    /// Deltas apply to it.
    pub state: State,
    /// Made of its configuration.
    pub table: RoutingTable,
    /// What this build does not know of the configuration, and what it was taken as.
    pub assumed: Problems,
}

/// The newest routing table.
#[derive(Debug)]
pub struct TableStore {
    newest: watch::Sender<Option<Arc<LoadedTable>>>,
    cache: Option<Cache>,
    /// The newest one that came from the control plane: what the disk shall hold.
    received: watch::Sender<Option<Arc<LoadedTable>>>,
    /// The cached state was written by a build that did not know all of it. This one may
    /// know more, so it asks for everything again.
    partial: AtomicBool,
}

/// Why an update was refused.
#[derive(Debug, Error)]
pub enum UpdateError {
    /// A delta that does not start at what is held.
    #[error("delta from epoch {:?} revision {}, but this agent holds epoch {:?} revision {}",
        base.epoch, base.revision, held.epoch, held.revision)]
    Base {
        /// Where the delta starts.
        base: Version,
        /// What is held.
        held: Version,
    },
    /// It looks like an accident.
    #[error("{0}")]
    Removal(String),
    /// The result is not a configuration.
    #[error("invalid configuration: {0}")]
    Invalid(Problems),
    /// The result is not what the control plane has.
    #[error("the hash of the resulting table differs from that of the update; send a snapshot")]
    Checksum,
}

impl UpdateError {
    /// For the refusal.
    pub fn code(&self) -> Code {
        match self {
            Self::Base { .. } | Self::Removal(_) => Code::FailedPrecondition,
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Checksum => Code::DataLoss,
        }
    }
}

impl TableStore {
    /// No table yet. Without a cache nothing is kept on disk.
    pub fn new(cache: Option<Cache>) -> Self {
        let (newest, received) = (watch::Sender::new(None), watch::Sender::new(None));
        Self { newest, cache, received, partial: AtomicBool::new(false) }
    }

    /// Takes the table that was kept on disk, if there is a good one. Blocks.
    pub fn load_cache(&self) {
        let Some(cache) = &self.cache else { return };
        let loaded = cache.load();
        for (path, why) in &loaded.set_aside {
            tracing::warn!(path = %path.display(), error = %why, "cached table set aside");
        }
        // One that another build wrote may be too new for this one; the one before may not.
        for (version, state) in loaded.states {
            let partial = !state.not_fully_known().is_empty();
            let revision = version.revision;
            match load(version, state) {
                Ok(loaded) => {
                    self.partial.store(partial, Ordering::Relaxed);
                    self.newest.send_replace(Some(Arc::new(loaded)));
                    return;
                }
                Err(problems) => {
                    tracing::warn!(revision, error = %problems, "cached table is not valid for this build");
                }
            }
        }
    }

    /// Replaces the table by a configuration from a file, say. Not kept on disk.
    ///
    /// # Errors
    /// What is wrong with it; then nothing changes.
    pub fn install(&self, version: Version, config: &Config) -> Result<(), Problems> {
        let table = routing_table(version, config)?;
        let state = State::of(config);
        let loaded = LoadedTable { state, table, assumed: Problems::default() };
        self.newest.send_replace(Some(Arc::new(loaded)));
        Ok(())
    }

    /// The newest table. None: there never was one.
    pub fn newest(&self) -> Option<Arc<LoadedTable>> {
        self.newest.borrow().clone()
    }

    /// Follows the newest table.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<LoadedTable>>> {
        self.newest.subscribe()
    }

    /// What is held. None: nothing.
    pub fn applied(&self) -> Option<Version> {
        self.newest.borrow().as_ref().map(|loaded| loaded.table.version.clone())
    }

    /// Where the control plane may resume. None: nothing is held, or all of it is wanted
    /// again.
    pub fn resume_from(&self) -> Option<Version> {
        if self.partial.load(Ordering::Relaxed) { None } else { self.applied() }
    }

    /// Applies all parts of one update, or nothing. Waits for no disk. `has_traffic` says whether a virtual
    /// model is in use here.
    ///
    /// # Errors
    /// Why it was refused; then nothing changed.
    pub fn apply_update(
        &self,
        parts: Vec<Update>,
        has_traffic: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Arc<LoadedTable>, UpdateError> {
        let loaded = Arc::new(self.build(parts, has_traffic)?);
        self.partial.store(false, Ordering::Relaxed);
        self.newest.send_replace(Some(Arc::clone(&loaded)));
        self.received.send_replace(Some(Arc::clone(&loaded)));
        Ok(loaded)
    }

    fn build(
        &self,
        parts: Vec<Update>,
        has_traffic: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<LoadedTable, UpdateError> {
        let held = self.newest();
        let mut change = merge(parts);
        let empty = State::default();
        let base = if change.full {
            &empty
        } else {
            let base = version_from_wire(change.base.take().unwrap_or_default());
            let version = held.as_ref().map(|held| held.table.version.clone()).unwrap_or_default();
            if base != version {
                return Err(UpdateError::Base { base, held: version });
            }
            held.as_ref().map_or(&empty, |held| &held.state)
        };
        let state = base.apply(change.upserts, &change.removals);
        // A snapshot is what an agent of another history gets: all may be different there.
        if !change.force && !change.full {
            removal_guard(base.config(), state.config(), &has_traffic).map_err(UpdateError::Removal)?;
        }
        // A control plane that gives resources no hashes has the older hash only.
        let right = if change.resources_sha256.is_empty() {
            change.state_sha256[..] == sync::state_sha256(state.config())
        } else {
            change.resources_sha256[..] == state.sha256()
        };
        let version = version_from_wire(change.version.unwrap_or_default());
        let loaded = load(version, state).map_err(UpdateError::Invalid)?;
        if right { Ok(loaded) } else { Err(UpdateError::Checksum) }
    }

    /// Keeps the newest table on disk for the next start, until `shutdown`. Then the last
    /// one; a disk may take two seconds for it. Tables that are replaced while the disk is
    /// busy are passed over. A disk that refuses or hangs holds up no update: what is
    /// served is newer than what a restart would find.
    pub async fn keep(&self, shutdown: &CancellationToken) {
        let Some(cache) = &self.cache else { return };
        let mut received = self.received.subscribe();
        // What came before this was called is no change to the subscription.
        received.mark_changed();
        loop {
            tokio::select! {
                biased; // At the end what came last is still kept.
                Ok(()) = received.changed() => {}
                () = shutdown.cancelled() => return,
            }
            let newest = received.borrow_and_update().clone();
            let Some(newest) = newest else { continue };
            let cache = cache.clone();
            let store = move || cache.store(&newest.table.version, &newest.state);
            let too_late = async {
                shutdown.cancelled().await;
                sleep(KEEP_LIMIT).await;
            };
            tokio::select! {
                biased; // A disk that is done is not late.
                stored = tokio::task::spawn_blocking(store) => match stored {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "routing table not kept on disk"),
                    Err(error) => tracing::error!(%error, "routing table not kept on disk"),
                },
                () = too_late => {
                    tracing::warn!("the disk took too long; the last routing table may not be kept");
                    return;
                }
            }
        }
    }
}

/// The table of a state that a control plane made; what this build does not know of it
/// is said once.
fn load(version: Version, state: State) -> Result<LoadedTable, Problems> {
    let Lenient { table, assumed } = routing_table_lenient(version, state.config())?;
    let (epoch, revision) = (&table.version.epoch, table.version.revision);
    let partly_known = state.not_fully_known();
    if !partly_known.is_empty() {
        let (count, first) = (partly_known.len(), partly_known[0]);
        tracing::warn!(epoch, revision, count, first, "resources hold more than this build knows");
    }
    if !assumed.is_empty() {
        tracing::warn!(epoch, revision, %assumed, "configuration values that this build does not know");
    }
    Ok(LoadedTable { state, table, assumed })
}

/// All parts as one: resources of all, the rest from the last.
fn merge(parts: Vec<Update>) -> Update {
    let mut whole = Update::default();
    for mut part in parts {
        whole.upserts.append(&mut part.upserts);
        whole.removals.append(&mut part.removals);
        whole.full |= part.full;
        whole.force |= part.force;
        whole.version = part.version.or(whole.version);
        whole.base = part.base.or(whole.base);
        whole.state_sha256 = part.state_sha256;
        whole.resources_sha256 = part.resources_sha256;
    }
    whole
}
