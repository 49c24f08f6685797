//! Updates of the routing table, made once per pair of states and shared by all
//! agents that need the same one.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use trunkline_proto::{agent::v1::Update, convert::sync, types::v1::Version};

use crate::{
    grpc::wire_version,
    repository::{ConfigState, Repository},
};

/// Bases for which the newest update is kept. Agents are nearly always on the newest
/// revision or a few behind; other updates are made again.
const BASES_MAX: usize = 16;

/// Updates that lead to the newest state.
#[derive(Debug, Default)]
pub(super) struct Updates {
    newest: Mutex<Newest>,
}

#[derive(Debug, Default)]
struct Newest {
    version: Option<Version>,
    by_base: HashMap<Option<u64>, Arc<[Update]>>,
}

impl Updates {
    /// The parts of the update to `state`, without a nonce: a delta on `base`,
    /// without one a snapshot. `held` is what the agent has, whatever the update is based on.
    pub(super) fn to(
        &self,
        repository: &Repository,
        state: &ConfigState,
        base: Option<&ConfigState>,
        held: &Version,
    ) -> Arc<[Update]> {
        let version = wire_version(&state.version);
        let key = base.map(|base| base.version.revision);
        let force = forced_since(repository, state, held);
        // What is forced depends on what the agent holds; only plain updates are shared.
        if !force && let Some(made) = self.find(&version, key) {
            return made;
        }
        let made: Arc<[Update]> = make(state, base, force).into();
        if !force {
            self.keep(version, key, Arc::clone(&made));
        }
        made
    }

    fn find(&self, version: &Version, key: Option<u64>) -> Option<Arc<[Update]>> {
        let newest = self.newest.lock();
        newest.by_base.get(&key).filter(|_| newest.version.as_ref() == Some(version)).cloned()
    }

    fn keep(&self, version: Version, key: Option<u64>, made: Arc<[Update]>) {
        let mut newest = self.newest.lock();
        if newest.version.as_ref() != Some(&version) {
            *newest = Newest { version: Some(version), by_base: HashMap::new() };
        }
        if newest.by_base.len() < BASES_MAX {
            newest.by_base.insert(key, made);
        }
    }
}

/// Whether an operator confirmed a removal that the agent has not seen yet.
fn forced_since(repository: &Repository, state: &ConfigState, held: &Version) -> bool {
    if state.forced {
        return true;
    }
    let known = if held.epoch == state.version.epoch { held.revision } else { 0 };
    let unseen = (known + 1..state.version.revision).rev();
    unseen.map_while(|revision| repository.recent(revision)).any(|state| state.forced)
}

fn make(state: &ConfigState, base: Option<&ConfigState>, force: bool) -> Vec<Update> {
    let (upserts, removals) = match base {
        Some(base) => sync::delta(&base.config, &state.config),
        None => (sync::snapshot(&state.config), Vec::new()),
    };
    let mut parts = sync::chunk(upserts);
    let last = parts.pop().unwrap_or_default();
    let version = Some(wire_version(&state.version));
    let template = Update {
        version,
        base: base.map(|base| wire_version(&base.version)),
        full: base.is_none(),
        force,
        ..Update::default()
    };
    let mut updates: Vec<_> =
        parts.into_iter().map(|upserts| Update { upserts, more: true, ..template.clone() }).collect();
    let state_sha256 = sync::state_sha256(&state.config).to_vec().into();
    let resources_sha256 = sync::State::of(&state.config).sha256().to_vec().into();
    updates.push(Update { upserts: last, removals, state_sha256, resources_sha256, ..template });
    updates
}
