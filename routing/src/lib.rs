//! The decision core: where a request goes, and what happens when that goes wrong.
//!
//! Pure code for three callers: the control plane, the agent and the simulator. It
//! does no I/O, reads no clock and holds no global state; time, randomness and state
//! are arguments. The compiler says so: the crate is `no_std` and may use three
//! crates only.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod baseline;
pub mod breaker;
pub mod bucket;
pub mod budget;
pub mod caps;
pub mod classify;
pub mod decide;
pub mod eligibility;
pub mod fleet;
pub mod hint;
pub mod histogram;
pub mod hold;
pub mod learn;
pub mod limits;
pub mod math;
pub mod money;
pub mod pace;
pub mod price;
pub mod registry;
pub mod request;
pub mod score;
pub mod select;
pub mod swrr;
pub mod table;
pub mod tenant;
pub mod time;
pub mod trace;
pub mod train;
pub mod window;
