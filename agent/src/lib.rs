//! Trunkline's fast loop: the proxy beside the app. It reads the routing table that
//! the control plane streams, decides each request by itself, and goes on by itself
//! when the control plane is away.

mod brain;
mod budgets;
mod checks;
mod clock;
pub mod config;
pub mod control;
pub mod credentials;
mod data_dir;
mod decisions;
mod drills;
mod duty;
mod engine;
mod grpc;
mod ingress;
mod learning;
mod metrics;
pub mod openai;
mod ops;
mod protections;
pub mod security;
mod shared;
mod snapshot;
mod start;
mod tape;
pub mod upstream;

pub use config::{Options, default_workers};
pub use start::{Running, StartError, start};
