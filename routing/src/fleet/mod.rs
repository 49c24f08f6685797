//! Breakers of the fleet: what many agents saw, made one verdict. The control plane runs
//! it; the simulator and the model check run the same.
//!
//! ```text
//!            evidence of the last 10 s
//!   CLOSED ────────────────────────────▶ OPEN ◀───────────────┐
//!     ▲                                   │ open_base·2ⁿ      │ probe failed or 429,
//!     │ after 50 %                        ▼                   │ or nobody could probe
//!   RAMPING ◀──────────────────────── HALF-OPEN ──────────────┘
//!   10, 25, 50 %   two probes succeeded    one leased probe at a time, fleet-wide
//!     └──────────────▶ OPEN (failures, or agents' own breakers open)
//! ```
//!
//! Nothing changes here by itself. [`Fleet::decide`] proposes; the caller makes that
//! durable with the next generation, then tells [`Fleet::adopt`], then publishes: a verdict
//! that an agent holds is one that the store holds. Leases are given only for what was
//! adopted, with numbers that were reserved durably, so neither survives its store.
//!
//! Wall time is not known here. Envoy's and linkerd's ejection share the multiplied open
//! time; the fenced lease is that of lock services (Gray and Cheriton, 1989; Burrows,
//! 2006): its number is checked when the result comes, not when it is given.

mod agents;
mod checks;
mod decide;
mod evidence;
mod lease;
mod probe;
mod status;
mod topology;
mod verdict;

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
};
use core::time::Duration;

use self::{
    agents::Agents,
    checks::Checks,
    evidence::Evidence,
    lease::Leases,
    topology::Topology,
    verdict::{USERS_MAX, Verdict},
};
pub use self::{
    decide::Transition,
    evidence::{Counts, Summary, WINDOW},
    lease::{Lease, Purpose, RESERVED_AT_A_TIME, ttl},
    probe::Outcome,
    status::Status,
    verdict::{Forced, Record, State},
};
use crate::{table::RoutingTable, time::Timestamp};

/// After a restart, agents get two heartbeats to come back before what some of them saw
/// counts ...
const RECOVERING_MIN: Duration = Duration::from_secs(10);
/// ... and no longer than this, however many stay away.
const RECOVERING_MAX: Duration = Duration::from_secs(30);

/// All verdicts of the fleet, and what leads to new ones.
#[derive(Clone, Debug)]
pub struct Fleet {
    topology: Topology,
    /// Each that there ever was. The store bounds how many.
    verdicts: BTreeMap<Box<str>, Verdict>,
    /// Those that are not closed.
    active: BTreeSet<Box<str>>,
    evidence: Evidence,
    /// Deployments about which there is news.
    dirty: BTreeSet<Box<str>>,
    agents: Agents,
    leases: Leases,
    checks: Checks,
    recovering: Option<Recovering>,
}

/// After a restart: until enough agents are back, none is believed to be all of them.
#[derive(Clone, Copy, Debug)]
struct Recovering {
    since: Timestamp,
    /// Agents that were there before.
    known: usize,
}

impl Fleet {
    /// One without verdicts. All lease numbers below `lease_end` may have been used.
    /// `known_agents`: how many agents there were before the restart; 0: none, so there
    /// is nobody to wait for.
    pub fn new(lease_end: u64, known_agents: usize, now: Timestamp) -> Self {
        Self {
            topology: Topology::default(),
            verdicts: BTreeMap::new(),
            active: BTreeSet::new(),
            evidence: Evidence::default(),
            dirty: BTreeSet::new(),
            agents: Agents::default(),
            leases: Leases::new(lease_end),
            checks: Checks::default(),
            recovering: (known_agents > 0).then_some(Recovering { since: now, known: known_agents }),
        }
    }

    /// Another configuration. Verdicts on what is gone will be closed.
    pub fn set_table(&mut self, table: &RoutingTable) {
        self.topology = Topology::of(table);
        self.checks.keep(&self.topology);
    }

    /// What is durable of `subject` from now on: after a commit of ours, an operator's, or
    /// a start. `age` is how long it has been so.
    pub fn adopt(
        &mut self,
        subject: &str,
        generation: u64,
        (record, forced): (Record, Option<Forced>),
        age: Duration,
        now: Timestamp,
    ) {
        if self.verdicts.get(subject).is_some_and(|known| known.generation == generation) {
            return;
        }
        let mut verdict = Verdict::new(generation, record, forced, now - age, now);
        verdict.users = self.evidence.users(subject, now).take(USERS_MAX).collect();
        if let Some(former) = self.verdicts.remove(subject) {
            verdict.inherit(&former);
        } else if verdict.record.state == State::HalfOpen {
            verdict.restored = Some((now, None));
        }
        if verdict.record.state == State::Closed || verdict.forced.is_some() {
            self.active.remove(subject);
        } else {
            self.active.insert(subject.into());
        }
        self.verdicts.insert(subject.into(), verdict);
        // What was seen before is not evidence against what is now, and a lease of an
        // older generation is void.
        self.evidence.clear(subject);
        self.checks.clear(subject);
        self.leases.remove(subject, Purpose::HalfOpen);
        // Where one could not open before, it may now.
        self.dirty.remove(subject);
        self.dirty.extend(self.evidence.open_anywhere().map(Box::from));
    }

    /// The generation of what was adopted of `subject`. 0: nothing.
    pub fn generation(&self, subject: &str) -> u64 {
        self.verdicts.get(subject).map_or(0, |verdict| verdict.generation)
    }

    /// An agent's stream is open. `incarnation` is another one at each start of it.
    pub fn connected(&mut self, agent: u64, incarnation: u64, now: Timestamp) {
        // It will say anew which of its breakers are open.
        self.disconnected(agent);
        if self.agents.connect(agent, incarnation, now) {
            // It was started again, and a lease does not outlive its memory.
            self.leases.take_if(|lease| lease.agent == agent);
        }
    }

    /// Its stream ended. A lease it holds stays until its end: it may be using it.
    pub fn disconnected(&mut self, agent: u64) {
        for deployment in self.agents.disconnect(agent) {
            self.evidence.note_open(&deployment, agent, None);
        }
    }

    /// Attempts that ended at a connected agent within `covered`. One that sends what it
    /// counted long ago is not believed to speak of now.
    pub fn report<'a>(
        &mut self,
        agent: u64,
        covered: Duration,
        counts: impl IntoIterator<Item = (&'a str, Counts)>,
        now: Timestamp,
    ) {
        if !self.agents.is_fresh(agent, covered, now) {
            return;
        }
        for (deployment, counts) in counts {
            if counts.requests > 0 && self.topology.provider_of(deployment).is_some() {
                self.agents.used(agent, now);
                self.checks.heard(deployment, &self.topology, now);
                self.evidence.add(deployment, agent, counts, now);
                self.dirty.insert(deployment.into());
            }
        }
    }

    /// All own breakers of a connected agent that are open, each with the generation that
    /// the agent held when it opened.
    pub fn open_at<'a>(&mut self, agent: u64, open: impl IntoIterator<Item = (&'a str, u64)>) {
        if !self.agents.is_connected(agent) {
            return;
        }
        self.forget_open(agent);
        for (deployment, base) in open {
            if self.topology.provider_of(deployment).is_some() {
                let base = if base == 0 { self.base_of_newcomer(agent, deployment) } else { base };
                self.evidence.note_open(deployment, agent, Some(base));
                self.agents.note_open(agent, deployment);
                self.dirty.insert(deployment.into());
            }
        }
    }

    /// What an agent that saw no verdict on `deployment` holds in effect: it came when it
    /// was closed already, so it judges the present; or it judges the time before.
    fn base_of_newcomer(&self, agent: u64, deployment: &str) -> u64 {
        let Some(verdict) = self.verdicts.get(deployment) else { return 0 };
        let closed = verdict.record.state == State::Closed;
        let newcomer = self.agents.since(agent).is_some_and(|since| since >= verdict.since);
        if closed && newcomer { verdict.generation } else { 0 }
    }

    fn forget_open(&mut self, agent: u64) {
        for deployment in self.agents.take_open(agent) {
            self.evidence.note_open(&deployment, agent, None);
        }
    }

    /// Whether evidence does not count yet.
    fn is_recovering(&mut self, now: Timestamp) -> bool {
        let Some(Recovering { since, known }) = self.recovering else { return false };
        let waited = now.since(since);
        let enough = self.agents.connected() * 2 >= known;
        if waited >= RECOVERING_MAX || enough && waited >= RECOVERING_MIN {
            self.recovering = None;
        }
        self.recovering.is_some()
    }
}
