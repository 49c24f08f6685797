//! The rules of section "attempts": who is tried when, what it costs, when it ends.
//! Each test scripts what deployments do, and reads who was called when.

mod blame;
mod moves;
mod outage;
mod silence;
mod waits;
mod world;
