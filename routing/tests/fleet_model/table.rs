//! Two providers, of which one has three deployments; two virtual models that can do
//! without each of their targets, and one that cannot.

use std::time::Duration;

use trunkline_routing::{
    price::Schedule,
    table::{
        BreakerPolicy, Capabilities, Deployment, DeploymentIndex, Dialect, HealthCheck, Limits, Provider,
        ProviderIndex, RoutingTable, Target, Tier, Timeouts, VirtualModel,
    },
};

/// Longest time a breaker is open, but for the spread of it.
pub(crate) const OPEN_MAX: Duration = Duration::from_secs(8);

pub(crate) fn table() -> RoutingTable {
    let provider = |name: &str| Provider {
        name: name.into(),
        dialect: Dialect::OpenAi,
        base_url: "https://provider.test".into(),
        credential: None,
        allow_private_network: false,
        region: None,
        health_check: HealthCheck::default(),
    };
    let breaker =
        BreakerPolicy { open_base: Duration::from_secs(1), open_max: OPEN_MAX, ..BreakerPolicy::default() };
    let deployment = |name: &str| Deployment {
        name: name.into(),
        provider: ProviderIndex(u32::from(name.starts_with('q'))),
        upstream_model: "model".into(),
        capabilities: Capabilities::ALL,
        context_window: None,
        max_output_tokens: None,
        quality: None,
        prices: Schedule::unknown(),
        breaker,
        limits: Limits::default(),
    };
    let model = |name: &str, targets: &[u32]| {
        let targets: Vec<_> =
            targets.iter().map(|index| Target { deployment: DeploymentIndex(*index), weight: 1 }).collect();
        let tier = Tier { max_attempts: targets.len() as u32, targets, timeouts: Timeouts::default() };
        VirtualModel { name: name.into(), tiers: vec![tier], ..VirtualModel::pin("m", DeploymentIndex(0)) }
    };
    RoutingTable {
        providers: vec![provider("p"), provider("q")],
        deployments: ["p/a", "p/b", "p/c", "q/d", "q/e"].into_iter().map(deployment).collect(),
        virtual_models: vec![model("chat", &[0, 1, 3]), model("fast", &[2, 4, 3]), model("solo", &[3])],
        ..RoutingTable::default()
    }
}
