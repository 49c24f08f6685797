//! Drills: faults that operators have agents make, each for a limited time. Pure; the
//! writer makes changes durable.

use std::collections::BTreeMap;

use prost::Message;
use trunkline_proto::types::v1::Fault;

use crate::store::journal::{FaultChange, Injected};

/// Drills that can be active at once. Each travels to all agents with every change, and
/// an agent looks at each of them for each attempt; people rehearse a few at a time.
pub const DRILLS_MAX: usize = 64;

/// A drill that is active.
#[derive(Clone, Debug, PartialEq)]
pub struct Drill {
    /// What agents make; its name tells drills apart.
    pub fault: Fault,
    /// Wall time in ms since 1970 at which it began.
    pub start_unix_ms: u64,
    /// Wall time in ms since 1970 at which it ends.
    pub expires_unix_ms: u64,
    /// Who began it.
    pub principal: String,
}

/// All active drills, at most [`DRILLS_MAX`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultSet {
    drills: BTreeMap<String, Drill>,
}

impl FaultSet {
    /// The drills, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Drill> {
        self.drills.values()
    }

    /// The drill of that name.
    pub fn get(&self, name: &str) -> Option<&Drill> {
        self.drills.get(name)
    }

    /// Whether no drill is active.
    pub fn is_empty(&self) -> bool {
        self.drills.is_empty()
    }

    /// The next end of a drill, as wall time in ms since 1970.
    pub fn next_expiry_unix_ms(&self) -> Option<u64> {
        self.drills.values().map(|drill| drill.expires_unix_ms).min()
    }

    /// Whether a drill of that name can begin.
    pub(crate) fn has_room_for(&self, name: &str) -> bool {
        self.drills.len() < DRILLS_MAX || self.drills.contains_key(name)
    }

    /// The changes that end what has expired.
    pub(crate) fn expired(&self, now_unix_ms: u64) -> Vec<FaultChange> {
        let ended = self.drills.values().filter(|drill| drill.expires_unix_ms <= now_unix_ms);
        ended.map(|drill| end(&drill.fault.name)).collect()
    }

    pub(crate) fn apply(&mut self, change: FaultChange) {
        // One that this program cannot read is one that agents would not make either.
        match change.injected.and_then(drill_of) {
            None => self.drills.remove(&change.name),
            Some(drill) => self.drills.insert(change.name, drill),
        };
    }

    /// What leads from nothing to these drills.
    pub(crate) fn changes(&self) -> impl Iterator<Item = FaultChange> {
        self.drills.values().map(begin)
    }
}

/// The change that begins `drill`.
pub(crate) fn begin(drill: &Drill) -> FaultChange {
    let injected = Injected {
        fault: drill.fault.encode_to_vec(),
        start_unix_ms: drill.start_unix_ms,
        expire_unix_ms: drill.expires_unix_ms,
        principal: drill.principal.clone(),
    };
    FaultChange { name: drill.fault.name.clone(), injected: Some(injected) }
}

/// The change that ends the drill `name`.
pub(crate) fn end(name: &str) -> FaultChange {
    FaultChange { name: name.to_owned(), injected: None }
}

fn drill_of(injected: Injected) -> Option<Drill> {
    Some(Drill {
        fault: Fault::decode(injected.fault.as_slice()).ok()?,
        start_unix_ms: injected.start_unix_ms,
        expires_unix_ms: injected.expire_unix_ms,
        principal: injected.principal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill(name: &str, expires_unix_ms: u64) -> Drill {
        Drill {
            fault: Fault { name: name.to_owned(), ..Fault::default() },
            start_unix_ms: 1,
            expires_unix_ms,
            principal: "tester".to_owned(),
        }
    }

    #[test]
    fn only_what_has_ended_expires() {
        let mut set = FaultSet::default();
        set.apply(begin(&drill("a", 10)));
        set.apply(begin(&drill("b", 11)));
        let ended = set.expired(10);
        assert_eq!(ended, [end("a")]);
        for change in ended {
            set.apply(change);
        }
        assert_eq!(set.next_expiry_unix_ms(), Some(11));
        assert_eq!(set.get("a"), None);
    }

    #[test]
    fn a_drill_under_a_name_in_use_takes_its_place_when_all_are_taken() {
        let mut set = FaultSet::default();
        for index in 0..DRILLS_MAX {
            assert!(set.has_room_for("one-more"));
            set.apply(begin(&drill(&index.to_string(), 10)));
        }
        assert!(!set.has_room_for("one-more"));
        assert!(set.has_room_for("7"));
        set.apply(begin(&drill("7", 20)));
        assert_eq!(set.iter().count(), DRILLS_MAX);
        assert_eq!(set.get("7").unwrap().expires_unix_ms, 20);
    }

    #[test]
    fn its_changes_lead_to_the_same_set() {
        let mut set = FaultSet::default();
        set.apply(begin(&drill("a", 10)));
        set.apply(begin(&drill("b", 11)));
        let mut again = FaultSet::default();
        set.changes().for_each(|change| again.apply(change));
        assert_eq!(again, set);
    }
}
