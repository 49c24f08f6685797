//! A finished comparison: what was run and what came out, ready to be written.

use serde::Serialize;
use trunkline_simulator::report::{Cell, PolicyRuns};

use super::columns::GROUPS;

/// What was run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Setup {
    pub(super) scenario: String,
    pub(super) name: String,
    pub(super) about: String,
    pub(super) traffic: String,
    /// The law that was asked for; none if the scenario's own hold.
    pub(super) congestion: Option<String>,
    pub(super) agents: u32,
    pub(super) requests_per_run: u64,
    pub(super) first_seed: u64,
    pub(super) seeds: u64,
    /// To what ratios refer.
    pub(super) reference: String,
}

/// The whole.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) setup: Setup,
    pub(super) lines: Vec<Line>,
}

/// One strategy.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) policy: String,
    pub(super) knobs: &'static [&'static str],
    pub(super) state: &'static str,
    /// Microseconds of a decision, median and 99th percentile, where they were measured.
    pub(super) decision_us: Option<[f64; 2]>,
    /// By group and column, as in [`GROUPS`].
    pub(super) cells: Vec<Vec<Option<Cell>>>,
}

impl Setup {
    /// In one line.
    pub(super) fn line(&self) -> String {
        let Self { traffic, seeds, first_seed, agents, requests_per_run, .. } = self;
        let last = first_seed + seeds - 1;
        let seeds =
            if *seeds == 1 { format!("seed {last}") } else { format!("seeds {first_seed} to {last}") };
        let law = self.congestion.as_ref().map(|law| format!(", congestion {law}")).unwrap_or_default();
        format!("traffic {traffic}, {agents} agents, {requests_per_run} requests a run, {seeds}{law}")
    }
}

/// The cells of a strategy's runs.
pub(super) fn cells(runs: &PolicyRuns, reference: Option<&PolicyRuns>) -> Vec<Vec<Option<Cell>>> {
    let columns = |group: &super::columns::Group| {
        group.columns.iter().map(|column| runs.cell(column.metric, reference)).collect()
    };
    GROUPS.iter().map(columns).collect()
}
