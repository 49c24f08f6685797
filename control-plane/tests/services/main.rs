//! The control plane over real sockets, one module per service.

mod admin;
mod agents;
mod routing;
mod start;
mod support;
mod telemetry;
mod watch;
