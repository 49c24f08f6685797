//! The decision core as the agent holds it: one registry behind one lock, and a record of
//! all that it is told, if one is asked for.
//!
//! What changes the registry goes through the verbs here and nowhere else: the guard lends
//! it out for reading only. So a trace is complete, and replayed it gives the same
//! decisions.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use trunkline_routing::{
    breaker::Sample,
    classify::Classified,
    decide::{self, Decision},
    eligibility::Profile,
    hint::RateHeaders,
    money::NanoUsd,
    registry::{Binding, FleetVerdict, Forced, Observation, ProbeLease, ProbeResult, Registry, Ticket},
    request::{Context, Request},
    tenant::Tenant,
    time::Timestamp,
    trace::{self, Answer, Arrival, Beginning, Call, Chance, Entry, Event, Note},
    train::FleetModels,
};

use crate::{
    control::LoadedTable,
    snapshot::{Goal, Snapshot},
    tape::Tape,
};

/// The registry behind its lock.
#[derive(Debug)]
pub(crate) struct Brain {
    registry: Mutex<Registry>,
    requests: AtomicU64,
    tape: Option<Arc<Tape>>,
}

/// The registry, locked. Reads go to it; what changes it is below.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    registry: MutexGuard<'a, Registry>,
    requests: &'a AtomicU64,
    tape: Option<&'a Tape>,
}

/// A request under way, with the number that it has in a trace.
#[derive(Debug)]
pub(crate) struct Numbered {
    number: u64,
    request: Request,
}

impl Deref for Numbered {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.request
    }
}

impl Numbered {
    /// The request, for what tells the core nothing.
    pub(crate) const fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }
}

impl Brain {
    /// Knows nothing yet. With a tape all that it is told is recorded.
    pub(crate) fn new(tape: Option<Arc<Tape>>) -> Self {
        Self { registry: Mutex::new(Registry::new()), requests: AtomicU64::new(1), tape }
    }

    /// Held for a few hundred nanoseconds at a time, never across an await.
    pub(crate) fn lock(&self) -> Held<'_> {
        let registry = self.registry.lock();
        let tape = self.tape.as_deref().filter(|tape| tape.runs());
        Held { registry, requests: &self.requests, tape }
    }
}

impl Deref for Held<'_> {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

/// On what of which table something is decided, as traces name it.
fn place(snapshot: &Snapshot, goal: Goal) -> trace::Place {
    let goal = match goal {
        Goal::Virtual(index) => trace::Goal::Model(index as u32),
        Goal::Pin(deployment) => trace::Goal::Pin(deployment),
    };
    trace::Place { table: snapshot.binding.number(), goal }
}

/// Where the randomness of one call begins.
fn seed() -> u64 {
    rand::random()
}

impl Held<'_> {
    /// Nothing is made for the record unless there is one.
    fn record(
        &self,
        at: Timestamp,
        seed: u64,
        event: impl FnOnce() -> Event,
        answer: impl FnOnce() -> Answer,
    ) {
        if let Some(tape) = self.tape {
            tape.entry(&Entry { at, seed, event: event(), answer: answer() });
        }
    }

    /// See [`Registry::bind`].
    pub(crate) fn bind(&mut self, loaded: &LoadedTable, now: Timestamp) -> Binding {
        let binding = self.registry.bind(&loaded.table, now);
        if let Some(tape) = self.tape {
            tape.table(now, &loaded.table.version, loaded.state.config(), binding.number());
        }
        binding
    }

    /// See [`Registry::set_missing_credentials`].
    pub(crate) fn set_missing_credentials(&mut self, providers: &[impl AsRef<str>], now: Timestamp) {
        self.registry.set_missing_credentials(providers);
        let names = || providers.iter().map(|provider| provider.as_ref().into()).collect();
        self.record(now, 0, || Event::MissingCredentials(names()), Answer::default);
    }

    /// See [`Registry::credential_changed`].
    pub(crate) fn credential_changed(&mut self, provider: &str, now: Timestamp) {
        self.registry.credential_changed(provider);
        self.record(now, 0, || Event::CredentialChanged(provider.into()), Answer::default);
    }

    /// See [`Registry::set_forced`].
    pub(crate) fn set_forced(&mut self, all: &[(&str, Forced, Option<Timestamp>)], now: Timestamp) {
        self.registry.set_forced(all.iter().copied(), now);
        let owned = || all.iter().map(|(name, forced, until)| ((*name).into(), *forced, *until)).collect();
        self.record(now, 0, || Event::Forced(owned()), Answer::default);
    }

    /// See [`Registry::set_fleet`].
    pub(crate) fn set_fleet(&mut self, epoch: &str, verdicts: &[FleetVerdict<'_>], now: Timestamp) {
        let seed = seed();
        self.registry.set_fleet(epoch, verdicts.iter().copied(), now, &mut Chance::from_seed(seed));
        let owned = || verdicts.iter().map(trace::Verdict::of).collect();
        let event = || Event::Fleet { epoch: epoch.into(), verdicts: owned() };
        self.record(now, seed, event, Answer::default);
    }

    /// See [`Registry::set_leases`].
    pub(crate) fn set_leases(&mut self, leases: &[ProbeLease<'_>], now: Timestamp) {
        self.registry.set_leases(leases.iter().copied(), now);
        let owned = || leases.iter().map(trace::Lease::of).collect();
        self.record(now, 0, || Event::Leases(owned()), Answer::default);
    }

    /// See [`Registry::heard_from_fleet`].
    pub(crate) fn heard_from_fleet(&mut self, until: Timestamp, now: Timestamp) {
        self.registry.heard_from_fleet(until);
        self.record(now, 0, || Event::Heard(until), Answer::default);
    }

    /// See [`Registry::adopt`].
    pub(crate) fn adopt(&mut self, models: &FleetModels, now: Timestamp) {
        self.registry.adopt(models, now);
        self.record(now, 0, || Event::Adopt(models.clone()), Answer::default);
    }

    /// See [`Registry::take_probe_results`].
    pub(crate) fn take_probe_results(&mut self, now: Timestamp) -> Vec<ProbeResult> {
        let results = self.registry.take_probe_results();
        // Taking none changes nothing.
        if !results.is_empty() {
            let count = results.len() as u64;
            self.record(now, 0, || Event::TakeProbeResults, || Answer::Number(Some(count)));
        }
        results
    }

    /// See [`Registry::give_back_lease`].
    pub(crate) fn give_back_lease(&mut self, lease_id: u64, now: Timestamp) {
        self.registry.give_back_lease(lease_id, now);
        self.record(now, 0, || Event::GiveBackLease(lease_id), Answer::default);
    }

    /// See [`Registry::begin_for`].
    pub(crate) fn begin(
        &mut self,
        binding: &Binding,
        beginning: &Beginning,
        now: Timestamp,
    ) -> Option<Ticket> {
        let ticket = self.registry.begin_for(binding, beginning, now);
        let number = ticket.map(|ticket| ticket.number());
        self.record(now, 0, || Event::Begin(*beginning), || Answer::Number(number));
        ticket
    }

    /// A decision that changes nothing, so it is not recorded. See [`decide::decide`].
    pub(crate) fn decide(
        &mut self,
        snapshot: &Snapshot,
        goal: Goal,
        profile: &Profile,
        now: Timestamp,
    ) -> Decision {
        let (table, binding, route) = (snapshot.table(), &snapshot.binding, snapshot.route(goal));
        decide::decide(&mut self.registry, table, binding, route, profile, now)
    }

    /// See [`decide::take`].
    pub(crate) fn take(
        &mut self,
        snapshot: &Snapshot,
        goal: Goal,
        profile: &Profile,
        now: Timestamp,
    ) -> Decision {
        let (table, binding, route) = (snapshot.table(), &snapshot.binding, snapshot.route(goal));
        let seed = seed();
        let chance = &mut Chance::from_seed(seed);
        let decision = decide::take(&mut self.registry, table, binding, route, profile, now, chance);
        let event = || Event::Take { place: place(snapshot, goal), profile: *profile };
        self.record(now, seed, event, || Answer::decision(&decision));
        decision
    }

    /// A request came. See [`Request::new`].
    pub(crate) fn arrive(
        &mut self,
        snapshot: &Snapshot,
        goal: Goal,
        profile: &Profile,
        deadline: Option<Duration>,
        tenant: Tenant,
        now: Timestamp,
    ) -> (Decision, Numbered) {
        let decision = self.decide(snapshot, goal, profile, now);
        let (number, seed) = (self.requests.fetch_add(1, Ordering::Relaxed), seed());
        let mut context = Context {
            registry: &mut self.registry,
            table: snapshot.table(),
            binding: &snapshot.binding,
            route: snapshot.route(goal),
            now,
            rng: &mut Chance::from_seed(seed),
        };
        let request = Request::new(*profile, deadline, &mut context).of_tenant(tenant);
        let (place, profile) = (place(snapshot, goal), *profile);
        let arrival = || Event::Arrive(Arrival { request: number, place, profile, deadline, tenant });
        self.record(now, seed, arrival, || Answer::decision(&decision));
        (decision, Numbered { number, request })
    }

    /// Asks a request, or tells it: `ask` makes the `call`.
    pub(crate) fn ask<T>(
        &mut self,
        asked: &mut Numbered,
        (snapshot, goal): (&Snapshot, Goal),
        now: Timestamp,
        call: Call,
        ask: impl FnOnce(&mut Request, &mut Context<'_, Chance>) -> T,
        answer: impl FnOnce(&T) -> Answer,
    ) -> T {
        let seed = seed();
        let mut context = Context {
            registry: &mut self.registry,
            table: snapshot.table(),
            binding: &snapshot.binding,
            route: snapshot.route(goal),
            now,
            rng: &mut Chance::from_seed(seed),
        };
        let answered = ask(&mut asked.request, &mut context);
        let request = asked.number;
        self.record(now, seed, || Event::Ask { request, call }, || answer(&answered));
        answered
    }

    fn note(&mut self, ticket: Ticket, now: Timestamp, note: Note) -> bool {
        let seed = seed();
        let opened = note.tell(&mut self.registry, ticket, now, &mut Chance::from_seed(seed));
        let event = || Event::Note { ticket: ticket.number(), note };
        self.record(now, seed, event, || opened.map_or(Answer::Nothing, Answer::Opened));
        opened.unwrap_or(false)
    }

    /// See [`Registry::rate_headers`].
    pub(crate) fn rate_headers(&mut self, ticket: Ticket, now: Timestamp, headers: &RateHeaders) {
        self.note(ticket, now, Note::RateHeaders(*headers));
    }

    /// See [`Registry::learn_pace`].
    pub(crate) fn learn_pace(
        &mut self,
        ticket: Ticket,
        now: Timestamp,
        max_output_tokens: Option<u32>,
        took: Duration,
    ) {
        self.note(ticket, now, Note::Pace(max_output_tokens, took));
    }

    /// See [`Registry::observe`].
    pub(crate) fn observe(&mut self, ticket: Ticket, now: Timestamp, seen: &Observation) {
        self.note(ticket, now, Note::Observe(*seen));
    }

    /// See [`Registry::record`].
    pub(crate) fn result(&mut self, ticket: Ticket, now: Timestamp, sample: Sample) -> bool {
        self.note(ticket, now, Note::Record(sample))
    }

    /// See [`trunkline_routing::learn::learn`].
    pub(crate) fn learn(&mut self, ticket: Ticket, now: Timestamp, classified: &Classified) -> bool {
        self.note(ticket, now, Note::Learn(*classified))
    }

    /// See [`trunkline_routing::learn::answered`].
    pub(crate) fn answered(&mut self, ticket: Ticket, now: Timestamp) -> bool {
        self.note(ticket, now, Note::Answered)
    }

    /// See [`Registry::note_cost`].
    pub(crate) fn note_cost(&mut self, ticket: Ticket, now: Timestamp, cost: Option<NanoUsd>) {
        self.note(ticket, now, Note::Cost(cost));
    }

    /// See [`Registry::note_check`].
    pub(crate) fn note_check(
        &mut self,
        ticket: Ticket,
        now: Timestamp,
        sample: Sample,
        unhealthy_threshold: u32,
    ) -> bool {
        self.note(ticket, now, Note::Check(sample, unhealthy_threshold))
    }

    /// See [`Registry::release`].
    pub(crate) fn release(&mut self, ticket: Ticket, now: Timestamp) {
        self.note(ticket, now, Note::Release);
    }
}
