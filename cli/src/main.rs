//! `trunkline`: everything an operator types. `up` runs a control plane and an agent
//! in one process; the other commands talk to a running control plane.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong input.

mod apply;
mod args;
mod cell;
mod client;
mod compare;
mod drain;
mod drill;
mod explain;
mod export;
mod failure;
mod get;
mod json;
mod keys;
mod log;
mod prices;
mod probe;
mod replay;
mod rollback;
mod signal;
mod simulate;
mod table;
mod terminal;
mod up;
mod watch;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};

use crate::{
    args::{Cli, Command},
    failure::Failure,
};

/// For blocking work that is still running when a command ends. What must be kept is
/// durable by then.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            terminal::complain(&failure);
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the tokio runtime")?;
    let result = runtime.block_on(dispatch(cli.command));
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    result
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Up(args) => return up::run(*args).await,
        Command::Compare(args) => return compare::run(*args).await,
        Command::Replay(args) => return replay::run(args).await,
        Command::Apply(args) => apply::run(args).await?,
        Command::Export(args) => export::run(args).await?,
        Command::Get(args) => get::run(args).await?,
        Command::Explain(args) => explain::run(args).await?,
        Command::Rollback(args) => rollback::run(args).await?,
        Command::Drain(args) => drain::run(args).await?,
        Command::Fault(args) => drill::run(args).await?,
        Command::Prices(args) => prices::run(args).await?,
        Command::Keys(args) => keys::run(args).await?,
        Command::Watch(args) => watch::run(args).await?,
        Command::Probe(args) => probe::run(args).await?,
        Command::SimulateProvider(args) => simulate::run(args).await?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trunkline", &mut script);
            terminal::print(&String::from_utf8_lossy(&script))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
