//! The agents that are or lately were connected, as they describe themselves. Kept in
//! memory only: agents say it all again when they connect.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use trunkline_proto::{
    admin::v1 as admin,
    agent::v1::{Heartbeat, Hello},
    types::v1::{Protection, Version},
};

/// Twice what one control plane on two cores is planned for.
const AGENTS_MAX: usize = 10_000;

/// How long an agent is listed after its stream ended.
const DISCONNECTED_KEPT: Duration = Duration::from_hours(1);

/// All known agents. The newest stream of an agent id is the agent.
#[derive(Debug)]
pub(crate) struct Registry {
    agents: Mutex<HashMap<String, Agent>>,
}

/// No room for another agent.
#[derive(Debug, thiserror::Error)]
#[error("{AGENTS_MAX} agents are known already; connect this one to another control plane")]
pub(crate) struct RegistryFull;

#[derive(Debug)]
struct Agent {
    about: admin::Agent,
    protections: Vec<Protection>,
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
        Self { agents: Mutex::default() }
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
        let previous = agents.remove(&hello.agent_id).and_then(|agent| agent.stream);
        let number = previous.as_ref().map_or(0, |stream| stream.number + 1);
        if let Some(previous) = previous {
            previous.superseded.cancel();
        }
        let superseded = CancellationToken::new();
        let stream = Stream { superseded: superseded.clone(), number };
        let agent_id = hello.agent_id.clone();
        let about = describe(hello, now);
        agents.insert(
            agent_id.clone(),
            Agent { about, protections: Vec::new(), stream: Some(stream), seen: now },
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

    /// What protects targets at connected agents, by agent id.
    pub(crate) fn protections(&self) -> Vec<(String, Protection)> {
        let agents = self.agents.lock();
        let mut all: Vec<_> = agents
            .values()
            .flat_map(|agent| agent.protections.iter().map(|one| (agent.about.agent_id.clone(), one.clone())))
            .collect();
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
    pub(crate) fn protections(&self, protections: Vec<Protection>, now: SystemTime) {
        self.update(now, |agent| agent.protections = protections);
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
    }
}

fn forget_old(agents: &mut HashMap<String, Agent>, now: SystemTime) {
    agents.retain(|_, agent| {
        agent.stream.is_some() || now.duration_since(agent.seen).is_ok_and(|age| age < DISCONNECTED_KEPT)
    });
}

#[cfg(test)]
mod tests {
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
        assert_eq!(registry.protections().len(), 1);
        drop(connection);
        assert!(registry.protections().is_empty());
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
