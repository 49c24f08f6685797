//! What an agent knows of its targets right now: breakers, gates, quarantines, turns
//! taken, attempts running. One owner keeps it; requests read and change it through
//! the verbs here.
//!
//! State is kept by name and outlives changes of the routing table; a [`Binding`]
//! maps one table's indices to it.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::time::Duration;

use rand_core::Rng;

use crate::{
    breaker::{Admission, Entry, Sample},
    bucket::{HedgeBucket, RetryBucket},
    hold::QuarantineReason,
    limits::LimitKind,
    pace::Pace,
    score::sessions::Sessions,
    table::DeploymentIndex,
    tenant::Tenant,
    time::Timestamp,
    train::outputs::Outputs,
};

mod bind;
mod check;
mod fleet;
mod floor;
mod hold;
mod lease;
mod observe;
mod slot;
mod view;

pub use bind::Binding;
use bind::{RotationKey, Turns};
use fleet::Fleet;
pub use fleet::{FleetState, FleetVerdict};
use lease::Leased;
pub use lease::{IdleLease, ProbeLease, ProbeOutcome, ProbeResult};
pub(crate) use observe::Knowledge;
pub use observe::Observation;
pub use slot::SlotId;
use slot::{Account, Slot};
pub use view::{AccountProtection, BreakerView, DeploymentProtection};

/// Room for the transitions of one breaker before the next one's epochs begin.
const EPOCHS_PER_BREAKER: u64 = 1 << 32;

/// An operator's word on a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    /// No traffic.
    Open,
    /// Traffic, whatever the breaker says.
    Closed,
}

/// What an attempt that may run is to the registry. Give it back with
/// [`Registry::release`].
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    /// Counts the tickets of this registry.
    number: u64,
    slot: SlotId,
    entry: Entry,
    /// Under which credential it started.
    credential: u32,
    started: Timestamp,
    /// The lease under which it probes for the fleet.
    lease: Option<Leased>,
    in_flight_own: u32,
    /// Over all agents, as far as was known. Itself included.
    in_flight: f64,
    predicted_ttft_s: f32,
    /// For what is learned of lengths; 0: for none.
    route: u64,
    session: Option<u64>,
    /// Its first content was learned from.
    begun: bool,
    /// Since when its silence counts against its deployment.
    doubted: Option<Timestamp>,
}

/// Whether a deployment may get an attempt now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Yes, with this share of its weight in percent.
    Ready(u8),
    /// No.
    Blocked(Block),
}

/// Why not, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// An operator said so, or took it out of the table.
    Forced,
    /// Something is broken until somebody acts.
    Quarantine(QuarantineReason, Timestamp),
    /// It asked for less.
    Gate(Timestamp),
    /// Its breaker is open, or a probe is on its way.
    Breaker(Timestamp),
    /// The fleet's breaker is open, or another agent probes.
    Fleet(Timestamp),
    /// That configured limit of this agent is used up.
    Limit(LimitKind),
    /// Its refusals or rate-limit headers taught that it takes no more until then.
    LearnedCap(Timestamp),
}

impl Ticket {
    const fn new(
        slot: SlotId,
        entry: Entry,
        credential: u32,
        started: Timestamp,
        in_flight_own: u32,
        in_flight: f64,
    ) -> Self {
        let (route, session, predicted_ttft_s) = (0, None, 0.0);
        let lease = None;
        Self {
            number: 0,
            slot,
            entry,
            credential,
            started,
            lease,
            in_flight_own,
            in_flight,
            predicted_ttft_s,
            route,
            session,
            begun: false,
            doubted: None,
        }
    }

    /// Which ticket of its registry it is, from 1.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Whose attempt it is.
    pub const fn slot(&self) -> SlotId {
        self.slot
    }

    /// The attempt is made for that tenant. Without this: for none.
    #[must_use]
    pub const fn of_tenant(self, tenant: Tenant) -> Self {
        Self { entry: self.entry.of_tenant(tenant), ..self }
    }
}

/// The state.
#[derive(Debug, Default)]
pub struct Registry {
    slots: Vec<Slot>,
    by_name: BTreeMap<Box<str>, SlotId>,
    accounts: Vec<Account>,
    rotations: Vec<Turns>,
    rotation_keys: BTreeMap<(Box<str>, usize), (usize, RotationKey)>,
    generation: u64,
    next_epoch: u64,
    /// Tickets given out.
    tickets: u64,
    bucket: RetryBucket,
    hedges: HedgeBucket,
    outputs: Outputs,
    fleet_outputs: Outputs,
    adopted: Option<Timestamp>,
    sessions: Sessions,
    /// Kept for deployments and providers that only a later table names.
    verdicts: BTreeMap<Box<str>, (Forced, Option<Timestamp>)>,
    missing: Vec<Box<str>>,
    fleet: Fleet,
}

impl Registry {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the deployment may get an attempt of `tokens` now.
    pub fn health(
        &self,
        binding: &Binding,
        deployment: DeploymentIndex,
        now: Timestamp,
        tokens: u64,
    ) -> Health {
        self.health_under(binding, deployment, now, tokens, true)
    }

    /// The same by what this agent knows itself, whatever the fleet says.
    pub fn local_health(
        &self,
        binding: &Binding,
        deployment: DeploymentIndex,
        now: Timestamp,
        tokens: u64,
    ) -> Health {
        self.health_under(binding, deployment, now, tokens, false)
    }

    fn health_under(
        &self,
        binding: &Binding,
        deployment: DeploymentIndex,
        now: Timestamp,
        tokens: u64,
        fleet: bool,
    ) -> Health {
        let Some(slot) = self.slot(binding.slot(deployment)) else { return Health::Blocked(Block::Forced) };
        let account = slot.account.and_then(|account| self.accounts.get(account));
        let forced = slot.forced(now);
        if forced == Some(Forced::Open) {
            return Health::Blocked(Block::Forced);
        }
        if account.is_some_and(|account| account.missing) {
            return Health::Blocked(Block::Quarantine(QuarantineReason::MissingCredential, now));
        }
        let holds = [Some(&slot.hold), account.map(|account| &account.hold)];
        for hold in holds.into_iter().flatten() {
            if let Some((reason, until)) = hold.quarantined(now) {
                return Health::Blocked(Block::Quarantine(reason, until));
            }
            if let Some(until) = hold.gated_until(now) {
                return Health::Blocked(Block::Gate(until));
            }
        }
        let share = match slot.breaker.admission(now) {
            _ if forced == Some(Forced::Closed) => 100,
            Admission::Share(share) => share,
            Admission::Probe => 100,
            Admission::Rejected { until } => return Health::Blocked(Block::Breaker(until)),
        };
        let fleet = if fleet && forced.is_none() { self.fleet_share(slot, now) } else { Ok(100) };
        let share = match fleet {
            Ok(100) => share,
            Ok(percent) => (u16::from(share) * u16::from(percent) / 100).max(1) as u8,
            Err(until) => return Health::Blocked(Block::Fleet(until)),
        };
        if let Some(limit) = slot.used_up(now, tokens) {
            return Health::Blocked(Block::Limit(limit));
        }
        if let Err(until) = slot.caps.admits(now, tokens) {
            return Health::Blocked(Block::LearnedCap(until));
        }
        Health::Ready(share)
    }

    /// Starts an attempt of `tokens`.
    pub fn begin(
        &mut self,
        binding: &Binding,
        deployment: DeploymentIndex,
        now: Timestamp,
        tokens: u64,
    ) -> Ticket {
        let id = binding.slot(deployment);
        let known = self.slot(id).is_some();
        let lease = if known { self.take_lease(id.index as usize, now) } else { None };
        Ticket { lease, ..self.start(binding, deployment, now, tokens) }
    }

    fn start(
        &mut self,
        binding: &Binding,
        deployment: DeploymentIndex,
        now: Timestamp,
        tokens: u64,
    ) -> Ticket {
        let id = binding.slot(deployment);
        if !self.fleet.is_empty() && self.slot(id).is_some() {
            self.find_out(id.index as usize, now);
        }
        self.tickets += 1;
        let number = self.tickets;
        let Some(slot) = self.slot_mut(id) else {
            return Ticket { number, ..Ticket::new(id, Entry::UNKNOWN, 0, now, 0, 1.0) };
        };
        let in_flight = slot.in_flight_of_all(now).0 + 1.0;
        slot.in_flight += 1;
        if let Some(meter) = &mut slot.meter {
            meter.charge(now, tokens);
        }
        slot.caps.begin(now, tokens);
        let (entry, own) = (slot.breaker.begin(now), slot.in_flight);
        Ticket { number, ..Ticket::new(id, entry, slot.credentials, now, own, in_flight) }
    }

    /// An attempt that was made elsewhere and is over: for what its result says. It used
    /// up no limit of this agent, ran beside none of its attempts, and is not to be given
    /// back. What it met is not known, so that it says nothing about load.
    pub fn reported(&mut self, binding: &Binding, deployment: DeploymentIndex, now: Timestamp) -> Ticket {
        let id = binding.slot(deployment);
        self.tickets += 1;
        let number = self.tickets;
        let Some(slot) = self.slot_mut(id) else {
            return Ticket { number, ..Ticket::new(id, Entry::UNKNOWN, 0, now, 0, 1.0) };
        };
        let in_flight = slot.in_flight_of_all(now).0 + 1.0;
        let entry = slot.breaker.begin(now);
        Ticket { number, ..Ticket::new(id, entry, slot.credentials, now, 0, in_flight) }
    }

    /// A result of an attempt. Returns whether the breaker opened.
    pub fn record(&mut self, ticket: Ticket, now: Timestamp, sample: Sample, rng: &mut impl Rng) -> bool {
        if let Some(leased) = ticket.lease {
            self.fleet.leases.settle(leased, now, sample);
        }
        self.tally(ticket, now, sample);
        let Some(slot) = self.slot_mut(ticket.slot) else { return false };
        if !matches!(sample, Sample::Neutral | Sample::Ended) {
            slot.last_result = now;
        }
        match sample {
            Sample::RateLimited => slot.caps.refused(ticket.started, now),
            Sample::Success | Sample::Begun => slot.caps.accepted(ticket.started, now),
            _ => {}
        }
        if slot.forced(now).is_some() {
            return false;
        }
        if matches!(sample, Sample::Success | Sample::Begun) {
            slot.hold.answered();
        }
        let opened = slot.breaker.record(now, ticket.entry, sample, rng);
        if opened {
            self.note_opening(ticket.slot, now, rng);
        }
        opened
    }

    /// A breaker opened: under which word of the fleet.
    fn note_opening(&mut self, id: SlotId, now: Timestamp, rng: &mut impl Rng) {
        let generation = self.slot(id).map_or(0, |slot| self.fleet.generation(slot.verdict));
        if let Some(slot) = self.slot_mut(id) {
            slot.base_generation = generation;
            self.opened_alone(id.index as usize, now, rng);
        }
    }

    /// An attempt looks bad, but its result will be known later only: free moves to
    /// its deployment end now.
    pub fn suspect(&mut self, ticket: Ticket) {
        if let Some(slot) = self.slot_mut(ticket.slot) {
            slot.breaker.suspect(ticket.entry);
        }
    }

    /// The attempt runs no more.
    pub fn release(&mut self, ticket: Ticket) {
        if let Some(leased) = ticket.lease {
            self.fleet.leases.vacate(leased);
        }
        if let Some(slot) = self.slot_mut(ticket.slot) {
            slot.in_flight = slot.in_flight.saturating_sub(1);
        }
    }

    /// The retry bucket.
    pub fn bucket(&mut self) -> &mut RetryBucket {
        &mut self.bucket
    }

    /// Tokens for attempts that race a slow one.
    pub(crate) fn hedges(&mut self) -> &mut HedgeBucket {
        &mut self.hedges
    }

    /// Closed, and no failure among its last ten results.
    pub fn recently_clean(&self, binding: &Binding, deployment: DeploymentIndex, now: Timestamp) -> bool {
        self.slot(binding.slot(deployment)).is_some_and(|slot| slot.breaker.recently_clean(now))
    }

    /// How long whole answers of the deployment are expected to take.
    pub fn expected_generation(
        &self,
        binding: &Binding,
        deployment: DeploymentIndex,
        max_output_tokens: Option<u32>,
    ) -> Duration {
        let unknown = Pace::default();
        let pace = self.slot(binding.slot(deployment)).map_or(&unknown, |slot| &slot.pace);
        pace.expected(max_output_tokens)
    }

    /// Attempts running at the deployment.
    pub fn in_flight(&self, binding: &Binding, deployment: DeploymentIndex) -> u32 {
        self.slot(binding.slot(deployment)).map_or(0, |slot| slot.in_flight)
    }

    /// A whole answer came, asked with this limit on its tokens.
    pub fn learn_pace(&mut self, ticket: Ticket, max_output_tokens: Option<u32>, took: Duration) {
        if let Some(slot) = self.slot_mut(ticket.slot) {
            slot.pace.learn(max_output_tokens, took);
        }
    }

    /// None: its place was given to another deployment.
    fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(id.index as usize).filter(|slot| slot.incarnation == id.incarnation)
    }

    fn slot_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(id.index as usize).filter(|slot| slot.incarnation == id.incarnation)
    }

    /// The slot, if its credential is still that of the ticket.
    fn slot_under(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        self.slot_mut(ticket.slot).filter(|slot| slot.credentials == ticket.credential)
    }
}
