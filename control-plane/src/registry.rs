//! The agents that are or lately were connected, as they describe themselves. Kept in
//! memory only: agents say it all again when they connect.

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

/// Twice what one control plane on two cores is planned for.
const AGENTS_MAX: usize = 10_000;

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
    agents: Mutex<HashMap<String, Agent>>,
    /// Numbers streams over all agents: a number is never used twice.
    streams: AtomicU64,
}

/// No room for another agent.
#[derive(Debug, thiserror::Error)]
#[error("{AGENTS_MAX} agents are known already; connect this one to another control plane")]
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
        Self { agents: Mutex::default(), streams: AtomicU64::new(0) }
    }

    /// Takes in an agent. An older stream of the same id is told to end.
    pub(crate) fn connect(
        self: &Arc<Self>,
        hello: Hello,
        now: SystemTime,
    ) -> Result<Connection, RegistryFull> {
        let mut agents = self.agents.lock();
        if !agents.contains_key(&hello.agent_id) && agents.len() >= AGENTS_MAX {
            forget_old(&mut agents, now);
            if agents.len() >= AGENTS_MAX {
                return Err(RegistryFull);
            }
        }
        if let Some(previous) = agents.remove(&hello.agent_id).and_then(|agent| agent.stream) {
            previous.superseded.cancel();
        }
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let superseded = CancellationToken::new();
        let stream = Stream { superseded: superseded.clone(), number };
        let agent_id = hello.agent_id.clone();
        let about = describe(hello, now);
        agents.insert(
            agent_id.clone(),
            Agent { about, protections: Vec::new(), protections_at: now, stream: Some(stream), seen: now },
        );
        Ok(Connection { registry: Arc::clone(self), agent_id, number, superseded })
    }

    /// Agents by id, those with an id after `after` only.
    pub(crate) fn list(&self, after: &str, limit: usize, now: SystemTime) -> Vec<admin::Agent> {
        let mut agents = self.agents.lock();
        forget_old(&mut agents, now);
        let mut listed: Vec<_> = agents
            .values()
            .filter(|agent| agent.about.agent_id.as_str() > after)
            .map(|agent| &agent.about)
            .collect();
        listed.sort_unstable_by(|one, other| one.agent_id.cmp(&other.agent_id));
        listed.into_iter().take(limit).cloned().collect()
    }

    /// How many streams are open.
    pub(crate) fn connected(&self) -> usize {
        self.agents.lock().values().filter(|agent| agent.stream.is_some()).count()
    }

    /// Addresses at which apps reach connected agents, in order.
    pub(crate) fn advertised(&self, limit: usize) -> Vec<String> {
        let agents = self.agents.lock();
        let connected = agents.values().filter(|agent| agent.stream.is_some());
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
        let agents = self.agents.lock();
        let mut all = Vec::new();
        for agent in agents.values() {
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
        let mut agents = self.registry.agents.lock();
        let Some(agent) = agents.get_mut(&self.agent_id) else { return };
        if agent.stream.as_ref().is_some_and(|stream| stream.number == self.number) {
            change(agent);
            agent.seen = now;
            agent.about.last_seen_time = Some(now.into());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let now = SystemTime::now();
        self.update(now, |agent| {
            agent.stream = None;
            agent.protections.clear();
            agent.about.state = admin::AgentState::Disconnected.into();
            agent.about.in_flight = 0;
        });
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

fn forget_old(agents: &mut HashMap<String, Agent>, now: SystemTime) {
    agents.retain(|_, agent| {
        agent.stream.is_some() || now.duration_since(agent.seen).is_ok_and(|age| age < DISCONNECTED_KEPT)
    });
}

#[cfg(test)]
mod tests {
    use trunkline_proto::types::v1::{Quarantine, RateGate};

    use super::*;

    fn hello(agent_id: &str) -> Hello {
        Hello {
            agent_id: agent_id.into(),
            incarnation: "i".into(),
            advertise: format!("http://{agent_id}"),
            ..Hello::default()
        }
    }

    #[test]
    fn the_newest_stream_of_an_agent_wins() {
        let registry = Arc::new(Registry::new());
        let now = SystemTime::now();
        let old = registry.connect(hello("a"), now).unwrap();
        let new = registry.connect(hello("a"), now).unwrap();
        assert!(old.superseded.is_cancelled());
        drop(old);
        assert_eq!(registry.connected(), 1);
        drop(new);
        assert_eq!(registry.connected(), 0);
    }

    #[test]
    fn a_stream_that_lingers_does_not_speak_for_a_later_one() {
        let registry = Arc::new(Registry::new());
        let now = SystemTime::now();
        let lingering = registry.connect(hello("a"), now).unwrap();
        drop(registry.connect(hello("a"), now).unwrap());
        let newest = registry.connect(hello("a"), now).unwrap();
        lingering.acknowledged(None, Some("no".into()), now);
        assert_eq!(registry.list("", 1, now)[0].last_nack, "");
        drop(lingering);
        assert_eq!(registry.connected(), 1);
        drop(newest);
    }

    #[test]
    fn a_disconnected_agent_is_listed_for_an_hour() {
        let registry = Arc::new(Registry::new());
        let now = SystemTime::now();
        drop(registry.connect(hello("a"), now).unwrap());
        let listed = registry.list("", 10, SystemTime::now());
        assert_eq!(listed[0].state(), admin::AgentState::Disconnected);
        assert_eq!(registry.advertised(10), Vec::<String>::new());
        let later = SystemTime::now() + DISCONNECTED_KEPT + Duration::from_secs(1);
        assert!(registry.list("", 10, later).is_empty());
    }

    #[test]
    fn protections_leave_with_their_agent() {
        let registry = Arc::new(Registry::new());
        let connection = registry.connect(hello("a"), SystemTime::now()).unwrap();
        connection.protections(vec![Protection { subject: "p/d".into(), kind: None }], SystemTime::now());
        assert_eq!(registry.protections(SystemTime::now()).len(), 1);
        drop(connection);
        assert!(registry.protections(SystemTime::now()).is_empty());
    }

    #[test]
    fn what_remains_of_a_protection_shrinks_with_time() {
        let registry = Arc::new(Registry::new());
        let now = SystemTime::now();
        let connection = registry.connect(hello("a"), now).unwrap();
        let remaining = Some(prost_types::Duration { seconds: 30, nanos: 0 });
        let kind = Some(Kind::RateGate(RateGate { remaining }));
        connection.protections(vec![Protection { subject: "p/d".into(), kind }], now);
        for (age, left) in [(0, 30), (10, 20), (90, 0)] {
            let all = registry.protections(now + Duration::from_secs(age));
            let Some(Kind::RateGate(gate)) = &all[0].1.kind else { panic!("{all:?}") };
            assert_eq!(gate.remaining.unwrap().seconds, left);
        }
    }

    #[test]
    fn what_is_kept_of_one_agent_is_bounded() {
        let registry = Arc::new(Registry::new());
        let connection = registry.connect(hello("a"), SystemTime::now()).unwrap();
        let reason = "é".repeat(TEXT_BYTES_MAX);
        let kind = Some(Kind::Quarantine(Quarantine { reason, remaining: None }));
        let protection = Protection { subject: "p/d".into(), kind };
        connection.protections(vec![protection; PROTECTIONS_MAX + 1], SystemTime::now());
        let all = registry.protections(SystemTime::now());
        assert_eq!(all.len(), PROTECTIONS_MAX);
        let Some(Kind::Quarantine(quarantine)) = &all[0].1.kind else { panic!("{:?}", all[0]) };
        assert_eq!(quarantine.reason.len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn no_more_agents_than_the_bound() {
        let registry = Arc::new(Registry::new());
        let now = SystemTime::now();
        let held: Vec<_> = (0..AGENTS_MAX)
            .map(|number| registry.connect(hello(&number.to_string()), now).unwrap())
            .collect();
        assert!(registry.connect(hello("one-more"), now).is_err());
        drop(held);
    }
}
