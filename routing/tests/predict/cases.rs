//! One promise of a strategy at a time.

use super::*;

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
