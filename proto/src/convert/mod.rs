//! From the wire contract to the decision core and back. What comes out of here is
//! right: whoever gets a routing table never checks it again.

mod api_key;
mod budget;
mod canonical;
mod decision;
mod field;
mod guard;
mod histogram;
mod lenient;
mod model;
mod outcome;
mod price;
mod provider;
mod refusal;
mod score;
pub mod sync;
mod table;
mod virtual_model;

pub use budget::{budget_spent, period_of, wire_period};
pub use canonical::{
    canonical, etag_of_api_key, etag_of_budget, etag_of_price_entry, etag_of_provider, etag_of_virtual_model,
    without_feed, without_orphans,
};
pub use decision::{
    breaker_state, budget_exclusions, candidates, check_tags, exclusions, route_profile, route_state,
    session, usd, wire_strategy,
};
pub use guard::removal_guard;
pub use histogram::{HistogramRefused, histogram, wire_histogram};
pub use lenient::{Lenient, routing_table_lenient};
pub use model::{fleet_models, wire_model, wire_outputs};
pub use outcome::{Reported, outcome, reported, wire_outcome};
pub use price::{
    PRICE_ENTRIES_MAX, checked_price, is_from_feed, usd as written_usd, valid_from_unix_ms, wire_price,
};
pub use provider::PROBE_MODEL;
pub use refusal::{Binding, binding};
pub use table::routing_table;
