//! One routing table with all that requests look up in it, prepared once.

use std::{collections::HashMap, sync::Arc};

use sha2::{Digest, Sha256};
use trunkline_routing::{
    decide::Route,
    registry::Binding,
    table::{DeploymentIndex, RoutingTable, VirtualModel},
};

use crate::{control::LoadedTable, upstream::Endpoint};

/// Immutable; requests hold on to the one they started with.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// What it was made of.
    pub(crate) loaded: Arc<LoadedTable>,
    /// Counts the tables that this process used.
    pub(crate) number: u64,
    /// Maps the table to the registry.
    pub(crate) binding: Binding,
    /// By provider index. None: the base URL can't be used, which the table's checks
    /// rule out.
    pub(crate) endpoints: Vec<Option<Arc<Endpoint>>>,
    /// Full names by deployment index, shared by records.
    pub(crate) deployment_names: Vec<Arc<str>>,
    model_names: Vec<Arc<str>>,
    pins: HashMap<Arc<str>, (DeploymentIndex, VirtualModel)>,
    keys: HashMap<[u8; 32], (usize, Arc<str>)>,
}

/// What a request's `model` stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Index of a virtual model.
    Virtual(usize),
    /// A pinned deployment.
    Pin(DeploymentIndex),
}

impl Snapshot {
    /// Prepares a table. `binding` was made for it.
    pub(crate) fn new(loaded: Arc<LoadedTable>, binding: Binding, number: u64) -> Self {
        let table = &loaded.table;
        let endpoints = table
            .providers
            .iter()
            .map(|provider| {
                Endpoint::parse(&provider.base_url, provider.allow_private_network).ok().map(Arc::new)
            })
            .collect();
        let deployment_names: Vec<Arc<str>> =
            table.deployments.iter().map(|deployment| Arc::from(deployment.name.as_ref())).collect();
        let pins = deployment_names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let index = DeploymentIndex(index as u32);
                (Arc::clone(name), (index, VirtualModel::pin(name, index)))
            })
            .collect();
        let keys = table
            .api_keys
            .iter()
            .enumerate()
            .map(|(index, key)| (key.secret_sha256, (index, Arc::from(key.name.as_ref()))))
            .collect();
        let model_names = table.virtual_models.iter().map(|model| Arc::from(model.name.as_ref())).collect();
        Self { loaded, number, binding, endpoints, deployment_names, model_names, pins, keys }
    }

    /// The table.
    pub(crate) fn table(&self) -> &RoutingTable {
        &self.loaded.table
    }

    /// What `model` stands for.
    pub(crate) fn goal(&self, model: &str) -> Option<Goal> {
        if let Some((index, _)) = self.pins.get(model) {
            return Some(Goal::Pin(*index));
        }
        let models = &self.table().virtual_models;
        models.binary_search_by(|known| known.name.as_ref().cmp(model)).ok().map(Goal::Virtual)
    }

    /// What a decision is made on.
    pub(crate) fn route(&self, goal: Goal) -> Route<'_> {
        match goal {
            Goal::Virtual(index) => Route { model: &self.table().virtual_models[index], index: Some(index) },
            Goal::Pin(deployment) => {
                Route { model: &self.pins[&self.deployment_names[deployment.0 as usize]].1, index: None }
            }
        }
    }

    /// The name shown for it.
    pub(crate) fn goal_name(&self, goal: Goal) -> &Arc<str> {
        match goal {
            Goal::Virtual(index) => &self.model_names[index],
            Goal::Pin(deployment) => self.deployment_name(deployment),
        }
    }

    /// The virtual model's name. None: a pin.
    pub(crate) fn virtual_model(&self, goal: Goal) -> Option<&str> {
        match goal {
            Goal::Virtual(index) => Some(&self.model_names[index]),
            Goal::Pin(_) => None,
        }
    }

    /// The full name of a deployment.
    pub(crate) fn deployment_name(&self, deployment: DeploymentIndex) -> &Arc<str> {
        &self.deployment_names[deployment.0 as usize]
    }

    /// Whether apps must present a key.
    pub(crate) fn needs_key(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Index and name of the key that hashes to what was presented. Only digests are
    /// compared, so timing tells nothing of a key.
    pub(crate) fn key(&self, presented: &[u8]) -> Option<(usize, Arc<str>)> {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        self.keys.get(&digest).cloned()
    }
}
