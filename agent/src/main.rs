//! The agent as a process of its own.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use trunkline_agent::{
    Options,
    config::{Flags, LogFormat},
    start,
};

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(flags) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("run agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let filter = match EnvFilter::try_new(&flags.log) {
        Ok(filter) => filter,
        Err(error) => return Ok(wrong_filter(&flags.log, &error)),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match flags.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(flags.into()))
}

/// There is no log to say it in.
fn wrong_filter(filter: &str, error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("start agent: --log {filter:?}: {error}; right is for example info or trunkline_agent=debug");
    ExitCode::from(2)
}

async fn serve(options: Options) -> anyhow::Result<ExitCode> {
    let shutdown = CancellationToken::new();
    // Before the start: a signal during it is a stop as soon as it is done.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = match start(options, shutdown.clone()).await {
        Ok(running) => running,
        Err(error) => {
            tracing::error!("start agent: {error}");
            return Ok(if error.is_input() { ExitCode::from(2) } else { ExitCode::FAILURE });
        }
    };
    announce("agent", running.scheme, running.listen)?;
    announce("agent-ops", running.scheme, running.ops_listen)?;
    tokio::select! {
        biased;
        // Either asks for the same.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shutdown.cancel();
    running.wait().await;
    Ok(ExitCode::SUCCESS)
}

/// Programs that start this one read these lines.
fn announce(role: &str, scheme: &str, address: std::net::SocketAddr) -> anyhow::Result<()> {
    tracing::info!(role, %address, "listening");
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening {role} {scheme}://{address}").context("announce a listener")?;
    out.flush().context("announce a listener")
}
