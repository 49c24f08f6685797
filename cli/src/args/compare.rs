//! `compare`: what can be typed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use trunkline_simulator::Law;

/// Most seeds: each is a run per strategy, and a thousand tell what there is to tell.
const SEEDS_MAX: u64 = 1_000;

#[expect(clippy::struct_excessive_bools, reason = "each is a flag that is typed or not")]
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  trunkline compare --list
  trunkline compare --scenario 02 --strategies latency,round-robin,peak-ewma-p2c --seeds 5
  trunkline compare --scenario mine.yaml --traffic mine.csv --plots plots --format markdown
  trunkline compare --acceptance --quick

The result is the same for the same seed, byte for byte. docs/guides/compare.md describes
the files.")]
pub(crate) struct CompareArgs {
    /// What happens: a built-in scenario's id, or a YAML file.
    #[arg(long, value_name = "ID|FILE", required_unless_present_any = ["list", "show_scenario", "acceptance"])]
    pub(crate) scenario: Option<String>,
    /// What comes in: a built-in traffic's name, or a CSV file. Default: what the scenario says.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) traffic: Option<String>,
    /// What is compared, separated by commas. Default: Trunkline's strategies and the
    /// baselines worth knowing.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "acceptance")]
    pub(crate) strategies: Vec<String>,
    /// How many runs of each, with other chances. Default 5, or 2 with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX))]
    pub(crate) seeds: Option<u64>,
    /// The first seed; the others follow it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// How all providers slow down under load, instead of what the scenario says.
    #[arg(long, value_name = "LAW", value_parser = law)]
    pub(crate) congestion: Option<Law>,
    /// A built-in fleet of providers, instead of the scenario's.
    #[arg(long, value_name = "NAME")]
    pub(crate) fleet: Option<String>,
    /// Form of the result.
    #[arg(long, value_enum, default_value_t = CompareFormat::Table)]
    pub(crate) format: CompareFormat,
    /// Draw plots into this directory, as SVG and PNG.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "acceptance")]
    pub(crate) plots: Option<PathBuf>,
    /// Write the result to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Also measure how long a decision takes. That differs from run to run.
    #[arg(long, conflicts_with = "acceptance")]
    pub(crate) timing: bool,
    /// Threads that run. Default: as many as the machine has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Judge the acceptance table: exit 0 only if every row and every control holds.
    #[arg(long, conflicts_with_all = ["scenario", "list", "show_scenario"])]
    pub(crate) acceptance: bool,
    /// With --acceptance: fewer seeds, for a quick look.
    #[arg(long, requires = "acceptance")]
    pub(crate) quick: bool,
    /// With --acceptance: only these rows, separated by commas.
    #[arg(long, value_name = "IDS", value_delimiter = ',', requires = "acceptance")]
    pub(crate) rows: Vec<String>,
    /// Show the built-in scenarios, strategies, baselines, traffics and fleets.
    #[arg(long, conflicts_with_all = ["scenario", "show_scenario"])]
    pub(crate) list: bool,
    /// Print a built-in scenario as YAML, to start one's own from.
    #[arg(long, value_name = "ID", conflicts_with = "scenario")]
    pub(crate) show_scenario: Option<String>,
}

/// The form of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompareFormat {
    /// For terminals.
    Table,
    /// For documents.
    Markdown,
    /// For programs.
    Json,
}

fn law(name: &str) -> Result<Law, String> {
    let named = Law::NAMES.into_iter().find(|(known, _)| *known == name);
    let known = || Law::NAMES.map(|(known, _)| known).join(", ");
    named.map(|(_, law)| law).ok_or_else(|| format!("there is no such law; there are: {}", known()))
}
