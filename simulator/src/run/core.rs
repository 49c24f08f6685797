//! Drives the decision core as agents do: one registry per agent, the same state
//! machine of a request, the same words on what an attempt's end means, the same guess
//! at a prompt's tokens.
//!
//! Not driven are the fleet's breakers with their leases, probes and health checks, rate
//! headers, and unary requests: all agents have their own breakers only.

use std::{collections::BTreeMap, time::Duration};

use rand::rngs::StdRng;
use trunkline_routing::{
    breaker,
    classify::{
        BodyFault, ErrorFields, OutcomeClass, TransportFault, classify, classify_body, classify_transport,
    },
    decide::Route,
    eligibility::Profile,
    money::Price,
    registry::{Binding, Observation, Registry, Ticket},
    request::{AttemptId, Context, Directive, Failure, Loser, Request, Start},
    table::{DeploymentIndex, Strategy},
    time::Timestamp,
    train::{Sample, SampleKind, route_id},
};

use super::{
    fleet::{Due, Fleet},
    policy::Ablation,
    table::{Table, unix_ms},
    world::{Attempt, Client, Heard, Why, World},
};
use crate::{
    seeds::{Purpose, rng},
    traffic::{Arrival, Traffic},
};

/// All agents, and their control plane.
pub(super) struct Core<'a> {
    traffic: &'a Traffic,
    strategy: Strategy,
    ablation: Ablation,
    agents: Vec<Agent>,
    fleet: Fleet,
    /// Every routing table of the run; the last one is in force.
    tables: Vec<Table>,
    /// The prices that agents know are those of this moment.
    priced: Timestamp,
    active: BTreeMap<usize, Active>,
}

/// One agent.
struct Agent {
    registry: Registry,
    /// By table.
    bindings: Vec<Binding>,
    rng: StdRng,
}

/// One request under way.
struct Active {
    request: Request,
    table: usize,
    route: usize,
    attempts: Vec<Running>,
    winner: Option<Winner>,
}

/// An attempt under way.
#[derive(Clone, Copy)]
struct Running {
    id: AttemptId,
    attempt: Attempt,
    /// Attempts that its agent had running there as it started, itself included.
    beside: u32,
}

/// The attempt whose answer the caller gets.
#[derive(Clone, Copy)]
struct Winner {
    attempt: Attempt,
    ticket: Ticket,
    first_token: Timestamp,
}

impl<'a> Core<'a> {
    pub(super) fn new(
        agents: u32,
        traffic: &'a Traffic,
        strategy: Strategy,
        ablation: Ablation,
        seed: u64,
    ) -> Self {
        let agent = |index: u32| Agent {
            registry: Registry::new(),
            bindings: Vec::new(),
            rng: rng(seed, Purpose::Policy, index.into()),
        };
        Self {
            traffic,
            strategy,
            ablation,
            fleet: Fleet::new(agents as usize),
            agents: (0..agents).map(agent).collect(),
            tables: Vec::new(),
            priced: Timestamp::ZERO,
            active: BTreeMap::new(),
        }
    }

    /// A routing table came to all agents.
    fn adopt_table(&mut self, world: &World<'_>) {
        let table = Table::new(
            world.scenario,
            self.traffic,
            &world.providers,
            self.strategy,
            self.ablation,
            world.now,
            self.priced,
        );
        for agent in &mut self.agents {
            agent.bindings.push(agent.registry.bind(&table.routing, world.now));
        }
        self.tables.push(table);
    }

    /// Prices came to all agents, as they were at that moment.
    fn adopt_prices(&mut self, world: &World<'_>, priced: Timestamp) {
        let before = std::mem::replace(&mut self.priced, priced);
        if world.providers.iter().any(|provider| provider.price(before) != provider.price(priced)) {
            self.adopt_table(world);
        }
    }

    /// Notes it if a first pick is made by a price that is no more.
    fn note_old_prices(&self, world: &mut World<'_>, request: usize) {
        if world.old_price_s.is_none() || world.records[request].started > 0 {
            return;
        }
        let Some(active) = self.active.get(&request) else { return };
        let table = &self.tables[active.table];
        let old = table.places.iter().zip(&table.routing.deployments).filter_map(|(place, deployment)| {
            let provider = &world.providers[*place];
            let known = deployment.prices.at(unix_ms(world.arrivals[request].at));
            let right = Price::flat(provider.price(world.now).rates());
            (known != Some(&right)).then(|| provider.priced_since(world.now))
        });
        let old: Vec<Timestamp> = old.collect();
        for since in old {
            world.picked_by_old_price(since);
        }
    }

    /// Lets `act` work on a request with its context. None: it is over.
    fn with<T>(
        &mut self,
        world: &World<'_>,
        request: usize,
        act: impl FnOnce(&mut Active, &mut Context<'_, StdRng>) -> T,
    ) -> Option<T> {
        let active = self.active.get_mut(&request)?;
        let agent = &mut self.agents[world.arrivals[request].agent];
        let table = &self.tables[active.table];
        let mut context = context(agent, table, active.table, active.route, world.now);
        Some(act(active, &mut context))
    }

    /// Asks what to do next and does it, until there is something to wait for.
    fn drive(&mut self, world: &mut World<'_>, request: usize) {
        loop {
            let asked = self.with(world, request, |active, context| {
                // Once an answer runs, nothing else starts.
                active.winner.is_none().then(|| active.request.next(context))
            });
            let Some(Some(directive)) = asked else { return };
            match directive {
                Directive::Start { id, deployment, why, .. } => {
                    self.note_old_prices(world, request);
                    let Some(active) = self.active.get_mut(&request) else { return };
                    let agent = &self.agents[world.arrivals[request].agent];
                    let beside = agent.registry.in_flight(&agent.bindings[active.table], deployment);
                    let place = self.tables[active.table].place(deployment);
                    let why = if why == Start::Hedge { Why::Hedge } else { Why::Usual };
                    let attempt = world.start(request, place, why);
                    active.attempts.push(Running { id, attempt, beside });
                }
                Directive::Kill(id) => self.kill(world, request, id),
                Directive::Wait(until) if until > world.now => return world.wake_at(request, until),
                Directive::Wait(_) => {}
                Directive::Fail(failure) => return self.fail(world, request, failure),
            }
        }
    }

    fn kill(&mut self, world: &mut World<'_>, request: usize, id: AttemptId) {
        let attempt = self.with(world, request, |active, context| {
            active.request.failed(context, id, &classify_transport(TransportFault::AttemptTimeout));
            active.take(id)
        });
        if let Some(running) = attempt.flatten() {
            self.sample(world, request, running, SampleKind::Silent, None);
            world.cancel(running.attempt);
        }
    }

    fn fail(&mut self, world: &mut World<'_>, request: usize, _failure: Failure) {
        let losers = self.with(world, request, |active, context| active.request.abandon(context));
        self.drop_losers(world, request, &losers.unwrap_or_default());
        self.active.remove(&request);
        world.failed(request, false);
    }

    fn drop_losers(&mut self, world: &mut World<'_>, request: usize, losers: &[Loser]) {
        for loser in losers {
            let Some(active) = self.active.get_mut(&request) else { return };
            let Some(running) = active.take(loser.id) else { continue };
            let silent = loser.class == OutcomeClass::Timeout;
            let kind = if silent { SampleKind::Silent } else { SampleKind::Overtaken };
            self.sample(world, request, running, kind, None);
            world.cancel(running.attempt);
        }
    }

    /// An attempt ended: that goes into the agent's next report.
    fn sample(
        &mut self,
        world: &World<'_>,
        request: usize,
        running: Running,
        kind: SampleKind,
        won: Option<(Winner, u32)>,
    ) {
        let Some(active) = self.active.get(&request) else { return };
        let (arrival, call) = (&world.arrivals[request], world.call(running.attempt));
        let route = &self.tables[active.table].routing.virtual_models[active.route];
        let winner = won.map(|(winner, _)| winner);
        let sample = Sample {
            route: route_id(&route.name),
            started: call.started,
            // Usage comes with a whole answer only.
            input_tokens: match kind {
                SampleKind::Ok => arrival.input_tokens.into(),
                _ => arrival.input_estimate.into(),
            },
            cached_input_tokens: 0,
            max_output_tokens: arrival.max_output_tokens,
            output_tokens: won.map_or(0, |(_, tokens)| tokens.into()),
            ttft: winner.map(|winner| winner.first_token.since(call.started)),
            duration: world.now.since(call.started),
            kind,
            in_flight_own: running.beside,
            predicted_ttft_s: winner.map_or(0.0, |winner| winner.ticket.predicted_ttft_s()),
        };
        self.fleet.ended(arrival.agent, call.deployment, sample);
    }

    fn won(&mut self, world: &mut World<'_>, request: usize, attempt: Attempt) {
        let first_token = world.now;
        let losers = self.with(world, request, |active, context| {
            let id = active.of(attempt)?.id;
            let (ticket, losers) = active.request.won(context, id)?;
            active.winner = Some(Winner { attempt, ticket, first_token });
            Some(losers)
        });
        self.drop_losers(world, request, &losers.flatten().unwrap_or_default());
    }

    /// The winner's answer is over.
    fn ended(&mut self, world: &mut World<'_>, request: usize, attempt: Attempt, whole: Option<u32>) {
        let started = world.call(attempt).started;
        let arrival = world.arrivals[request];
        let winner = self.with(world, request, |active, context| {
            let winner = active.winner.filter(|winner| winner.attempt == attempt)?;
            let sample = if whole.is_some() { breaker::Sample::Ended } else { breaker::Sample::BrokeOff };
            context.registry.record(winner.ticket, context.now, sample, context.rng);
            if let Some(output_tokens) = whole {
                let seen = Observation {
                    input_tokens: arrival.input_tokens.into(),
                    cached_input_tokens: 0,
                    max_output_tokens: arrival.max_output_tokens,
                    output_tokens: output_tokens.into(),
                    ttft: winner.first_token.since(started),
                    duration: context.now.since(started),
                    stream: true,
                };
                context.registry.observe(winner.ticket, context.now, &seen);
            }
            context.registry.release(winner.ticket);
            Some(winner)
        });
        let Some(winner) = winner.flatten() else { return };
        let running = self.active.get(&request).and_then(|active| active.of(attempt));
        if let Some(running) = running {
            let kind = if whole.is_some() { SampleKind::Ok } else { SampleKind::Broke };
            self.sample(world, request, running, kind, Some((winner, whole.unwrap_or(0))));
        }
        self.active.remove(&request);
        match whole {
            Some(output_tokens) => world.answered(attempt, winner.first_token, output_tokens),
            None => world.failed(request, true),
        }
    }

    /// An attempt failed before any content.
    fn failed(&mut self, world: &mut World<'_>, request: usize, attempt: Attempt, heard: Heard) {
        let classified = match heard {
            Heard::Refused { status, retry_after } => classify(status, &ErrorFields::default(), retry_after),
            Heard::Empty => classify_body(BodyFault::Empty),
            Heard::Reset | Heard::FirstToken | Heard::Done { .. } | Heard::Broke => {
                classify_transport(TransportFault::Reset)
            }
        };
        let limited = classified.class == OutcomeClass::RateLimited;
        let running = self.with(world, request, |active, context| {
            let id = active.of(attempt)?.id;
            active.request.failed(context, id, &classified);
            active.take(id)
        });
        // A refusal for rate says nothing of how fast or how reliable a deployment is.
        if let Some(running) = running.flatten().filter(|_| !limited) {
            self.sample(world, request, running, SampleKind::Failed, None);
        }
        self.drive(world, request);
    }
}

impl Active {
    fn of(&self, attempt: Attempt) -> Option<Running> {
        self.attempts.iter().find(|running| running.attempt == attempt).copied()
    }

    fn take(&mut self, id: AttemptId) -> Option<Running> {
        let at = self.attempts.iter().position(|running| running.id == id)?;
        Some(self.attempts.swap_remove(at))
    }
}

fn context<'a>(
    agent: &'a mut Agent,
    table: &'a Table,
    index: usize,
    route: usize,
    now: Timestamp,
) -> Context<'a, StdRng> {
    Context {
        registry: &mut agent.registry,
        table: &table.routing,
        binding: &agent.bindings[index],
        route: Route { model: &table.routing.virtual_models[route], index: Some(route) },
        now,
        rng: &mut agent.rng,
    }
}

fn profile(arrival: &Arrival, now: Timestamp) -> Profile {
    Profile {
        input_tokens: arrival.input_estimate,
        max_output_tokens: arrival.max_output_tokens,
        stream: true,
        min_quality: arrival.min_quality,
        at_unix_ms: unix_ms(now),
        ..Profile::default()
    }
}

impl Client for Core<'_> {
    fn begin(&mut self, world: &mut World<'_>) {
        self.adopt_table(world);
        self.fleet.begin(world);
    }

    fn arrived(&mut self, world: &mut World<'_>, request: usize) {
        let arrival = world.arrivals[request];
        let table = self.tables.len() - 1;
        let route = self.tables[table].routes[arrival.part];
        let mut context =
            context(&mut self.agents[arrival.agent], &self.tables[table], table, route, world.now);
        let deadline = Some(Duration::from_secs_f64(world.scenario.deadline_s));
        let made = Request::new(profile(&arrival, world.now), deadline, &mut context);
        self.active
            .insert(request, Active { request: made, table, route, attempts: Vec::new(), winner: None });
        self.drive(world, request);
    }

    fn woken(&mut self, world: &mut World<'_>, request: usize) {
        self.drive(world, request);
    }

    fn heard(&mut self, world: &mut World<'_>, attempt: Attempt, heard: Heard) {
        let request = world.call(attempt).request;
        match heard {
            Heard::FirstToken => self.won(world, request, attempt),
            Heard::Done { output_tokens } => self.ended(world, request, attempt, Some(output_tokens)),
            Heard::Broke => self.ended(world, request, attempt, None),
            Heard::Refused { .. } | Heard::Reset | Heard::Empty => {
                self.failed(world, request, attempt, heard);
            }
        }
    }

    fn timer(&mut self, world: &mut World<'_>, number: usize) {
        match self.fleet.due(number) {
            Due::Report(agent) => {
                let table = self.tables.len() - 1;
                let Agent { registry, bindings, .. } = &self.agents[agent];
                let places = &self.tables[table].places;
                let running = (0..).zip(places).map(|(index, place)| {
                    (*place, registry.in_flight(&bindings[table], DeploymentIndex(index)))
                });
                self.fleet.report(world, agent, running);
            }
            Due::Publish => self.fleet.publish(world),
            Due::Adopt => {
                if let Some(published) = self.fleet.arrived() {
                    self.adopt_prices(world, published.priced);
                    for agent in &mut self.agents {
                        agent.registry.adopt(&published.models, world.now);
                    }
                }
            }
        }
    }

    fn fleet_changed(&mut self, world: &mut World<'_>) {
        self.adopt_table(world);
    }
}
