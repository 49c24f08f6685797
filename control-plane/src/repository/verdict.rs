//! Verdicts: what operators force on breakers, and what the fleet found under that. Pure;
//! the writer makes changes durable.

use std::collections::BTreeMap;
use std::time::Duration;

use trunkline_proto::types::v1::BreakerState;
use trunkline_routing::fleet::{Record, State};

use crate::store::journal::{FleetState, Forced, VerdictChange};

/// Deployments and providers that can have had a verdict at some time. A configuration has
/// at most about so many; names of removed ones count as well.
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

/// What the fleet found of a deployment or a provider, under what an operator forces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetVerdict {
    /// Full name, or a provider's name.
    pub subject: String,
    /// Changes of the verdict so far, forced ones included.
    pub generation: u64,
    /// What was found.
    pub record: Record,
    /// What an operator forces above it.
    pub forced: Option<VerdictState>,
    /// Wall time in ms since 1970 at which it became so.
    pub since_unix_ms: u64,
}

/// A change of what the fleet found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetChange {
    /// Full name, or a provider's name.
    pub subject: String,
    /// The generation that it was decided on: with another one it is void.
    pub from_generation: u64,
    /// What holds from now on.
    pub record: Record,
}

/// The answer to a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictOutcome {
    /// Changes of the forced state of this deployment so far.
    pub generation: u64,
    /// What is forced now. None: nothing.
    pub verdict: Option<Verdict>,
}

/// All verdicts, and the generations of former ones.
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

    /// What the fleet found of each subject that ever had a verdict, also where it is closed.
    pub fn fleet(&self) -> impl Iterator<Item = FleetVerdict> + '_ {
        self.entries.values().map(fleet_verdict)
    }

    /// What the fleet found of `subject`. None: it never had a verdict.
    pub fn fleet_of(&self, subject: &str) -> Option<FleetVerdict> {
        self.entries.get(subject).map(fleet_verdict)
    }

    /// Each deployment that ever had a verdict, with its generation.
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
    /// for it is not forced. What the fleet found before may be long ago when it is given
    /// back: if it was not closed, it has to be probed.
    pub(crate) fn change(
        &self,
        deployment: &str,
        forced: Option<Forced>,
        now_unix_ms: u64,
    ) -> Option<VerdictChange> {
        if forced.is_none() && self.get(deployment).is_none() {
            return None;
        }
        let generation = self.generation(deployment) + 1;
        let mut fleet = self.entries.get(deployment).and_then(|entry| entry.fleet.clone());
        if forced.is_none()
            && let Some(found) = fleet.as_mut().filter(|found| found.state != BreakerState::Closed as i32)
        {
            found.state = BreakerState::HalfOpen.into();
            found.unix_ms = now_unix_ms;
            "it was forced, and was not closed before".clone_into(&mut found.reason);
        }
        Some(VerdictChange { deployment: deployment.to_owned(), generation, forced, fleet })
    }

    /// The change to what the fleet found. None: it was decided on another verdict than
    /// this, or there is no room.
    pub(crate) fn found(&self, change: FleetChange, now_unix_ms: u64) -> Option<VerdictChange> {
        let FleetChange { subject, from_generation, record } = change;
        let current = self.generation(&subject) == from_generation;
        if !current || self.get(&subject).is_some() || !self.has_room_for(&subject) {
            return None;
        }
        let fleet = Some(stored(&record, now_unix_ms));
        Some(VerdictChange { deployment: subject, generation: from_generation + 1, forced: None, fleet })
    }

    /// The changes that end what has expired.
    pub(crate) fn expired(&self, now_unix_ms: u64) -> Vec<VerdictChange> {
        let ended = |entry: &&VerdictChange| expiry_of(entry).is_some_and(|end| end <= now_unix_ms);
        let names = self.entries.values().filter(ended).map(|entry| entry.deployment.as_str());
        names.filter_map(|deployment| self.change(deployment, None, now_unix_ms)).collect()
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

fn stored(record: &Record, unix_ms: u64) -> FleetState {
    let (state, admit_percent) = match record.state {
        State::Closed => (BreakerState::Closed, 0),
        State::Open => (BreakerState::Open, 0),
        State::HalfOpen => (BreakerState::HalfOpen, 0),
        State::Ramping(percent) => (BreakerState::Ramping, percent),
    };
    FleetState {
        state: state.into(),
        admit_percent: admit_percent.into(),
        openings: record.openings,
        open_for_ms: record.open_for.as_millis() as u64,
        unix_ms,
        reason: record.reason.to_string(),
    }
}

fn fleet_verdict(entry: &VerdictChange) -> FleetVerdict {
    let found = entry.fleet.clone().unwrap_or_default();
    let state = match BreakerState::try_from(found.state) {
        Ok(BreakerState::Open) => State::Open,
        Ok(BreakerState::HalfOpen) => State::HalfOpen,
        Ok(BreakerState::Ramping) => State::Ramping(u8::try_from(found.admit_percent).unwrap_or(100)),
        _ => State::Closed,
    };
    FleetVerdict {
        subject: entry.deployment.clone(),
        generation: entry.generation,
        record: Record {
            state,
            openings: found.openings,
            open_for: Duration::from_millis(found.open_for_ms),
            reason: found.reason.into(),
        },
        forced: verdict_of(entry).map(|verdict| verdict.state),
        since_unix_ms: found.unix_ms,
    }
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
            let change = set.change("a/b", wanted, 0).unwrap();
            set.apply(change);
            assert_eq!(set.generation("a/b"), expected);
        }
        assert_eq!(set.get("a/b"), None);
        assert_eq!(set.change("a/b", None, 0), None);
    }

    #[test]
    fn only_what_has_ended_expires() {
        let mut set = VerdictSet::default();
        for (deployment, end) in [("a/x", Some(10)), ("a/y", Some(11)), ("a/z", None)] {
            let change = set.change(deployment, Some(forced(end)), 0).unwrap();
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

    fn open() -> Record {
        let open_for = Duration::from_secs(2);
        Record { state: State::Open, openings: 1, open_for, reason: "it fails".into() }
    }

    fn found(from_generation: u64) -> FleetChange {
        FleetChange { subject: "a/b".into(), from_generation, record: open() }
    }

    #[test]
    fn what_the_fleet_found_counts_only_on_the_verdict_it_was_decided_on() {
        let mut set = VerdictSet::default();
        set.apply(set.found(found(0), 7).unwrap());
        assert_eq!(set.found(found(0), 8), None);
        let held = set.fleet_of("a/b").unwrap();
        assert_eq!((held.generation, held.record, held.since_unix_ms), (1, open(), 7));
        // An operator's word lies above it, and nothing changes under that.
        set.apply(set.change("a/b", Some(forced(None)), 9).unwrap());
        assert_eq!(set.found(found(2), 9), None);
        assert_eq!(set.fleet_of("a/b").unwrap().record, open());
    }

    #[test]
    fn a_breaker_that_was_open_is_probed_when_it_is_given_back() {
        let mut set = VerdictSet::default();
        set.apply(set.found(found(0), 7).unwrap());
        set.apply(set.change("a/b", Some(forced(None)), 8).unwrap());
        set.apply(set.change("a/b", None, 9).unwrap());
        let held = set.fleet_of("a/b").unwrap();
        assert_eq!((held.generation, held.record.state, held.forced), (3, State::HalfOpen, None));
        // One that was not goes on as before.
        set.apply(set.change("a/c", Some(forced(None)), 8).unwrap());
        set.apply(set.change("a/c", None, 9).unwrap());
        assert_eq!(set.fleet_of("a/c").unwrap().record.state, State::Closed);
    }
}
