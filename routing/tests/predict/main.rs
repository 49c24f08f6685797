//! The strategies that predict, under random histories, absurd inputs and outages.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use trunkline_routing::{
    classify::{ErrorFields, classify},
    decide::{self, Reason, Route, decide},
    eligibility::{Profile, Unfit},
    money::{NanoUsd, Price, Rates},
    price::Schedule,
    registry::{Binding, Observation, Registry},
    request::{AttemptId, Context, Directive, Request, Start},
    score,
    table::{
        Affinity, Balance, BreakerPolicy, Capabilities, Constraints, Deployment, DeploymentIndex, Dialect,
        HealthCheck, Limits, Provider, ProviderIndex, RoutingTable, Slo, Strategy as Balancing, Target, Tier,
        Timeouts, VirtualModel,
    },
    time::Timestamp,
    train::{
        Coefficients, DeploymentModel, FleetModels, OutputKey, OutputModel, Sample, SampleKind, Sums,
        Trainer, route_id,
    },
};

mod cases;
mod random;

const PREDICTING: [Balancing; 3] = [Balancing::Latency, Balancing::Cost, Balancing::Balanced];

/// One tier with these prices per million tokens, in dollars; one provider each.
fn table(strategy: Balancing, prices: &[Option<u64>]) -> RoutingTable {
    let provider = |index: usize| Provider {
        name: format!("p{index:02}").into(),
        dialect: Dialect::OpenAi,
        base_url: "https://provider.test".into(),
        credential: None,
        allow_private_network: false,
        region: Some(if index.is_multiple_of(2) { "eu" } else { "us" }.into()),
        health_check: HealthCheck::default(),
    };
    let deployment = |(index, price): (usize, &Option<u64>)| Deployment {
        name: format!("p{index:02}/model").into(),
        provider: ProviderIndex(index as u32),
        upstream_model: "model".into(),
        capabilities: Capabilities::ALL,
        context_window: None,
        max_output_tokens: None,
        quality: Some(index as f64 / prices.len() as f64),
        prices: price.map_or_else(Schedule::unknown, |usd| {
            let nano = usd * 1_000_000_000;
            Schedule::fixed(Price::flat(Rates { input: nano, cached_input: nano / 10, output: nano }))
        }),
        breaker: BreakerPolicy::default(),
        limits: Limits::default(),
    };
    let target = |index| Target { deployment: DeploymentIndex(index), weight: 1 };
    let count = prices.len() as u32;
    RoutingTable {
        providers: (0..prices.len()).map(provider).collect(),
        deployments: prices.iter().enumerate().map(deployment).collect(),
        virtual_models: vec![VirtualModel {
            name: "chat".into(),
            strategy,
            slo: Slo::default(),
            balance: Balance::default(),
            hedge_budget_percent: 2,
            affinity: Affinity::None,
            constraints: Constraints::default(),
            deadline: Duration::from_secs(60),
            max_attempts: 3,
            retry_budget_percent: 20,
            tiers: vec![Tier {
                targets: (0..count).map(target).collect(),
                timeouts: Timeouts::default(),
                max_attempts: count,
            }],
            context_length_fallback: true,
            content_filter_fallback: true,
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
    fn new(table: RoutingTable) -> Self {
        let mut registry = Registry::new();
        let binding = registry.bind(&table, Timestamp::ZERO);
        let needs = Capabilities::STREAMING;
        let profile = Profile { needs, stream: true, input_tokens: 500, ..Profile::default() };
        let now = Timestamp::ZERO + Duration::from_secs(1);
        Self { table, registry, binding, profile, now, rng: StdRng::seed_from_u64(11) }
    }

    fn route(&self) -> Route<'_> {
        Route { model: &self.table.virtual_models[0], index: Some(0) }
    }

    fn decide(&mut self) -> decide::Decision {
        let route = Route { model: &self.table.virtual_models[0], index: Some(0) };
        decide(&mut self.registry, &self.table, &self.binding, route, &self.profile, self.now)
    }

    fn estimate(&self, deployment: u32) -> score::Estimate {
        let (table, binding) = (&self.table, &self.binding);
        let index = DeploymentIndex(deployment);
        score::estimate(&self.registry, table, binding, self.route(), index, &self.profile, self.now)
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Context<'_, StdRng>) -> T) -> T {
        let mut context = Context {
            registry: &mut self.registry,
            table: &self.table,
            binding: &self.binding,
            route: Route { model: &self.table.virtual_models[0], index: Some(0) },
            now: self.now,
            rng: &mut self.rng,
        };
        act(&mut context)
    }

    /// The deployment answered with these times.
    fn answer(&mut self, deployment: u32, ttft_ms: u64, output_tokens: u64) {
        let ticket = self.registry.begin(&self.binding, DeploymentIndex(deployment), self.now, 0);
        let ticket = ticket.of_route(route_id("chat"), self.profile.session, None);
        let ttft = Duration::from_millis(ttft_ms);
        self.now = self.now + Duration::from_millis(10);
        let seen = Observation {
            input_tokens: self.profile.input_tokens.into(),
            output_tokens,
            ttft,
            duration: ttft + Duration::from_millis(20 * output_tokens),
            stream: true,
            ..Observation::default()
        };
        self.registry.observe(ticket, self.now, &seen);
        self.registry.release(ticket);
    }

    /// Each deployment answered often, after so many milliseconds.
    fn teach(&mut self, ttft_ms: &[u64]) {
        for _ in 0..20 {
            for (deployment, ttft) in (0..).zip(ttft_ms) {
                self.answer(deployment, *ttft, 50);
            }
        }
    }

    /// Where a request goes first; it is dropped then.
    fn first(&mut self) -> u32 {
        let profile = self.profile;
        let (directive, mut request) = self.with(|context| {
            let mut request = Request::new(profile, None, context);
            (request.next(context), request)
        });
        let Directive::Start { deployment, why, .. } = directive else { panic!("{directive:?}") };
        assert_eq!(why, Start::First);
        self.with(|context| request.abandon(context));
        deployment.0
    }
}

#[derive(Clone, Debug)]
struct History {
    strategy: Balancing,
    prices: Vec<Option<u64>>,
    /// Milliseconds to the first token of some answers of each.
    answers: Vec<Vec<u64>>,
}

fn history() -> impl Strategy<Value = History> {
    let one = (proptest::option::weighted(0.8, 0_u64..20), vec(1_u64..20_000, 0..12));
    (0_usize..3, vec(one, 1..7)).prop_map(|(strategy, all)| {
        let (prices, answers) = all.into_iter().unzip();
        History { strategy: PREDICTING[strategy], prices, answers }
    })
}

fn absurd() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::MAX),
        -100.0..100.0,
    ]
}

fn sums() -> impl Strategy<Value = Sums> {
    (absurd(), absurd()).prop_map(|(sum, weight)| Sums { sum, weight })
}

fn model() -> impl Strategy<Value = DeploymentModel> {
    let slow = (any::<u64>(), [absurd(), absurd(), absurd()], absurd(), absurd(), absurd(), absurd());
    let slow = slow.prop_map(|(samples, ln_ttft, ln_tpot, beta, sigma2, verbosity)| Coefficients {
        samples,
        ln_ttft,
        ln_tpot,
        beta,
        tpot_beta: beta,
        sigma2,
        verbosity,
    });
    let fine = (any::<u64>(), -49.0..49.0, 0.0..1.0).prop_map(|(samples, value, share)| Coefficients {
        samples,
        ln_ttft: [value; 3],
        ln_tpot: value,
        beta: share,
        tpot_beta: share,
        sigma2: share,
        verbosity: 1.0,
    });
    let fast = (sums(), sums(), sums(), sums(), absurd());
    (prop_oneof![slow, fine], fast).prop_map(|(slow, (ttft_now, tpot_now, errors, breaks, in_flight))| {
        DeploymentModel { slow, ttft_now, tpot_now, errors, breaks, in_flight, ..DeploymentModel::default() }
    })
}

fn assert_finite(estimate: &score::Estimate) {
    let score::Estimate { ttft_s, tpot_s, output_tokens, sigma, in_flight, load, age_s, .. } = *estimate;
    let score::Estimate { p_error, p_break, seconds, unseen_s, terms, .. } = *estimate;
    let all = [ttft_s, tpot_s, output_tokens, sigma, in_flight, load, age_s, seconds, unseen_s];
    assert!(all.iter().all(|value| value.is_finite() && *value >= 0.0), "{estimate:?}");
    assert!(seconds > 0.0 && ttft_s > 0.0 && tpot_s > 0.0);
    assert!((0.0..1.0).contains(&p_error) && (0.0..=1.0).contains(&p_break), "{estimate:?}");
    let terms = [terms.load_factor, terms.moment_factor, terms.error_s, terms.break_s, terms.base_ttft_s];
    assert!(terms.iter().all(|value| value.is_finite()), "{estimate:?}");
}
