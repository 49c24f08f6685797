//! Runs: a scenario, traffic, a policy and a seed give a report.
//!
//! A run is a discrete-event simulation on virtual time. Providers answer by their
//! models; requests go through the very code that agents run, or through a baseline
//! that it is compared with. What a provider does with a call is drawn from the call's
//! own chance: two policies that send the same call to the same place meet the same
//! luck, and the same inputs give the same report to the last bit.

mod core;
mod fleet;
mod policy;
mod provider;
mod record;
pub mod report;
mod table;
#[cfg(test)]
mod tests;
mod timed;
mod world;

pub use policy::{Ablation, Baseline, Policy, UnknownPolicy};
pub(crate) use provider::Truth;
pub use report::RunReport;
pub use timed::Timing;
pub(crate) use world::{Attempt, Client, Heard, Why, World};

use crate::{
    baselines,
    scenario::Scenario,
    traffic::{Traffic, arrivals},
};

/// Runs a scenario that was checked. Single-threaded, without I/O.
pub fn run(scenario: &Scenario, traffic: &Traffic, policy: Policy, seed: u64) -> RunReport {
    execute(scenario, traffic, policy, seed, |world, client| world.run(client))
}

/// The same, and how long the policy took for each request that came in, on this
/// machine's clock.
pub fn timed(scenario: &Scenario, traffic: &Traffic, policy: Policy, seed: u64) -> (RunReport, Timing) {
    let mut timing = Timing::default();
    let report = execute(scenario, traffic, policy, seed, |world, client| {
        let mut timed = timed::Timed::new(client);
        world.run(&mut timed);
        timing = timed.timing();
    });
    (report, timing)
}

fn execute(
    scenario: &Scenario,
    traffic: &Traffic,
    policy: Policy,
    seed: u64,
    drive: impl FnOnce(&mut World<'_>, &mut dyn Client),
) -> RunReport {
    let mut world = World::new(scenario, arrivals(scenario, traffic, seed), seed);
    match policy {
        Policy::Core(strategy, ablation) => {
            drive(&mut world, &mut core::Core::new(scenario.agents, traffic, strategy, ablation, seed));
        }
        Policy::Baseline(baseline) => drive(&mut world, &mut baselines::client(baseline, scenario, seed)),
    }
    let window = scenario.window.map(|window| record::span(&world.records, window.start_s, window.end_s));
    RunReport {
        scenario: scenario.id.clone(),
        traffic: traffic.name.clone(),
        policy: policy.to_string(),
        seed,
        whole: record::span(&world.records, scenario.warmup_s, scenario.duration_s),
        window,
        seconds: record::seconds(&world.records),
        deployments: world.series,
        old_price_s: world.old_price_s,
        budget: None,
        simulated_s: world.now.as_nanos() as f64 / 1e9,
        events: world.events,
    }
}
