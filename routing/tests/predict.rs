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

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn chances_add_up_and_are_what_happens(history in history()) {
        const DRAWS: u32 = 3_000;
        let mut world = World::new(table(history.strategy, &history.prices));
        for (deployment, answers) in (0..).zip(&history.answers) {
            for ttft in answers {
                world.answer(deployment, *ttft, 50);
            }
        }
        let decision = world.decide();
        prop_assert_eq!(decision.candidates.len() + decision.excluded.len(), history.prices.len());
        if decision.candidates.is_empty() {
            prop_assert!(history.strategy != Balancing::Latency && history.prices.iter().all(Option::is_none));
            prop_assert_eq!(decision.binding_constraint().unwrap().reason, Reason::Unfit(Unfit::Cost(None)));
            return Ok(());
        }
        let sum: f64 = decision.candidates.iter().map(|candidate| candidate.probability).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9, "{}", sum);
        let mut firsts = BTreeMap::new();
        for _ in 0..DRAWS {
            *firsts.entry(world.first()).or_insert(0_u32) += 1;
        }
        for candidate in &decision.candidates {
            let share = f64::from(firsts.remove(&candidate.deployment.0).unwrap_or(0)) / f64::from(DRAWS);
            let chance = candidate.probability;
            let deviation = (chance * (1.0 - chance) / f64::from(DRAWS)).sqrt();
            prop_assert!((share - chance).abs() <= 5.0 * deviation + 1e-9, "{} for {}", share, chance);
        }
        prop_assert!(firsts.is_empty(), "went where no chance was: {:?}", firsts);
    }

    #[test]
    fn what_is_absurd_makes_no_absurd_prediction(
        models in vec(model(), 3),
        agents in any::<u32>(),
        outputs in vec((any::<u8>(), sums()), 0..4),
        input_tokens in any::<u32>(),
        max_output_tokens in proptest::option::of(any::<u32>()),
        seen in vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>()), 0..20),
    ) {
        let mut world = World::new(table(Balancing::Cost, &[Some(1), Some(u64::MAX >> 32), None]));
        world.profile = Profile { input_tokens, max_output_tokens, session: Some(7), ..world.profile };
        world.table.virtual_models[0].affinity = Affinity::Session;
        let named = (0..3).map(|at| world.table.deployments[at].name.clone());
        let key = |bucket| OutputKey { route: route_id("chat"), bucket };
        let fleet = FleetModels {
            agents,
            models: named.zip(models).collect(),
            outputs: outputs.into_iter().map(|(bucket, tokens)| OutputModel { key: key(bucket), tokens }).collect(),
        };
        for (at, (input_tokens, output_tokens, ttft, duration, stream)) in (0..).zip(&seen) {
            let ticket = world.registry.begin(&world.binding, DeploymentIndex(at % 3), world.now, 0);
            let ticket = ticket.of_route(route_id("chat"), Some(7), None);
            let seen = Observation {
                input_tokens: *input_tokens,
                cached_input_tokens: *output_tokens,
                max_output_tokens: None,
                output_tokens: *output_tokens,
                ttft: Duration::from_nanos(*ttft),
                duration: Duration::from_nanos(*duration),
                stream: *stream,
            };
            world.registry.observe(ticket, world.now, &seen);
            world.registry.release(ticket);
        }
        (0..3).for_each(|at| assert_finite(&world.estimate(at)));
        world.registry.adopt(&fleet, world.now);
        (0..3).for_each(|at| assert_finite(&world.estimate(at)));
        let sum: f64 = world.decide().candidates.iter().map(|candidate| candidate.probability).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9, "{}", sum);
    }

    #[test]
    fn every_target_that_may_be_used_is_met_again(history in history(), slow in 0_usize..7) {
        let mut world = World::new(table(history.strategy, &vec![Some(3); history.prices.len()]));
        let times: Vec<u64> =
            (0..history.prices.len()).map(|at| if at == slow { 60_000 } else { 300 }).collect();
        world.teach(&times);
        world.now = world.now + Duration::from_secs(11);
        let decision = world.decide();
        prop_assert_eq!(decision.candidates.len(), history.prices.len());
        prop_assert!(decision.candidates.iter().all(|candidate| candidate.probability >= 0.005));
    }

    #[test]
    fn exact_shares_stay_exact_whatever_is_retried(
        fails in vec(any::<bool>(), 600),
        weights in prop_oneof![Just(vec![90_u32, 10]), Just(vec![50, 30, 20]), Just(vec![1, 1])],
        round_robin in any::<bool>(),
    ) {
        let strategy = if round_robin { Balancing::RoundRobin } else { Balancing::Weighted };
        let mut table = table(strategy, &vec![None; weights.len()]);
        for (target, weight) in table.virtual_models[0].tiers[0].targets.iter_mut().zip(&weights) {
            target.weight = if round_robin { 1 } else { *weight };
        }
        let weights: Vec<u32> = table.virtual_models[0].tiers[0].targets.iter().map(|one| one.weight).collect();
        let mut world = World::new(table);
        let mut firsts = Vec::new();
        for fails in fails {
            world.now = world.now + Duration::from_millis(100);
            let profile = world.profile;
            let mut request = world.with(|context| Request::new(profile, None, context));
            let mut starts = 0;
            while let Directive::Start { id, deployment, .. } = world.with(|context| request.next(context)) {
                starts += 1;
                if starts == 1 {
                    firsts.push(deployment.0 as usize);
                }
                if fails && starts == 1 {
                    // It moves on, and neither breaker, gate nor cap bends the shares by right.
                    let filtered = ErrorFields { code: Some("content_filter"), ..ErrorFields::default() };
                    world.with(|context| request.failed(context, id, &classify(400, &filtered, None)));
                } else {
                    let won = world.with(|context| request.won(context, id));
                    if let Some((ticket, _)) = won {
                        world.registry.release(ticket);
                    }
                    break;
                }
            }
        }
        let round: u32 = weights.iter().sum();
        for window in firsts.windows(round as usize) {
            for (target, weight) in weights.iter().enumerate() {
                let count = window.iter().filter(|first| **first == target).count() as i64;
                prop_assert!(count == i64::from(*weight), "{:?}", window);
            }
        }
    }
}

/// What a deployment does with every call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Refuses,
    IsSilent,
}

/// A request under way: its number, its attempts with the time of their end, and when it
/// looks again.
type Waiting = (usize, Request, Vec<(AttemptId, Timestamp)>, Timestamp);

/// Attempts of each of so many requests, five a second, while nothing works.
fn outage(strategy: Balancing, fate: Fate, requests: usize) -> Vec<u32> {
    let mut world = World::new(table(strategy, &[Some(1); 5]));
    world.teach(&[300, 310, 320, 330, 340]);
    let mut starts = vec![0; requests];
    let mut running: Vec<Waiting> = Vec::new();
    let (mut next, mut arrived) = (world.now, 0);
    loop {
        let due = running.iter().map(|(_, _, live, wake)| {
            live.iter().map(|(_, at)| *at).filter(|_| fate == Fate::Refuses).fold(*wake, Timestamp::min)
        });
        let (at, which) = due.zip(0..).min().unwrap_or((next, usize::MAX));
        if arrived < requests && next <= at {
            world.now = next;
            next = next + Duration::from_millis(200);
            let profile = world.profile;
            let request = world.with(|context| Request::new(profile, None, context));
            running.push((arrived, request, Vec::new(), world.now));
            arrived += 1;
            continue;
        }
        if which == usize::MAX {
            return starts;
        }
        world.now = world.now.max(at);
        let (number, mut request, mut live, _) = running.swap_remove(which);
        let now = world.now;
        if let Some(at) = live.iter().position(|(_, at)| fate == Fate::Refuses && *at <= now) {
            let (id, _) = live.swap_remove(at);
            let refused = classify(503, &ErrorFields::default(), None);
            world.with(|context| request.failed(context, id, &refused));
        }
        let wake = loop {
            match world.with(|context| request.next(context)) {
                Directive::Start { id, .. } => {
                    starts[number] += 1;
                    live.push((id, now + Duration::from_millis(50)));
                }
                Directive::Wait(until) if until > now => break Some(until),
                Directive::Wait(_) => {}
                Directive::Kill(id) => panic!("nothing limits attempts: {id:?}"),
                Directive::Fail(_) => {
                    world.with(|context| request.abandon(context));
                    break None;
                }
            }
        };
        if let Some(wake) = wake {
            running.push((number, request, live, wake));
        }
    }
}

#[test]
fn a_full_outage_is_hardly_amplified() {
    for strategy in PREDICTING {
        for fate in [Fate::Refuses, Fate::IsSilent] {
            let starts = outage(strategy, fate, 1_500);
            for window in starts.windows(1_000) {
                let total: u32 = window.iter().sum();
                assert!(total <= 1_200, "{strategy:?} {fate:?}: {total} attempts for 1,000 requests");
            }
        }
    }
}

#[test]
fn the_faster_one_gets_the_traffic_and_the_others_a_little() {
    let mut world = World::new(table(Balancing::Latency, &[None; 3]));
    world.teach(&[2_000, 300, 1_500]);
    let firsts: Vec<u32> = (0..500).map(|_| world.first()).collect();
    let fast = firsts.iter().filter(|first| **first == 1).count();
    assert!(fast > 490, "{fast}");
}

#[test]
fn cost_takes_the_cheapest_that_keeps_the_objective() {
    let mut world = World::new(table(Balancing::Cost, &[Some(1), Some(5), None, Some(9)]));
    world.teach(&[5_000, 500, 100, 100]);
    world.table.virtual_models[0].slo.ttft = Some(Duration::from_secs(2));
    let decision = world.decide();
    assert_eq!(decision.candidates[0].deployment, DeploymentIndex(1));
    assert!(decision.candidates[0].probability > 0.95, "{decision:?}");
    let reasons: Vec<(u32, Reason)> =
        decision.excluded.iter().map(|one| (one.deployment.0, one.reason)).collect();
    assert_eq!(reasons, [(2, Reason::Unfit(Unfit::Cost(None))), (0, Reason::Slo)]);
    // Without an objective the cheapest of all; where none keeps it, the soonest.
    world.table.virtual_models[0].slo.ttft = None;
    assert_eq!(world.decide().candidates[0].deployment, DeploymentIndex(0));
    world.table.virtual_models[0].slo.ttft = Some(Duration::from_millis(1));
    assert_eq!(world.decide().candidates[0].deployment, DeploymentIndex(3));
}

#[test]
fn a_budget_that_is_used_up_makes_every_strategy_take_the_cheapest() {
    for strategy in [Balancing::Latency, Balancing::Weighted, Balancing::RoundRobin, Balancing::Balanced] {
        let mut world = World::new(table(strategy, &[Some(9), Some(1), Some(5)]));
        world.teach(&[100, 3_000, 100]);
        world.profile.cheapest = true;
        assert_eq!(world.decide().candidates[0].deployment, DeploymentIndex(1), "{strategy:?}");
        assert!((0..50).filter(|_| world.first() == 1).count() > 45);
    }
}

#[test]
fn cost_needs_no_learning_to_take_the_cheapest() {
    let mut world = World::new(table(Balancing::Cost, &[Some(9), Some(1), Some(5), None]));
    world.table.virtual_models[0].slo.ttft = Some(Duration::from_millis(1));
    assert_eq!(world.decide().candidates[0].deployment, DeploymentIndex(1));
    assert!((0..50).all(|_| world.first() == 1));
    // What is known to miss the objective gives way to the next of which nothing is known.
    for _ in 0..20 {
        world.answer(1, 3_000, 50);
    }
    assert_eq!(world.decide().candidates[0].deployment, DeploymentIndex(2));
    // Beside one that is good enough what is cheaper but not known is a newcomer.
    let mut world = World::new(table(Balancing::Cost, &[Some(9), Some(1)]));
    for _ in 0..20 {
        world.answer(0, 300, 50);
    }
    let decision = world.decide();
    assert_eq!(decision.candidates[0].deployment, DeploymentIndex(0));
    // But not when the budget is used up.
    world.profile.cheapest = true;
    assert!((0..50).all(|_| world.first() == 1));
}

#[test]
fn a_budget_that_is_used_up_passes_over_dearer_tiers() {
    for strategy in [Balancing::Latency, Balancing::Weighted, Balancing::Cost] {
        let mut table = table(strategy, &[Some(9), Some(5), Some(1)]);
        let model = &mut table.virtual_models[0];
        let targets = model.tiers[0].targets.clone();
        let tier = |target: &Target| Tier { targets: vec![*target], ..model.tiers[0].clone() };
        model.tiers = targets.iter().map(tier).collect();
        let mut world = World::new(table);
        assert_eq!(world.first(), 0, "{strategy:?}");
        world.profile.cheapest = true;
        for _ in 0..2 {
            assert_eq!(world.decide().candidates[0].deployment, DeploymentIndex(2));
            assert!((0..50).all(|_| world.first() == 2));
            world.teach(&[100, 100, 3_000]);
        }
    }
}

#[test]
fn balanced_pays_for_time_and_quality_what_it_is_told() {
    let mut world = World::new(table(Balancing::Balanced, &[Some(1), Some(1), Some(40)]));
    world.teach(&[500, 4_000, 100]);
    let best = |world: &mut World| world.decide().candidates[0].deployment.0;
    let balance =
        |second, quality| Balance { nano_usd_per_second: second, nano_usd_per_quality_point: quality };
    world.table.virtual_models[0].balance = balance(1_000, 0);
    assert_eq!(best(&mut world), 0, "cheap and not slow");
    world.table.virtual_models[0].balance = balance(1_000_000_000, 0);
    assert_eq!(best(&mut world), 2, "time is dear");
    world.table.virtual_models[0].balance = balance(0, 1_000_000_000_000);
    assert_eq!(best(&mut world), 2, "quality is dear");
}

#[test]
fn a_session_stays_where_its_prompt_is_cached_but_is_not_held_there() {
    let mut world = World::new(table(Balancing::Latency, &[Some(1); 4]));
    world.table.virtual_models[0].affinity = Affinity::Session;
    world.teach(&[500, 500, 500, 500]);
    world.profile = Profile { session: Some(42), input_tokens: 4_000, ..world.profile };
    let home = world.first();
    assert!((0..50).all(|_| world.first() == home), "all agents send a new session to the same target");
    let other = (home + 1) % 4;
    world.answer(other, 500, 50);
    assert!((0..50).filter(|_| world.first() == other).count() > 45, "the cached prompt draws it");
    assert!(world.estimate(other).terms.cached_tokens > 3_900.0);
    for _ in 0..20 {
        world.answer(other, 20_000, 50);
    }
    assert!((0..50).filter(|_| world.first() == other).count() < 5, "a slow target holds nobody");
}

#[test]
fn regions_and_missing_prices_are_named_when_nothing_fits() {
    let mut world = World::new(table(Balancing::Cost, &[None, None]));
    assert_eq!(world.decide().binding_constraint().unwrap().reason, Reason::Unfit(Unfit::Cost(None)));
    world.table.virtual_models[0].constraints.regions = vec!["asia".into()];
    assert_eq!(world.decide().binding_constraint().unwrap().reason, Reason::Unfit(Unfit::Region));
    let mut world = World::new(table(Balancing::Cost, &[Some(1), Some(2)]));
    world.profile.max_cost = Some(NanoUsd(1));
    let binding = world.decide();
    assert!(matches!(binding.binding_constraint().unwrap().reason, Reason::Unfit(Unfit::Cost(Some(_)))));
    world.profile.max_cost = None;
    assert_eq!(world.decide().binding_constraint(), None);
}

#[test]
fn load_that_slows_a_deployment_down_is_learned_from_all_agents() {
    let mut trainer = Trainer::new();
    let mut rng = StdRng::seed_from_u64(5);
    // TTFT = 0.5 s / (1 - 0.02 n) and what runs is spread over two agents.
    for second in 0..400_u64 {
        let n = rng.random_range(1..40_u32);
        let started = Timestamp::ZERO + Duration::from_secs(second * 10);
        for one in 0..n {
            let ttft = Duration::from_secs_f64(0.5 / (1.0 - 0.02 * f64::from(n)));
            let sample = Sample {
                route: 1,
                started,
                input_tokens: 100,
                cached_input_tokens: 0,
                max_output_tokens: None,
                output_tokens: 50,
                ttft: Some(ttft),
                duration: ttft + Duration::from_secs(1),
                kind: SampleKind::Ok,
                in_flight_own: n / 2 + 1,
                predicted_ttft_s: 0.0,
            };
            trainer.add(u64::from(one % 2), "p/model", &sample);
        }
        trainer.publish(started + Duration::from_secs(9));
    }
    let models = trainer.publish(Timestamp::ZERO + Duration::from_secs(4_000));
    let (_, model) = &models.models[0];
    assert_eq!(models.agents, 2);
    assert!((model.slow.beta - 0.02).abs() < 0.006, "{model:?}");
    assert!(model.slow.tpot_beta < 0.003, "the time per token did not depend on load: {model:?}");
}

#[test]
fn hedges_and_soft_timeouts_start_beside_a_living_attempt() {
    let mut world = World::new(table(Balancing::Latency, &[None; 3]));
    world.teach(&[400, 410, 420]);
    let profile = world.profile;
    let mut request = world.with(|context| Request::new(profile, None, context));
    let mut starts = Vec::new();
    let began = world.now;
    while starts.len() < 3 {
        match world.with(|context| request.next(context)) {
            Directive::Start { why, .. } => starts.push((why, world.now.since(began))),
            Directive::Wait(until) => {
                assert!(until > world.now);
                world.now = until;
            }
            other => panic!("{other:?} after {starts:?}"),
        }
        // Two run: the third comes when neither said a word for the configured time.
    }
    assert_eq!(starts[0].0, Start::First);
    assert_eq!(starts[1].0, Start::Hedge);
    assert!(starts[1].1 < Duration::from_secs(2), "{starts:?}");
    assert_eq!(starts[2].0, Start::Beside);
    assert!(starts[2].1 >= Duration::from_secs(10), "{starts:?}");
}
