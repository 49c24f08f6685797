//! What a core was told, told again: the same answers. And another input: other answers.

use std::time::Duration;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use trunkline_routing::{
    breaker::Sample,
    classify::{Classified, ErrorFields, TransportFault, classify, classify_transport},
    decide::{self, Route},
    eligibility::Profile,
    hint::{RateHeaders, RateLimit},
    money::{Price, Rates},
    price::Schedule,
    registry::{Binding, FleetState, Forced, Observation, Registry, Ticket},
    request::{AttemptId, Context, Directive, Request},
    table::{
        Affinity, Balance, BreakerPolicy, Capabilities, Constraints, Deployment, DeploymentIndex, Dialect,
        HealthCheck, Limits, Provider, ProviderIndex, RoutingTable, Slo, Strategy as Balancing, Target, Tier,
        Timeouts, VirtualModel,
    },
    tenant::Tenant,
    time::Timestamp,
    trace::{
        Answer, Arrival, Beginning, Call, Chance, Entry, Event, Goal, Lease, Note, Place, Player, Verdict,
    },
};

const DEPLOYMENTS: u32 = 4;
const STRATEGIES: [Balancing; 5] =
    [Balancing::RoundRobin, Balancing::Weighted, Balancing::Latency, Balancing::Cost, Balancing::Balanced];

fn table(strategy: Balancing) -> RoutingTable {
    let deployment = |index: u32| Deployment {
        name: format!("p{index}/m").into(),
        provider: ProviderIndex(index),
        upstream_model: "m".into(),
        capabilities: Capabilities::ALL,
        context_window: None,
        max_output_tokens: None,
        quality: None,
        prices: Schedule::fixed(Price::flat(Rates { input: u64::from(index), cached_input: 1, output: 9 })),
        breaker: BreakerPolicy::default(),
        limits: Limits { max_in_flight: (index == 3).then_some(2), ..Limits::default() },
    };
    let provider = |index: u32| Provider {
        name: format!("p{index}").into(),
        dialect: Dialect::OpenAi,
        base_url: "https://provider.test".into(),
        credential: None,
        allow_private_network: false,
        region: None,
        health_check: HealthCheck::default(),
    };
    let target = |index| Target { deployment: DeploymentIndex(index), weight: 1 + index };
    let tier = |targets: std::ops::Range<u32>| Tier {
        max_attempts: 3,
        targets: targets.map(target).collect(),
        timeouts: Timeouts { attempt: Some(Duration::from_secs(8)), ..Timeouts::default() },
    };
    let model = VirtualModel {
        name: "chat".into(),
        strategy,
        slo: Slo::default(),
        balance: Balance::default(),
        hedge_budget_percent: 20,
        affinity: Affinity::None,
        constraints: Constraints::default(),
        deadline: Duration::from_secs(60),
        max_attempts: 4,
        retry_budget_percent: 20,
        tiers: vec![tier(0..3), tier(3..4)],
        context_length_fallback: true,
        content_filter_fallback: true,
    };
    RoutingTable {
        providers: (0..DEPLOYMENTS).map(provider).collect(),
        deployments: (0..DEPLOYMENTS).map(deployment).collect(),
        virtual_models: vec![model],
        ..RoutingTable::default()
    }
}

struct Run {
    number: u64,
    request: Request,
    binding: Binding,
    running: Vec<AttemptId>,
}

/// Tells a registry what chance has happen, by its own verbs, and writes it down.
struct Live {
    registry: Registry,
    table: RoutingTable,
    binding: Binding,
    runs: Vec<Run>,
    streams: Vec<Ticket>,
    requests: u64,
    now: Timestamp,
    chance: StdRng,
    trace: Vec<Entry>,
}

impl Live {
    fn new(strategy: Balancing, seed: u64) -> Self {
        let mut live = Self {
            registry: Registry::new(),
            table: table(strategy),
            binding: Binding::default(),
            runs: Vec::new(),
            streams: Vec::new(),
            requests: 0,
            now: Timestamp::ZERO,
            chance: StdRng::seed_from_u64(seed),
            trace: Vec::new(),
        };
        live.bind();
        live
    }

    fn write(&mut self, seed: u64, event: Event, answer: Answer) {
        self.trace.push(Entry { at: self.now, seed, event, answer });
    }

    fn bind(&mut self) {
        self.binding = self.registry.bind(&self.table, self.now);
        let number = Answer::Number(Some(self.binding.number()));
        self.write(0, Event::Bind(Box::new(self.table.clone())), number);
    }

    fn ask<T>(
        &mut self,
        run: &mut Run,
        call: Call,
        ask: impl FnOnce(&mut Request, &mut Context<'_, Chance>) -> T,
        answer: impl FnOnce(&T) -> Answer,
    ) -> T {
        let seed = self.chance.random();
        let answered = ask(
            &mut run.request,
            &mut Context {
                registry: &mut self.registry,
                table: &self.table,
                binding: &run.binding,
                route: Route { model: &self.table.virtual_models[0], index: Some(0) },
                now: self.now,
                rng: &mut Chance::from_seed(seed),
            },
        );
        self.write(seed, Event::Ask { request: run.number, call }, answer(&answered));
        answered
    }

    fn arrive(&mut self) {
        self.requests += 1;
        let (number, seed) = (self.requests, self.chance.random());
        let stream = self.chance.random_bool(0.5);
        let input_tokens = self.chance.random_range(0..4_000);
        let profile = Profile { stream, input_tokens, session: Some(number % 5), ..Profile::default() };
        let deadline =
            self.chance.random_bool(0.2).then(|| Duration::from_secs(self.chance.random_range(1..20)));
        let (table, binding) = (&self.table, &self.binding);
        let route = Route { model: &table.virtual_models[0], index: Some(0) };
        let decision = decide::decide(&mut self.registry, table, binding, route, &profile, self.now);
        let rng = &mut Chance::from_seed(seed);
        let mut context = Context { registry: &mut self.registry, table, binding, route, now: self.now, rng };
        let tenant = Tenant::of(Some("team"));
        let request = Request::new(profile, deadline, &mut context).of_tenant(tenant);
        let place = Place { table: binding.number(), goal: Goal::Model(0) };
        let arrival = Arrival { request: number, place, profile, deadline, tenant };
        let mut run = Run { number, request, binding: binding.clone(), running: Vec::new() };
        self.write(seed, Event::Arrive(arrival), Answer::decision(&decision));
        if self.go_on(&mut run) {
            self.runs.push(run);
        }
    }

    /// All that the request wants to do now. False: it is over.
    fn go_on(&mut self, run: &mut Run) -> bool {
        loop {
            match self.ask(run, Call::Next, Request::next, |next| Answer::Directive(*next)) {
                Directive::Start { id, .. } => run.running.push(id),
                Directive::Kill(id) => self.fail(run, id, classify_transport(TransportFault::AttemptTimeout)),
                Directive::Wait(_) => return true,
                Directive::Fail(_) => {
                    self.ask(run, Call::Abandon, Request::abandon, |losers| Answer::abandoned(losers));
                    return false;
                }
            }
        }
    }

    fn fail(&mut self, run: &mut Run, id: AttemptId, failed: Classified) {
        run.running.retain(|running| *running != id);
        let fail =
            |request: &mut Request, context: &mut Context<'_, Chance>| request.failed(context, id, &failed);
        self.ask(run, Call::Failed(id, failed), fail, |opened| Answer::Opened(*opened));
    }

    fn note(&mut self, ticket: Ticket, note: Note) {
        let seed = self.chance.random();
        let opened = note.tell(&mut self.registry, ticket, self.now, &mut Chance::from_seed(seed));
        let answer = opened.map_or(Answer::Nothing, Answer::Opened);
        self.write(seed, Event::Note { ticket: ticket.number(), note }, answer);
    }

    fn observe(&mut self, ticket: Ticket, stream: bool) {
        let duration = self.now.since(ticket.started());
        let output_tokens = self.chance.random_range(1..600);
        let seen = Observation {
            input_tokens: 900,
            output_tokens,
            ttft: duration / 2,
            duration,
            stream,
            ..Observation::default()
        };
        self.note(ticket, Note::Observe(seen));
    }

    fn some_attempt(&mut self) {
        if self.runs.is_empty() {
            return;
        }
        let at = self.chance.random_range(0..self.runs.len());
        let mut run = self.runs.swap_remove(at);
        if run.running.is_empty() {
            if self.go_on(&mut run) {
                self.runs.push(run);
            }
            return;
        }
        let id = run.running[self.chance.random_range(0..run.running.len())];
        let nothing = ErrorFields::default();
        let hint = Some(Duration::from_millis(self.chance.random_range(1..9_000)));
        match self.chance.random_range(0..14) {
            0 => self.fail(&mut run, id, classify(500, &nothing, None)),
            1 => self.fail(&mut run, id, classify(503, &nothing, hint)),
            2 => self.fail(&mut run, id, classify(429, &nothing, hint)),
            3 => self.fail(&mut run, id, classify_transport(TransportFault::Reset)),
            4 => self.fail(&mut run, id, classify(401, &nothing, None)),
            5 => self.ask(
                &mut run,
                Call::Heard(id),
                |request, context| request.heard(context, id),
                |()| Answer::Nothing,
            ),
            6 => {
                self.ask(&mut run, Call::Abandon, Request::abandon, |losers| Answer::abandoned(losers));
                return;
            }
            _ => return self.win(&mut run, id),
        }
        if self.go_on(&mut run) {
            self.runs.push(run);
        }
    }

    fn win(&mut self, run: &mut Run, id: AttemptId) {
        let won = |request: &mut Request, context: &mut Context<'_, Chance>| request.won(context, id);
        let won = self.ask(run, Call::Won(id), won, |won| Answer::won(won.as_ref()));
        let Some((ticket, _)) = won else { panic!("a running attempt was forgotten") };
        let limit = RateLimit { remaining: 3, limit: Some(60), reset: Duration::from_secs(2) };
        self.note(ticket, Note::RateHeaders(RateHeaders { requests: Some(limit), tokens: None }));
        if run.request.profile().stream {
            self.streams.push(ticket);
            return;
        }
        self.note(ticket, Note::Pace(Some(100), self.now.since(ticket.started())));
        self.observe(ticket, false);
        self.note(ticket, Note::Release);
    }

    fn end_a_stream(&mut self) {
        let Some(ticket) = self.streams.pop() else { return };
        let whole = self.chance.random_bool(0.8);
        self.note(ticket, Note::Record(if whole { Sample::Ended } else { Sample::BrokeOff }));
        if whole {
            self.observe(ticket, true);
        }
        self.note(ticket, Note::Release);
    }

    /// What comes from the control plane, an operator or an app that calls by itself.
    fn hear_from_outside(&mut self) {
        let deployment = DeploymentIndex(self.chance.random_range(0..DEPLOYMENTS));
        let name: Box<str> = self.table.deployments[deployment.0 as usize].name.clone();
        let until = self.now + Duration::from_secs(3);
        let generation = self.trace.len() as u64;
        let event = match self.chance.random_range(0..8) {
            0 => Event::Forced(vec![(name, Forced::Open, Some(until))]),
            1 => Event::MissingCredentials(vec!["p1".into()]),
            2 => Event::MissingCredentials(vec![]),
            3 => Event::CredentialChanged("p2".into()),
            4 => Event::Heard(until),
            5 => Event::Fleet {
                epoch: "e".into(),
                verdicts: vec![Verdict {
                    subject: name,
                    state: FleetState::Open,
                    generation,
                    until: Some(until),
                    openings: 1,
                    admit_percent: 100,
                }],
            },
            6 => Event::Leases(vec![Lease {
                deployment: name,
                lease_id: generation,
                generation,
                expires: until,
                is_check: true,
            }]),
            _ => return self.report(deployment),
        };
        let seed = self.chance.random();
        let mut chance = Chance::from_seed(seed);
        match &event {
            Event::Forced(all) => self
                .registry
                .set_forced(all.iter().map(|(name, forced, until)| (&**name, *forced, *until)), self.now),
            Event::MissingCredentials(names) => self.registry.set_missing_credentials(names),
            Event::CredentialChanged(name) => self.registry.credential_changed(name),
            Event::Heard(until) => self.registry.heard_from_fleet(*until),
            Event::Fleet { epoch, verdicts } => {
                let verdicts = verdicts.iter().map(Verdict::borrowed);
                self.registry.set_fleet(epoch, verdicts, self.now, &mut chance);
            }
            Event::Leases(all) => self.registry.set_leases(all.iter().map(Lease::borrowed), self.now),
            _ => unreachable!("made above"),
        }
        self.write(seed, event, Answer::Nothing);
    }

    fn report(&mut self, deployment: DeploymentIndex) {
        let (table, tenant) = (self.binding.number(), Tenant::NONE);
        let one = Beginning {
            table,
            deployment,
            lease: None,
            reported: true,
            tokens: 5,
            tenant,
            route: 7,
            session: None,
        };
        let Some(ticket) = self.registry.begin_for(&self.binding, &one, self.now) else { return };
        self.write(0, Event::Begin(one), Answer::Number(Some(ticket.number())));
        self.note(ticket, Note::Learn(classify(502, &ErrorFields::default(), None)));
    }

    fn live(mut self, steps: usize) -> Vec<Entry> {
        for _ in 0..steps {
            self.now = self.now + Duration::from_micros(self.chance.random_range(0..400_000));
            match self.chance.random_range(0..100) {
                0..35 => self.arrive(),
                35..75 => self.some_attempt(),
                75..92 => self.end_a_stream(),
                92..99 => self.hear_from_outside(),
                _ => self.bind(),
            }
        }
        self.trace
    }
}

/// The first entry whose answer is another one now.
fn first_difference(trace: &[Entry]) -> Option<usize> {
    let mut player = Player::new();
    trace.iter().position(|entry| player.play(entry).as_ref() != Some(&entry.answer))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_history_told_again_is_answered_in_the_same_way(seed: u64, strategy in 0_usize..5) {
        let trace = Live::new(STRATEGIES[strategy], seed).live(400);
        prop_assert!(trace.iter().filter(|entry| entry.answer != Answer::Nothing).count() > 200);
        if let Some(at) = first_difference(&trace) {
            prop_assert!(false, "entry {} of {}: {:?}", at, trace.len(), trace[at]);
        }
    }

    #[test]
    fn a_history_that_was_cut_is_the_same_up_to_the_cut(seed: u64, keep in 0.0_f64..1.0) {
        let mut trace = Live::new(Balancing::Latency, seed).live(200);
        trace.truncate((trace.len() as f64 * keep) as usize);
        prop_assert_eq!(first_difference(&trace), None);
    }
}

/// Changes one entry of many histories in turn; says in what share of them that was found.
fn found(change: impl Fn(&mut Vec<Entry>) -> bool) -> f64 {
    let (mut changed, mut found) = (0, 0);
    for seed in 0..40 {
        let mut trace = Live::new(Balancing::Latency, seed).live(400);
        if change(&mut trace) {
            changed += 1;
            found += usize::from(first_difference(&trace).is_some());
        }
    }
    assert!(changed >= 30, "only {changed} histories have what is changed");
    found as f64 / f64::from(changed)
}

#[test]
fn an_observation_that_differs_by_a_tenth_is_found() {
    let share = found(|trace| {
        let observed = trace.iter_mut().find_map(|entry| match &mut entry.event {
            Event::Note { note: Note::Observe(seen), .. } => Some(seen),
            _ => None,
        });
        let Some(seen) = observed else { return false };
        seen.duration = seen.duration * 11 / 10;
        seen.ttft = seen.ttft * 11 / 10;
        true
    });
    assert!(share > 0.9, "{share}");
}

#[test]
fn a_failure_that_was_left_out_is_found() {
    let share = found(|trace| {
        let failed = |entry: &Entry| matches!(entry.event, Event::Ask { call: Call::Failed(..), .. });
        let Some(at) = trace.iter().position(failed) else { return false };
        trace.remove(at);
        true
    });
    assert!((share - 1.0).abs() < f64::EPSILON, "{share}");
}

#[test]
fn another_constant_in_the_table_is_found() {
    let share = found(|trace| {
        let Event::Bind(table) = &mut trace[0].event else { panic!("a history begins with its table") };
        table.deployments[0].prices = Schedule::unknown();
        true
    });
    assert!((share - 1.0).abs() < f64::EPSILON, "{share}");
}

#[test]
fn a_history_without_its_beginning_is_refused_not_guessed() {
    let trace = Live::new(Balancing::Weighted, 3).live(100);
    let mut player = Player::new();
    let late = trace.iter().find(|entry| matches!(entry.event, Event::Arrive(_))).unwrap();
    assert_eq!(player.play(late), None);
}
