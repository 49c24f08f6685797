//! The agents that are or lately were connected, as they describe themselves. Kept in
//! memory only: agents say it all again when they connect.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use trunkline_proto::{
    admin::v1 as admin,
    agent::v1::{Heartbeat, Hello},
    types::v1::{Protection, Version, protection::Kind},
};

/// Agents that are connected at a time. Each has a stream of up to 50 KB.
const CONNECTED_MAX: usize = 10_000;

/// Agents that are known: those, and as many that went lately. A fleet whose agents get
/// new ids at each start fills it; the ones that went first then make room.
const KNOWN_MAX: usize = 20_000;

/// Share of the known agents that make room at once, so that it is looked for rarely.
const ROOM: usize = KNOWN_MAX / 16;

/// Connected agents that are named as making one drill. More only make the answer long.
const ACTIVE_AT_MAX: usize = 1_000;

/// How long an agent is listed after its stream ended.
const DISCONNECTED_KEPT: Duration = Duration::from_hours(1);

/// Protections kept of one agent; about 50 KB. One with more active ones has an
/// outage that the first ones tell of as well.
const PROTECTIONS_MAX: usize = 512;

/// Longest subject and reason that is kept: two names of 63 with a slash, a sentence.
const TEXT_BYTES_MAX: usize = 256;

/// All known agents. The newest stream of an agent id is the agent.
#[derive(Debug)]
pub(crate) struct Registry {
    known: Mutex<Known>,
    /// Numbers streams over all agents: a number is never used twice.
    streams: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    agents: HashMap<String, Agent>,
    /// Of them, those with a stream.
    connected: usize,
    /// Gaps in telemetry by agent id; of agents that are known or about to connect.
    gaps: HashMap<String, u64>,
}

/// No room for another agent.
#[derive(Debug, thiserror::Error)]
#[error("{CONNECTED_MAX} agents are connected already; connect this one to another control plane")]
pub(crate) struct RegistryFull;

#[derive(Debug)]
struct Agent {
    about: admin::Agent,
    protections: Vec<Protection>,
    /// When it reported them: what remains of each is counted from then.
    protections_at: SystemTime,
    stream: Option<Stream>,
    /// Of the last message or the end of the stream.
    seen: SystemTime,
}

#[derive(Debug)]
struct Stream {
    superseded: CancellationToken,
    number: u64,
}

/// One agent's open stream. Dropping it marks the agent as disconnected, unless a
/// newer stream of the same agent took over.
#[derive(Debug)]
pub(crate) struct Connection {
    registry: Arc<Registry>,
    agent_id: String,
    number: u64,
    superseded: CancellationToken,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { known: Mutex::default(), streams: AtomicU64::new(0) }
    }

    /// Takes in an agent. An older stream of the same id is told to end.
    pub(crate) fn connect(
        self: &Arc<Self>,
        hello: Hello,
        now: SystemTime,
    ) -> Result<Connection, RegistryFull> {
        let mut known = self.known.lock();
        let replaces = known.agents.get(&hello.agent_id).is_some_and(|agent| agent.stream.is_some());
        if !replaces && known.connected >= CONNECTED_MAX {
            return Err(RegistryFull);
        }
        if !known.agents.contains_key(&hello.agent_id) && known.agents.len() >= KNOWN_MAX {
            known.make_room(now);
        }
        if let Some(previous) = known.agents.remove(&hello.agent_id).and_then(|agent| agent.stream) {
            previous.superseded.cancel();
            known.connected -= 1;
        }
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let superseded = CancellationToken::new();
        let stream = Stream { superseded: superseded.clone(), number };
        let agent_id = hello.agent_id.clone();
        let about = describe(hello, now);
        known.agents.insert(
            agent_id.clone(),
            Agent { about, protections: Vec::new(), protections_at: now, stream: Some(stream), seen: now },
        );
        known.connected += 1;
        Ok(Connection { registry: Arc::clone(self), agent_id, number, superseded })
    }

    /// Agents by id, those with an id after `after` only.
    pub(crate) fn list(&self, after: &str, limit: usize, now: SystemTime) -> Vec<admin::Agent> {
        let mut known = self.known.lock();
        known.forget_old(now);
        let mut listed: Vec<_> =
            known.agents.values().filter(|agent| agent.about.agent_id.as_str() > after).collect();
        let by_id = |one: &&Agent, other: &&Agent| one.about.agent_id.cmp(&other.about.agent_id);
        if listed.len() > limit {
            // Only the page is sorted.
            listed.select_nth_unstable_by(limit, by_id);
            listed.truncate(limit);
        }
        listed.sort_unstable_by(by_id);
        listed.into_iter().map(|agent| known.describe(agent)).collect()
    }

    /// One agent, if it is or lately was connected.
    pub(crate) fn get(&self, agent_id: &str, now: SystemTime) -> Option<admin::Agent> {
        let mut known = self.known.lock();
        known.forget_old(now);
        known.agents.get(agent_id).map(|agent| known.describe(agent))
    }

    /// How many streams are open.
    pub(crate) fn connected(&self) -> usize {
        self.known.lock().connected
    }

    /// By drill, the connected agents that say they make it, by id.
    pub(crate) fn active_faults(&self) -> HashMap<String, Vec<String>> {
        let known = self.known.lock();
        let mut active: HashMap<String, Vec<String>> = HashMap::new();
        for agent in known.agents.values().filter(|agent| agent.stream.is_some()) {
            for name in &agent.about.active_faults {
                // A name is looked up before it is copied.
                match active.get_mut(name) {
                    Some(agents) => agents.push(agent.about.agent_id.clone()),
                    None => drop(active.insert(name.clone(), vec![agent.about.agent_id.clone()])),
                }
            }
        }
        for agents in active.values_mut() {
            agents.sort_unstable();
            agents.truncate(ACTIVE_AT_MAX);
        }
        active
    }

    /// Notes that an agent came back without having reported all it had counted. It may
    /// say so before its Sync stream is open.
    pub(crate) fn note_telemetry_gap(&self, agent_id: &str) {
        let mut known = self.known.lock();
        let Known { agents, gaps, .. } = &mut *known;
        if gaps.len() >= KNOWN_MAX && !gaps.contains_key(agent_id) {
            gaps.retain(|agent_id, _| agents.contains_key(agent_id));
        }
        if gaps.len() < KNOWN_MAX || gaps.contains_key(agent_id) {
            *gaps.entry(agent_id.to_owned()).or_default() += 1;
        }
    }

    /// Addresses at which apps reach connected agents, in order.
    pub(crate) fn advertised(&self, limit: usize) -> Vec<String> {
        let known = self.known.lock();
        let connected = known.agents.values().filter(|agent| agent.stream.is_some());
        let mut addresses: Vec<_> = connected
            .map(|agent| &agent.about.advertise)
            .filter(|address| !address.is_empty())
            .cloned()
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(limit);
        addresses
    }

    /// What protects targets at connected agents, by agent id, with what remains of each
    /// at `now`.
    pub(crate) fn protections(&self, now: SystemTime) -> Vec<(String, Protection)> {
        let known = self.known.lock();
        let mut all = Vec::new();
        for agent in known.agents.values() {
            let age = now.duration_since(agent.protections_at).unwrap_or_default();
            let aged = agent.protections.iter().map(|one| aged(one.clone(), age));
            all.extend(aged.map(|one| (agent.about.agent_id.clone(), one)));
        }
        all.sort_by(|one, other| (&one.0, &one.1.subject).cmp(&(&other.0, &other.1.subject)));
        all
    }
}

impl Connection {
    /// Ends when a newer stream of the same agent has taken over.
    pub(crate) async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    /// The agent's name.
    pub(crate) fn agent_id(&self) -> &str {
        &self.agent_id
    }

    /// Notes a sign of life.
    pub(crate) fn heartbeat(&self, heartbeat: &Heartbeat, now: SystemTime) {
        self.update(now, |agent| {
            if heartbeat.applied.is_some() {
                agent.about.applied.clone_from(&heartbeat.applied);
            }
            agent.about.in_flight = heartbeat.in_flight;
            agent.about.missing_credentials.clone_from(&heartbeat.missing_credentials);
            agent.about.active_faults.clone_from(&heartbeat.active_faults);
            agent.about.draining = heartbeat.draining;
        });
    }

    /// Notes what the agent holds, and why it refused an update, if it did.
    pub(crate) fn acknowledged(&self, applied: Option<Version>, refusal: Option<String>, now: SystemTime) {
        self.update(now, |agent| {
            if applied.is_some() {
                agent.about.applied = applied;
            }
            agent.about.last_nack = refusal.unwrap_or_default();
        });
    }

    /// Notes that the agent holds more of this store than the store itself.
    pub(crate) fn ahead(&self) {
        self.update(SystemTime::now(), |agent| agent.about.ahead = true);
    }

    /// Replaces the agent's protections.
    pub(crate) fn protections(&self, mut protections: Vec<Protection>, now: SystemTime) {
        protections.truncate(PROTECTIONS_MAX);
        protections.iter_mut().for_each(shorten);
        self.update(now, |agent| {
            agent.protections = protections;
            agent.protections_at = now;
        });
    }

    fn update(&self, now: SystemTime, change: impl FnOnce(&mut Agent)) {
        self.change(now, |_, agent| change(agent));
    }

    /// Nothing if a newer stream is the agent now.
    fn change(&self, now: SystemTime, change: impl FnOnce(&mut usize, &mut Agent)) {
        let mut known = self.registry.known.lock();
        let Known { agents, connected, .. } = &mut *known;
        let Some(agent) = agents.get_mut(&self.agent_id) else { return };
        if agent.stream.as_ref().is_some_and(|stream| stream.number == self.number) {
            change(connected, agent);
            agent.seen = now;
            agent.about.last_seen_time = Some(now.into());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.change(SystemTime::now(), |connected, agent| {
            *connected -= 1;
            agent.stream = None;
            agent.protections = Vec::new();
            agent.about.state = admin::AgentState::Disconnected.into();
            agent.about.in_flight = 0;
            agent.about.active_faults = Vec::new();
            agent.about.draining = false;
        });
    }
}

impl Known {
    fn describe(&self, agent: &Agent) -> admin::Agent {
        let telemetry_gaps = self.gaps.get(&agent.about.agent_id).copied().unwrap_or_default();
        admin::Agent { telemetry_gaps, ..agent.about.clone() }
    }

    fn forget_old(&mut self, now: SystemTime) {
        let Self { agents, gaps, .. } = self;
        agents.retain(|agent_id, agent| {
            // A clock that was set back makes nobody old.
            let age = now.duration_since(agent.seen).unwrap_or_default();
            let kept = agent.stream.is_some() || age < DISCONNECTED_KEPT;
            if !kept {
                gaps.remove(agent_id);
            }
            kept
        });
    }

    /// Forgets those that went first.
    fn make_room(&mut self, now: SystemTime) {
        self.forget_old(now);
        let enough = KNOWN_MAX - ROOM;
        if self.agents.len() <= enough {
            return;
        }
        let gone = self.agents.values().filter(|agent| agent.stream.is_none());
        let mut gone: Vec<_> = gone.map(|agent| (agent.seen, agent.about.agent_id.clone())).collect();
        gone.sort_unstable();
        for (_, agent_id) in gone.into_iter().take(self.agents.len() - enough) {
            self.agents.remove(&agent_id);
            self.gaps.remove(&agent_id);
        }
    }
}

fn describe(hello: Hello, now: SystemTime) -> admin::Agent {
    admin::Agent {
        agent_id: hello.agent_id,
        state: admin::AgentState::Connected.into(),
        applied: hello.applied,
        advertise: hello.advertise,
        last_nack: String::new(),
        missing_credentials: hello.missing_credentials,
        build_version: hello.build_version,
        incarnation: hello.incarnation,
        connect_time: Some(now.into()),
        last_seen_time: Some(now.into()),
        in_flight: 0,
        ..admin::Agent::default()
    }
}

/// The protection as it is `age` after it was reported.
fn aged(mut protection: Protection, age: Duration) -> Protection {
    let remaining = match &mut protection.kind {
        Some(Kind::Breaker(breaker)) => &mut breaker.remaining,
        Some(Kind::RateGate(gate)) => &mut gate.remaining,
        Some(Kind::Quarantine(quarantine)) => &mut quarantine.remaining,
        None => return protection,
    };
    if let Some(left) = remaining {
        let before = Duration::try_from(*left).unwrap_or_default();
        *left = prost_types::Duration::try_from(before.saturating_sub(age)).unwrap_or_default();
    }
    protection
}

/// Cuts what an agent may have sent too long.
fn shorten(protection: &mut Protection) {
    let cut = |text: &mut String| text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    cut(&mut protection.subject);
    match &mut protection.kind {
        Some(Kind::Breaker(breaker)) => cut(&mut breaker.reason),
        Some(Kind::Quarantine(quarantine)) => cut(&mut quarantine.reason),
        Some(Kind::RateGate(_)) | None => {}
    }
}
