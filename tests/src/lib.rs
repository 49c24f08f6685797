//! What end-to-end tests are made of: the product's processes, live providers that can
//! be made faulty, configuration documents, and clients that look closely.
//!
//! Everything listens on loopback at ports of the system's choice, and everything that
//! was started ends with the value that stands for it.

#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests fail as tests do, and show logs when they do"
)]

pub mod admin;
pub mod agent;
pub mod chat;
pub mod cli;
pub mod control_plane;
pub mod document;
pub mod fault_proxy;
pub mod fleet;
pub mod older;
pub mod patience;
pub mod process;
pub mod provider;
pub mod reply;
pub mod up;
