//! Requests under random tables, faults, limits, leaving callers and table changes.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use trunkline_routing::{
    classify::{
        BodyFault, Classified, ErrorFields, TransportFault, classify, classify_body, classify_transport,
    },
    decide::{Reason, Route, decide},
    eligibility::{Profile, check},
    money::{Price, Rates},
    price::Schedule,
    registry::{Binding, Health, Observation, Registry, Ticket},
    request::{AttemptId, Context, Directive, Request},
    table::{
        Affinity, Balance, BreakerPolicy, Capabilities, Constraints, Deployment, DeploymentIndex, Dialect,
        HealthCheck, Limits, Provider, ProviderIndex, RoutingTable, Slo, Strategy as Balancing, Target, Tier,
        Timeouts, VirtualModel,
    },
    time::Timestamp,
};

/// Directives of one request at one instant that no rule exceeds.
const DIRECTIVES_AT_ONCE_MAX: usize = 40;
const REPLAYS_MAX: u32 = 2;

const STRATEGIES: [Balancing; 5] =
    [Balancing::RoundRobin, Balancing::Weighted, Balancing::Latency, Balancing::Cost, Balancing::Balanced];

#[derive(Clone, Debug)]
struct Plan {
    /// Weights, tier by tier, and the tier's limit on attempts.
    tiers: Vec<(Vec<u32>, u32)>,
    max_attempts: u32,
    strategy: Balancing,
    /// Deployments that can't stream, and those with room for one attempt: a bit each.
    unfit: u16,
    narrow: u16,
    stream: bool,
    attempt_ms: Option<u64>,
    requests: usize,
    seed: u64,
}

fn plan() -> impl Strategy<Value = Plan> {
    let tier = (vec(0_u32..4, 1..4), 1_u32..4);
    let numbers = (1_u32..6, any::<u16>(), any::<u16>(), 1_usize..12, any::<u64>());
    let attempt = proptest::option::of(1_u64..20_000);
    (vec(tier, 1..4), numbers, 0_usize..5, any::<bool>(), attempt).prop_map(
        |(tiers, (max_attempts, unfit, narrow, requests, seed), strategy, stream, attempt_ms)| Plan {
            tiers,
            max_attempts,
            strategy: STRATEGIES[strategy],
            unfit: unfit & unfit.rotate_left(3),
            narrow,
            stream,
            attempt_ms,
            requests,
            seed,
        },
    )
}

fn table(plan: &Plan) -> RoutingTable {
    let mut tiers = Vec::new();
    let mut count = 0;
    for (weights, most) in &plan.tiers {
        let target = |(at, weight): (usize, &u32)| Target {
            deployment: DeploymentIndex(count + at as u32),
            weight: *weight,
        };
        let targets: Vec<Target> = weights.iter().enumerate().map(target).collect();
        count += targets.len() as u32;
        let timeouts =
            Timeouts { attempt: plan.attempt_ms.map(Duration::from_millis), ..Timeouts::default() };
        tiers.push(Tier { max_attempts: (*most).min(targets.len() as u32), targets, timeouts });
    }
    let all_but_streaming = Capabilities::STREAMING.missing(Capabilities::ALL);
    let deployment = |index: u32| Deployment {
        name: format!("p/{index}").into(),
        provider: ProviderIndex(0),
        upstream_model: "model".into(),
        capabilities: if plan.unfit >> index & 1 == 1 { all_but_streaming } else { Capabilities::ALL },
        context_window: index.is_multiple_of(2).then_some(1_000 * (index + 1)),
        max_output_tokens: None,
        quality: None,
        prices: if index == 3 {
            Schedule::unknown()
        } else {
            Schedule::fixed(Price::flat(Rates { input: index.into(), cached_input: 1, output: 1_000 }))
        },
        breaker: BreakerPolicy::default(),
        limits: Limits { max_in_flight: (plan.narrow >> index & 1 == 1).then_some(1), ..Limits::default() },
    };
    let provider = Provider {
        name: "p".into(),
        dialect: Dialect::OpenAi,
        base_url: "https://provider.test".into(),
        credential: None,
        allow_private_network: false,
        region: None,
        health_check: HealthCheck::default(),
    };
    let model = VirtualModel {
        name: "chat".into(),
        strategy: plan.strategy,
        slo: Slo::default(),
        balance: Balance::default(),
        hedge_budget_percent: 2,
        affinity: Affinity::None,
        constraints: Constraints::default(),
        deadline: Duration::from_secs(60),
        max_attempts: plan.max_attempts,
        retry_budget_percent: 20,
        tiers,
        context_length_fallback: true,
        content_filter_fallback: plan.seed.is_multiple_of(2),
    };
    RoutingTable {
        providers: vec![provider],
        deployments: (0..count).map(deployment).collect(),
        virtual_models: vec![model],
        ..RoutingTable::default()
    }
}

#[derive(Debug)]
struct Run {
    request: Request,
    binding: Binding,
    running: Vec<(AttemptId, Option<Timestamp>, Option<Classified>)>,
    wake: Timestamp,
    leaves: Option<Timestamp>,
    starts: u32,
    at_once: (Timestamp, usize),
    over: bool,
}

impl Run {
    fn next_event(&self) -> Timestamp {
        let due = self.running.iter().filter_map(|(_, due, _)| *due);
        due.chain(self.leaves).chain([self.wake]).min().unwrap_or(self.wake)
    }
}

struct World {
    plan: Plan,
    table: RoutingTable,
    registry: Registry,
    binding: Binding,
    profile: Profile,
    now: Timestamp,
    rng: StdRng,
}

impl World {
    fn new(plan: Plan) -> Self {
        let table = table(&plan);
        let mut registry = Registry::new();
        let binding = registry.bind(&table, Timestamp::ZERO);
        let needs = if plan.stream { Capabilities::STREAMING } else { Capabilities::NONE };
        let profile = Profile { needs, stream: plan.stream, ..Profile::default() };
        let rng = StdRng::seed_from_u64(plan.seed);
        Self { plan, table, registry, binding, profile, now: Timestamp::ZERO, rng }
    }

    fn with<T>(&mut self, binding: &Binding, act: impl FnOnce(&mut Context<'_, StdRng>) -> T) -> T {
        let mut context = Context {
            registry: &mut self.registry,
            table: &self.table,
            binding,
            route: Route { model: &self.table.virtual_models[0], index: Some(0) },
            now: self.now,
            rng: &mut self.rng,
        };
        act(&mut context)
    }

    fn arrive(&mut self) -> Run {
        let profile = self.profile;
        let caller =
            self.rng.random_bool(0.2).then(|| Duration::from_millis(self.rng.random_range(0..15_000)));
        let leaves = self
            .rng
            .random_bool(0.1)
            .then(|| self.now + Duration::from_millis(self.rng.random_range(0..20_000)));
        let binding = self.binding.clone();
        let request = self.with(&binding, |context| Request::new(profile, caller, context));
        let (wake, at_once) = (self.now, (self.now, 0));
        Run { request, binding, running: Vec::new(), wake, leaves, starts: 0, at_once, over: false }
    }

    /// What comes of a call: when, and the verdict; none is a good answer.
    fn fate(&mut self) -> (Option<Timestamp>, Option<Classified>) {
        let nothing = ErrorFields::default();
        let hint = Some(Duration::from_millis(self.rng.random_range(1..25_000)));
        let code = |code| ErrorFields { code: Some(code), ..nothing };
        let due = self.now + Duration::from_millis(self.rng.random_range(0..12_000));
        let verdict = match self.rng.random_range(0..16) {
            0..4 => None,
            4 => return (None, None),
            5 => Some(classify(500, &nothing, None)),
            6 => Some(classify(503, &nothing, None)),
            7 => Some(classify(503, &nothing, hint)),
            8 => Some(classify(429, &nothing, hint)),
            9 => Some(classify(429, &nothing, None)),
            10 => Some(classify(400, &code("context_length_exceeded"), None)),
            11 => Some(classify(400, &code("content_filter"), None)),
            12 => Some(classify(409, &nothing, None)),
            13 => Some(classify_transport(TransportFault::Unwritten)),
            14 => Some(classify_transport(TransportFault::Reset)),
            _ => Some(classify_body(BodyFault::Empty)),
        };
        (Some(if self.rng.random_bool(0.3) { self.now } else { due }), verdict)
    }

    fn assert_allowed(&self, run: &Run, deployment: DeploymentIndex, ready: &[DeploymentIndex]) {
        assert!(ready.contains(&deployment), "picked a blocked target: {run:?}");
        let fit = check(&self.table, deployment, &self.table.virtual_models[0], &self.profile, None);
        assert_eq!(fit, Ok(()), "picked an unfit target");
        assert!(run.starts <= self.plan.max_attempts + REPLAYS_MAX, "too many attempts: {run:?}");
    }

    fn ready(&self, binding: &Binding) -> Vec<DeploymentIndex> {
        let tokens = self.profile.expected_tokens();
        let all = (0..self.table.deployments.len() as u32).map(DeploymentIndex);
        let health = |index| self.registry.health(binding, index, self.now, tokens.input + tokens.output);
        all.filter(|index| matches!(health(*index), Health::Ready(_))).collect()
    }

    /// What is due at this request, then all that it wants to do now.
    fn step(&mut self, run: &mut Run) {
        let binding = run.binding.clone();
        if run.leaves.is_some_and(|leaves| leaves <= self.now) {
            self.with(&binding, |context| run.request.abandon(context));
            run.over = true;
            return;
        }
        if let Some(at) = run.running.iter().position(|(_, due, _)| due.is_some_and(|due| due <= self.now)) {
            let (id, _, verdict) = run.running.remove(at);
            if let Some(verdict) = verdict {
                self.with(&binding, |context| run.request.failed(context, id, &verdict));
            } else {
                let won = self.with(&binding, |context| run.request.won(context, id));
                let Some((ticket, losers)) = won else { panic!("a running attempt was forgotten: {run:?}") };
                assert_eq!(losers.len(), run.running.len(), "all others lose");
                self.observe(ticket);
                self.registry.release(ticket);
                run.over = true;
                return;
            }
        }
        while !run.over && self.ask(run, &binding) {}
    }

    /// The answer is as long, and took as long, as chance has it.
    fn observe(&mut self, ticket: Ticket) {
        let ttft = Duration::from_millis(self.rng.random_range(1..5_000));
        let seen = Observation {
            input_tokens: 500,
            output_tokens: self.rng.random_range(0..400),
            ttft,
            duration: ttft + Duration::from_secs(1),
            stream: self.plan.stream,
            ..Observation::default()
        };
        self.registry.observe(ticket, self.now, &seen);
    }

    fn ask(&mut self, run: &mut Run, binding: &Binding) -> bool {
        run.at_once = if run.at_once.0 == self.now { (self.now, run.at_once.1 + 1) } else { (self.now, 1) };
        assert!(run.at_once.1 < DIRECTIVES_AT_ONCE_MAX, "livelock: {run:?}");
        let ready = self.ready(binding);
        match self.with(binding, |context| run.request.next(context)) {
            Directive::Start { id, deployment, .. } => {
                run.starts += 1;
                self.assert_allowed(run, deployment, &ready);
                let (due, verdict) = self.fate();
                run.running.push((id, due, verdict));
            }
            Directive::Kill(id) => {
                run.running.retain(|(running, _, _)| *running != id);
                let timeout = classify_transport(TransportFault::AttemptTimeout);
                self.with(binding, |context| run.request.failed(context, id, &timeout));
            }
            Directive::Wait(until) => {
                assert!(until <= run.request.deadline(), "waits past the deadline");
                run.wake = until;
                return until <= self.now;
            }
            Directive::Fail(_) => {
                self.with(binding, |context| run.request.abandon(context));
                run.over = true;
            }
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn every_request_ends_in_time_within_its_limits_and_holds_nothing(plan in plan()) {
        let mut world = World::new(plan);
        for _ in 0..6 {
            let started = world.now;
            let mut runs: Vec<Run> = (0..world.plan.requests).map(|_| world.arrive()).collect();
            while let Some(run) = runs.iter_mut().filter(|run| !run.over).min_by_key(|run| run.next_event()) {
                world.now = world.now.max(run.next_event());
                world.step(run);
                if world.rng.random_bool(0.02) {
                    world.binding = world.registry.bind(&world.table, world.now);
                }
            }
            prop_assert!(world.now.since(started) <= Duration::from_secs(60));
            for index in 0..world.table.deployments.len() as u32 {
                prop_assert_eq!(world.registry.in_flight(&world.binding, DeploymentIndex(index)), 0);
            }
        }
    }

    #[test]
    fn a_decision_names_every_target_once_and_candidates_are_allowed(plan in plan()) {
        let mut world = World::new(plan);
        let mut runs: Vec<Run> = (0..world.plan.requests).map(|_| world.arrive()).collect();
        while let Some(run) = runs.iter_mut().filter(|run| !run.over).min_by_key(|run| run.next_event()) {
            world.now = world.now.max(run.next_event());
            world.step(run);
            let route = Route { model: &world.table.virtual_models[0], index: Some(0) };
            let decision = decide(&mut world.registry, &world.table, &world.binding, route, &world.profile, world.now);
            let ready = world.ready(&world.binding);
            prop_assert_eq!(decision.candidates.len() + decision.excluded.len(), world.table.deployments.len());
            prop_assert!(decision.candidates.iter().all(|candidate| ready.contains(&candidate.deployment)));
            let blocked = |reason: &Reason| matches!(reason, Reason::Blocked(_));
            let wrong = decision.excluded.iter().any(|left| blocked(&left.reason) && ready.contains(&left.deployment));
            prop_assert!(!wrong);
            let sum: f64 = decision.candidates.iter().map(|candidate| candidate.probability).sum();
            prop_assert!(decision.candidates.is_empty() || (sum - 1.0).abs() < 1e-9, "{}", sum);
        }
    }
}
