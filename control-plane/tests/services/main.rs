//! The control plane over real sockets, one module per service.

mod admin;
mod agents;
mod api_keys;
mod drills;
mod fleet;
mod history;
mod price_feed;
mod prices;
mod revisions;
mod routing;
mod scripted;
mod start;
mod storms;
mod support;
mod telemetry;
mod watch;
