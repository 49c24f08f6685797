//! Runs: a scenario, traffic, a policy and a seed give a report.

mod policy;
pub mod report;

pub use policy::{Ablation, Baseline, Policy, UnknownPolicy};
pub use report::RunReport;
