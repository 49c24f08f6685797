//! From a configuration to the routing table: the one place where a configuration is
//! checked. The control plane calls it before it stores, the agent before it applies.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_routing::table::{DeploymentIndex, ProviderIndex, RoutingTable, Version};

use super::{api_key, budget, field, price, provider, virtual_model};
use crate::{
    admin::v1::Config,
    problems::{Path, Problems},
};

/// Most providers of a configuration.
const PROVIDERS_MAX: usize = 1_000;

/// Most virtual models, and most keys, of a configuration.
const ENTRIES_MAX: usize = 10_000;

/// What references in a configuration may name.
pub(super) struct Known<'a> {
    /// All deployments by full name, in the order of the table.
    pub(super) deployments: BTreeMap<String, DeploymentIndex>,
    /// All virtual models.
    pub(super) virtual_models: BTreeSet<&'a str>,
    /// All keys.
    pub(super) api_keys: BTreeSet<&'a str>,
    /// All regions of providers.
    pub(super) regions: BTreeSet<&'a str>,
}

/// Names in use, and where each was seen first.
#[derive(Default)]
pub(super) struct Names<'a>(BTreeMap<&'a str, usize>);

impl<'a> Names<'a> {
    /// Notes the name of `list[index]`, and a problem if it is in use already.
    pub(super) fn insert(
        &mut self,
        name: &'a str,
        list: &str,
        index: usize,
        path: &Path<'_>,
        problems: &mut Problems,
    ) {
        match self.0.get(name) {
            // That it is required is said elsewhere.
            _ if name.is_empty() => {}
            Some(first) => problems.push(
                path.field("name"),
                format!("{} is the name of {list}[{first}] already", field::quoted(name)),
            ),
            None => {
                self.0.insert(name, index);
            }
        }
    }
}

/// The routing table of a configuration.
///
/// # Errors
/// Everything that is wrong with it, with paths in document order.
pub fn routing_table(version: Version, config: &Config) -> Result<RoutingTable, Problems> {
    let mut problems = Problems::default();
    let mut table = RoutingTable { version, ..RoutingTable::default() };
    let providers = provider_indices(config);
    let known = Known {
        deployments: deployment_indices(config),
        virtual_models: config.virtual_models.iter().map(|one| one.name.as_str()).collect(),
        api_keys: config.api_keys.iter().map(|one| one.name.as_str()).collect(),
        regions: config.providers.iter().map(|one| one.region.as_str()).collect(),
    };

    let path = Path::Root.field("providers");
    field::check_count(config.providers.len(), 0..=PROVIDERS_MAX, &path, &mut problems);
    let mut names = Names::default();
    for (position, wire) in config.providers.iter().enumerate() {
        let path = Path::Root.item("providers", position);
        names.insert(&wire.name, "providers", position, &path, &mut problems);
        table.providers.push(provider::provider(wire, &path, &mut problems));
        let index = providers.get(wire.name.as_str()).copied().unwrap_or(0);
        table.deployments.extend(provider::deployments(wire, ProviderIndex(index), &path, &mut problems));
    }

    let path = Path::Root.field("virtual_models");
    field::check_count(config.virtual_models.len(), 0..=ENTRIES_MAX, &path, &mut problems);
    let mut names = Names::default();
    for (position, wire) in config.virtual_models.iter().enumerate() {
        let path = Path::Root.item("virtual_models", position);
        names.insert(&wire.name, "virtual_models", position, &path, &mut problems);
        table.virtual_models.push(virtual_model::virtual_model(wire, &known, &path, &mut problems));
    }

    let path = Path::Root.field("budgets");
    field::check_count(config.budgets.len(), 0..=ENTRIES_MAX, &path, &mut problems);
    table.budgets = budget::budgets(&config.budgets, &known, &mut problems);

    let path = Path::Root.field("api_keys");
    field::check_count(config.api_keys.len(), 0..=ENTRIES_MAX, &path, &mut problems);
    table.api_keys = api_key::api_keys(&config.api_keys, &known, &mut problems);

    let mut entries = price::entries(&config.price_entries, &known, &mut problems);

    table.providers.sort_by(|a, b| a.name.cmp(&b.name));
    // Inside a provider full names are in the order of deployment names.
    table.deployments.sort_by(|a, b| (a.provider, &a.name).cmp(&(b.provider, &b.name)));
    for (index, one) in (0..).map(DeploymentIndex).zip(&mut table.deployments) {
        if let Some(entries) = entries.remove(&index) {
            one.prices = price::schedule(one.prices.at(0).cloned(), entries);
        }
    }
    table.virtual_models.sort_by(|a, b| a.name.cmp(&b.name));
    table.api_keys.sort_by(|a, b| a.name.cmp(&b.name));
    table.budgets.sort_by(|a, b| a.name.cmp(&b.name));
    problems.or(table)
}

/// Where each provider will be in the table.
fn provider_indices(config: &Config) -> BTreeMap<&str, u32> {
    let sorted: BTreeSet<&str> = config.providers.iter().map(|one| one.name.as_str()).collect();
    sorted.into_iter().zip(0..).collect()
}

/// Where each deployment will be in the table, by full name.
fn deployment_indices(config: &Config) -> BTreeMap<String, DeploymentIndex> {
    let sorted: BTreeSet<(&str, &str)> = config
        .providers
        .iter()
        .flat_map(|one| one.deployments.iter().map(|deployment| (&*one.name, &*deployment.name)))
        .collect();
    let full = sorted.into_iter().map(|(provider, name)| format!("{provider}/{name}"));
    full.zip((0..).map(DeploymentIndex)).collect()
}
