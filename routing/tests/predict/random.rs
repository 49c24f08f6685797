//! What holds whatever happened before.

use super::*;

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
