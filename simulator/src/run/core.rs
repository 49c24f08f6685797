//! Drives the decision core as agents do: one registry per agent, the same state
//! machine of a request, the same words on what an attempt's end means.

use std::{collections::BTreeMap, time::Duration};

use rand::rngs::StdRng;
use trunkline_routing::{
    breaker::Sample,
    classify::{BodyFault, ErrorFields, TransportFault, classify, classify_body, classify_transport},
    decide::Route,
    eligibility::Profile,
    registry::{Binding, Registry, Ticket},
    request::{AttemptId, Context, Directive, Failure, Loser, Request},
    table::Strategy,
    time::Timestamp,
};

use super::{
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
    agents: Vec<Agent>,
    /// Every routing table of the run; the last one is in force.
    tables: Vec<Table>,
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
    attempts: Vec<(AttemptId, Attempt)>,
    winner: Option<Winner>,
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
        _ablation: Ablation,
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
            agents: (0..agents).map(agent).collect(),
            tables: Vec::new(),
            active: BTreeMap::new(),
        }
    }

    /// A routing table came to all agents.
    fn adopt_table(&mut self, world: &World<'_>) {
        let table = Table::new(world.scenario, self.traffic, &world.providers, self.strategy, world.now);
        for agent in &mut self.agents {
            agent.bindings.push(agent.registry.bind(&table.routing, world.now));
        }
        self.tables.push(table);
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
                Directive::Start { id, deployment, .. } => {
                    let Some(active) = self.active.get_mut(&request) else { return };
                    let place = self.tables[active.table].place(deployment);
                    let attempt = world.start(request, place, Why::Usual);
                    active.attempts.push((id, attempt));
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
        if let Some(attempt) = attempt.flatten() {
            world.cancel(attempt);
        }
    }

    fn fail(&mut self, world: &mut World<'_>, request: usize, _failure: Failure) {
        let losers = self.with(world, request, |active, context| active.request.abandon(context));
        self.drop_losers(world, request, &losers.unwrap_or_default());
        self.active.remove(&request);
        world.failed(request, false);
    }

    fn drop_losers(&mut self, world: &mut World<'_>, request: usize, losers: &[Loser]) {
        let Some(active) = self.active.get_mut(&request) else { return };
        for attempt in losers.iter().filter_map(|loser| active.take(loser.id)) {
            world.cancel(attempt);
        }
    }

    fn won(&mut self, world: &mut World<'_>, request: usize, attempt: Attempt) {
        let first_token = world.now;
        let losers = self.with(world, request, |active, context| {
            let id = active.id(attempt)?;
            let (ticket, losers) = active.request.won(context, id)?;
            active.winner = Some(Winner { attempt, ticket, first_token });
            Some(losers)
        });
        self.drop_losers(world, request, &losers.flatten().unwrap_or_default());
    }

    /// The winner's answer is over.
    fn ended(&mut self, world: &mut World<'_>, request: usize, attempt: Attempt, whole: Option<u32>) {
        let winner = self.with(world, request, |active, context| {
            let winner = active.winner.filter(|winner| winner.attempt == attempt)?;
            let sample = if whole.is_some() { Sample::Ended } else { Sample::BrokeOff };
            context.registry.record(winner.ticket, context.now, sample, context.rng);
            context.registry.release(winner.ticket);
            Some(winner)
        });
        let Some(winner) = winner.flatten() else { return };
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
        self.with(world, request, |active, context| {
            if let Some(id) = active.id(attempt) {
                active.request.failed(context, id, &classified);
                active.take(id);
            }
        });
        self.drive(world, request);
    }
}

impl Active {
    fn id(&self, attempt: Attempt) -> Option<AttemptId> {
        self.attempts.iter().find(|(_, known)| *known == attempt).map(|(id, _)| *id)
    }

    fn take(&mut self, id: AttemptId) -> Option<Attempt> {
        let at = self.attempts.iter().position(|(known, _)| *known == id)?;
        Some(self.attempts.swap_remove(at).1)
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
        input_tokens: arrival.input_tokens,
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

    fn timer(&mut self, _world: &mut World<'_>, _number: usize) {}

    fn fleet_changed(&mut self, world: &mut World<'_>) {
        self.adopt_table(world);
    }
}
