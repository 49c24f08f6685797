//! What of the routing table verdicts depend on: which deployments a provider has, and
//! which can stand in for which.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};

use crate::table::{BreakerPolicy, HealthCheck, HealthCheckMode, RoutingTable};

/// Deployments, providers and virtual models by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Topology {
    deployments: BTreeMap<Box<str>, Deployment>,
    /// Full names of their deployments.
    providers: BTreeMap<Box<str>, Vec<Box<str>>>,
    /// Full names of their targets, all tiers together.
    models: Vec<Vec<Box<str>>>,
}

#[derive(Clone, Debug)]
struct Deployment {
    provider: Box<str>,
    policy: BreakerPolicy,
    /// How it is checked while it has no traffic. None: it is not.
    check: Option<HealthCheck>,
    /// Indices into the models that use it.
    models: Vec<usize>,
}

impl Topology {
    pub(super) fn of(table: &RoutingTable) -> Self {
        let mut topology = Self::default();
        for deployment in &table.deployments {
            let provider = table.provider(deployment.provider);
            let check =
                (provider.health_check.mode == HealthCheckMode::Active).then_some(provider.health_check);
            let provider = &provider.name;
            topology.providers.entry(provider.clone()).or_default().push(deployment.name.clone());
            let known = Deployment {
                provider: provider.clone(),
                policy: deployment.breaker,
                check,
                models: Vec::new(),
            };
            topology.deployments.insert(deployment.name.clone(), known);
        }
        for model in &table.virtual_models {
            let targets = model.tiers.iter().flat_map(|tier| &tier.targets);
            let mut names: Vec<_> =
                targets.map(|target| table.deployment(target.deployment).name.clone()).collect();
            names.sort_unstable();
            names.dedup();
            for name in &names {
                if let Some(deployment) = topology.deployments.get_mut(name) {
                    deployment.models.push(topology.models.len());
                }
            }
            topology.models.push(names);
        }
        topology
    }

    /// Deployments that are checked while they have no traffic.
    pub(super) fn checked(&self) -> impl Iterator<Item = (&str, HealthCheck)> {
        self.deployments.iter().filter_map(|(name, known)| Some((name.as_ref(), known.check?)))
    }

    /// How a deployment is checked. None: it is not.
    pub(super) fn check(&self, deployment: &str) -> Option<HealthCheck> {
        self.deployments.get(deployment)?.check
    }

    /// Whether there is a deployment or provider of that name.
    pub(super) fn knows(&self, subject: &str) -> bool {
        self.deployments.contains_key(subject) || self.providers.contains_key(subject)
    }

    /// The deployments of a provider. Empty: it is not a provider.
    pub(super) fn deployments_of(&self, provider: &str) -> &[Box<str>] {
        self.providers.get(provider).map_or(&[], Vec::as_slice)
    }

    /// The provider of a deployment.
    pub(super) fn provider_of(&self, deployment: &str) -> Option<&str> {
        self.deployments.get(deployment).map(|known| known.provider.as_ref())
    }

    /// The constants of a deployment; of a provider, those of its first one.
    pub(super) fn policy(&self, subject: &str) -> BreakerPolicy {
        let first = || self.deployments_of(subject).first();
        let deployment = self.deployments.get(subject).or_else(|| self.deployments.get(first()?));
        deployment.map(|known| known.policy).unwrap_or_default()
    }

    /// Whether each virtual model that uses one of `leaving` has another target that
    /// `admits`.
    pub(super) fn can_do_without(&self, leaving: &[Box<str>], admits: impl Fn(&str) -> bool) -> bool {
        let known = leaving.iter().filter_map(|name| self.deployments.get(name));
        known
            .flat_map(|deployment| &deployment.models)
            .all(|model| self.models[*model].iter().any(|name| !leaving.contains(name) && admits(name)))
    }
}
