//! Breakers of the fleet: feeds what agents report to [`trunkline_routing::fleet`], makes
//! the transitions durable, and hands leases to those who may probe.
//!
//! ```text
//! telemetry, Sync --> Fleet (a lock, no waiting) --> keeper: decide -> journal -> adopt
//!                                                       |-> verdicts: with the commit
//!                                                       '-> leases: to their holder only
//! ```

mod keeper;
mod members;

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use trunkline_proto::convert::PROBE_MODEL;
use trunkline_proto::types::v1::{BreakerState, Protection, protection::Kind};
use trunkline_routing::{
    fleet::{Counts, Fleet as Verdicts, Outcome, Purpose, Status},
    money::NanoUsd,
    time::Timestamp,
};

pub(crate) use self::keeper::Keeper;
use self::members::{Member, Members};
use crate::stats::report::Report;

/// Where the monotonic clock of the verdicts stands at the start: ages from before it
/// have room.
const START: Duration = Duration::from_hours(24 * 400);

/// The fleet's breakers. Shared by those who hear agents.
#[derive(Debug)]
pub(crate) struct Fleet {
    state: Mutex<State>,
    /// There is news for the keeper.
    news: Notify,
    zero: Instant,
    /// Agents are numbered by it; another one at each start, so that nobody can choose a
    /// name with the number of another.
    hasher: RandomState,
}

#[derive(Debug)]
struct State {
    verdicts: Verdicts,
    members: Members,
}

/// What a report says of breakers: counts by deployment.
#[derive(Debug)]
pub(crate) struct Evidence {
    agent_id: String,
    covered: Duration,
    counts: Vec<(String, Counts)>,
}

/// The right to send one probe, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) id: u64,
    pub(crate) deployment: String,
    /// Of which verdict: the deployment or its provider.
    pub(crate) subject: String,
    pub(crate) generation: u64,
    pub(crate) until: Instant,
    pub(crate) purpose: Purpose,
}

/// Who is connected, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Membership {
    fleet: Arc<Fleet>,
    agent: u64,
    stream: u64,
    leases: watch::Receiver<Arc<[Lease]>>,
}

/// What is held of a breaker, with the names of agents.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) status: Status,
    /// How long an open one stays so.
    pub(crate) remaining: Option<Duration>,
    /// Who probes.
    pub(crate) prober: Option<String>,
    /// What health checks of the provider cost within the last day.
    pub(crate) checks_cost: NanoUsd,
}

impl Fleet {
    /// `known_agents`: how many there were before the start. All lease numbers below
    /// `lease_end` may have been used.
    pub(crate) fn new(lease_end: u64, known_agents: usize) -> Arc<Self> {
        let verdicts = Verdicts::new(lease_end, known_agents, Timestamp::ZERO + START);
        let state = State { verdicts, members: Members::default() };
        Arc::new(Self {
            state: Mutex::new(state),
            news: Notify::new(),
            zero: Instant::now(),
            hasher: RandomState::new(),
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp::ZERO + START + self.zero.elapsed()
    }

    fn instant(&self, at: Timestamp) -> Instant {
        self.zero + at.since(Timestamp::ZERO + START)
    }

    /// The stream of an agent is open.
    pub(crate) fn connect(self: &Arc<Self>, agent_id: &str, incarnation: &str) -> Membership {
        let agent = self.hasher.hash_one(agent_id);
        let incarnation = self.hasher.hash_one(incarnation);
        let mut state = self.state.lock();
        let (member, stream, leases) = Member::new(agent_id, &mut state.members);
        state.members.by_agent.insert(agent, member);
        state.verdicts.connected(agent, incarnation, self.now());
        // It may have come back with a lease that it holds.
        state.publish_leases(|at| self.instant(at));
        drop(state);
        self.news.notify_one();
        Membership { fleet: Arc::clone(self), agent, stream, leases }
    }

    /// Takes in what a report says that was merged just now.
    pub(crate) fn take_in(&self, evidence: &Evidence) {
        let agent = self.hasher.hash_one(&evidence.agent_id);
        let counts = evidence.counts.iter().map(|(deployment, counts)| (deployment.as_str(), *counts));
        self.state.lock().verdicts.report(agent, evidence.covered, counts, self.now());
        self.news.notify_one();
    }

    /// What is held of a deployment or a provider.
    pub(crate) fn shown(&self, subject: &str) -> Shown {
        let now = self.now();
        let state = self.state.lock();
        let status = state.verdicts.status(subject, now);
        let remaining = status.open_until.map(|until| until.since(now));
        let prober = status.lease.as_ref().and_then(|lease| state.members.by_agent.get(&lease.agent));
        let prober = prober.map(|member| member.agent_id.clone());
        let provider = subject.split_once('/').map_or(subject, |(provider, _)| provider);
        let checks_cost = state.verdicts.checks_cost(provider, now);
        Shown { status, remaining, prober, checks_cost }
    }
}

impl Evidence {
    /// Of a report, before it is merged.
    pub(crate) fn of(report: &Report) -> Self {
        let mut counts: std::collections::HashMap<&str, Counts> = std::collections::HashMap::new();
        // Calls that were made up are no traffic; they speak by the results of their leases.
        for (key, totals) in report.counts.iter().filter(|(key, _)| key.model != PROBE_MODEL) {
            let sum = counts.entry(&key.deployment).or_default();
            for (class, count) in totals.outcomes() {
                if let Some(class) = trunkline_proto::convert::outcome(class) {
                    *sum = sum.and(Counts::of(class, count));
                }
            }
        }
        let counts = counts.into_iter().map(|(deployment, counts)| (deployment.to_owned(), counts));
        Self {
            agent_id: report.agent_id.clone(),
            covered: report.covered,
            counts: counts.filter(|(_, counts)| counts.requests > 0).collect(),
        }
    }
}

impl Membership {
    /// Which of the agent's own breakers are open.
    pub(crate) fn protections(&self, protections: &[Protection]) {
        let open = protections.iter().filter_map(|protection| match &protection.kind {
            Some(Kind::Breaker(breaker)) if breaker.state() == BreakerState::Open => {
                Some((protection.subject.as_str(), breaker.base_generation))
            }
            _ => None,
        });
        self.with(|verdicts| verdicts.open_at(self.agent, open));
    }

    /// What came of the agent's probe of `deployment`, and what it cost. The answer is
    /// whether it held that lease.
    pub(crate) fn probed(&self, lease_id: u64, deployment: &str, outcome: Outcome, cost: NanoUsd) -> bool {
        let now = self.fleet.now();
        let probed = self.with(|verdicts| {
            // It is paid for whether or not its word counts.
            verdicts.note_cost(deployment, cost, now);
            verdicts.probed(self.agent, lease_id, outcome)
        });
        probed.unwrap_or(false)
    }

    /// What it may probe, now and whenever that changes.
    pub(crate) fn leases(&self) -> watch::Receiver<Arc<[Lease]>> {
        self.leases.clone()
    }

    /// Nothing if a newer stream is the agent now.
    fn with<T>(&self, change: impl FnOnce(&mut Verdicts) -> T) -> Option<T> {
        let mut state = self.fleet.state.lock();
        let mine = state.members.is_stream(self.agent, self.stream);
        let answer = mine.then(|| change(&mut state.verdicts));
        drop(state);
        self.fleet.news.notify_one();
        answer
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.fleet.state.lock();
        if state.members.is_stream(self.agent, self.stream) {
            state.members.by_agent.remove(&self.agent);
            state.verdicts.disconnected(self.agent);
        }
    }
}

/// Wall time in ms since 1970.
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
