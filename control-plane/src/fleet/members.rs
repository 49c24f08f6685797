//! Agents with an open stream, and how each hears of its leases.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;
use trunkline_routing::time::Timestamp;

use super::{Lease, State};

/// All of them, by number. As many as the registry lets in.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) by_agent: HashMap<u64, Member>,
    streams: u64,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) agent_id: String,
    stream: u64,
    leases: watch::Sender<Arc<[Lease]>>,
}

impl Member {
    pub(super) fn new(agent_id: &str, members: &mut Members) -> (Self, u64, watch::Receiver<Arc<[Lease]>>) {
        members.streams += 1;
        let (leases, followed) = watch::channel(Arc::default());
        let member = Self { agent_id: agent_id.to_owned(), stream: members.streams, leases };
        (member, members.streams, followed)
    }
}

impl Members {
    /// Whether `stream` is the newest one of `agent`.
    pub(super) fn is_stream(&self, agent: u64, stream: u64) -> bool {
        self.by_agent.get(&agent).is_some_and(|member| member.stream == stream)
    }
}

impl State {
    /// Tells each agent of which the leases are others now.
    pub(super) fn publish_leases(&self, instant: impl Fn(Timestamp) -> std::time::Instant) {
        let mut by_agent: HashMap<u64, Vec<Lease>> = HashMap::new();
        for lease in self.verdicts.leases() {
            by_agent.entry(lease.agent).or_default().push(Lease {
                id: lease.id,
                deployment: lease.deployment.to_string(),
                subject: lease.subject.to_string(),
                generation: lease.generation,
                until: instant(lease.until),
                purpose: lease.purpose,
            });
        }
        for (agent, member) in &self.members.by_agent {
            let leases = by_agent.remove(agent).unwrap_or_default();
            member.leases.send_if_modified(|held| {
                let changed = **held != *leases;
                if changed {
                    *held = leases.into();
                }
                changed
            });
        }
    }
}
