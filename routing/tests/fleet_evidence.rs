//! What an agent makes of the control plane's evidence and of its own together.

use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};
use trunkline_routing::{
    breaker::Sample as Outcome,
    decide::Route,
    eligibility::Profile,
    price::Schedule,
    registry::{Binding, Health, Observation, Registry, Ticket},
    request::{AttemptId, Context, Directive, Request},
    score::{self, Basis},
    table::{
        Affinity, Balance, BreakerPolicy, Capabilities, Constraints, Deployment, DeploymentIndex, Dialect,
        HealthCheck, Limits, Provider, ProviderIndex, RoutingTable, Slo, Strategy, Target, Tier, Timeouts,
        VirtualModel,
    },
    time::Timestamp,
    train::{Coefficients, DeploymentModel, FleetModels, Sums, route_id},
};

const ONE: DeploymentIndex = DeploymentIndex(0);

fn table(limits: Limits) -> RoutingTable {
    RoutingTable {
        providers: vec![Provider {
            name: "p".into(),
            dialect: Dialect::OpenAi,
            base_url: "https://provider.test".into(),
            credential: None,
            allow_private_network: false,
            region: None,
            health_check: HealthCheck::default(),
        }],
        deployments: vec![Deployment {
            name: "p/model".into(),
            provider: ProviderIndex(0),
            upstream_model: "model".into(),
            capabilities: Capabilities::ALL,
            context_window: None,
            max_output_tokens: None,
            quality: None,
            prices: Schedule::unknown(),
            breaker: BreakerPolicy::default(),
            limits,
        }],
        virtual_models: vec![VirtualModel {
            name: "chat".into(),
            strategy: Strategy::Latency,
            slo: Slo::default(),
            balance: Balance::default(),
            hedge_budget_percent: 2,
            affinity: Affinity::None,
            constraints: Constraints::default(),
            deadline: Duration::from_secs(60),
            max_attempts: 3,
            retry_budget_percent: 20,
            tiers: vec![Tier {
                targets: vec![Target { deployment: ONE, weight: 1 }],
                timeouts: Timeouts::default(),
                max_attempts: 1,
            }],
            context_length_fallback: true,
            content_filter_fallback: true,
        }],
        ..RoutingTable::default()
    }
}

struct Agent {
    table: RoutingTable,
    registry: Registry,
    binding: Binding,
    profile: Profile,
    now: Timestamp,
    rng: StdRng,
}

impl Agent {
    fn new(limits: Limits) -> Self {
        let table = table(limits);
        let mut registry = Registry::new();
        let binding = registry.bind(&table, Timestamp::ZERO);
        let needs = Capabilities::STREAMING;
        let profile = Profile { needs, stream: true, input_tokens: 500, ..Profile::default() };
        let now = Timestamp::ZERO + Duration::from_secs(1);
        Self { table, registry, binding, profile, now, rng: StdRng::seed_from_u64(3) }
    }

    fn passes(&mut self, seconds: f64) {
        self.now = self.now + Duration::from_secs_f64(seconds);
    }

    fn estimate(&self) -> score::Estimate {
        let route = Route { model: &self.table.virtual_models[0], index: Some(0) };
        score::estimate(&self.registry, &self.table, &self.binding, route, ONE, &self.profile, self.now)
    }

    fn begin(&mut self) -> Ticket {
        let ticket = self.registry.begin(&self.binding, ONE, self.now, 500);
        ticket.of_route(route_id("chat"), None, None)
    }

    fn observe(&mut self, ticket: Ticket, ttft_s: f64) {
        let ttft = Duration::from_secs_f64(ttft_s);
        let seen = Observation {
            input_tokens: self.profile.input_tokens.into(),
            output_tokens: 50,
            ttft,
            duration: ttft + Duration::from_secs(1),
            stream: true,
            ..Observation::default()
        };
        self.registry.observe(ticket, self.now, &seen);
    }

    /// An answer after so many seconds.
    fn answer(&mut self, ttft_s: f64) {
        let ticket = self.begin();
        self.passes(0.01);
        self.observe(ticket, ttft_s);
        self.registry.record(ticket, self.now, Outcome::Success, &mut self.rng);
        self.registry.release(ticket);
    }

    fn adopt(&mut self, agents: u32, model: DeploymentModel) {
        let models = vec![("p/model".into(), model)];
        self.registry.adopt(&FleetModels { agents, models, outputs: Vec::new() }, self.now);
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

    /// A request that waits for its only attempt's first content so long.
    fn waits(&mut self, seconds: f64) -> (Request, AttemptId) {
        let profile = self.profile;
        let mut request = self.with(|context| Request::new(profile, None, context));
        let Directive::Start { id, .. } = self.with(|context| request.next(context)) else { panic!() };
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            match self.with(|context| request.next(context)) {
                Directive::Wait(until) => self.now = until.min(end),
                other => panic!("{other:?}"),
            }
        }
        (request, id)
    }
}

fn model(samples: u64, ttft_s: f64) -> DeploymentModel {
    DeploymentModel {
        slow: Coefficients {
            samples,
            ln_ttft: [ttft_s.ln(), 0.0, 0.0],
            ln_tpot: -4.0,
            beta: 0.0,
            tpot_beta: 0.0,
            ..Coefficients::default()
        },
        ..DeploymentModel::default()
    }
}

#[test]
fn news_of_the_fleet_count_though_this_agent_saw_more() {
    let mut agent = Agent::new(Limits::default());
    (0..100).for_each(|_| agent.answer(0.3));
    let before = agent.estimate();
    // The control plane began anew: its model knows little, its news are as good as ever.
    let news = DeploymentModel {
        in_flight: 40.0,
        in_flight_age: Duration::from_secs(2),
        errors: Sums { sum: 400.0, weight: 800.0 },
        breaks: Sums { sum: 300.0, weight: 800.0 },
        ttft_now: Sums { sum: 800.0, weight: 800.0 },
        ..model(20, 0.3)
    };
    agent.adopt(4, news);
    let after = agent.estimate();
    assert_eq!(after.basis, Basis::Own);
    assert!(after.in_flight > 15.0, "{after:?}");
    assert!(after.age_s >= 2.0, "{after:?}");
    assert!(after.p_error > 0.3 && after.p_break > 0.2, "{after:?}");
    let slower = after.terms.moment_factor / before.terms.moment_factor;
    assert!(slower > 1.5, "{slower} times slower by the last seconds");
    agent.passes(31.0);
    assert!(agent.estimate().p_error < 0.1, "what is old is not used");
}

#[test]
fn who_saw_more_is_asked_of_what_is_left_of_it() {
    let mut agent = Agent::new(Limits::default());
    (0..100).for_each(|_| agent.answer(0.3));
    agent.passes(7_200.0);
    agent.adopt(4, model(50, 0.9));
    let estimate = agent.estimate();
    assert_eq!(estimate.basis, Basis::Fleet);
    assert!((0.8..1.0).contains(&estimate.ttft_s), "{estimate:?}");
}

#[test]
fn what_an_agent_sees_is_held_against_the_model_in_force() {
    // It starts in a brownout, so that its own model knows nothing else.
    let mut agent = Agent::new(Limits::default());
    (0..20).for_each(|_| agent.answer(5.0));
    agent.adopt(4, model(1_000, 0.3));
    let estimate = agent.estimate();
    assert_eq!(estimate.basis, Basis::Fleet);
    assert!((3.5..6.0).contains(&estimate.ttft_s), "{estimate:?}");
    (0..20).for_each(|_| agent.answer(5.0));
    let estimate = agent.estimate();
    assert!((3.5..6.0).contains(&estimate.ttft_s), "{estimate:?}");
    // The fleet's word on the moment is about the fleet's model, too.
    let mut agent = Agent::new(Limits::default());
    (0..100).for_each(|_| agent.answer(5.0));
    let moment = Sums { sum: 100.0 * (5.0_f64 / 0.3).ln(), weight: 100.0 };
    agent.adopt(4, DeploymentModel { ttft_now: moment, tpot_now: moment, ..model(20, 0.3) });
    let estimate = agent.estimate();
    assert_eq!(estimate.basis, Basis::Own);
    assert!((3.5..6.0).contains(&estimate.ttft_s), "{estimate:?}");
}

#[test]
fn a_silent_attempt_counts_once_and_not_at_all_if_it_answers() {
    const WEIGHT: f64 = 20.0;
    let started = || {
        let mut agent = Agent::new(Limits::default());
        (0..20).for_each(|_| agent.answer(0.3));
        agent.passes(0.1);
        agent
    };
    // Failures expected: 0.01 as by 2 attempts, and what is left of those seen.
    let left =
        |agent: &Agent, since: Timestamp| WEIGHT * (-agent.now.since(since).as_secs_f64() / 10.0).exp();
    let mut agent = started();
    let began = agent.now;
    let (mut request, id) = agent.waits(9.0);
    let doubted = agent.estimate().p_error;
    let earlier = left(&agent, began);
    assert!(doubted > 0.02 && doubted < 1.0 / (earlier + 2.0), "{doubted}: nothing else is forgotten");
    let (ticket, _) = agent.with(|context| request.won(context, id)).unwrap();
    let well = 0.02 / (earlier + 1.0 + 2.0);
    assert!((agent.estimate().p_error - well).abs() < 2e-3, "{} for {well}", agent.estimate().p_error);
    agent.registry.record(ticket, agent.now, Outcome::Ended, &mut agent.rng);
    agent.registry.release(ticket);
    assert!((agent.estimate().p_error - well).abs() < 2e-3);

    let mut agent = started();
    let began = agent.now;
    let (mut request, id) = agent.waits(9.0);
    let fault = trunkline_routing::classify::TransportFault::AttemptTimeout;
    let silent = trunkline_routing::classify::classify_transport(fault);
    agent.with(|context| request.failed(context, id, &silent));
    let once = 1.02 / (left(&agent, began) + 1.0 + 2.0);
    assert!((agent.estimate().p_error - once).abs() < 5e-3, "{} for {once}", agent.estimate().p_error);
}

#[test]
fn what_was_made_elsewhere_uses_up_nothing_and_says_nothing_of_load() {
    let limits = Limits { max_in_flight: Some(2), requests_per_minute: Some(1), ..Limits::default() };
    let mut agent = Agent::new(limits);
    let health = agent.registry.health(&agent.binding, ONE, agent.now, 500);
    assert_eq!(health, Health::Ready(100));
    let (mut slow, binding) = (0.0, agent.binding.clone());
    for step in 0..60 {
        agent.passes(0.5);
        // Answers of the app are slow while calls of this agent run, by chance.
        let busy = step % 2 == 0;
        let own: Vec<Ticket> = (0..if busy { 20 } else { 0 }).map(|_| agent.begin()).collect();
        let ticket = agent.registry.reported(&binding, ONE, agent.now);
        assert_eq!(ticket.in_flight_own(), 0);
        agent.observe(ticket, if busy { 4.0 } else { 1.0 });
        agent.registry.record(ticket, agent.now, Outcome::Success, &mut agent.rng);
        assert_eq!(agent.registry.in_flight(&agent.binding, ONE) as usize, own.len());
        for ticket in own {
            agent.registry.release(ticket);
        }
        slow = agent.estimate().load;
    }
    assert!((slow - 0.01).abs() < 1e-9, "the load curve is the one assumed first: {slow}");
    let mut idle = Agent::new(limits);
    let ticket = idle.registry.reported(&idle.binding, ONE, idle.now);
    idle.registry.record(ticket, idle.now, Outcome::Success, &mut idle.rng);
    assert_eq!(idle.registry.health(&idle.binding, ONE, idle.now, 500), Health::Ready(100));
}
