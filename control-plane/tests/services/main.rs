//! The control plane over real sockets, one module per service.

mod admin;
mod agents;
mod drills;
mod history;
mod revisions;
mod routing;
mod scripted;
mod start;
mod storms;
mod support;
mod telemetry;
mod watch;
