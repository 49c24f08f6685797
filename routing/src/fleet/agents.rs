//! Agents as far as verdicts care: who is there, who has traffic, whose word is of now.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::time::Duration;

use super::evidence::WINDOW;
use crate::time::Timestamp;

/// An agent connected for so long knows its traffic, and is not one that comes and goes.
const SETTLED: Duration = Duration::from_secs(30);
/// One that reported attempts within this time has requests to probe with.
const BUSY: Duration = Duration::from_secs(60);
/// A report comes an interval after its window began, and may be late by another one.
const LATE_MAX: Duration = Duration::from_secs(2);

/// Agents that went of which the incarnation is remembered. Only who holds a lease
/// matters, and of these there are fewer than deployments in trouble.
const GONE_MAX: usize = 1_000;

/// All agents that are connected.
#[derive(Clone, Debug, Default)]
pub(super) struct Agents {
    known: BTreeMap<u64, Agent>,
    /// Incarnations of those that went: one may come back and still hold its lease.
    gone: BTreeMap<u64, u64>,
}

#[derive(Clone, Debug)]
struct Agent {
    incarnation: u64,
    since: Timestamp,
    used: Option<Timestamp>,
    /// Deployments at which its own breaker is open.
    open: Vec<Box<str>>,
    /// How much counted time is believed to be of now: it grows with the clock, and each
    /// report takes what it covers. Who sends a backlog soon has none.
    credit: Duration,
    credited: Timestamp,
}

impl Agents {
    /// The answer is whether this is another start of an agent that was there.
    pub(super) fn connect(&mut self, agent: u64, incarnation: u64, now: Timestamp) -> bool {
        let former = self.known.get(&agent).map(|known| known.incarnation);
        let former = former.or_else(|| self.gone.remove(&agent));
        let known =
            Agent { incarnation, since: now, used: None, open: Vec::new(), credit: LATE_MAX, credited: now };
        self.known.insert(agent, known);
        former.is_some_and(|former| former != incarnation)
    }

    /// The answer is at which deployments its own breaker was open.
    pub(super) fn disconnect(&mut self, agent: u64) -> Vec<Box<str>> {
        let Some(known) = self.known.remove(&agent) else { return Vec::new() };
        if self.gone.len() >= GONE_MAX {
            self.gone.pop_first();
        }
        self.gone.insert(agent, known.incarnation);
        known.open
    }

    pub(super) fn connected(&self) -> usize {
        self.known.len()
    }

    /// Since when it is connected.
    pub(super) fn since(&self, agent: u64) -> Option<Timestamp> {
        self.known.get(&agent).map(|known| known.since)
    }

    pub(super) fn is_connected(&self, agent: u64) -> bool {
        self.known.contains_key(&agent)
    }

    /// Whether what an agent counted within `covered` is of now.
    pub(super) fn is_fresh(&mut self, agent: u64, covered: Duration, now: Timestamp) -> bool {
        let Some(known) = self.known.get_mut(&agent) else { return false };
        known.credit = (known.credit + now.since(known.credited)).min(WINDOW + LATE_MAX);
        known.credited = now;
        let fresh = covered <= known.credit && covered <= WINDOW;
        if fresh {
            known.credit -= covered;
        }
        fresh
    }

    /// It had requests.
    pub(super) fn used(&mut self, agent: u64, now: Timestamp) {
        if let Some(known) = self.known.get_mut(&agent) {
            known.used = Some(now);
        }
    }

    pub(super) fn note_open(&mut self, agent: u64, deployment: &str) {
        if let Some(known) = self.known.get_mut(&agent) {
            known.open.push(deployment.into());
        }
    }

    pub(super) fn take_open(&mut self, agent: u64) -> Vec<Box<str>> {
        self.known.get_mut(&agent).map(|known| core::mem::take(&mut known.open)).unwrap_or_default()
    }

    /// Who can probe `deployment` best. First those whose own breaker lets a probe through
    /// and who were not `asked` yet; then who has traffic, who used the deployment, and who
    /// is there for long.
    pub(super) fn candidates(
        &self,
        deployment: &str,
        (users, asked): (&[u64], &[u64]),
        now: Timestamp,
    ) -> Vec<u64> {
        let rank = |agent: u64, known: &Agent| {
            let busy = known.used.is_some_and(|used| now.since(used) <= BUSY);
            let settled = now.since(known.since) >= SETTLED;
            let lets_through = !known.open.iter().any(|name| **name == *deployment);
            (lets_through, !asked.contains(&agent), busy, users.contains(&agent), settled)
        };
        let ranks = self.known.iter().map(|(agent, known)| (rank(*agent, known), *agent));
        let best = ranks.clone().map(|(rank, _)| rank).max();
        ranks.filter(|(rank, _)| Some(*rank) == best).map(|(_, agent)| agent).collect()
    }
}
