//! One state of the configuration, and the newest of them.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use trunkline_proto::admin::v1::Config;
use trunkline_proto::convert::routing_table;
use trunkline_proto::problems::Problems;
use trunkline_routing::table::{RoutingTable, Version};

/// States kept for deltas. An agent that missed more gets a whole snapshot.
const RECENT_MAX: usize = 256;

/// Encoded bytes of configurations kept for deltas, beside [`RECENT_MAX`]: a state
/// takes a few times its encoded size, and the control plane has 100 MiB to spare.
const RECENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One durable state of the configuration. Immutable.
#[derive(Clone, Debug)]
pub struct ConfigState {
    /// Which one.
    pub version: Version,
    /// In canonical form.
    pub config: Config,
    /// The same for decisions.
    pub table: Arc<RoutingTable>,
    /// This revision was committed with force.
    pub forced: bool,
}

impl ConfigState {
    /// Checks `config` and makes a state of it. Revision 0 is the empty one.
    pub(super) fn new(version: Version, config: Config, forced: bool) -> Result<Self, Problems> {
        let table = if version.revision == 0 {
            RoutingTable { version: version.clone(), ..RoutingTable::default() }
        } else {
            routing_table(version.clone(), &config)?
        };
        Ok(Self { version, config, table: Arc::new(table), forced })
    }
}

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
