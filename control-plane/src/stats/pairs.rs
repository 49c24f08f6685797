//! Small numbers for pairs of deployment and virtual model, so that keys of steps are
//! short.

use std::collections::HashMap;

use super::Key;

/// A pair's number. [`super::KEYS_MAX`] fits.
pub(super) type PairId = u16;

/// The numbers that are given. One is given back when no row has it any more.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    ids: HashMap<Key, PairId>,
    /// With the newest hour, since 1970, that counts of it are in.
    keys: HashMap<PairId, (Key, u32)>,
}

impl Pairs {
    /// Gives a number, or tells the newest hour.
    pub(super) fn insert(&mut self, id: PairId, key: Key, hour: u32) {
        self.keys.insert(id, (key.clone(), hour));
        self.ids.insert(key, id);
    }

    /// Takes a number back.
    pub(super) fn remove(&mut self, id: PairId) {
        if let Some((key, _)) = self.keys.remove(&id) {
            self.ids.remove(&key);
        }
    }

    pub(super) fn id(&self, key: &Key) -> Option<PairId> {
        self.ids.get(key).copied()
    }

    /// Whose number it is, and the newest hour.
    pub(super) fn get(&self, id: PairId) -> Option<(&Key, u32)> {
        self.keys.get(&id).map(|(key, hour)| (key, *hour))
    }

    /// The pairs that `wanted` accepts.
    pub(super) fn select(&self, wanted: impl Fn(&Key) -> bool) -> HashMap<PairId, Key> {
        let selected = self.keys.iter().filter(|(_, (key, _))| wanted(key));
        selected.map(|(id, (key, _))| (*id, key.clone())).collect()
    }
}
