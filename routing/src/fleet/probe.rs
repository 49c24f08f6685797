//! Probes: who gets the lease, what its result means, and what its silence means.

use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

use rand_core::Rng;

use super::{
    Fleet,
    lease::{Lease, Purpose, SLACK},
    verdict::{EMPTIES_MAX, State, Verdict},
};
use crate::{math, time::Timestamp};

/// Successes of probes that end half-open.
const PROBES_TO_CLOSE: u32 = 2;

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The deployment answers.
    Succeeded,
    /// It fails, or asked for less; how, in words.
    Failed(Box<str>),
    /// No request was made.
    Unused,
}

/// How the probes of a half-open verdict went.
#[derive(Clone, Debug, Default)]
pub(super) struct Probing {
    successes: u32,
    empties: u32,
    /// How the probe that failed ended.
    failed: Option<Box<str>>,
    /// Who held a lease since it is half-open.
    holders: Vec<u64>,
}

/// What the probes have shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown<'a> {
    /// Nothing yet.
    Nothing,
    /// It is back.
    Recovered,
    /// It is not.
    Failing(&'a str),
    /// Nobody can probe it.
    Nobody,
}

impl Probing {
    pub(super) fn shown(&self) -> Shown<'_> {
        match &self.failed {
            Some(how) => Shown::Failing(how),
            None if self.successes >= PROBES_TO_CLOSE => Shown::Recovered,
            None if self.empties >= EMPTIES_MAX => Shown::Nobody,
            None => Shown::Nothing,
        }
    }

    /// Successes so far.
    pub(super) const fn successes(&self) -> u32 {
        self.successes
    }

    fn take_in(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Succeeded => self.successes += 1,
            Outcome::Failed(how) => self.failed = Some(how),
            Outcome::Unused => self.empties += 1,
        }
    }
}

impl Fleet {
    /// An agent says what came of the lease `id`. The answer is whether it was the
    /// agent's to say: a lease that is over, of another agent or of an older generation
    /// changes nothing.
    pub fn probed(&mut self, agent: u64, id: u64, outcome: Outcome) -> bool {
        let Some(lease) = self.leases.take(id, agent) else { return false };
        match lease.purpose {
            Purpose::HalfOpen => self.take_in(&lease, outcome),
            Purpose::HealthCheck => {
                if self.checks.take_in(&lease.deployment, &outcome, &self.topology) {
                    self.dirty.insert(lease.deployment);
                }
            }
        }
        true
    }

    fn take_in(&mut self, lease: &Lease, outcome: Outcome) {
        let alive = outcome == Outcome::Succeeded;
        if let Some(verdict) = self.half_open(&lease.subject)
            && verdict.generation == lease.generation
        {
            verdict.probing.take_in(outcome);
        }
        // One of its deployments answers: so does the provider.
        let provider = self.topology.provider_of(&lease.subject).map(Box::from);
        if alive && let Some(provider) = provider.and_then(|provider: Box<str>| self.half_open(&provider)) {
            provider.probing.take_in(Outcome::Succeeded);
        }
    }

    fn half_open(&mut self, subject: &str) -> Option<&mut Verdict> {
        let verdict = self.verdicts.get_mut(subject)?;
        (verdict.record.state == State::HalfOpen && verdict.forced.is_none()).then_some(verdict)
    }

    /// Ends leases that ran out, and gives those that are due: `ttl` is how long a probe
    /// of a deployment may take. The answer is whether any lease is another one now.
    pub fn grant(&mut self, ttl: impl Fn(&str) -> Duration, now: Timestamp, rng: &mut impl Rng) -> bool {
        let mut changed = false;
        for lease in self.leases.take_if(|lease| lease.over_at() <= now) {
            changed = true;
            if lease.purpose == Purpose::HalfOpen {
                self.take_in(&lease, Outcome::Unused);
            }
        }
        let half_open: Vec<_> =
            self.active.iter().filter(|subject| self.wants_probe(subject)).cloned().collect();
        for subject in half_open {
            changed |= self.grant_one(&subject, &ttl, now, rng).is_some();
        }
        changed |= self.grant_checks(&ttl, now, rng);
        changed
    }

    fn wants_probe(&self, subject: &str) -> bool {
        let half_open = self.verdicts.get(subject).is_some_and(|verdict| {
            verdict.record.state == State::HalfOpen && verdict.probing.shown() == Shown::Nothing
        });
        half_open && self.leases.get(subject, Purpose::HalfOpen).is_none()
    }

    fn grant_one(
        &mut self,
        subject: &str,
        ttl: &impl Fn(&str) -> Duration,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> Option<()> {
        let deployment = self.probed_for(subject, rng)?;
        let verdict = self.verdicts.get_mut(subject)?;
        if let Some((since, over)) = &mut verdict.restored
            && now < *over.get_or_insert(*since + ttl(&deployment) + SLACK)
        {
            return None;
        }
        let agents = self.agents.candidates(&deployment, (&verdict.users, &verdict.probing.holders), now);
        let agent = *pick(&agents, rng)?;
        let id = self.leases.number()?;
        verdict.probing.holders.push(agent);
        let until = now + ttl(&deployment);
        self.leases.insert(Lease {
            id,
            subject: subject.into(),
            deployment,
            generation: verdict.generation,
            agent,
            until,
            purpose: Purpose::HalfOpen,
        });
        Some(())
    }

    /// What to call for `subject`: of a provider, a deployment that is not probed for
    /// itself.
    fn probed_for(&self, subject: &str, rng: &mut impl Rng) -> Option<Box<str>> {
        let deployments = self.topology.deployments_of(subject);
        if deployments.is_empty() {
            return self.topology.knows(subject).then(|| subject.into());
        }
        let admitted: Vec<_> = deployments.iter().filter(|name| self.admits_alone(name)).collect();
        pick(&admitted, rng).map(|name| (*name).clone())
    }

    /// The leases that are given.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.iter()
    }

    /// Up to where the numbers of leases have to be reserved durably, if it is time.
    pub fn lease_numbers_wanted(&self) -> Option<u64> {
        let needed = !self.active.is_empty() || self.topology.checked().next().is_some();
        if needed { self.leases.wanted() } else { None }
    }

    /// All lease numbers below `end` are reserved durably.
    pub fn reserve_leases(&mut self, end: u64) {
        self.leases.reserve(end);
    }
}

pub(super) fn pick<'a, T>(all: &'a [T], rng: &mut impl Rng) -> Option<&'a T> {
    let at = (math::unit(rng) * all.len() as f64) as usize;
    all.get(at)
}
