//! Verdicts: what operators force on breakers. Pure; the writer makes changes durable.

use std::collections::BTreeMap;

use crate::store::journal::{Forced, VerdictChange};

/// Deployments that can have been forced at some time. A configuration has at most
/// about so many deployments; names of removed ones count as well.
pub const FORCED_DEPLOYMENTS_MAX: usize = 20_000;

/// What an operator forces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictState {
    /// No traffic.
    ForcedOpen,
    /// Traffic whatever the breaker says.
    ForcedClosed,
}

/// A forced breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Full name.
    pub deployment: String,
    /// What is forced.
    pub state: VerdictState,
    /// Changes of the forced state of this deployment so far.
    pub generation: u64,
    /// For people.
    pub reason: String,
    /// Wall time in ms since 1970 at which it ends. None: never.
    pub expires_unix_ms: Option<u64>,
}

/// The answer to a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictOutcome {
    /// Changes of the forced state of this deployment so far.
    pub generation: u64,
    /// What is forced now. None: nothing.
    pub verdict: Option<Verdict>,
}

/// All that is forced, and the generations of what was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerdictSet {
    entries: BTreeMap<String, VerdictChange>,
}

impl VerdictSet {
    /// What is forced, by deployment.
    pub fn iter(&self) -> impl Iterator<Item = Verdict> + '_ {
        self.entries.values().filter_map(verdict_of)
    }

    /// What is forced on `deployment`.
    pub fn get(&self, deployment: &str) -> Option<Verdict> {
        self.entries.get(deployment).and_then(verdict_of)
    }

    /// Changes of the forced state of `deployment` so far.
    pub fn generation(&self, deployment: &str) -> u64 {
        self.entries.get(deployment).map_or(0, |entry| entry.generation)
    }

    /// Each deployment that was ever forced, with its generation.
    pub fn generations(&self) -> impl Iterator<Item = (&str, u64)> {
        self.entries.values().map(|entry| (entry.deployment.as_str(), entry.generation))
    }

    /// The next end of a verdict, as wall time in ms since 1970.
    pub fn next_expiry_unix_ms(&self) -> Option<u64> {
        self.entries.values().filter_map(expiry_of).min()
    }

    /// The state and generation of `deployment` now.
    pub(crate) fn outcome(&self, deployment: &str) -> VerdictOutcome {
        VerdictOutcome { generation: self.generation(deployment), verdict: self.get(deployment) }
    }

    /// The change that forces `deployment`, or gives it back. None: nothing would change,
    /// for it is not forced.
    pub(crate) fn change(&self, deployment: &str, forced: Option<Forced>) -> Option<VerdictChange> {
        if forced.is_none() && self.get(deployment).is_none() {
            return None;
        }
        let generation = self.generation(deployment) + 1;
        Some(VerdictChange { deployment: deployment.to_owned(), generation, forced })
    }

    /// The changes that end what has expired.
    pub(crate) fn expired(&self, now_unix_ms: u64) -> Vec<VerdictChange> {
        let ended = |entry: &&VerdictChange| expiry_of(entry).is_some_and(|end| end <= now_unix_ms);
        let names = self.entries.values().filter(ended).map(|entry| entry.deployment.as_str());
        names.filter_map(|deployment| self.change(deployment, None)).collect()
    }

    /// Whether one more deployment can be forced.
    pub(crate) fn has_room_for(&self, deployment: &str) -> bool {
        self.entries.len() < FORCED_DEPLOYMENTS_MAX || self.entries.contains_key(deployment)
    }

    pub(crate) fn apply(&mut self, change: VerdictChange) {
        self.entries.insert(change.deployment.clone(), change);
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = &VerdictChange> {
        self.entries.values()
    }
}

fn expiry_of(entry: &VerdictChange) -> Option<u64> {
    entry.forced.as_ref().and_then(|forced| forced.expires_unix_ms)
}

fn verdict_of(entry: &VerdictChange) -> Option<Verdict> {
    let forced = entry.forced.as_ref()?;
    Some(Verdict {
        deployment: entry.deployment.clone(),
        state: if forced.open { VerdictState::ForcedOpen } else { VerdictState::ForcedClosed },
        generation: entry.generation,
        reason: forced.reason.clone(),
        expires_unix_ms: forced.expires_unix_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forced(expires_unix_ms: Option<u64>) -> Forced {
        Forced { open: true, reason: "maintenance".into(), expires_unix_ms }
    }

    #[test]
    fn generations_grow_by_one_and_outlive_the_verdict() {
        let mut set = VerdictSet::default();
        for expected in 1..=4 {
            let wanted = (expected % 2 == 1).then(|| forced(None));
            let change = set.change("a/b", wanted).unwrap();
            set.apply(change);
            assert_eq!(set.generation("a/b"), expected);
        }
        assert_eq!(set.get("a/b"), None);
        assert_eq!(set.change("a/b", None), None);
    }

    #[test]
    fn only_what_has_ended_expires() {
        let mut set = VerdictSet::default();
        for (deployment, end) in [("a/x", Some(10)), ("a/y", Some(11)), ("a/z", None)] {
            let change = set.change(deployment, Some(forced(end))).unwrap();
            set.apply(change);
        }
        let ended = set.expired(10);
        assert_eq!(ended.len(), 1);
        assert_eq!((ended[0].deployment.as_str(), ended[0].generation), ("a/x", 2));
        for change in ended {
            set.apply(change);
        }
        assert_eq!(set.next_expiry_unix_ms(), Some(11));
    }
}
