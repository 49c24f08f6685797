//! One state of the configuration.

use std::sync::Arc;

use trunkline_proto::admin::v1::Config;
use trunkline_proto::convert::routing_table;
use trunkline_proto::problems::Problems;
use trunkline_routing::table::{RoutingTable, Version};

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
