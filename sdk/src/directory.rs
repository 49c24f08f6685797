//! Which agents serve completions, as the control plane told, and which one worked.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tonic::transport::Channel;

use crate::{Error, builder::Dialer};

/// Agents kept from one answer; a client needs one that works and some to fall back
/// to, not the whole fleet.
const AGENTS_MAX: usize = 8;

/// An agent to try.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) address: String,
    pub(crate) channel: Channel,
}

/// Agents in the order in which they are tried: the one that worked last is first.
/// Channels dial lazily and reconnect by themselves.
#[derive(Debug)]
pub(crate) struct Directory {
    dialer: Dialer,
    agents: Mutex<Vec<Agent>>,
}

impl Directory {
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self { dialer, agents: Mutex::new(Vec::new()) }
    }

    pub(crate) fn agents(&self) -> Vec<Agent> {
        self.lock().clone()
    }

    /// Replaces what is known by the `agents` of an AGENT_REQUIRED answer. An agent
    /// with an address that can't be used is left out, unless all are like that. So is
    /// one that would be told in the clear what the control plane was told in TLS.
    pub(crate) fn learn(&self, listed: &str) -> Result<Vec<Agent>, Error> {
        let mut agents = Vec::new();
        let mut first_error = None;
        let addresses = listed.split(',').map(str::trim).filter(|address| !address.is_empty());
        for address in addresses {
            if agents.len() == AGENTS_MAX {
                break;
            }
            match self.dialer.dial_lazily(address) {
                Ok(channel) => agents.push(Agent { address: address.to_owned(), channel }),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        if let (true, Some(error)) = (agents.is_empty(), first_error) {
            return Err(error);
        }
        self.lock().clone_from(&agents);
        Ok(agents)
    }

    /// Tries this agent first from now on.
    pub(crate) fn prefer(&self, address: &str) {
        let mut agents = self.lock();
        if let Some(position) = agents.iter().position(|agent| agent.address == address) {
            agents[..=position].rotate_right(1);
        }
    }

    /// Forgets all, so that the control plane is asked again.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Agent>> {
        // Nothing panics while it is held; were it so, the list would still be whole.
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
