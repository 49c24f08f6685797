//! The fleet's word at one agent, under any order of verdicts, leases, results, silence
//! and time. What may happen is told by a model that is written apart from the code.

mod properties;
mod rules;
mod world;
