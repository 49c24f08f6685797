//! The newest states of the configuration, for deltas to agents that are a little behind.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use trunkline_proto::admin::v1::Config;
use trunkline_routing::table::Version;

use super::ConfigState;
use crate::store::journal::{Record, Snapshot};

/// States kept for deltas. An agent that missed more gets a whole snapshot.
const RECENT_MAX: usize = 256;

/// Encoded bytes of configurations kept for deltas, beside [`RECENT_MAX`]: a state
/// takes a few times its encoded size, and the control plane has 100 MiB to spare.
const RECENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The newest states, at most [`RECENT_MAX`] and [`RECENT_BYTES_MAX`], the newest one
/// always.
#[derive(Debug, Default)]
pub(super) struct Recent {
    states: VecDeque<(Arc<ConfigState>, usize)>,
    bytes: usize,
}

impl Recent {
    pub(super) fn get(&self, revision: u64) -> Option<Arc<ConfigState>> {
        let oldest = self.states.front()?.0.version.revision;
        let index = usize::try_from(revision.checked_sub(oldest)?).ok()?;
        self.states.get(index).map(|(state, _)| Arc::clone(state))
    }

    /// Revisions come without gaps.
    pub(super) fn push(&mut self, state: Arc<ConfigState>) {
        let bytes = state.config.encoded_len();
        self.bytes += bytes;
        self.states.push_back((state, bytes));
        while self.states.len() > RECENT_MAX || (self.bytes > RECENT_BYTES_MAX && self.states.len() > 1) {
            let Some((_, bytes)) = self.states.pop_front() else { break };
            self.bytes -= bytes;
        }
    }
}

/// The states that the newest segment of a journal still knows, but the newest one:
/// after a restart agents that are a little behind get deltas as before it.
pub(super) fn of(epoch: &str, snapshot: &Snapshot, records: &[Record]) -> Recent {
    // Deltas within one epoch only.
    let renamed = records.iter().rposition(|record| record.epoch.is_some());
    let records = &records[renamed.map_or(0, |at| at + 1)..];
    let first = renamed.is_none().then_some((snapshot.revision, snapshot.forced, &snapshot.config));
    let later = records.iter().filter_map(|record| {
        let config = record.config.as_ref()?;
        Some((record.revision, record.force, config))
    });
    let all: Vec<_> = first.into_iter().chain(later).collect();
    let older = &all[..all.len().saturating_sub(1)];
    // From the newest one back, as far as there is room: none is decoded in vain.
    let mut bytes = 0;
    let room = |(_, _, config): &&(u64, bool, &Vec<u8>)| {
        bytes += config.len();
        bytes <= RECENT_BYTES_MAX
    };
    let kept = older.iter().rev().take(RECENT_MAX - 1).take_while(room).count();
    let mut recent = Recent::default();
    for &(revision, forced, config) in &older[older.len() - kept..] {
        let version = Version { epoch: epoch.to_owned(), revision };
        let state = Config::decode(config.as_slice())
            .ok()
            .and_then(|config| ConfigState::new(version, config, forced).ok());
        match state {
            Some(state) => recent.push(Arc::new(state)),
            // This program would not take it any more. Revisions have no gaps.
            None => recent = Recent::default(),
        }
    }
    recent
}
