//! `up`: a control plane and an agent in one process, and, when nothing was
//! configured, simulated providers. The parts are the same libraries that production
//! runs as separate processes, and they talk over the same listeners.

mod next_steps;
mod parts;
mod readiness;
mod simulated;

use std::{env, process::ExitCode};

use trunkline_proto::admin::v1::{ApplyConfigRequest, ExportConfigRequest, ExportConfigResponse};

use self::{
    next_steps::Situation,
    parts::{Parts, reachable},
    simulated::Simulated,
};
use crate::{apply, args::UpArgs, client::ControlPlane, failure::Failure, log, signal::Signals, terminal};

/// What a shell reports for a process that Ctrl-C killed.
const ENDED_AT_ONCE: u8 = 130;

pub(crate) async fn run(args: UpArgs) -> Result<ExitCode, Failure> {
    log::init(&args.log)?;
    if let Some(path) = &args.config {
        // All that is wrong with it, before anything is started.
        apply::read(path)?;
    }
    let mut signals = Signals::new()?;
    let mut parts = Parts::default();
    let started = tokio::select! {
        biased; // Somebody who gives up is not kept waiting.
        () = signals.recv() => None,
        started = start(&mut parts, &args) => Some(started),
    };
    let result = match started {
        None => Ok(()),
        Some(Err(failure)) => Err(failure),
        Some(Ok(())) => tokio::select! {
            biased; // A part that fails while the signal comes is reported by stop.
            () = signals.recv() => Ok(()),
            failed = parts.ended() => Err(failed.into()),
        },
    };
    if result.is_ok() {
        terminal::print_line("finishing running requests; Ctrl-C again ends at once")?;
    }
    let stopped = tokio::select! {
        biased; // The second signal wins over waiting.
        () = signals.recv() => return Ok(ExitCode::from(ENDED_AT_ONCE)),
        stopped = parts.stop() => stopped,
    };
    result?;
    stopped?;
    terminal::print_line("ended")?;
    Ok(ExitCode::SUCCESS)
}

async fn start(parts: &mut Parts, args: &UpArgs) -> Result<(), Failure> {
    let simulated = match args.config {
        Some(_) => Vec::new(),
        None => parts.start_simulated().await?,
    };
    for provider in &simulated {
        terminal::print_line(&format!("listening provider-{} {}", provider.name, provider.base_url()))?;
    }
    let listen = parts.start_control_plane(args).await?;
    terminal::print_line(&format!("listening control-plane http://{}", listen.main))?;
    terminal::print_line(&format!("listening control-plane-ops http://{}", listen.ops))?;
    let control_plane_address = reachable(listen.main);
    let control_plane = ControlPlane::at(&format!("http://{control_plane_address}"))?;
    let configured = configure(&control_plane, &simulated).await?;

    let listen = parts.start_agent(args, control_plane_address).await?;
    terminal::print_line(&format!("listening agent http://{}", listen.main))?;
    terminal::print_line(&format!("listening agent-ops http://{}", listen.ops))?;
    let version = configured.version.unwrap_or_default();
    terminal::print_line(&format!("waiting for the agent to apply revision {}", version.revision))?;
    readiness::wait(&control_plane, &version).await?;

    let program = env::args().next().unwrap_or_else(|| "trunkline".to_owned());
    terminal::print(&format!(
        "\n{}",
        next_steps::text(&Situation {
            program: &program,
            agent: reachable(listen.main),
            control_plane: control_plane_address,
            config: &configured.config.unwrap_or_default(),
        })
    ))
}

/// Gives an empty store the configuration of the simulated providers; a store with a
/// configuration only learns their new addresses. What is configured then.
async fn configure(
    control_plane: &ControlPlane,
    simulated: &[Simulated],
) -> Result<ExportConfigResponse, Failure> {
    let export = async || {
        control_plane
            .call(ExportConfigRequest {}, async |admin, request| admin.export_config(request).await)
            .await
    };
    let kept = export().await?;
    if simulated.is_empty() {
        return Ok(kept);
    }
    let revision = kept.version.as_ref().map_or(0, |version| version.revision);
    let wanted = match revision {
        0 => Some(simulated::config(simulated)),
        _ => simulated::relocated(kept.config.clone().unwrap_or_default(), simulated),
    };
    if wanted.is_none() {
        return Ok(kept);
    }
    let request =
        ApplyConfigRequest { config: wanted, base_revision: revision, ..ApplyConfigRequest::default() };
    control_plane.call(request, async |admin, request| admin.apply_config(request).await).await?;
    export().await
}
