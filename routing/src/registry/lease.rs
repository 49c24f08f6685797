//! Leases of the control plane to probe a target: one request under each, whichever
//! comes first. What came of it goes back under the lease's number, which fences it: a
//! late word on an old lease changes nothing.

use alloc::{boxed::Box, vec::Vec};

use super::{Binding, Health, Registry, Ticket, fleet::Word, slot::Slot};
use crate::{
    breaker::Sample, classify::OutcomeClass, money::NanoUsd, table::DeploymentIndex, time::Timestamp,
};

/// Leases of one agent at a time. The control plane gives one for each failing target
/// to one agent of the fleet.
const LEASES_MAX: usize = 1_024;
/// Results that nobody took yet.
const RESULTS_MAX: usize = 1_024;

/// The control plane lets this agent send one request to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeLease<'a> {
    /// Full name of the deployment.
    pub deployment: &'a str,
    /// Never used twice.
    pub lease_id: u64,
    /// Of the verdict that it is for, on the deployment or on its provider.
    pub generation: u64,
    /// On the local clock.
    pub expires: Timestamp,
    /// A health check of an idle target that the fleet holds nothing against.
    pub is_check: bool,
}

/// What a probe says of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It answers.
    Succeeded,
    /// It fails, or asks for less.
    Failed,
    /// Nothing: no request was made. Another agent shall try.
    Unused,
}

/// What came of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// As in the lease.
    pub deployment: Box<str>,
    /// Of the lease.
    pub lease_id: u64,
    /// Of the lease.
    pub generation: u64,
    /// What it says.
    pub outcome: ProbeOutcome,
    /// How the attempt ended. None: there was none.
    pub class: Option<OutcomeClass>,
    /// What a call that was made up for it cost, if its price is known.
    pub cost: Option<NanoUsd>,
}

/// A lease for which no request has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleLease {
    /// Of the lease.
    pub lease_id: u64,
    /// Full name of the deployment.
    pub deployment: Box<str>,
    /// When a call should be made up for it.
    pub due: Timestamp,
    /// On the local clock.
    pub expires: Timestamp,
    /// Whether it is a health check, not a probe.
    pub is_check: bool,
}

/// The attempt that runs under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leased {
    lease: u64,
    /// Counts the attempts of this registry's leases.
    serial: u64,
}

#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Vec<Lease>,
    results: Vec<ProbeResult>,
    serials: u64,
}

#[derive(Clone, Debug)]
struct Lease {
    deployment: Box<str>,
    id: u64,
    generation: u64,
    granted: Timestamp,
    expires: Timestamp,
    is_check: bool,
    /// The attempt under it. None: none runs.
    busy: Option<Leased>,
    /// How that ended, and what it cost, as far as that is known.
    class: Option<OutcomeClass>,
    cost: Option<NanoUsd>,
    /// Its result is known. Kept until the control plane names it no more, so that an
    /// older word does not give it again.
    done: bool,
}

impl Lease {
    fn is_free(&self, now: Timestamp) -> bool {
        !self.done && self.busy.is_none() && self.expires > now
    }

    fn result(&self, outcome: ProbeOutcome) -> ProbeResult {
        ProbeResult {
            deployment: self.deployment.clone(),
            lease_id: self.id,
            generation: self.generation,
            outcome,
            class: self.class,
            cost: self.cost,
        }
    }
}

impl Leases {
    fn get_mut(&mut self, id: u64) -> Option<&mut Lease> {
        self.held.iter_mut().find(|lease| lease.id == id)
    }

    /// The attempt of the ticket, if it runs under its lease still.
    fn attempt_mut(&mut self, leased: Leased) -> Option<&mut Lease> {
        self.get_mut(leased.lease).filter(|lease| lease.busy == Some(leased))
    }

    fn occupy(&mut self, id: u64) -> Option<Leased> {
        let leased = Leased { lease: id, serial: self.serials };
        self.serials += 1;
        let lease = self.get_mut(id)?;
        (lease.busy, lease.class, lease.cost) = (Some(leased), None, None);
        Some(leased)
    }

    /// The attempt is over; without a result its place is free for the next one.
    pub(super) fn vacate(&mut self, leased: Leased) {
        if let Some(lease) = self.attempt_mut(leased) {
            lease.busy = None;
        }
    }

    /// A result of an attempt: its first ends the lease.
    pub(super) fn settle(&mut self, leased: Leased, now: Timestamp, sample: Sample) {
        let (outcome, otherwise) = match sample {
            Sample::Success | Sample::Begun => (ProbeOutcome::Succeeded, OutcomeClass::Ok),
            Sample::RateLimited => (ProbeOutcome::Failed, OutcomeClass::RateLimited),
            Sample::BrokeOff => (ProbeOutcome::Failed, OutcomeClass::MidStream),
            Sample::Failure | Sample::RatioFailure => (ProbeOutcome::Failed, OutcomeClass::Timeout),
            Sample::Neutral | Sample::Ended => return,
        };
        let room = self.results.len() < RESULTS_MAX;
        let Some(lease) = self.attempt_mut(leased) else { return };
        lease.busy = None;
        lease.done = true;
        lease.class = lease.class.or(Some(otherwise));
        let result = lease.result(outcome);
        if room && lease.expires > now {
            self.results.push(result);
        }
    }
}

impl Registry {
    /// Takes all leases that this agent holds now. One that goes on keeps its attempt;
    /// what is not named is over.
    pub fn set_leases<'a>(&mut self, leases: impl IntoIterator<Item = ProbeLease<'a>>, now: Timestamp) {
        let mut old = core::mem::take(&mut self.fleet.leases.held);
        for lease in leases.into_iter().filter(|lease| lease.expires > now).take(LEASES_MAX) {
            let known = old.iter().position(|known| known.id == lease.lease_id);
            let next = known.map_or_else(|| Lease::new(&lease, now), |at| old.swap_remove(at));
            self.fleet.leases.held.push(next);
        }
    }

    /// Whether there is a lease whose result is not known.
    pub fn has_leases(&self, now: Timestamp) -> bool {
        self.fleet.leases.held.iter().any(|lease| !lease.done && lease.expires > now)
            || !self.fleet.leases.results.is_empty()
    }

    /// What came of leases since this was last asked.
    pub fn take_probe_results(&mut self) -> Vec<ProbeResult> {
        core::mem::take(&mut self.fleet.leases.results)
    }

    /// Leases under which nothing runs, with the time at which a call should be made up:
    /// after half of a probe's time, so that a request may come first, and at once for a
    /// health check.
    pub fn idle_leases(&self, now: Timestamp) -> Vec<IdleLease> {
        let idle = self.fleet.leases.held.iter().filter(|lease| lease.is_free(now));
        let idle = idle.map(|lease| {
            let half = lease.expires.since(lease.granted) / 2;
            let due = if lease.is_check { lease.granted } else { lease.granted + half };
            IdleLease {
                lease_id: lease.id,
                deployment: lease.deployment.clone(),
                due,
                expires: lease.expires,
                is_check: lease.is_check,
            }
        });
        idle.collect()
    }

    /// Starts an attempt of `tokens` under a lease, made up for it. None: the lease is
    /// over or has an attempt, the fleet's word is another one by now, or what this
    /// agent knows of the deployment holds it back.
    pub fn begin_leased(
        &mut self,
        binding: &Binding,
        deployment: DeploymentIndex,
        lease_id: u64,
        now: Timestamp,
        tokens: u64,
    ) -> Option<Ticket> {
        let slot = self.slot(binding.slot(deployment))?;
        let lease = self.fleet.leases.held.iter().find(|lease| lease.id == lease_id)?;
        let fits =
            if lease.is_check { !self.is_rejected(slot, now) } else { self.lets_through(lease, slot, now) };
        let own = lease.is_free(now) && *lease.deployment == *slot.name;
        let well = matches!(self.local_health(binding, deployment, now, tokens), Health::Ready(_));
        if !(fits && own && well) {
            return None;
        }
        let ticket = self.start(binding, deployment, now, tokens);
        Some(Ticket { lease: self.fleet.leases.occupy(lease_id), ..ticket })
    }

    /// No request will be made under the lease: another agent shall have its turn.
    pub fn give_back_lease(&mut self, lease_id: u64, now: Timestamp) {
        let room = self.fleet.leases.results.len() < RESULTS_MAX;
        let Some(lease) = self.fleet.leases.get_mut(lease_id).filter(|lease| lease.is_free(now)) else {
            return;
        };
        lease.done = true;
        let result = lease.result(ProbeOutcome::Unused);
        if room {
            self.fleet.leases.results.push(result);
        }
    }

    /// How the attempt ended, to be told with its result. Says nothing of an attempt that
    /// has no lease.
    pub fn note_class(&mut self, ticket: Ticket, class: OutcomeClass) {
        if let Some(lease) = ticket.lease.and_then(|leased| self.fleet.leases.attempt_mut(leased)) {
            lease.class = Some(class);
        }
    }

    /// What the attempt cost, to be told with its result.
    pub fn note_cost(&mut self, ticket: Ticket, cost: Option<NanoUsd>) {
        if let Some(lease) = ticket.lease.and_then(|leased| self.fleet.leases.attempt_mut(leased)) {
            lease.cost = cost;
        }
    }

    /// The lease under which an attempt at the deployment may start now.
    pub(super) fn free_lease(&self, slot: &Slot, now: Timestamp) -> Option<u64> {
        let held = &self.fleet.leases.held;
        let fits = |lease: &&Lease| {
            !lease.is_check
                && *lease.deployment == *slot.name
                && lease.is_free(now)
                && self.lets_through(lease, slot, now)
        };
        held.iter().find(fits).map(|lease| lease.id)
    }

    /// Whether the lease is for what holds the deployment back now.
    fn lets_through(&self, lease: &Lease, slot: &Slot, now: Timestamp) -> bool {
        self.verdicts_of(slot).any(|index| match self.fleet.word(index, now) {
            Word::Reject { generation, .. } => generation == lease.generation,
            Word::Admit(_) | Word::FindOut => false,
        })
    }

    /// Whether the fleet holds back the deployment, whatever leases there are.
    fn is_rejected(&self, slot: &Slot, now: Timestamp) -> bool {
        let rejected = |index| matches!(self.fleet.word(index, now), Word::Reject { .. });
        self.verdicts_of(slot).any(rejected)
    }

    /// Takes the lease that the attempt needs, if it needs one and there is one.
    pub(super) fn take_lease(&mut self, slot: usize, now: Timestamp) -> Option<Leased> {
        let one = self.slots.get(slot)?;
        if self.fleet.is_empty() || !self.is_rejected(one, now) {
            return None;
        }
        let id = self.free_lease(one, now)?;
        self.fleet.leases.occupy(id)
    }
}

impl Lease {
    fn new(lease: &ProbeLease<'_>, now: Timestamp) -> Self {
        Self {
            deployment: lease.deployment.into(),
            id: lease.lease_id,
            generation: lease.generation,
            granted: now,
            expires: lease.expires,
            is_check: lease.is_check,
            busy: None,
            class: None,
            cost: None,
            done: false,
        }
    }
}
