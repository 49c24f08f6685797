//! Health checks of the fleet: who has no traffic is checked by one agent at a time.

use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};
use trunkline_routing::{
    breaker::PROBES_TO_CLOSE,
    fleet::{Counts, Fleet, Outcome, Purpose, State},
    money::NanoUsd,
    price::Schedule,
    table::{
        BreakerPolicy, Capabilities, Deployment, DeploymentIndex, Dialect, HealthCheck, HealthCheckMode,
        Limits, Provider, ProviderIndex, RoutingTable, VirtualModel,
    },
    time::Timestamp,
};

const INTERVAL: Duration = Duration::from_secs(30);

fn table() -> RoutingTable {
    let check =
        HealthCheck { mode: HealthCheckMode::Active, unhealthy_threshold: 2, ..HealthCheck::default() };
    let provider = |name: &str, health_check| Provider {
        name: name.into(),
        dialect: Dialect::OpenAi,
        base_url: "https://provider.test".into(),
        credential: None,
        allow_private_network: false,
        region: None,
        health_check,
    };
    let deployment = |name: &str, provider| Deployment {
        name: name.into(),
        provider: ProviderIndex(provider),
        upstream_model: "model".into(),
        capabilities: Capabilities::ALL,
        context_window: None,
        max_output_tokens: None,
        quality: None,
        prices: Schedule::unknown(),
        breaker: BreakerPolicy::default(),
        limits: Limits::default(),
    };
    let mut model = VirtualModel::pin("chat", DeploymentIndex(0));
    let mut other = model.tiers[0].targets[0];
    other.deployment = DeploymentIndex(1);
    model.tiers[0].targets.push(other);
    RoutingTable {
        providers: vec![provider("active", check), provider("passive", HealthCheck::default())],
        deployments: vec![deployment("active/m", 0), deployment("passive/m", 1)],
        virtual_models: vec![model],
        ..RoutingTable::default()
    }
}

struct World {
    fleet: Fleet,
    now: Timestamp,
    rng: StdRng,
}

impl World {
    fn new() -> Self {
        let now = Timestamp::ZERO + Duration::from_secs(1_000);
        let mut fleet = Fleet::new(0, 0, now);
        fleet.set_table(&table());
        fleet.reserve_leases(1_000);
        for agent in 1..=3 {
            fleet.connected(agent, agent, now);
        }
        Self { fleet, now, rng: StdRng::seed_from_u64(1) }
    }

    /// Time passes; the leases to check then, as deployment, number and agent.
    fn after(&mut self, passes: Duration) -> Vec<(String, u64, u64)> {
        self.now = self.now + passes;
        self.fleet.grant(|_| Duration::from_secs(5), self.now, &mut self.rng);
        let checks = self.fleet.leases().filter(|lease| lease.purpose == Purpose::HealthCheck);
        checks.map(|lease| (lease.deployment.to_string(), lease.id, lease.agent)).collect()
    }
}

#[test]
fn an_idle_deployment_is_checked_by_one_agent_and_one_in_use_by_none() {
    let mut world = World::new();
    assert_eq!(world.after(Duration::ZERO), []);
    let due = world.fleet.next_due(world.now).unwrap();
    assert_eq!(due.since(world.now), INTERVAL);
    let checks = world.after(INTERVAL);
    assert_eq!(checks.len(), 1, "one for the whole fleet, and none of the passive one");
    assert_eq!(checks[0].0, "active/m");
    assert!(world.fleet.probed(checks[0].2, checks[0].1, Outcome::Succeeded));
    assert_eq!(world.after(INTERVAL / 2), []);
    let counts = Counts { requests: 1, failures: 0 };
    world.fleet.report(1, Duration::from_secs(1), [("active/m", counts)], world.now);
    assert_eq!(world.after(INTERVAL / 2), [], "it had a request since");
    assert_eq!(world.after(INTERVAL / 2).len(), 1);
}

#[test]
fn checks_that_fail_in_a_row_open_it_for_the_fleet() {
    let mut world = World::new();
    world.after(Duration::ZERO);
    let mut due = Vec::new();
    for check in 0..PROBES_TO_CLOSE {
        assert_eq!(due, [], "after {check} failed checks");
        let (_, id, agent) = world.after(INTERVAL).remove(0);
        assert!(world.fleet.probed(agent, id, Outcome::Failed("unavailable".into())));
        due = world.fleet.decide(world.now, &mut world.rng);
    }
    assert_eq!(due.len(), 1);
    assert_eq!((&*due[0].subject, due[0].record.state), ("active/m", State::Open));
    assert!(due[0].record.reason.contains("2 health checks failed in a row"), "{:?}", due[0].record);
}

#[test]
fn numbers_for_checks_are_asked_for_though_no_verdict_needs_any() {
    let mut fleet = Fleet::new(0, 0, Timestamp::ZERO);
    assert_eq!(fleet.lease_numbers_wanted(), None);
    fleet.set_table(&table());
    assert!(fleet.lease_numbers_wanted().is_some());
}

#[test]
fn checks_end_when_the_day_has_cost_enough() {
    let mut limited = table();
    limited.providers[0].health_check.max_daily_cost = Some(NanoUsd(100));
    let mut world = World::new();
    world.fleet.set_table(&limited);
    assert_eq!(world.after(Duration::ZERO), []);
    let (_, id, agent) = world.after(INTERVAL).remove(0);
    world.fleet.note_cost("active/m", NanoUsd(100), world.now);
    world.fleet.probed(agent, id, Outcome::Succeeded);
    assert_eq!(world.fleet.checks_cost("active", world.now), NanoUsd(100));
    assert_eq!(world.after(INTERVAL), []);
    assert_eq!(world.after(Duration::from_secs(24 * 3_600)).len(), 1);
}
