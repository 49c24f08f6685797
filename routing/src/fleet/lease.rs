//! Leases: the right of one agent to send one probe. The number fences: a result counts
//! only with the newest one, and none is ever used twice.

use alloc::{boxed::Box, collections::BTreeMap};
use core::time::Duration;

use crate::time::Timestamp;

/// Shortest and longest time in which a probe must end.
const TTL_MIN: Duration = Duration::from_secs(5);
const TTL_MAX: Duration = Duration::from_secs(30);
/// The agent counts from when it hears of its lease. The next one is given so much later
/// than this one ends here, so that two agents never probe at a time.
pub(super) const SLACK: Duration = Duration::from_secs(1);
/// Numbers that are reserved at a time. A restart skips what is left of them.
pub const RESERVED_AT_A_TIME: u64 = 1_000;
/// With fewer left it is time to reserve more: hundreds of probes before anybody waits.
const RESERVE_BELOW: u64 = 500;

/// How long a probe may take: twice the slowest usual time to first content.
pub fn ttl(ttft_p99: Option<Duration>) -> Duration {
    ttft_p99.map_or(TTL_MIN, |p99| (p99 * 2).clamp(TTL_MIN, TTL_MAX))
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A verdict is half-open.
    HalfOpen,
    /// The deployment is idle.
    HealthCheck,
}

/// A lease that one agent has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Never used twice.
    pub id: u64,
    /// Whose verdict it is about: the deployment, or its provider.
    pub subject: Box<str>,
    /// What is probed.
    pub deployment: Box<str>,
    /// Of the verdict.
    pub generation: u64,
    /// Who has it.
    pub agent: u64,
    /// When it ends for the agent.
    pub until: Timestamp,
    /// What for.
    pub purpose: Purpose,
}

impl Lease {
    /// When another one may be given.
    pub(super) fn over_at(&self) -> Timestamp {
        self.until + SLACK
    }
}

/// All leases, and the numbers for new ones.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    /// By subject and purpose: at most one each.
    held: BTreeMap<(Box<str>, bool), Lease>,
    next: u64,
    /// The first number that is not reserved.
    end: u64,
}

impl Leases {
    /// All numbers below `end` may have been used.
    pub(super) fn new(end: u64) -> Self {
        // 0 is no number: on the wire it cannot be told from none.
        let end = end.max(1);
        Self { held: BTreeMap::new(), next: end, end }
    }

    /// Up to where to reserve, if it is time.
    pub(super) fn wanted(&self) -> Option<u64> {
        (self.end - self.next < RESERVE_BELOW).then_some(self.end + RESERVED_AT_A_TIME)
    }

    /// All numbers below `end` are reserved durably.
    pub(super) fn reserve(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// A number, if one is reserved.
    pub(super) fn number(&mut self) -> Option<u64> {
        let number = self.next;
        (number < self.end).then(|| self.next += 1)?;
        Some(number)
    }

    pub(super) fn get(&self, subject: &str, purpose: Purpose) -> Option<&Lease> {
        self.held.get(&key(subject, purpose))
    }

    pub(super) fn insert(&mut self, lease: Lease) {
        self.held.insert(key(&lease.subject, lease.purpose), lease);
    }

    pub(super) fn remove(&mut self, subject: &str, purpose: Purpose) -> Option<Lease> {
        self.held.remove(&key(subject, purpose))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.held.values()
    }

    /// Takes away the lease of that number, if `agent` has it.
    pub(super) fn take(&mut self, id: u64, agent: u64) -> Option<Lease> {
        let held = self.held.values().find(|lease| lease.id == id && lease.agent == agent)?;
        let (subject, purpose) = (held.subject.clone(), held.purpose);
        self.remove(&subject, purpose)
    }

    /// Takes away those that `gone` accepts.
    pub(super) fn take_if(&mut self, gone: impl Fn(&Lease) -> bool) -> alloc::vec::Vec<Lease> {
        self.held.extract_if(.., |_, lease| gone(lease)).map(|(_, lease)| lease).collect()
    }
}

fn key(subject: &str, purpose: Purpose) -> (Box<str>, bool) {
    (subject.into(), purpose == Purpose::HealthCheck)
}
