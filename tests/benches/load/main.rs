//! What the agent costs: a mock provider, the agent before it, and a load generator, all
//! on loopback. Each figure is taken direct and through the agent in turn, so that what
//! else runs on the machine meets both alike; only their ratios and differences mean
//! anything on another one. With nginx installed, the same goes through nginx too.
//!
//! `cargo bench -p trunkline-tests --bench load -- --quick`
//!
//! Nothing here is asserted on time; that answers come through unchanged is.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Parser;

mod caller;
mod closed;
mod figures;
mod mock;
mod nginx;
mod open;
mod process;
mod streams;
mod subject;

use self::{figures::Figures, process::Placement, subject::Subject};

/// Measures what the agent costs against a direct call.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Options {
    /// A short run, to see that everything works; its figures mean little.
    #[arg(long)]
    quick: bool,
    /// How often everything is measured.
    #[arg(long)]
    rounds: Option<usize>,
    /// Another agent than the one that was built with this.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tested-agent"))]
    agent: PathBuf,
    /// A second agent, measured beside the first.
    #[arg(long)]
    other_agent: Option<PathBuf>,
    /// Leaves nginx out even if it is installed.
    #[arg(long)]
    no_nginx: bool,
    /// Starts only the mock provider; how the benchmark starts it itself.
    #[arg(long, hide = true)]
    mock: bool,
    /// Cargo says so to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    warm: Duration,
    closed: Duration,
    open: Duration,
    stream_waves: usize,
}

impl Plan {
    fn new(options: &Options) -> Self {
        let millis = Duration::from_millis;
        let (rounds, warm, closed, open, stream_waves) = if options.quick {
            (1, millis(100), millis(500), millis(1_000), 1)
        } else {
            (7, millis(300), millis(2_000), millis(3_000), 2)
        };
        Self { rounds: options.rounds.unwrap_or(rounds), warm, closed, open, stream_waves }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if options.mock {
        return runtime.block_on(mock::run());
    }
    let plan = Plan::new(&options);
    let placement = Placement::find();
    placement.settle_here()?;
    let figures = runtime.block_on(measure(&options, plan, placement))?;
    show(placement, plan, &figures);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn show(placement: Placement, plan: Plan, figures: &Figures) {
    println!("{placement}; rounds: {}; median (min..max)\n\n{figures}", plan.rounds);
}

#[expect(clippy::print_stderr, reason = "a run takes minutes; this says where it is")]
fn say(what: &str) {
    eprintln!("{what}");
}

async fn measure(options: &Options, plan: Plan, placement: Placement) -> anyhow::Result<Figures> {
    let mock = process::Process::mock(placement).context("start the mock provider")?;
    let subjects = subjects(options, placement, mock.address)?;
    for subject in &subjects {
        subject.check(mock.address).await.with_context(|| format!("try {}", subject.name))?;
    }
    let mut figures = Figures::default();
    for subject in &subjects {
        figures.idle(subject)?;
    }
    for round in 0..plan.rounds {
        say(&format!("round {} of {}; load of the machine {}", round + 1, plan.rounds, process::load()));
        let mut turn: Vec<&Subject> = subjects.iter().collect();
        if round % 2 == 1 {
            turn.reverse();
        }
        for subject in &turn {
            figures.closed(subject, &closed::run(subject, &mock, plan.warm, plan.closed).await?);
        }
        for rate in open::RATES {
            for subject in &turn {
                figures.open(subject, rate, open::run(subject, rate, plan.open).await?);
            }
        }
        for subject in &turn {
            figures.streams(subject, streams::run(subject, plan.stream_waves).await?);
        }
    }
    for subject in &subjects {
        figures.loaded(subject)?;
    }
    Ok(figures)
}

fn subjects(options: &Options, placement: Placement, mock: SocketAddr) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = vec![Subject::direct(mock)];
    subjects.push(Subject::agent("agent", &options.agent, placement, mock).context("start the agent")?);
    if let Some(other) = &options.other_agent {
        subjects
            .push(Subject::agent("other agent", other, placement, mock).context("start the other agent")?);
    }
    if !options.no_nginx && nginx::is_installed() {
        subjects.push(Subject::nginx(placement, mock).context("start nginx")?);
    }
    Ok(subjects)
}
