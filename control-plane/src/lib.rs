//! Trunkline's slow loop: it owns the configuration and what operators force, streams
//! both to agents, and adds up what they report.
//!
//! [`start::start`] runs all of it; the binary and `trunkline up` are its callers. A
//! control plane that is away never stops traffic: agents go on with what they hold.

mod access;
mod bootstrap;
mod budgets;
pub mod config;
mod fleet;
mod grpc;
mod learning;
mod metrics;
mod ops;
pub mod prices;
mod registry;
pub mod repository;
pub mod security;
pub mod start;
mod stats;
pub mod store;
