//! Leases of the control plane to probe a target: one attempt in flight under each, of
//! whichever request comes first. What came of it goes back under the lease's number,
//! which fences it: a late word on an old lease changes nothing.

use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

use super::{Registry, Ticket, fleet::Word, slot::Slot};
use crate::{breaker::Sample, table::DeploymentIndex, time::Timestamp};

/// Leases of one agent at a time. The control plane gives one for each failing target
/// to one agent of the fleet.
const LEASES_MAX: usize = 1_024;
/// Results that nobody took yet.
const RESULTS_MAX: usize = 1_024;

/// The control plane lets this agent probe a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeLease<'a> {
    /// As in the verdict: a deployment, or a provider.
    pub subject: &'a str,
    /// Never used twice.
    pub lease_id: u64,
    /// Of the verdict that it is for.
    pub generation: u64,
    /// On the local clock.
    pub expires: Timestamp,
}

/// What came of one attempt under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// As in the lease.
    pub subject: Box<str>,
    /// Of the lease.
    pub lease_id: u64,
    /// Of the lease.
    pub generation: u64,
    /// Attempts under it whose result is known, this one included.
    pub attempts: u32,
    /// Those that succeeded.
    pub successes: u32,
    /// What this one was. Never neutral.
    pub sample: Sample,
    /// From its start to its result.
    pub took: Duration,
}

/// A lease for which no request has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleLease {
    /// Of the lease.
    pub lease_id: u64,
    /// As in the lease.
    pub subject: Box<str>,
    /// When a call should be made up for it.
    pub due: Timestamp,
    /// Whether it is for a target that is in use: a health check, not a probe.
    pub is_check: bool,
}

/// The attempt that runs under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leased {
    lease: u64,
    /// Counts the attempts of this registry's leases.
    serial: u64,
    started: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Vec<Lease>,
    results: Vec<ProbeResult>,
    serials: u64,
}

#[derive(Clone, Debug)]
struct Lease {
    subject: Box<str>,
    id: u64,
    generation: u64,
    granted: Timestamp,
    expires: Timestamp,
    /// The attempt under it. None: none runs.
    busy: Option<Leased>,
    /// When the last result came.
    heard: Option<Timestamp>,
    attempts: u32,
    successes: u32,
}

impl Leases {
    pub(super) fn end_expired(&mut self, now: Timestamp) {
        self.held.retain(|lease| lease.expires > now);
    }

    /// A lease that admits an attempt now.
    pub(super) fn free(&self, subject: &str, generation: u64, now: Timestamp) -> Option<u64> {
        let free = |lease: &&Lease| {
            *lease.subject == *subject
                && lease.generation == generation
                && lease.busy.is_none()
                && lease.expires > now
        };
        self.held.iter().find(free).map(|lease| lease.id)
    }

    fn get_mut(&mut self, id: u64) -> Option<&mut Lease> {
        self.held.iter_mut().find(|lease| lease.id == id)
    }

    fn occupy(&mut self, id: u64, now: Timestamp) -> Option<Leased> {
        let leased = Leased { lease: id, serial: self.serials, started: now };
        self.serials += 1;
        let lease = self.get_mut(id)?;
        lease.busy = Some(leased);
        Some(leased)
    }

    /// The attempt is over, or the place is free for the next one.
    pub(super) fn vacate(&mut self, leased: Leased) {
        if let Some(lease) = self.get_mut(leased.lease).filter(|lease| lease.busy == Some(leased)) {
            lease.busy = None;
        }
    }

    /// A result of an attempt: only its first counts, and only while the lease lasts.
    pub(super) fn settle(&mut self, leased: Leased, now: Timestamp, sample: Sample) {
        let succeeded = match sample {
            Sample::Success | Sample::Begun => true,
            Sample::Failure | Sample::RatioFailure | Sample::BrokeOff | Sample::RateLimited => false,
            Sample::Neutral | Sample::Ended => return,
        };
        let room = self.results.len() < RESULTS_MAX;
        let id = leased.lease;
        let Some(lease) = self.get_mut(id).filter(|lease| lease.busy == Some(leased)) else { return };
        lease.busy = None;
        if lease.expires <= now {
            return;
        }
        lease.heard = Some(now);
        lease.attempts += 1;
        lease.successes += u32::from(succeeded);
        let result = ProbeResult {
            subject: lease.subject.clone(),
            lease_id: id,
            generation: lease.generation,
            attempts: lease.attempts,
            successes: lease.successes,
            sample,
            took: now.since(leased.started),
        };
        if !succeeded {
            // It showed what it should; the fleet's next word decides.
            self.held.retain(|lease| lease.id != id);
        }
        if room {
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
            let next = known.map_or_else(
                || Lease {
                    subject: lease.subject.into(),
                    id: lease.lease_id,
                    generation: lease.generation,
                    granted: now,
                    expires: lease.expires,
                    busy: None,
                    heard: None,
                    attempts: 0,
                    successes: 0,
                },
                |at| Lease { expires: lease.expires, ..old.swap_remove(at) },
            );
            self.fleet.leases.held.push(next);
        }
    }

    /// What came of attempts under leases since this was last asked.
    pub fn take_probe_results(&mut self) -> Vec<ProbeResult> {
        core::mem::take(&mut self.fleet.leases.results)
    }

    /// Leases under which nothing runs, with the time at which a call should be made up:
    /// half of the lease's time for the first, a quarter later for each next one, and at
    /// once for a health check of a target that the fleet holds nothing against.
    pub fn idle_leases(&self, now: Timestamp) -> Vec<IdleLease> {
        let idle = self.fleet.leases.held.iter().filter(|lease| lease.busy.is_none() && lease.expires > now);
        let idle = idle.filter_map(|lease| {
            let index = self.fleet.index_of(&lease.subject);
            let word = index.map_or(Word::Admit(100), |index| self.fleet.word(index, now));
            let lasts = lease.expires.since(lease.granted);
            let (is_check, due) = match word {
                Word::Reject { generation, .. } if generation != lease.generation => return None,
                Word::Reject { .. } => {
                    let due = lease.heard.map_or(lease.granted + lasts / 2, |heard| heard + lasts / 4);
                    (false, due)
                }
                Word::Admit(_) | Word::FindOut if lease.attempts > 0 => return None,
                Word::Admit(_) | Word::FindOut => (true, lease.granted),
            };
            Some(IdleLease { lease_id: lease.id, subject: lease.subject.clone(), due, is_check })
        });
        idle.collect()
    }

    /// Starts an attempt of `tokens` under a lease, made up for it. None: the lease is
    /// over or has an attempt, or the deployment's own state holds it back.
    pub fn begin_leased(
        &mut self,
        binding: &super::Binding,
        deployment: DeploymentIndex,
        lease_id: u64,
        now: Timestamp,
        tokens: u64,
    ) -> Option<Ticket> {
        let free = |lease: &&Lease| lease.id == lease_id && lease.busy.is_none() && lease.expires > now;
        self.fleet.leases.held.iter().find(free)?;
        if !matches!(self.local_health(binding, deployment, now, tokens), super::Health::Ready(_)) {
            return None;
        }
        let ticket = self.start(binding, deployment, now, tokens);
        Some(Ticket { lease: self.fleet.leases.occupy(lease_id, now), ..ticket })
    }

    /// The lease under which an attempt at the deployment may start now.
    pub(super) fn free_lease(&self, slot: &Slot, now: Timestamp) -> Option<u64> {
        self.verdicts_of(slot).find_map(|index| match self.fleet.word(index, now) {
            Word::Reject { generation, .. } => {
                self.fleet.leases.free(self.fleet.subject(index), generation, now)
            }
            Word::Admit(_) | Word::FindOut => None,
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
        self.fleet.leases.occupy(id, now)
    }
}
