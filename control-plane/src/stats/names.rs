//! Which pairs the configuration can make: only these are counted for the first time.
//! Without that, one agent that makes names up takes all places for good.

use std::collections::HashSet;

use trunkline_proto::convert::PROBE_MODEL;
use trunkline_routing::table::{Deployment, HealthCheckMode, RoutingTable, Version};

use super::{KEYS_MAX, Key};
use crate::repository::Repository;

/// Pairs that are looked for, the newest configuration's first: there is no place to
/// count more than [`KEYS_MAX`], and former configurations have mostly the same.
const NAMES_MAX: usize = 2 * KEYS_MAX;

/// The pairs of the current and of recent configurations.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of the newest configuration that is in `pairs`.
    version: Option<Version>,
    pairs: HashSet<Key>,
    /// Everything is in the configuration.
    #[cfg(test)]
    pub(super) any: bool,
}

impl Names {
    /// Whether an agent that follows the configuration can report `key`.
    pub(super) fn know(&mut self, key: &Key, repository: &Repository) -> bool {
        #[cfg(test)]
        if self.any {
            return true;
        }
        self.refresh(repository);
        self.pairs.contains(key)
    }

    fn refresh(&mut self, repository: &Repository) {
        let state = repository.state();
        if self.version.as_ref() == Some(&state.version) {
            return;
        }
        self.pairs.clear();
        self.version = Some(state.version.clone());
        let revision = state.version.revision;
        self.insert_all(&state.table);
        // Agents may be a little behind. Revisions have no gaps.
        for former in (0..revision).rev().map_while(|revision| repository.recent(revision)) {
            self.insert_all(&former.table);
        }
    }

    /// A virtual model with each of its targets, each deployment that is pinned, and those
    /// that agents probe.
    fn insert_all(&mut self, table: &RoutingTable) {
        let name = |index| table.deployment(index).name.as_ref();
        let targets = table.virtual_models.iter().flat_map(|model| {
            let targets = model.tiers.iter().flat_map(|tier| &tier.targets);
            targets.map(|target| (name(target.deployment), model.name.as_ref()))
        });
        let pins = table.deployments.iter().map(|deployment| (deployment.name.as_ref(), &*deployment.name));
        let active = |deployment: &&Deployment| {
            table.provider(deployment.provider).health_check.mode == HealthCheckMode::Active
        };
        let probes = table.deployments.iter().filter(active);
        let probes = probes.map(|deployment| (deployment.name.as_ref(), PROBE_MODEL));
        for (deployment, model) in targets.chain(pins).chain(probes) {
            if self.pairs.len() >= NAMES_MAX {
                return;
            }
            self.pairs.insert(Key { deployment: deployment.to_owned(), model: model.to_owned() });
        }
    }
}
