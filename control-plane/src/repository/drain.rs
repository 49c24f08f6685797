//! Drains: agents that operators take out of service. Pure; the writer makes changes
//! durable.

use std::collections::BTreeMap;

use crate::store::journal::DrainChange;

/// Agents that can be out of service at once; a control plane has at most about so many.
pub const DRAINS_MAX: usize = 10_000;

/// All agents that shall be out of service, whether they are known or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainSet {
    /// Reason by agent id.
    reasons: BTreeMap<String, String>,
}

impl DrainSet {
    /// What the operator said, possibly nothing. None: it shall be in service.
    pub fn reason(&self, agent_id: &str) -> Option<&str> {
        self.reasons.get(agent_id).map(String::as_str)
    }

    /// Agent ids and reasons, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.reasons.iter().map(|(agent_id, reason)| (agent_id.as_str(), reason.as_str()))
    }

    /// Whether one more agent can be taken out of service.
    pub(crate) fn has_room_for(&self, agent_id: &str) -> bool {
        self.reasons.len() < DRAINS_MAX || self.reasons.contains_key(agent_id)
    }

    pub(crate) fn apply(&mut self, change: DrainChange) {
        match change.reason {
            None => {
                self.reasons.remove(&change.agent_id);
            }
            Some(reason) => {
                self.reasons.insert(change.agent_id, reason);
            }
        }
    }

    /// What leads from nothing to this.
    pub(crate) fn changes(&self) -> impl Iterator<Item = DrainChange> {
        self.iter().map(|(agent_id, reason)| DrainChange {
            agent_id: agent_id.to_owned(),
            reason: Some(reason.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_out_of_service_until_it_is_resumed() {
        let mut set = DrainSet::default();
        let change = |reason: Option<&str>| DrainChange {
            agent_id: "agent-1".to_owned(),
            reason: reason.map(ToOwned::to_owned),
        };
        set.apply(change(Some("new kernel")));
        assert_eq!(set.reason("agent-1"), Some("new kernel"));
        assert_eq!(set.reason("agent-2"), None);
        let mut again = DrainSet::default();
        set.changes().for_each(|change| again.apply(change));
        assert_eq!(again, set);
        set.apply(change(None));
        assert_eq!(set, DrainSet::default());
    }
}
