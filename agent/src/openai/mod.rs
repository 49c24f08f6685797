//! The OpenAI-compatible dialect: what the agent reads out of requests and answers.
//!
//! Bytes go through as they are; these modules look at them and, for requests, splice
//! the model's name. Nothing here does I/O or keeps prompt text.

pub mod answer;
pub mod error_body;
pub mod event;
pub mod rewrite;
pub mod scan;
mod scan_cursor;
pub mod sse;
pub mod usage;
