//! `compare`: strategies on a scenario, in virtual time, side by side; and the acceptance
//! table. Results go to standard output or a file, progress to standard error.

mod acceptance;
mod batch;
mod columns;
mod figures;
mod inputs;
mod listing;
mod names;
mod plot;
mod progress;
mod render;
mod result;
mod verdicts;

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use trunkline_simulator::{
    report::{PolicyRuns, complexity},
    run::{self, Policy},
    scenario::Scenario,
    traffic::Traffic,
};

use self::result::{Comparison, Line, Setup, cells};
use crate::{args::CompareArgs, failure::Failure, terminal};

/// Runs of each strategy, unless more or fewer are asked for.
const SEEDS: u64 = 5;

/// To what ratios refer.
const REFERENCE: &str = "naive-round-robin";

pub(crate) async fn run(args: CompareArgs) -> Result<ExitCode, Failure> {
    // Hours of virtual time are seconds of computing: not on a thread that serves others.
    tokio::task::spawn_blocking(move || dispatch(&args)).await.context("run the comparison")?
}

fn dispatch(args: &CompareArgs) -> Result<ExitCode, Failure> {
    if args.list {
        deliver(args, &listing::listing()?)?;
    } else if let Some(name) = &args.show_scenario {
        deliver(args, listing::yaml(name)?)?;
    } else if args.acceptance {
        return acceptance::run(args);
    } else {
        compare(args)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The result goes where it was asked for.
fn deliver(args: &CompareArgs, text: &str) -> Result<(), Failure> {
    match &args.out {
        Some(path) => Ok(write(path, text)?),
        None => terminal::print(text),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn compare(args: &CompareArgs) -> Result<(), Failure> {
    let name = args.scenario.as_deref().unwrap_or_default();
    let scenario = inputs::scenario(name, args)?;
    let traffic = inputs::traffic(&scenario, args)?;
    let wanted = inputs::policies(&args.strategies)?;
    let reference = inputs::policy(REFERENCE)?;
    let mut run = wanted.clone();
    if !run.contains(&reference) {
        run.push(reference);
    }
    let seeds = args.seeds.unwrap_or(SEEDS);
    let all = runs(args, &scenario, &traffic, &run, seeds);
    let base = all.iter().find(|runs| runs.policy == REFERENCE);
    let line = |(policy, runs): (&Policy, &PolicyRuns)| Line {
        policy: runs.policy.clone(),
        knobs: complexity(*policy).knobs,
        state: complexity(*policy).state,
        decision_us: args.timing.then(|| timing(args, &scenario, &traffic, *policy)),
        cells: cells(runs, base),
    };
    let shown: Vec<PolicyRuns> = all[..wanted.len()].to_vec();
    let setup = setup(args, &scenario, &traffic, &all, seeds);
    if let Some(directory) = &args.plots {
        for file in plot::draw(&figures::figures(&setup, &scenario, &shown), directory)? {
            terminal::remark(&format!("drew {}", file.display()));
        }
    }
    let lines = wanted.iter().zip(&shown).map(line).collect();
    deliver(args, &render::render(&Comparison { setup, lines }, args.format))
}

/// How long decisions take, in a run of its own with nothing beside it.
fn timing(args: &CompareArgs, scenario: &Scenario, traffic: &Traffic, policy: Policy) -> [f64; 2] {
    let (_, timing) = run::timed(scenario, traffic, policy, args.seed);
    [timing.p50_us, timing.p99_us]
}

fn setup(
    args: &CompareArgs,
    scenario: &Scenario,
    traffic: &Traffic,
    all: &[PolicyRuns],
    seeds: u64,
) -> Setup {
    let requests: Vec<u64> = all.iter().flat_map(|runs| &runs.runs).map(|run| run.whole.requests).collect();
    Setup {
        scenario: scenario.id.clone(),
        name: scenario.name.clone(),
        about: scenario.about.clone(),
        traffic: traffic.name.clone(),
        congestion: args.congestion.map(inputs::law_name),
        agents: scenario.agents,
        requests_per_run: requests.iter().sum::<u64>() / (requests.len() as u64).max(1),
        first_seed: args.seed,
        seeds,
        reference: REFERENCE.to_owned(),
    }
}

/// One run per policy and seed, by policy.
fn runs(
    args: &CompareArgs,
    scenario: &Scenario,
    traffic: &Traffic,
    policies: &[Policy],
    seeds: u64,
) -> Vec<PolicyRuns> {
    let seeds: Vec<u64> = (0..seeds).map(|n| args.seed.wrapping_add(n)).collect();
    let jobs: Vec<(Policy, u64)> =
        policies.iter().flat_map(|policy| seeds.iter().map(|seed| (*policy, *seed))).collect();
    let name = |(policy, seed): &(Policy, u64)| format!("{policy}, seed {seed}");
    let work = |(policy, seed): &(Policy, u64)| run::run(scenario, traffic, *policy, *seed);
    let mut reports = batch::run(&jobs, args.threads, name, work).into_iter();
    let of = |policy: &Policy| PolicyRuns {
        policy: policy.to_string(),
        runs: reports.by_ref().take(seeds.len()).collect(),
    };
    policies.iter().map(of).collect()
}
