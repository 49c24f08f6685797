//! The decision core: where a request goes, and what happens when that goes wrong.
//!
//! Pure code for three callers: the control plane, the agent and the simulator. It
//! does no I/O, reads no clock and holds no global state; time, randomness and state
//! are arguments. The compiler says so: the crate is `no_std` and may use three
//! crates only.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod money;
pub mod table;
pub mod time;
