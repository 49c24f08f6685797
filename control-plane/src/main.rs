//! The `trunkline-control-plane` command: flags, log, signals, exit codes.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use trunkline_control_plane::{
    config::{Flags, LogFormat},
    prices::FeedSource,
    security::{Security, TlsFiles},
    start::{ConfigSource, Listen, Options, Recovery, StartError, start},
};

/// The configuration, or the command line, is wrong; starting again won't help.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may be filtered; why it ends must be seen in any case.
            // Our errors name their cause themselves; the outermost says it all.
            let said = error.downcast_ref::<StartError>().map_or(format!("{error:#}"), ToString::to_string);
            drop(writeln!(std::io::stderr(), "error: {said}"));
            let refused = error.downcast_ref().is_some_and(StartError::is_input);
            if refused { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&flags.log).with_context(|| format!("--log {:?}", flags.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match flags.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(serve(flags))
}

async fn serve(flags: Flags) -> anyhow::Result<()> {
    let config = match &flags.config {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| StartError::Config {
                origin: path.display().to_string(),
                problems: format!("read the file: {error}"),
            })?;
            Some(ConfigSource { origin: path.display().to_string(), text, policy: flags.config_policy })
        }
    };
    let security = Security {
        // Each needs the other, says the command line.
        tls: flags.tls_cert.zip(flags.tls_key).map(|(certificate, key)| TlsFiles { certificate, key }),
        agent_tokens: flags.agent_token_file,
        admin_tokens: flags.admin_token_file,
        operator_tokens: flags.operator_token_file,
        viewer_tokens: flags.viewer_token_file,
        insecure: flags.insecure,
    };
    let options = Options {
        grpc: Listen::Address(flags.listen),
        ops: Listen::Address(flags.ops_listen),
        data_dir: Some(flags.data_dir),
        recovery: Recovery { accept_rollback: flags.accept_rollback, import_state: flags.import_state },
        config,
        security,
        price_feed: flags.price_feed.map(|url| FeedSource {
            url,
            format: flags.price_feed_format,
            interval: flags.price_feed_interval,
            allow_private: flags.price_feed_allow_private,
        }),
    };
    let shutdown = CancellationToken::new();
    // Before anything is announced, so that no signal is missed.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let running = start(options, shutdown.clone()).await?;
    announce("control-plane", running.scheme, running.grpc_addr)?;
    announce("control-plane-ops", running.scheme, running.ops_addr)?;
    let ended = running.wait();
    tokio::pin!(ended);
    tokio::select! {
        biased; // A failure needs no signal.
        ended = &mut ended => return Ok(ended?),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    shutdown.cancel();
    Ok(ended.await?)
}

/// Programs that start this one read these lines.
fn announce(role: &str, scheme: &str, address: std::net::SocketAddr) -> anyhow::Result<()> {
    tracing::info!(role, %address, "listening");
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening {role} {scheme}://{address}").context("announce a listener")?;
    out.flush().context("announce a listener")
}
