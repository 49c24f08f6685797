//! `compare --acceptance`: runs what the rows of the table need, each run once, and judges.

use std::{collections::BTreeMap, process::ExitCode};

use trunkline_simulator::{
    report::{
        PolicyRuns,
        acceptance::{self, Condition, Row, Verdict},
    },
    run::{self, Policy, RunReport},
    scenario::Scenario,
    spending,
    traffic::Traffic,
};

use super::{batch, deliver, inputs, names::unknown, verdicts};
use crate::{args::CompareArgs, failure::Failure, terminal};

/// Runs of each policy; the table is about their mean.
const SEEDS: u64 = 5;
/// The same for a quick look.
const SEEDS_QUICK: u64 = 2;

/// A row's outcome.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) row: Row,
    /// With those of the controls last, and whether each is a control's.
    pub(super) verdicts: Vec<Judged>,
}

/// One condition's outcome.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    pub(super) condition: &'static Condition,
    /// Whether it says that a control fails.
    pub(super) is_control: bool,
    pub(super) verdict: Verdict,
}

impl Outcome {
    pub(super) fn holds(&self) -> bool {
        self.verdicts.iter().all(|judged| judged.verdict.holds)
    }
}

/// One run that a row needs.
struct Job {
    scenario: &'static str,
    policy: &'static str,
    seed: u64,
}

/// A scenario with the traffic it is run with.
struct Prepared {
    scenario: Scenario,
    traffic: Traffic,
}

pub(super) fn run(args: &CompareArgs) -> Result<ExitCode, Failure> {
    let rows = rows(&args.rows)?;
    let seeds = args.seeds.unwrap_or(if args.quick { SEEDS_QUICK } else { SEEDS });
    let prepared = prepare(&rows, args)?;
    let pairs = pairs(&rows, &prepared);
    let jobs: Vec<Job> = pairs
        .iter()
        .flat_map(|(scenario, policy)| {
            (0..seeds).map(|n| Job { scenario, policy, seed: args.seed.wrapping_add(n) })
        })
        .collect();
    let name = |job: &Job| format!("{} {}, seed {}", job.scenario, job.policy, job.seed);
    let mut reports = batch::run(&jobs, args.threads, name, |job| one(&prepared, job)).into_iter();
    let mut runs = BTreeMap::new();
    for pair in pairs {
        let own = reports.by_ref().take(seeds as usize).collect::<Result<_, _>>()?;
        runs.insert(pair, PolicyRuns { policy: pair.1.to_owned(), runs: own });
    }
    let outcomes: Vec<Outcome> = rows.iter().map(|row| judge(row, &runs, &prepared)).collect();
    deliver(args, &verdicts::render(&outcomes, &line(args, seeds), args.format))?;
    let failed: Vec<&str> = outcomes.iter().filter(|o| !o.holds()).map(|o| o.row.id).collect();
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    terminal::remark(&format!("rows that do not hold: {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

fn line(args: &CompareArgs, seeds: u64) -> String {
    let traffic = args.traffic.as_deref().unwrap_or("as each scenario says");
    let law = args.congestion.map_or_else(|| "as each scenario says".to_owned(), inputs::law_name);
    format!("mean of {seeds} seeds from {}, traffic {traffic}, congestion {law}", args.seed)
}

/// Those asked for, in the order of the table; all of them if none is.
fn rows(ids: &[String]) -> Result<Vec<Row>, Failure> {
    let all = acceptance::rows();
    for id in ids {
        if let Some(row) = acceptance::NOT_BUILT.iter().find(|row| row.id == id.trim()) {
            let (id, name, missing) = (row.id, row.name, row.missing);
            return Err(Failure::wrong_input(format!(
                "row {id} ({name}) can't be judged: not built yet is {missing}"
            )));
        }
        if !all.iter().any(|row| row.id == id.trim()) {
            return Err(unknown("row", id, all.iter().map(|row| row.id)));
        }
    }
    let wanted = |row: &Row| ids.is_empty() || ids.iter().any(|id| row.id == id.trim());
    Ok(all.into_iter().filter(wanted).collect())
}

/// Every scenario of the rows, with what was asked of it changed.
fn prepare(rows: &[Row], args: &CompareArgs) -> Result<BTreeMap<&'static str, Prepared>, Failure> {
    let mut prepared = BTreeMap::new();
    for condition in rows.iter().flat_map(Row::conditions) {
        let id = condition.scenario;
        if id != spending::SCENARIO && !prepared.contains_key(id) {
            let scenario = inputs::scenario(id, args)?;
            let traffic = inputs::traffic(&scenario, args)?;
            prepared.insert(id, Prepared { scenario, traffic });
        }
    }
    Ok(prepared)
}

/// Whether a condition is about the traffic that runs.
fn applies(condition: &Condition, prepared: &BTreeMap<&'static str, Prepared>) -> bool {
    condition.only_with.is_none_or(|only| {
        prepared.get(condition.scenario).is_some_and(|prepared| prepared.traffic.name == only)
    })
}

/// Every scenario and policy that the rows need, each once.
fn pairs(rows: &[Row], prepared: &BTreeMap<&'static str, Prepared>) -> Vec<(&'static str, &'static str)> {
    let conditions = rows.iter().flat_map(Row::conditions).filter(|condition| applies(condition, prepared));
    let mut pairs: Vec<_> =
        conditions.flat_map(|c| c.policies().map(|policy| (c.scenario, policy))).collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

fn one(prepared: &BTreeMap<&'static str, Prepared>, job: &Job) -> Result<RunReport, Failure> {
    let (scenario, policy) = (job.scenario, job.policy);
    let missing = || Failure::failed(format!("{policy} can't be run on scenario {scenario}"));
    if scenario == spending::SCENARIO {
        return spending::run(policy, job.seed).ok_or_else(missing);
    }
    let Prepared { scenario, traffic } = prepared.get(scenario).ok_or_else(missing)?;
    let policy: Policy = policy.parse().map_err(Failure::failed)?;
    Ok(run::run(scenario, traffic, policy, job.seed))
}

fn judge(
    row: &Row,
    runs: &BTreeMap<(&'static str, &'static str), PolicyRuns>,
    prepared: &BTreeMap<&'static str, Prepared>,
) -> Outcome {
    let judged = |condition: &'static Condition, is_control| {
        let mean = |policy: &str| {
            let runs = runs
                .iter()
                .find(|((scenario, known), _)| *scenario == condition.scenario && *known == policy);
            runs.and_then(|(_, runs)| runs.interval(condition.metric)).map(|interval| interval.mean)
        };
        Judged { condition, is_control, verdict: condition.judge(mean) }
    };
    let pass = row.pass.iter().filter(|c| applies(c, prepared)).map(|c| judged(c, false));
    let controls = row.must_fail.iter().filter(|c| applies(c, prepared)).map(|c| judged(c, true));
    Outcome { row: *row, verdicts: pass.chain(controls).collect() }
}
