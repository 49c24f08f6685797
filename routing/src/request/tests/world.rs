//! A world of scripted deployments on virtual time.

use std::{time::Duration, vec::Vec};

use rand::{SeedableRng, rngs::StdRng};

use crate::{
    classify::{
        BodyFault, Classified, ErrorFields, TransportFault, classify, classify_body, classify_transport,
    },
    decide::Route,
    eligibility::Profile,
    price::Schedule,
    registry::{Binding, Registry},
    request::{AttemptId, Context, Directive, Failure, Loser, Request},
    table::{
        Affinity, Balance, BreakerPolicy, Capabilities, Constraints, Credential, Deployment, DeploymentIndex,
        Dialect, HealthCheck, Limits, Provider, ProviderIndex, RoutingTable, Slo, Strategy, Target, Tier,
        Timeouts, VirtualModel,
    },
    tenant::Tenant,
    time::Timestamp,
};

/// More directives of one request than any rule explains: it would never end.
const DIRECTIVES_MAX: usize = 10_000;

/// What a deployment does with a call, and after how many milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// First content, or the whole answer.
    Answer(u64),
    /// A status without details.
    Status(u16, u64),
    /// A status with a hint of so many milliseconds.
    Hinted(u16, u64, u64),
    /// 400 with this error code.
    Code(&'static str, u64),
    Transport(TransportFault, u64),
    Empty(u64),
    Silent,
}

impl Act {
    fn after(self) -> Option<u64> {
        match self {
            Self::Answer(after)
            | Self::Status(_, after)
            | Self::Hinted(_, _, after)
            | Self::Code(_, after)
            | Self::Transport(_, after)
            | Self::Empty(after) => Some(after),
            Self::Silent => None,
        }
    }

    /// None: an answer.
    fn classified(self) -> Option<Classified> {
        let nothing = ErrorFields::default();
        match self {
            Self::Answer(_) | Self::Silent => None,
            Self::Status(status, _) => Some(classify(status, &nothing, None)),
            Self::Hinted(status, hint, _) => {
                Some(classify(status, &nothing, Some(Duration::from_millis(hint))))
            }
            Self::Code(code, _) => Some(classify(400, &ErrorFields { code: Some(code), ..nothing }, None)),
            Self::Transport(fault, _) => Some(classify_transport(fault)),
            Self::Empty(_) => Some(classify_body(BodyFault::Empty)),
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    /// The deployment whose answer the caller got.
    Answer(usize),
    Fail(Failure),
    CallerLeft,
}

/// One request under way, and what was seen of it.
#[derive(Debug)]
pub(super) struct Run {
    request: Request,
    running: Vec<(AttemptId, Option<Timestamp>, Act)>,
    wake: Timestamp,
    leaves: Option<Timestamp>,
    directives: usize,
    /// Milliseconds since the world's start, and deployment, of each call.
    pub(super) calls: Vec<(u64, usize)>,
    pub(super) losers: Vec<Loser>,
    pub(super) end: Option<(u64, End)>,
}

impl Run {
    /// Deployments in the order of calls.
    pub(super) fn order(&self) -> Vec<usize> {
        self.calls.iter().map(|(_, deployment)| *deployment).collect()
    }

    pub(super) fn outcome(&self) -> End {
        self.end.unwrap().1
    }

    pub(super) fn ended_ms(&self) -> u64 {
        self.end.unwrap().0
    }

    /// The caller hangs up then.
    pub(super) fn leaving_at(mut self, millis: u64) -> Self {
        self.leaves = Some(at(millis));
        self
    }

    fn next_event(&self) -> Timestamp {
        let due = self.running.iter().filter_map(|(_, due, _)| *due);
        due.chain(self.leaves).chain([self.wake]).min().unwrap()
    }
}

/// The scripted deployments and what is known of them.
#[derive(Debug)]
pub(super) struct World {
    pub(super) table: RoutingTable,
    pub(super) registry: Registry,
    pub(super) binding: Binding,
    pub(super) now: Timestamp,
    pub(super) profile: Profile,
    pub(super) tenant: Tenant,
    pub(super) caller_deadline: Option<Duration>,
    pub(super) pin: Option<VirtualModel>,
    pub(super) calls: u64,
    scripts: Vec<Vec<Act>>,
    rng: StdRng,
}

pub(super) fn at(millis: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_millis(millis)
}

pub(super) fn millis(time: Timestamp) -> u64 {
    time.since(Timestamp::ZERO).as_millis() as u64
}

impl World {
    /// One deployment per weight, tier by tier; each answers after 100 ms until told
    /// otherwise. Limits are wide: 10 calls, a minute, all targets of a tier.
    pub(super) fn new(tiers: &[&[u32]]) -> Self {
        let count: usize = tiers.iter().map(|tier| tier.len()).sum();
        let mut next = 0;
        let mut target = |weight: &u32| {
            next += 1;
            Target { deployment: DeploymentIndex(next - 1), weight: *weight }
        };
        let tiers = tiers.iter().map(|weights| Tier {
            targets: weights.iter().map(&mut target).collect(),
            timeouts: Timeouts::default(),
            max_attempts: weights.len() as u32,
        });
        let model = VirtualModel {
            name: "chat".into(),
            strategy: Strategy::Weighted,
            slo: Slo::default(),
            balance: Balance::default(),
            hedge_budget_percent: 2,
            affinity: Affinity::None,
            constraints: Constraints::default(),
            deadline: Duration::from_secs(60),
            max_attempts: 10,
            retry_budget_percent: 20,
            tiers: tiers.collect(),
            context_length_fallback: true,
            content_filter_fallback: false,
        };
        let table = RoutingTable {
            providers: (0..count).map(provider).collect(),
            deployments: (0..count).map(deployment).collect(),
            virtual_models: vec![model],
            ..RoutingTable::default()
        };
        let mut registry = Registry::new();
        let binding = registry.bind(&table, Timestamp::ZERO);
        Self {
            scripts: vec![vec![Act::Answer(100)]; count],
            table,
            registry,
            binding,
            now: Timestamp::ZERO,
            profile: Profile { stream: true, ..Profile::default() },
            tenant: Tenant::NONE,
            caller_deadline: None,
            pin: None,
            calls: 0,
            rng: StdRng::seed_from_u64(7),
        }
    }

    /// The deployment does these one after the other, and then the last for ever.
    pub(super) fn script(&mut self, deployment: usize, acts: &[Act]) {
        self.scripts[deployment] = acts.iter().rev().copied().collect();
    }

    pub(super) fn model(&mut self) -> &mut VirtualModel {
        &mut self.table.virtual_models[0]
    }

    pub(super) fn rebind(&mut self) {
        self.binding = self.registry.bind(&self.table, self.now);
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    /// A request from arrival to end.
    pub(super) fn run(&mut self) -> Run {
        let mut runs = [self.arrive()];
        self.drive(&mut runs);
        let [run] = runs;
        run
    }

    /// A request that comes in now.
    pub(super) fn arrive(&mut self) -> Run {
        let (profile, tenant, deadline) = (self.profile, self.tenant, self.caller_deadline);
        let now = self.now;
        let request = self.with(|context| Request::new(profile, deadline, context).of_tenant(tenant));
        Run {
            request,
            running: Vec::new(),
            wake: now,
            leaves: None,
            directives: 0,
            calls: Vec::new(),
            losers: Vec::new(),
            end: None,
        }
    }

    /// Lets time pass until all requests have ended.
    pub(super) fn drive(&mut self, runs: &mut [Run]) {
        self.drive_until(runs, u64::MAX / 1_000_000);
    }

    /// Lets time pass until nothing more happens before `millis`.
    pub(super) fn drive_until(&mut self, runs: &mut [Run], millis: u64) {
        let open = |runs: &mut [Run]| {
            let open = runs
                .iter()
                .enumerate()
                .filter(|(_, run)| run.end.is_none() && run.next_event() <= at(millis));
            open.min_by_key(|(_, run)| run.next_event()).map(|(index, _)| index)
        };
        while let Some(index) = open(runs) {
            self.now = self.now.max(runs[index].next_event());
            self.step(&mut runs[index]);
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Context<'_, StdRng>) -> T) -> T {
        let (model, index) = match &self.pin {
            Some(pin) => (pin, None),
            None => (&self.table.virtual_models[0], Some(0)),
        };
        let mut context = Context {
            registry: &mut self.registry,
            table: &self.table,
            binding: &self.binding,
            route: Route { model, index },
            now: self.now,
            rng: &mut self.rng,
        };
        act(&mut context)
    }

    fn step(&mut self, run: &mut Run) {
        let now = self.now;
        if run.leaves.is_some_and(|leaves| leaves <= now) {
            return self.finish(run, End::CallerLeft);
        }
        if let Some(index) = run.running.iter().position(|(_, due, _)| due.is_some_and(|due| due <= now)) {
            let (id, _, act) = run.running.remove(index);
            if let Some(classified) = act.classified() {
                self.with(|context| run.request.failed(context, id, &classified));
            } else {
                let (ticket, losers) = self.with(|context| run.request.won(context, id)).unwrap();
                self.registry.release(ticket);
                run.losers = losers;
                run.end = Some((millis(now), End::Answer(run.calls[id.0 as usize].1)));
                return;
            }
        }
        self.ask(run);
    }

    fn ask(&mut self, run: &mut Run) {
        loop {
            run.directives += 1;
            assert!(run.directives < DIRECTIVES_MAX, "the request never ends: {run:?}");
            match self.with(|context| run.request.next(context)) {
                Directive::Start { id, deployment, .. } => {
                    let index = deployment.0 as usize;
                    assert_eq!(id.0 as usize, run.calls.len(), "attempts are numbered by their starts");
                    self.calls += 1;
                    run.calls.push((millis(self.now), index));
                    let script = &mut self.scripts[index];
                    let act = if script.len() > 1 { script.pop().unwrap() } else { script[0] };
                    run.running.push((
                        id,
                        act.after().map(|after| self.now + Duration::from_millis(after)),
                        act,
                    ));
                }
                Directive::Kill(id) => {
                    run.running.retain(|(running, _, _)| *running != id);
                    let timeout = classify_transport(TransportFault::AttemptTimeout);
                    self.with(|context| run.request.failed(context, id, &timeout));
                }
                Directive::Wait(until) => {
                    run.wake = until;
                    if until > self.now {
                        return;
                    }
                }
                Directive::Fail(failure) => return self.finish(run, End::Fail(failure)),
            }
        }
    }

    fn finish(&mut self, run: &mut Run, end: End) {
        run.losers = self.with(|context| run.request.abandon(context));
        run.end = Some((millis(self.now), end));
    }

    /// No attempt is held after all requests ended.
    pub(super) fn assert_idle(&self) {
        for index in 0..self.table.deployments.len() {
            assert_eq!(self.registry.in_flight(&self.binding, DeploymentIndex(index as u32)), 0);
        }
    }
}

fn provider(index: usize) -> Provider {
    Provider {
        name: format!("p{index}").into(),
        dialect: Dialect::OpenAi,
        base_url: "https://provider.test".into(),
        credential: Some(Credential::Env(format!("KEY_{index}").into())),
        allow_private_network: false,
        region: None,
        health_check: HealthCheck::default(),
    }
}

fn deployment(index: usize) -> Deployment {
    Deployment {
        name: format!("p{index}/model").into(),
        provider: ProviderIndex(index as u32),
        upstream_model: "model".into(),
        capabilities: Capabilities::ALL,
        context_window: None,
        max_output_tokens: None,
        quality: None,
        prices: Schedule::unknown(),
        breaker: BreakerPolicy::default(),
        limits: Limits::default(),
    }
}
