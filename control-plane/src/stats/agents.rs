//! Whose reports were merged up to which number, for all agents, and where it is stored.

use std::collections::{HashMap, HashSet};

use super::sequence::Sequences;
use super::stored;
use crate::repository::Blob;

/// Agents whose sequences are remembered; the longest silent one makes room.
const AGENTS_MAX: u32 = 10_000;

/// Newcomers whose gaps are remembered. With more, all are asked once more for what is
/// missing.
const NEWCOMERS_MAX: usize = 1_000;

/// What is known of all agents.
#[derive(Debug)]
pub(super) struct Agents {
    /// What is durable.
    known: HashMap<String, Known>,
    /// Those of whom nothing was merged yet: they were asked for what is missing.
    newcomers: HashMap<String, Known>,
    /// The first slot that was never used.
    next_slot: u32,
    pub(super) max: u32,
}

/// What is known of one.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Where it is stored. None: not yet.
    slot: Option<u32>,
    pub(super) sequences: Sequences,
    /// When a report of it came last, in seconds since 1970. 0: an older program stored
    /// it, and did not say.
    pub(super) heard: u64,
}

impl Default for Agents {
    fn default() -> Self {
        Self { known: HashMap::new(), newcomers: HashMap::new(), next_slot: 0, max: AGENTS_MAX }
    }
}

impl Agents {
    /// Takes in what was stored.
    pub(super) fn insert(&mut self, slot: u32, agent_id: String, (sequences, heard): (Sequences, u64)) {
        self.known.insert(agent_id, Known { slot: Some(slot), sequences, heard });
        self.next_slot = self.next_slot.max(slot.saturating_add(1));
    }

    pub(super) fn get(&self, agent_id: &str) -> Option<&Known> {
        self.known.get(agent_id).or_else(|| self.newcomers.get(agent_id))
    }

    /// How many were heard less than `secs` before the one that was heard last.
    pub(super) fn heard_within(&self, secs: u64) -> usize {
        let newest = self.known.values().map(|known| known.heard).max().unwrap_or_default();
        let lately = |known: &&Known| known.heard > 0 && newest - known.heard < secs;
        self.known.values().filter(lately).count()
    }

    /// Finds places for those of `present` that have none. The answer is who is forgotten
    /// for them, once [`Self::publish`] says so: until then a report of these that comes
    /// again is known.
    pub(super) fn settle(&self, present: &mut HashMap<String, Known>) -> HashSet<String> {
        let newcomers = present.values().filter(|known| known.slot.is_none()).count();
        if newcomers == 0 {
            return HashSet::new();
        }
        let free = (self.max.saturating_sub(self.next_slot) as usize).min(newcomers);
        let silent = self.longest_silent(newcomers - free, present);
        let fresh = self.next_slot..;
        let left = silent.iter().filter_map(|name| self.known.get(name)?.slot);
        // One batch has far fewer agents than there may be, so some are always absent; if
        // not, more are kept.
        let slots = fresh.clone().take(free).chain(left).chain(fresh.skip(free));
        let newcomers = present.values_mut().filter(|known| known.slot.is_none());
        for (known, slot) in newcomers.zip(slots) {
            known.slot = Some(slot);
        }
        silent.into_iter().collect()
    }

    /// Takes over what is durable now.
    pub(super) fn publish(&mut self, agents: HashMap<String, Known>, forgotten: &HashSet<String>) {
        self.known.retain(|agent_id, _| !forgotten.contains(agent_id));
        for (agent_id, known) in &agents {
            self.newcomers.remove(agent_id);
            self.next_slot = self.next_slot.max(known.slot.map_or(0, |slot| slot.saturating_add(1)));
        }
        self.known.extend(agents);
    }

    /// Takes over what needs no write: gaps that showed.
    pub(super) fn note(&mut self, agents: HashMap<String, Known>) {
        let (known, newcomers): (HashMap<_, _>, HashMap<_, _>) =
            agents.into_iter().partition(|(_, known)| known.slot.is_some());
        self.known.extend(known);
        if self.newcomers.len() + newcomers.len() > NEWCOMERS_MAX {
            self.newcomers.clear();
        }
        self.newcomers.extend(newcomers);
    }

    /// What is stored in the places of `present` before a write: None where nothing is.
    pub(super) fn stored(
        &self,
        present: &HashMap<String, Known>,
        forgotten: &HashSet<String>,
    ) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let holders = present.keys().chain(forgotten);
        let before: HashMap<_, _> =
            holders.filter_map(|agent_id| self.known.get(agent_id)?.blob(agent_id)).collect();
        let written = present.iter().filter_map(|(agent_id, known)| known.blob(agent_id));
        written
            .map(|(key, _)| {
                let value = before.get(&key).cloned();
                (key, value)
            })
            .collect()
    }

    /// So many who are not `present`, the longest silent first.
    fn longest_silent(&self, count: usize, present: &HashMap<String, Known>) -> Vec<String> {
        if count == 0 {
            return Vec::new();
        }
        let absent = self.known.iter().filter(|(name, _)| !present.contains_key(*name));
        let mut silent: Vec<_> = absent.map(|(name, known)| (known.heard, name)).collect();
        silent.sort_unstable();
        silent.into_iter().take(count).map(|(_, name)| name.clone()).collect()
    }
}

impl Known {
    /// The form in which it is stored, once it has a place.
    pub(super) fn blob(&self, agent_id: &str) -> Option<Blob> {
        self.slot.map(|slot| stored::sequences_blob(slot, agent_id, (&self.sequences, self.heard)))
    }
}
