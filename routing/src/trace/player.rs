//! Tells a core of its own what a trace holds, and hears what it answers.

use alloc::{boxed::Box, collections::BTreeMap};

use super::{Answer, Arrival, Beginning, Call, Chance, Entry, Event, Goal, Lease, Note, Place, Verdict};
use crate::{
    decide::{self, Route},
    eligibility::Profile,
    learn,
    registry::{Binding, Registry, Ticket},
    request::{Context, Request},
    table::{RoutingTable, VirtualModel},
    time::Timestamp,
};

/// A core that knows nothing at first. What it keeps is bounded by the trace: tables, and
/// requests and attempts that have not ended.
#[derive(Debug, Default)]
pub struct Player {
    registry: Registry,
    tables: BTreeMap<u64, Bound>,
    requests: BTreeMap<u64, Flight>,
    tickets: BTreeMap<u64, Ticket>,
}

#[derive(Debug)]
struct Bound {
    table: Box<RoutingTable>,
    binding: Binding,
}

#[derive(Debug)]
struct Flight {
    place: Place,
    request: Request,
}

/// What a goal stands for: a virtual model by its index, or one made up for a pin.
enum Target {
    Model(usize),
    Pin(Box<VirtualModel>),
}

impl Bound {
    fn target(&self, goal: Goal) -> Option<Target> {
        match goal {
            Goal::Model(index) => {
                let index = index as usize;
                (index < self.table.virtual_models.len()).then_some(Target::Model(index))
            }
            Goal::Pin(index) => {
                let deployment = self.table.deployments.get(index.0 as usize)?;
                Some(Target::Pin(Box::new(VirtualModel::pin(&deployment.name, index))))
            }
        }
    }

    fn route<'a>(&'a self, target: &'a Target) -> Route<'a> {
        match target {
            Target::Model(index) => Route { model: &self.table.virtual_models[*index], index: Some(*index) },
            Target::Pin(model) => Route { model, index: None },
        }
    }
}

impl Player {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the core knows by now.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The table of that number.
    pub fn table(&self, number: u64) -> Option<&RoutingTable> {
        self.tables.get(&number).map(|bound| &*bound.table)
    }

    /// What a request is routed on, of those that have not ended.
    pub fn place(&self, request: u64) -> Option<Place> {
        self.requests.get(&request).map(|flight| flight.place)
    }

    /// Tells it one event. None: the event names a table, request or attempt that there is
    /// not, so the trace is not whole or went another way before.
    pub fn play(&mut self, entry: &Entry) -> Option<Answer> {
        let Entry { at, seed, ref event, .. } = *entry;
        let now = at;
        let mut chance = Chance::from_seed(seed);
        match event {
            Event::Bind(table) => return Some(self.bind(table, now)),
            Event::MissingCredentials(providers) => self.registry.set_missing_credentials(providers),
            Event::CredentialChanged(provider) => self.registry.credential_changed(provider),
            Event::Forced(all) => {
                let all = all.iter().map(|(name, forced, until)| (&**name, *forced, *until));
                self.registry.set_forced(all, now);
            }
            Event::Fleet { epoch, verdicts } => {
                let verdicts = verdicts.iter().map(Verdict::borrowed);
                self.registry.set_fleet(epoch, verdicts, now, &mut chance);
            }
            Event::Leases(leases) => self.registry.set_leases(leases.iter().map(Lease::borrowed), now),
            Event::Heard(until) => self.registry.heard_from_fleet(*until),
            Event::Adopt(models) => self.registry.adopt(models, now),
            Event::Arrive(arrival) => return self.arrive(arrival, now, &mut chance),
            Event::Ask { request, call } => return self.ask(*request, call, now, &mut chance),
            Event::Take { place, profile } => return self.take(*place, profile, now, &mut chance),
            Event::Begin(beginning) => return self.begin(beginning, now),
            Event::Note { ticket, note } => return self.note(*ticket, note, now, &mut chance),
            Event::TakeProbeResults => {
                return Some(Answer::Number(Some(self.registry.take_probe_results().len() as u64)));
            }
            Event::GiveBackLease(lease) => self.registry.give_back_lease(*lease, now),
        }
        Some(Answer::Nothing)
    }

    fn bind(&mut self, table: &RoutingTable, now: Timestamp) -> Answer {
        let binding = self.registry.bind(table, now);
        let number = binding.number();
        self.tables.insert(number, Bound { table: Box::new(table.clone()), binding });
        Answer::Number(Some(number))
    }

    fn arrive(&mut self, arrival: &Arrival, now: Timestamp, chance: &mut Chance) -> Option<Answer> {
        let Arrival { request: number, place, ref profile, deadline, tenant } = *arrival;
        let Bound { table, binding } = self.tables.get(&place.table)?;
        let target = self.tables.get(&place.table)?.target(place.goal)?;
        let route = self.tables.get(&place.table)?.route(&target);
        let decision = decide::decide(&mut self.registry, table, binding, route, profile, now);
        let registry = &mut self.registry;
        let mut context = Context { registry, table, binding, route, now, rng: chance };
        let request = Request::new(*profile, deadline, &mut context).of_tenant(tenant);
        self.requests.insert(number, Flight { place, request });
        Some(Answer::decision(&decision))
    }

    fn ask(&mut self, number: u64, call: &Call, now: Timestamp, chance: &mut Chance) -> Option<Answer> {
        let Flight { place, request } = self.requests.get_mut(&number)?;
        let bound = self.tables.get(&place.table)?;
        let target = bound.target(place.goal)?;
        let (table, binding, route) = (&bound.table, &bound.binding, bound.route(&target));
        let registry = &mut self.registry;
        let mut context = Context { registry, table, binding, route, now, rng: chance };
        let mut over = false;
        let answer = match call {
            Call::Next => Answer::Directive(request.next(&mut context)),
            Call::Heard(id) => {
                request.heard(&context, *id);
                Answer::Nothing
            }
            Call::Failed(id, classified) => Answer::Opened(request.failed(&mut context, *id, classified)),
            Call::Won(id) => {
                let won = request.won(&mut context, *id);
                if let Some((ticket, _)) = &won {
                    over = true;
                    self.tickets.insert(ticket.number(), *ticket);
                }
                Answer::won(won.as_ref())
            }
            Call::Abandon => {
                over = true;
                Answer::abandoned(&request.abandon(&mut context))
            }
        };
        if over {
            self.requests.remove(&number);
        }
        Some(answer)
    }

    fn take(
        &mut self,
        place: Place,
        profile: &Profile,
        now: Timestamp,
        chance: &mut Chance,
    ) -> Option<Answer> {
        let bound = self.tables.get(&place.table)?;
        let target = bound.target(place.goal)?;
        let route = bound.route(&target);
        let decision =
            decide::take(&mut self.registry, &bound.table, &bound.binding, route, profile, now, chance);
        Some(Answer::decision(&decision))
    }

    fn begin(&mut self, beginning: &Beginning, now: Timestamp) -> Option<Answer> {
        let Bound { table, binding } = self.tables.get(&beginning.table)?;
        table.deployments.get(beginning.deployment.0 as usize)?;
        let ticket = self.registry.begin_for(binding, beginning, now);
        if let Some(ticket) = ticket {
            self.tickets.insert(ticket.number(), ticket);
        }
        Some(Answer::Number(ticket.map(|ticket| ticket.number())))
    }

    fn note(&mut self, number: u64, note: &Note, now: Timestamp, chance: &mut Chance) -> Option<Answer> {
        let ticket = *self.tickets.get(&number)?;
        if *note == Note::Release {
            self.tickets.remove(&number);
        }
        Some(note.tell(&mut self.registry, ticket, now, chance).map_or(Answer::Nothing, Answer::Opened))
    }
}

impl Registry {
    /// Starts an attempt that no [`Request`] makes. None: the lease that it needs is not to
    /// be had.
    pub fn begin_for(&mut self, binding: &Binding, beginning: &Beginning, now: Timestamp) -> Option<Ticket> {
        let Beginning { deployment, lease, reported, tokens, tenant, route, session, .. } = *beginning;
        let ticket = match lease {
            Some(lease) => self.begin_leased(binding, deployment, lease, now, tokens)?,
            None if reported => self.reported(binding, deployment, now),
            None => self.begin(binding, deployment, now, tokens),
        };
        Some(ticket.of_tenant(tenant).of_route(route, session, None))
    }
}

impl Note {
    /// Tells the registry. Returns whether a breaker opened; None: it can't.
    pub fn tell(
        &self,
        registry: &mut Registry,
        ticket: Ticket,
        now: Timestamp,
        chance: &mut Chance,
    ) -> Option<bool> {
        match *self {
            Self::RateHeaders(ref headers) => registry.rate_headers(ticket, now, headers),
            Self::Pace(limit, took) => registry.learn_pace(ticket, limit, took),
            Self::Observe(ref seen) => registry.observe(ticket, now, seen),
            Self::Cost(cost) => registry.note_cost(ticket, cost),
            Self::Release => registry.release(ticket),
            Self::Record(sample) => return Some(registry.record(ticket, now, sample, chance)),
            Self::Learn(ref classified) => {
                return Some(learn::learn(registry, ticket, now, classified, chance));
            }
            Self::Answered => return Some(learn::answered(registry, ticket, now, chance)),
            Self::Check(sample, threshold) => {
                return Some(registry.note_check(ticket, now, sample, threshold, chance));
            }
        }
        None
    }
}
