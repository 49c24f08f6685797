//! Small numbers for pairs of deployment and virtual model, so that keys of steps are
//! short.

use std::collections::HashMap;

use super::Key;

/// A pair's number. [`super::KEYS_MAX`] fits.
pub(super) type PairId = u16;

/// The numbers that were given. They are for good.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    ids: HashMap<Key, PairId>,
    keys: HashMap<PairId, Key>,
    next: PairId,
}

impl Pairs {
    pub(super) fn insert(&mut self, id: PairId, key: Key) {
        self.next = self.next.max(id.saturating_add(1));
        self.keys.insert(id, key.clone());
        self.ids.insert(key, id);
    }

    pub(super) fn id(&self, key: &Key) -> Option<PairId> {
        self.ids.get(key).copied()
    }

    /// The first number that was not given.
    pub(super) fn next(&self) -> PairId {
        self.next
    }

    /// The pairs that `wanted` accepts.
    pub(super) fn select(&self, wanted: impl Fn(&Key) -> bool) -> HashMap<PairId, Key> {
        let selected = self.keys.iter().filter(|(_, key)| wanted(key));
        selected.map(|(id, key)| (*id, key.clone())).collect()
    }
}
