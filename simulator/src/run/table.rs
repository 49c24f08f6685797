//! The routing table that the decision core gets for a scenario.

use std::time::Duration;

use trunkline_routing::{
    money::Price,
    price::Schedule,
    table::{
        BreakerPolicy, Capabilities, Deployment, DeploymentIndex, Dialect, HealthCheck, Limits,
        ProviderIndex, RoutingTable, Slo, Strategy, Target, Tier, Timeouts, VirtualModel,
    },
    time::Timestamp,
};

use super::{policy::Ablation, provider::Provider};
use crate::{
    math,
    scenario::{Effect, Scenario},
    traffic::Traffic,
};

/// The wall clock at the run's beginning: 1 January 2026, UTC.
const BEGIN_UNIX_MS: u64 = 1_767_225_600_000;

/// A table, and which provider each deployment is.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) routing: RoutingTable,
    /// Places in the fleet by deployment index.
    pub(crate) places: Vec<usize>,
    /// Index of the virtual model of each part of the traffic.
    pub(crate) routes: Vec<usize>,
}

/// The wall clock.
pub(crate) fn unix_ms(now: Timestamp) -> u64 {
    BEGIN_UNIX_MS + now.as_nanos() / 1_000_000
}

/// When providers come or go.
pub(super) fn changes(scenario: &Scenario) -> Vec<Timestamp> {
    let absent = scenario.incidents.iter().filter(|incident| incident.effect == Effect::Absent);
    let moments = absent.flat_map(|incident| {
        let end = incident.duration_s.map(|duration| incident.start_s + duration);
        [Some(incident.start_s).filter(|start| *start > 0.0), end]
    });
    let mut moments: Vec<f64> = moments.flatten().collect();
    moments.sort_by(f64::total_cmp);
    moments.dedup();
    moments.into_iter().map(|moment| Timestamp::ZERO + math::seconds(moment)).collect()
}

/// Whether a price changes in the scenario.
pub(super) fn changes_prices(scenario: &Scenario) -> bool {
    scenario.incidents.iter().any(|incident| matches!(incident.effect, Effect::Price(_)))
}

impl Table {
    /// The table of what is configured now, with the prices that were published as of
    /// `priced`.
    pub(crate) fn new(
        scenario: &Scenario,
        traffic: &Traffic,
        providers: &[Provider],
        strategy: Strategy,
        ablation: Ablation,
        now: Timestamp,
        priced: Timestamp,
    ) -> Self {
        let mut places: Vec<usize> =
            (0..providers.len()).filter(|place| providers[*place].is_present(now)).collect();
        places.sort_by(|a, b| providers[*a].spec.model.name.cmp(&providers[*b].spec.model.name));
        let index = |place: usize| {
            let found = places.iter().position(|present| *present == place);
            found.map(|index| (DeploymentIndex(index as u32), providers[place].spec.weight))
        };
        let all: Vec<Vec<usize>> = if scenario.tiers.is_empty() {
            vec![(0..providers.len()).collect()]
        } else {
            scenario.tiers.iter().map(|tier| tier.iter().map(|place| place - 1).collect()).collect()
        };
        let tiers: Vec<Tier> =
            all.iter().map(|tier| tier_of(tier.iter().filter_map(|at| index(*at)))).collect();
        let tiers: Vec<Tier> = tiers.into_iter().filter(|tier| !tier.targets.is_empty()).collect();
        let mut names: Vec<&str> = traffic.parts.iter().map(|part| part.route.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let slo = Slo {
            ttft: Some(Duration::from_secs_f64(scenario.slo.ttft_s)),
            total: Some(Duration::from_secs_f64(scenario.slo.total_s)),
        };
        // All that a scenario does not speak of is as in a configuration that is silent.
        let usual = VirtualModel::pin("", DeploymentIndex(0));
        let model = |name: &&str| VirtualModel {
            strategy,
            slo,
            hedge_budget_percent: if ablation == Ablation::NoHedge { 0 } else { usual.hedge_budget_percent },
            deadline: Duration::from_secs_f64(scenario.deadline_s),
            tiers: tiers.clone(),
            name: (*name).into(),
            ..usual.clone()
        };
        let route =
            |part: &crate::traffic::Part| names.iter().position(|name| *name == part.route).unwrap_or(0);
        let routing = RoutingTable {
            providers: places.iter().map(|place| provider(&providers[*place])).collect(),
            deployments: places
                .iter()
                .enumerate()
                .map(|(at, place)| deployment(at, &providers[*place], priced))
                .collect(),
            virtual_models: names.iter().map(model).collect(),
            ..RoutingTable::default()
        };
        Self { routing, places, routes: traffic.parts.iter().map(route).collect() }
    }

    /// The deployment of that provider.
    pub(crate) fn place(&self, deployment: DeploymentIndex) -> usize {
        self.places[deployment.0 as usize]
    }
}

fn tier_of(targets: impl Iterator<Item = (DeploymentIndex, u32)>) -> Tier {
    let targets: Vec<Target> = targets.map(|(deployment, weight)| Target { deployment, weight }).collect();
    Tier { max_attempts: targets.len() as u32, targets, timeouts: Timeouts::default() }
}

fn provider(provider: &Provider) -> trunkline_routing::table::Provider {
    trunkline_routing::table::Provider {
        name: provider.spec.model.name.as_str().into(),
        dialect: Dialect::OpenAi,
        base_url: "https://provider.example".into(),
        credential: None,
        allow_private_network: false,
        region: None,
        health_check: HealthCheck::default(),
    }
}

fn deployment(at: usize, provider: &Provider, priced: Timestamp) -> Deployment {
    let spec = &provider.spec;
    Deployment {
        name: format!("{}/model", spec.model.name).into(),
        provider: ProviderIndex(at as u32),
        upstream_model: "model".into(),
        capabilities: Capabilities::ALL,
        context_window: spec.context_window,
        max_output_tokens: spec.max_output_tokens,
        quality: Some(spec.quality),
        prices: Schedule::fixed(Price::flat(provider.price(priced).rates())),
        breaker: BreakerPolicy::default(),
        limits: Limits::default(),
    }
}
