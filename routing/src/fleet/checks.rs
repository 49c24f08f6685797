//! Health checks of deployments that have no traffic: one agent of the fleet calls each, in
//! the interval of its provider, and failures in a row open it.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::time::Duration;

use rand_core::Rng;

use super::{
    Fleet, State,
    lease::{Lease, Purpose},
    probe::{Outcome, pick},
    topology::Topology,
};
use crate::{money::NanoUsd, time::Timestamp};

/// What is known of checked deployments: as many as the configuration names.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks {
    known: BTreeMap<Box<str>, Known>,
    /// By provider, since when costs are counted, and how much.
    spent: BTreeMap<Box<str>, (Timestamp, NanoUsd)>,
}

/// Costs count for so long, from a provider's first check on.
const DAY: Duration = Duration::from_secs(24 * 3_600);

#[derive(Clone, Copy, Debug)]
struct Known {
    /// When an agent reported traffic, or got a lease to check.
    heard: Timestamp,
    /// Checks that failed in a row.
    failed: u32,
}

impl Checks {
    /// Forgets what is not checked any more.
    pub(super) fn keep(&mut self, topology: &Topology) {
        self.known.retain(|name, _| topology.check(name).is_some());
        self.spent.retain(|provider, _| topology.knows(provider));
    }

    /// What checks of a provider cost within the last day.
    fn spent(&self, provider: &str, now: Timestamp) -> NanoUsd {
        let spent = self.spent.get(provider).filter(|(since, _)| now.since(*since) < DAY);
        spent.map_or(NanoUsd(0), |(_, cost)| *cost)
    }

    /// Its verdict is another one: what failed before counts no more.
    pub(super) fn clear(&mut self, subject: &str) {
        if let Some(known) = self.known.get_mut(subject) {
            known.failed = 0;
        }
    }

    /// The deployment has traffic.
    pub(super) fn heard(&mut self, deployment: &str, topology: &Topology, now: Timestamp) {
        if topology.check(deployment).is_some() {
            self.known.entry(deployment.into()).or_insert(Known { heard: now, failed: 0 }).heard = now;
        }
    }

    /// What came of a check. Returns whether so many failed in a row that it counts.
    pub(super) fn take_in(&mut self, deployment: &str, outcome: &Outcome, topology: &Topology) -> bool {
        let Some(known) = self.known.get_mut(deployment) else { return false };
        match outcome {
            Outcome::Succeeded => known.failed = 0,
            Outcome::Failed(_) => known.failed += 1,
            Outcome::Unused => {}
        }
        self.failed(deployment, topology).is_some()
    }

    /// Checks that failed in a row, if they are as many as the threshold says.
    pub(super) fn failed(&self, deployment: &str, topology: &Topology) -> Option<u32> {
        let threshold = topology.check(deployment)?.unhealthy_threshold.max(1);
        self.known.get(deployment).map(|known| known.failed).filter(|failed| *failed >= threshold)
    }

    /// When the next check is due.
    pub(super) fn next_due(&self, topology: &Topology, now: Timestamp) -> Option<Timestamp> {
        let due = topology.checked().map(|(name, check)| {
            self.known.get(name).map_or(now + check.interval, |known| known.heard + check.interval)
        });
        // What is overdue waits for an agent that can check it, and so for news.
        due.filter(|at| *at > now).min()
    }
}

impl Fleet {
    /// What a call that was made up for a probe or a check cost.
    pub fn note_cost(&mut self, deployment: &str, cost: NanoUsd, now: Timestamp) {
        let Some(provider) = self.topology.provider_of(deployment) else { return };
        let fresh = self.checks.spent.get(provider).filter(|(since, _)| now.since(*since) < DAY);
        let (since, before) = fresh.copied().unwrap_or((now, NanoUsd(0)));
        let cost = NanoUsd(before.0.saturating_add(cost.0));
        self.checks.spent.insert(provider.into(), (since, cost));
    }

    /// What such calls to a provider cost within the last day.
    pub fn checks_cost(&self, provider: &str, now: Timestamp) -> NanoUsd {
        self.checks.spent(provider, now)
    }

    /// Gives leases to check what had no traffic for its interval. The answer is whether
    /// there is a new one.
    pub(super) fn grant_checks(
        &mut self,
        ttl: &impl Fn(&str) -> Duration,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> bool {
        let mut due: Vec<Box<str>> = Vec::new();
        for (name, check) in self.topology.checked() {
            let known = self.checks.known.entry(name.into()).or_insert(Known { heard: now, failed: 0 });
            if now.since(known.heard) >= check.interval {
                due.push(name.into());
            }
        }
        let mut changed = false;
        for name in due {
            changed |= self.grant_check(name, ttl, now, rng).is_some();
        }
        changed
    }

    fn grant_check(
        &mut self,
        name: Box<str>,
        ttl: &impl Fn(&str) -> Duration,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> Option<()> {
        let closed =
            |subject: &str| self.state_of(subject) == State::Closed && self.forced(subject).is_none();
        let provider = self.topology.provider_of(&name)?;
        if !closed(&name) || !closed(provider) || self.leases.get(&name, Purpose::HealthCheck).is_some() {
            return None;
        }
        let max = self.topology.check(&name).and_then(|check| check.max_daily_cost);
        if max.is_some_and(|max| self.checks.spent(provider, now) >= max) {
            return None;
        }
        let agents = self.agents.candidates(&name, (&[], &[]), now);
        let agent = *pick(&agents, rng)?;
        let id = self.leases.number()?;
        if let Some(known) = self.checks.known.get_mut(&name) {
            known.heard = now;
        }
        let until = now + ttl(&name);
        let generation = self.generation(&name);
        let deployment = name.clone();
        let purpose = Purpose::HealthCheck;
        self.leases.insert(Lease { id, subject: name, deployment, generation, agent, until, purpose });
        Some(())
    }
}
