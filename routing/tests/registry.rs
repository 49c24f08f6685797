//! The registry under any sequence of tables and attempts.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*};
use rand::{SeedableRng, rngs::StdRng};
use trunkline_routing::{
    breaker::Sample,
    classify::QuarantineScope,
    hold::{Gate, QuarantineReason},
    price::Schedule,
    registry::{Binding, Block, Health, Registry, Ticket},
    table::{
        BreakerPolicy, Capabilities, Credential, Deployment, DeploymentIndex, Dialect, HealthCheck, Limits,
        Provider, ProviderIndex, RoutingTable,
    },
    tenant::Tenant,
    time::Timestamp,
};

const NAMES: usize = 6;

#[derive(Clone, Debug)]
enum Event {
    /// Which deployments are there (a bit each), and the number of the credential.
    Bind(u8, u8),
    Begin(usize),
    /// A step of an attempt that may be of a table long gone.
    Record(usize, bool),
    Gate(usize),
    Quarantine(usize),
    Release(usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<u8>(), 0_u8..2).prop_map(|(present, key)| Event::Bind(present, key)),
        (0..NAMES).prop_map(Event::Begin),
        (0..NAMES).prop_map(Event::Begin),
        (any::<usize>(), any::<bool>()).prop_map(|(at, well)| Event::Record(at, well)),
        any::<usize>().prop_map(Event::Gate),
        any::<usize>().prop_map(Event::Quarantine),
        any::<usize>().prop_map(Event::Release),
        (0_u64..3_000).prop_map(Event::Pass),
    ]
}

fn table(present: u8, key: u8) -> RoutingTable {
    let names: Vec<usize> = (0..NAMES).filter(|name| present >> name & 1 == 1).collect();
    let provider = |name: &usize| Provider {
        name: format!("p{name}").into(),
        dialect: Dialect::OpenAi,
        base_url: "https://provider.test".into(),
        credential: Some(Credential::Env(format!("KEY_{key}").into())),
        allow_private_network: false,
        region: None,
        health_check: HealthCheck::default(),
    };
    let deployment = |(index, name): (usize, &usize)| Deployment {
        name: format!("p{name}/model").into(),
        provider: ProviderIndex(index as u32),
        upstream_model: "model".into(),
        capabilities: Capabilities::ALL,
        context_window: None,
        max_output_tokens: None,
        quality: None,
        prices: Schedule::unknown(),
        breaker: BreakerPolicy::default(),
        limits: Limits { max_in_flight: Some(3), requests_per_minute: Some(50), ..Limits::default() },
    };
    RoutingTable {
        providers: names.iter().map(provider).collect(),
        deployments: names.iter().enumerate().map(deployment).collect(),
        ..RoutingTable::default()
    }
}

struct World {
    registry: Registry,
    table: RoutingTable,
    binding: Binding,
    /// Tables that requests may still use.
    old: Vec<(RoutingTable, Binding)>,
    tickets: Vec<Ticket>,
    now: Timestamp,
    rng: StdRng,
}

impl World {
    fn new() -> Self {
        let table = table(u8::MAX, 0);
        let mut registry = Registry::new();
        let binding = registry.bind(&table, Timestamp::ZERO);
        Self {
            registry,
            table,
            binding,
            old: Vec::new(),
            tickets: Vec::new(),
            now: Timestamp::ZERO,
            rng: StdRng::seed_from_u64(5),
        }
    }

    fn ticket(&self, at: usize) -> Option<(usize, Ticket)> {
        let at = at.checked_rem(self.tickets.len())?;
        Some((at, self.tickets[at]))
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Bind(present, key) => {
                let table = table(present, key);
                let binding = self.registry.bind(&table, self.now);
                let replaced = core::mem::replace(&mut self.table, table);
                self.old.push((replaced, core::mem::replace(&mut self.binding, binding)));
            }
            Event::Begin(name) => {
                for (table, binding) in &self.old {
                    begin(&mut self.registry, table, binding, name, self.now, &mut self.tickets);
                }
                begin(&mut self.registry, &self.table, &self.binding, name, self.now, &mut self.tickets);
            }
            Event::Record(at, well) => {
                let Some((_, ticket)) = self.ticket(at) else { return };
                let sample = if well { Sample::Success } else { Sample::Failure };
                self.registry.record(ticket, self.now, sample, &mut self.rng);
            }
            Event::Gate(at) => {
                let Some((_, ticket)) = self.ticket(at) else { return };
                let gate = Gate { for_how_long: Duration::from_secs(1), hinted: at % 2 == 0 };
                self.registry.gate(ticket, self.now, gate);
            }
            Event::Quarantine(at) => {
                let Some((_, ticket)) = self.ticket(at) else { return };
                let scope = if at % 2 == 0 { QuarantineScope::Account } else { QuarantineScope::Deployment };
                let reason = QuarantineReason::Account;
                self.registry.quarantine(ticket, self.now, reason, scope, Duration::from_secs(2));
            }
            Event::Release(at) => {
                let Some((at, ticket)) = self.ticket(at) else { return };
                self.tickets.swap_remove(at);
                self.registry.release(ticket);
            }
            Event::Pass(millis) => self.now = self.now + Duration::from_millis(millis),
        }
    }

    fn state_by_name(&self) -> BTreeMap<String, (String, u32)> {
        let view = |index: usize| {
            let index = DeploymentIndex(index as u32);
            let shown = self.registry.breaker(&self.binding, index, self.now);
            (format!("{shown:?}"), self.registry.in_flight(&self.binding, index))
        };
        let names = self.table.deployments.iter().map(|deployment| deployment.name.to_string());
        names.enumerate().map(|(index, name)| (name, view(index))).collect()
    }
}

fn begin(
    registry: &mut Registry,
    table: &RoutingTable,
    binding: &Binding,
    name: usize,
    now: Timestamp,
    tickets: &mut Vec<Ticket>,
) {
    let Some(deployment) = table.deployment_by_name(&format!("p{name}/model")) else { return };
    let before = registry.in_flight(binding, deployment);
    if let Health::Ready(share) = registry.health(binding, deployment, now, 0) {
        assert!((1..=100).contains(&share) && before < 3);
        tickets.push(registry.begin(binding, deployment, now, 0));
        assert_eq!(registry.in_flight(binding, deployment), before + 1);
    }
}

proptest! {
    #[test]
    fn no_attempt_is_held_after_all_were_given_back(events in vec(event(), 0..300)) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
        for ticket in world.tickets.drain(..) {
            world.registry.release(ticket);
        }
        for (table, binding) in world.old.iter().chain([&(world.table, world.binding)]) {
            for index in 0..table.deployments.len() {
                prop_assert_eq!(world.registry.in_flight(binding, DeploymentIndex(index as u32)), 0);
            }
        }
    }

    #[test]
    fn state_is_kept_by_name_over_any_change(events in vec(event(), 0..300), present: u8, key in 0_u8..2) {
        let mut world = World::new();
        for event in &events {
            world.apply(event);
        }
        let before = world.state_by_name();
        world.apply(&Event::Bind(present, key));
        for (name, state) in world.state_by_name() {
            if let Some(known) = before.get(&name) {
                prop_assert_eq!(known, &state, "{}", name);
            }
        }
    }

    #[test]
    fn late_results_never_touch_a_deployment_that_took_the_place(failures in 1_usize..20) {
        let mut world = World::new();
        let ticket = world.registry.begin(&world.binding, DeploymentIndex(0), world.now, 0);
        let old = world.binding.clone();
        world.registry.release(ticket);
        world.apply(&Event::Bind(0b10_0000, 0));
        let mut renamed = table(0b1, 0);
        renamed.deployments[0].name = "p0/other".into();
        let binding = world.registry.bind(&renamed, world.now);
        for _ in 0..failures {
            world.registry.record(ticket, world.now, Sample::Failure, &mut world.rng);
            world.registry.gate(ticket, world.now, Gate { for_how_long: Duration::from_secs(9), hinted: true });
            world.registry.release(ticket);
        }
        let new = world.registry.begin(&binding, DeploymentIndex(0), world.now, 0);
        world.registry.release(ticket);
        prop_assert_eq!(world.registry.in_flight(&binding, DeploymentIndex(0)), 1);
        prop_assert_eq!(world.registry.health(&binding, DeploymentIndex(0), world.now, 0), Health::Ready(100));
        prop_assert!(world.registry.recently_clean(&binding, DeploymentIndex(0), world.now));
        prop_assert_ne!(new.slot(), ticket.slot());
        let gone = world.registry.health(&old, DeploymentIndex(0), world.now, 0);
        prop_assert!(matches!(gone, Health::Ready(_) | Health::Blocked(Block::Forced)));
    }
}

#[test]
fn a_changed_credential_ends_quarantines_of_its_provider_only_and_late_words_on_the_old_are_dropped() {
    let mut world = World::new();
    let index = |name: usize| DeploymentIndex(name as u32);
    let tickets: Vec<Ticket> =
        (0..3).map(|name| world.registry.begin(&world.binding, index(name), world.now, 0)).collect();
    let shut = |world: &mut World, name: usize, scope| {
        let reason = QuarantineReason::Credential;
        world.registry.quarantine(tickets[name], world.now, reason, scope, Duration::from_secs(900));
    };
    let quarantined = |world: &World| {
        let health = |name| world.registry.health(&world.binding, index(name), world.now, 0);
        [0, 1, 2].map(|name| matches!(health(name), Health::Blocked(Block::Quarantine(..))))
    };
    shut(&mut world, 0, QuarantineScope::Credential);
    shut(&mut world, 1, QuarantineScope::Deployment);
    shut(&mut world, 2, QuarantineScope::Credential);
    assert_eq!(quarantined(&world), [true, true, true]);

    world.registry.credential_changed("p0");
    assert_eq!(quarantined(&world), [false, true, true]);
    world.registry.credential_changed("p1");
    assert_eq!(quarantined(&world), [false, false, true]);

    shut(&mut world, 0, QuarantineScope::Credential);
    shut(&mut world, 1, QuarantineScope::Deployment);
    assert_eq!(quarantined(&world), [false, false, true], "those were said of the old key");
}

#[test]
fn a_changed_credential_leaves_the_rate_gate_shut() {
    let mut world = World::new();
    let ticket = world.registry.begin(&world.binding, DeploymentIndex(0), world.now, 0);
    world.registry.gate(ticket, world.now, Gate { for_how_long: Duration::from_secs(9), hinted: true });
    world.registry.credential_changed("p0");
    let health = world.registry.health(&world.binding, DeploymentIndex(0), world.now, 0);
    assert_eq!(health, Health::Blocked(Block::Gate(Timestamp::ZERO + Duration::from_secs(9))));
}

#[test]
fn a_ticket_carries_its_tenant_to_the_breaker() {
    let open = |tenants: [u64; 3]| {
        let mut world = World::new();
        let mut result = |tenant: u64, sample| {
            let ticket = world.registry.begin(&world.binding, DeploymentIndex(0), world.now, 0);
            let ticket = ticket.of_tenant(Tenant::from_hash(tenant));
            world.registry.record(ticket, world.now, sample, &mut world.rng)
        };
        for tenant in tenants {
            result(tenant, Sample::Success);
        }
        (0..30).any(|_| result(tenants[0], Sample::RatioFailure))
    };
    assert!(!open([1, 2, 3]));
    assert!(open([1, 2, 2]), "two tenants can't tell who is wrong");
}
