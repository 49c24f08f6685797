//! Whose reports were merged up to which number, for all agents, and where it is stored.

use std::collections::HashMap;

use super::sequence::Sequences;
use super::stored;
use crate::repository::Blob;

/// Agents whose sequences are remembered; the longest silent one makes room.
const AGENTS_MAX: usize = 10_000;

/// What is known of all agents.
#[derive(Debug, Default)]
pub(super) struct Agents {
    known: HashMap<String, Known>,
    /// The first slot that was never used.
    next_slot: u32,
}

/// What is known of one.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Where it is stored. None: not yet.
    slot: Option<u32>,
    pub(super) sequences: Sequences,
    /// The batch that had a report of it last.
    pub(super) heard: u64,
}

impl Agents {
    /// Takes in what was stored.
    pub(super) fn insert(&mut self, slot: u32, agent_id: String, sequences: Sequences) {
        self.known.insert(agent_id, Known { slot: Some(slot), sequences, heard: 0 });
        self.next_slot = self.next_slot.max(slot.saturating_add(1));
    }

    pub(super) fn get(&self, agent_id: &str) -> Option<&Known> {
        self.known.get(agent_id)
    }

    /// Finds places for those of `present` that have none.
    pub(super) fn settle(&mut self, present: &mut HashMap<String, Known>) {
        let newcomers: Vec<String> =
            present.iter().filter(|(_, known)| known.slot.is_none()).map(|(name, _)| name.clone()).collect();
        for agent_id in newcomers {
            let slot = self.make_room(present);
            // Until the write is done, the newcomer is one that sent nothing.
            self.known.insert(agent_id.clone(), Known { slot: Some(slot), ..Known::default() });
            if let Some(known) = present.get_mut(&agent_id) {
                known.slot = Some(slot);
            }
        }
    }

    /// Takes over what is durable now.
    pub(super) fn publish(&mut self, agents: HashMap<String, Known>) {
        self.known.extend(agents);
    }

    /// What is stored of `agent_id` before a write: None if nothing is.
    pub(super) fn stored(&self, agent_id: &str) -> Option<Blob> {
        let known = self.known.get(agent_id)?;
        known.sequences.iter().next()?;
        known.blob(agent_id)
    }

    /// A free slot; the longest silent agent is forgotten if there is none.
    fn make_room(&mut self, present: &HashMap<String, Known>) -> u32 {
        let full = self.next_slot as usize >= AGENTS_MAX;
        let absent = self.known.iter().filter(|(name, _)| full && !present.contains_key(*name));
        let silent = absent.min_by_key(|(_, known)| known.heard).map(|(name, _)| name.clone());
        if let Some(slot) = silent.and_then(|name| self.known.remove(&name)).and_then(|known| known.slot) {
            return slot;
        }
        self.next_slot += 1;
        self.next_slot - 1
    }
}

impl Known {
    /// The form in which it is stored, once it has a place.
    pub(super) fn blob(&self, agent_id: &str) -> Option<Blob> {
        self.slot.map(|slot| stored::sequences_blob(slot, agent_id, &self.sequences))
    }
}
