//! What agents saw lately: sums over the last 10 s, and which agents opened their own
//! breaker. It only grows old by itself, so a verdict is looked at when something is
//! added.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
};
use core::time::Duration;

use crate::{classify::OutcomeClass, time::Timestamp};

/// How far back requests count.
pub const WINDOW: Duration = Duration::from_secs(10);
/// A bucket is a second long.
const BUCKETS: usize = 10;
/// Least requests in the window that say something.
const REQUESTS_MIN: u32 = 20;
/// So many agents must see it, or all that have traffic.
const WITNESSES: usize = 3;
/// Pairs of deployment and agent with traffic in the window, at some 130 bytes each: 10,000
/// agents with ten deployments each. What is beyond is left out, which can only delay a
/// verdict; agents protect themselves.
const PAIRS_MAX: usize = 100_000;

/// Attempts that ended, of one agent at one deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that say whether the deployment is alive.
    pub requests: u32,
    /// Hard failures among them.
    pub failures: u32,
}

impl Counts {
    /// What attempts that ended so say. Hard failures are those of which no prompt, key
    /// or caller is the cause: no connection, a reset or silence, and 502, 503 and 504.
    /// A 500 or an empty answer may be a poison prompt, and an overload asks for less: they
    /// are requests. What the caller ended, and rate limits, are not even that.
    pub fn of(class: OutcomeClass, count: u64) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        match class {
            OutcomeClass::Connect
            | OutcomeClass::Reset
            | OutcomeClass::Timeout
            | OutcomeClass::Unavailable => Self { requests: count, failures: count },
            OutcomeClass::Ok
            | OutcomeClass::ServerError
            | OutcomeClass::Overloaded
            | OutcomeClass::InvalidRequest
            | OutcomeClass::ContextLength
            | OutcomeClass::ContentFilter
            | OutcomeClass::Malformed
            | OutcomeClass::Empty
            | OutcomeClass::MidStream
            | OutcomeClass::Transient => Self { requests: count, failures: 0 },
            OutcomeClass::RateLimited
            | OutcomeClass::Auth
            | OutcomeClass::Quota
            | OutcomeClass::ModelNotFound
            | OutcomeClass::Cancelled
            | OutcomeClass::Overtaken
            | OutcomeClass::Misconfigured => Self::default(),
        }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            failures: self.failures.saturating_add(other.failures),
        }
    }

    /// Whether at least half failed.
    const fn mostly_failed(self) -> bool {
        self.failures > 0 && self.failures >= self.requests - self.failures
    }
}

/// Counts of the last 10 s.
#[derive(Clone, Debug, Default)]
struct Ring {
    buckets: [Counts; BUCKETS],
    /// The second of the newest bucket.
    newest: u64,
}

/// What agents saw of one deployment.
#[derive(Clone, Debug, Default)]
struct Seen {
    total: Ring,
    agents: BTreeMap<u64, Ring>,
}

/// What agents saw of all deployments.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    seen: BTreeMap<Box<str>, Seen>,
    pairs: usize,
    /// By deployment, the agents whose own breaker is open, with the generation that they
    /// held when it opened. Each agent tells of a bounded number.
    open: BTreeMap<Box<str>, BTreeMap<u64, u64>>,
}

/// What speaks against a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Of all agents.
    pub counts: Counts,
    /// Agents with traffic, or with an own breaker that is open.
    pub agents: u32,
    /// Those of which at least half of the requests failed hard.
    pub witnesses: u32,
    /// Those whose own breaker opened under the present verdict.
    pub open: u32,
}

impl Ring {
    fn add(&mut self, now: Timestamp, counts: Counts) {
        self.advance(now);
        let bucket = &mut self.buckets[self.newest as usize % BUCKETS];
        *bucket = bucket.and(counts);
    }

    fn sum(&self, now: Timestamp) -> Counts {
        let age = second(now).saturating_sub(self.newest);
        let kept = (BUCKETS as u64).saturating_sub(age);
        let seconds = (0..kept.min(self.newest + 1)).map(|back| self.newest - back);
        seconds.fold(Counts::default(), |sum, second| sum.and(self.buckets[second as usize % BUCKETS]))
    }

    fn advance(&mut self, now: Timestamp) {
        let now = second(now);
        let passed = now.saturating_sub(self.newest).min(BUCKETS as u64);
        for back in 0..passed {
            self.buckets[(now - back) as usize % BUCKETS] = Counts::default();
        }
        self.newest = self.newest.max(now);
    }
}

const fn second(at: Timestamp) -> u64 {
    at.as_nanos() / 1_000_000_000
}

impl Evidence {
    pub(super) fn add(&mut self, deployment: &str, agent: u64, counts: Counts, now: Timestamp) {
        if counts.requests == 0 {
            return;
        }
        if self.pairs >= PAIRS_MAX {
            self.forget_old(now);
        }
        let room = self.pairs < PAIRS_MAX;
        if !self.seen.contains_key(deployment) {
            self.seen.insert(deployment.into(), Seen::default());
        }
        let Some(seen) = self.seen.get_mut(deployment) else { return };
        match seen.agents.get_mut(&agent) {
            Some(ring) => ring.add(now, counts),
            None if room => {
                self.pairs += 1;
                seen.agents.entry(agent).or_default().add(now, counts);
            }
            None => return,
        }
        seen.total.add(now, counts);
    }

    /// The agent's own breaker at `deployment` is open since it held `base`, or with None
    /// is not open.
    pub(super) fn note_open(&mut self, deployment: &str, agent: u64, base: Option<u64>) {
        if let Some(base) = base {
            self.open.entry(deployment.into()).or_default().insert(agent, base);
            return;
        }
        let Some(agents) = self.open.get_mut(deployment) else { return };
        agents.remove(&agent);
        if agents.is_empty() {
            self.open.remove(deployment);
        }
    }

    /// Deployments at which an agent's own breaker is open.
    pub(super) fn open_anywhere(&self) -> impl Iterator<Item = &str> {
        self.open.keys().map(AsRef::as_ref)
    }

    /// What was seen of `deployment`, under verdicts from the generation `base` on.
    pub(super) fn summary(&self, deployment: &str, base: u64, now: Timestamp) -> Summary {
        let mut summary = Summary::default();
        let open = self.open.get(deployment);
        let mut agents = BTreeSet::new();
        if let Some(seen) = self.seen.get(deployment) {
            summary.counts = seen.total.sum(now);
            for (agent, ring) in &seen.agents {
                let counts = ring.sum(now);
                if counts.requests > 0 {
                    agents.insert(*agent);
                    summary.witnesses += u32::from(counts.mostly_failed());
                }
            }
        }
        let since = open.into_iter().flatten().filter(|(_, held)| **held >= base);
        for (agent, _) in since {
            agents.insert(*agent);
            summary.open += 1;
        }
        summary.agents = agents.len() as u32;
        summary
    }

    /// The sum over all agents.
    pub(super) fn counts(&self, deployment: &str, now: Timestamp) -> Counts {
        self.seen.get(deployment).map(|seen| seen.total.sum(now)).unwrap_or_default()
    }

    /// Agents with traffic in the window.
    pub(super) fn users(&self, deployment: &str, now: Timestamp) -> impl Iterator<Item = u64> {
        let agents = self.seen.get(deployment).into_iter().flat_map(|seen| &seen.agents);
        agents.filter(move |(_, ring)| ring.sum(now).requests > 0).map(|(agent, _)| *agent)
    }

    /// Forgets what was seen of `deployment`: it is of another verdict.
    pub(super) fn clear(&mut self, deployment: &str) {
        if let Some(seen) = self.seen.remove(deployment) {
            self.pairs -= seen.agents.len();
        }
    }

    /// Forgets what is older than the window.
    pub(super) fn forget_old(&mut self, now: Timestamp) {
        let mut pairs = 0;
        self.seen.retain(|_, seen| {
            seen.agents.retain(|_, ring| ring.sum(now).requests > 0);
            pairs += seen.agents.len();
            !seen.agents.is_empty()
        });
        self.pairs = pairs;
    }
}

impl Summary {
    /// Whether it is enough to open a verdict: requests that failed at so many agents that
    /// the way of one of them is not the cause, or agents that found out themselves.
    pub fn is_enough(&self) -> bool {
        let quorum = WITNESSES.min(self.agents as usize) as u32;
        let failed =
            self.counts.requests >= REQUESTS_MIN && self.counts.mostly_failed() && self.witnesses >= quorum;
        let opened = self.open > 0 && self.open >= quorum && self.open >= self.agents - self.open;
        failed || opened
    }
}
