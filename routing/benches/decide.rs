//! What a decision costs, with 16 targets.
//!
//! `cargo bench -p trunkline-routing`

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use rand::{SeedableRng, rngs::StdRng};
use trunkline_routing::{
    baseline::random_weighted,
    decide::{Route, decide},
    eligibility::Profile,
    money::{Price, Rates},
    price::Schedule,
    registry::{Binding, Observation, Registry},
    request::{Context, Directive, Request},
    swrr::Rotation,
    table::{
        Affinity, Balance, BreakerPolicy, Capabilities, Constraints, Deployment, DeploymentIndex, Dialect,
        HealthCheck, Limits, Provider, ProviderIndex, RoutingTable, Slo, Strategy, Target, Tier, Timeouts,
        VirtualModel,
    },
    time::Timestamp,
};

const TARGETS: u32 = 16;

fn table() -> RoutingTable {
    let provider = |index: u32| Provider {
        name: format!("p{index:02}").into(),
        dialect: Dialect::OpenAi,
        base_url: "https://provider.test".into(),
        credential: None,
        allow_private_network: false,
        region: None,
        health_check: HealthCheck::default(),
    };
    let deployment = |index: u32| Deployment {
        name: format!("p{index:02}/model").into(),
        provider: ProviderIndex(index),
        upstream_model: "model".into(),
        capabilities: Capabilities::ALL,
        context_window: Some(128_000),
        max_output_tokens: Some(16_384),
        quality: Some(0.7),
        prices: Schedule::unknown(),
        breaker: BreakerPolicy::default(),
        limits: Limits { max_in_flight: Some(64), ..Limits::default() },
    };
    let target = |index| Target { deployment: DeploymentIndex(index), weight: 1 + index };
    RoutingTable {
        providers: (0..TARGETS).map(provider).collect(),
        deployments: (0..TARGETS).map(deployment).collect(),
        virtual_models: vec![VirtualModel {
            name: "chat".into(),
            strategy: Strategy::Weighted,
            slo: Slo::default(),
            balance: Balance::default(),
            hedge_budget_percent: 2,
            affinity: Affinity::None,
            constraints: Constraints {
                require: Capabilities::TOOLS,
                min_quality: Some(0.5),
                max_cost: None,
                regions: Vec::new(),
            },
            deadline: Duration::from_secs(60),
            max_attempts: 3,
            retry_budget_percent: 20,
            tiers: vec![Tier {
                targets: (0..TARGETS).map(target).collect(),
                timeouts: Timeouts::default(),
                max_attempts: 2,
            }],
            context_length_fallback: true,
            content_filter_fallback: false,
        }],
        ..RoutingTable::default()
    }
}

struct World {
    table: RoutingTable,
    registry: Registry,
    binding: Binding,
    profile: Profile,
    now: Timestamp,
    rng: StdRng,
}

impl World {
    fn new() -> Self {
        let table = table();
        let mut registry = Registry::new();
        let binding = registry.bind(&table, Timestamp::ZERO);
        let profile =
            Profile { needs: Capabilities::STREAMING, input_tokens: 500, stream: true, ..Profile::default() };
        Self { table, registry, binding, profile, now: Timestamp::ZERO, rng: StdRng::seed_from_u64(1) }
    }

    /// A request that its first target answers.
    fn request(&mut self) -> DeploymentIndex {
        self.now = self.now + Duration::from_micros(10);
        let mut context = Context {
            registry: &mut self.registry,
            table: &self.table,
            binding: &self.binding,
            route: Route { model: &self.table.virtual_models[0], index: Some(0) },
            now: self.now,
            rng: &mut self.rng,
        };
        let mut request = Request::new(self.profile, None, &mut context);
        let Directive::Start { id, deployment, .. } = request.next(&mut context) else { panic!("no target") };
        let Some((ticket, _)) = request.won(&mut context, id) else { panic!("the attempt is not known") };
        self.registry.release(ticket);
        deployment
    }
}

/// Decisions of a strategy that predicts, with models learned from a hundred answers of
/// each target and prices for all.
fn predictions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("16 targets, predicted");
    for strategy in [Strategy::Latency, Strategy::Cost] {
        let mut world = World::new();
        world.table.virtual_models[0].strategy = strategy;
        for (index, deployment) in (1..).zip(&mut world.table.deployments) {
            deployment.prices =
                Schedule::fixed(Price::flat(Rates { input: index, cached_input: 1, output: index }));
        }
        for answer in 0..1_600_u64 {
            world.now = world.now + Duration::from_millis(10);
            let target = DeploymentIndex((answer % u64::from(TARGETS)) as u32);
            let ticket = world.registry.begin(&world.binding, target, world.now, 0);
            let ttft = Duration::from_millis(300 + 40 * (answer % 16));
            let seen = Observation {
                input_tokens: 500,
                output_tokens: 100,
                ttft,
                duration: ttft + Duration::from_secs(2),
                stream: true,
                ..Observation::default()
            };
            world.registry.observe(ticket, world.now, &seen);
            world.registry.release(ticket);
        }
        let name = strategy.name();
        group.bench_function(format!("{name}: request from arrival to answer"), |bench| {
            bench.iter(|| black_box(world.request()));
        });
        group.bench_function(format!("{name}: decide, explained"), |bench| {
            bench.iter(|| {
                let route = Route { model: &world.table.virtual_models[0], index: Some(0) };
                decide(
                    &mut world.registry,
                    &world.table,
                    &world.binding,
                    route,
                    black_box(&world.profile),
                    world.now,
                )
            });
        });
    }
    group.finish();
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("16 targets");
    let mut world = World::new();
    group.bench_function("request from arrival to answer", |bench| bench.iter(|| black_box(world.request())));
    let mut world = World::new();
    group.bench_function("decide, explained", |bench| {
        bench.iter(|| {
            let route = Route { model: &world.table.virtual_models[0], index: Some(0) };
            decide(
                &mut world.registry,
                &world.table,
                &world.binding,
                route,
                black_box(&world.profile),
                world.now,
            )
        });
    });
    let weights: Vec<u32> = (1..=TARGETS).collect();
    let mut rotation = Rotation::new(weights.len());
    group.bench_function("pick: smooth weighted round robin", |bench| {
        bench.iter(|| rotation.pick(black_box(&weights)));
    });
    let (mut rng, mut tried) = (StdRng::seed_from_u64(1), Vec::new());
    group.bench_function("pick: random-weighted (baseline)", |bench| {
        bench.iter(|| {
            tried.clear();
            random_weighted(black_box(&weights), &mut tried, &mut rng)
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    targets = decisions, predictions
}
criterion_main!(benches);
