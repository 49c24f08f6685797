//! The live provider on loopback, by reqwest and by raw TCP.

mod dialect;
mod faults;
mod harness;
