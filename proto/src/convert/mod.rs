//! From the wire contract to the decision core and back. What comes out of here is
//! right: whoever gets a routing table never checks it again.

mod api_key;
mod field;
mod provider;
mod table;
mod virtual_model;

pub use table::routing_table;
