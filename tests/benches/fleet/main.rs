//! What agents cost their control plane: thousands of sync streams from one process, and
//! the control plane's memory, processor time and push latency. The load generator runs
//! on the same machine, so latencies are upper bounds; memory and processor time are the
//! control plane's own.
//!
//! `cargo bench -p trunkline-tests --bench fleet -- --agents 10000`
//!
//! Nothing here is asserted on time; that every agent gets every revision is.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]

mod usage;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use tokio::time::Instant;
use trunkline_proto::{
    admin::v1::{ApplyConfigRequest, Config, SetBreakerRequest},
    types::v1::{BreakerState, Deployment, Dialect, Provider},
};
use trunkline_tests::{admin::Admin, control_plane::ControlPlane, fleet::Fleet};

use self::usage::Usage;

/// Longest that anything may take before the benchmark gives up.
const LIMIT: Duration = Duration::from_secs(180);

/// Measures what agents cost their control plane.
#[derive(Debug, Parser)]
struct Options {
    /// Sizes of the fleet, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    agents: Vec<usize>,
    /// Changes of the configuration that are pushed to each fleet.
    #[arg(long, default_value_t = 11)]
    pushes: usize,
    /// A short run with few agents, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Cargo says so to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    if options.quick {
        options.agents = vec![200];
        options.pushes = 3;
    }
    println!(
        "| agents | RSS per agent | connect all | push p50 | p99 | CPU per push and agent | verdict p99 | idle CPU | back after kill -9 | whole tables then |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for agents in options.agents.clone() {
        runtime.block_on(measure(agents, options.pushes))?;
    }
    Ok(())
}

/// Twenty deployments at five providers: about 4 KB.
fn config(region: &str) -> Config {
    let deployment = |number: usize| Deployment {
        name: format!("deployment-{number}"),
        upstream_model: format!("model-{number}"),
        context_window: 128_000,
        quality: Some(0.5),
        ..Deployment::default()
    };
    let provider = |number: usize| Provider {
        name: format!("provider-{number}"),
        region: if number == 0 { region.to_owned() } else { "eu".to_owned() },
        dialect: Dialect::Openai.into(),
        base_url: "https://api.example.com/v1".to_owned(),
        deployments: (0..4).map(deployment).collect(),
        ..Provider::default()
    };
    Config { providers: (0..5).map(provider).collect(), ..Config::default() }
}

async fn apply(admin: &Admin, region: &str) -> anyhow::Result<u64> {
    let request = ApplyConfigRequest { config: Some(config(region)), ..ApplyConfigRequest::default() };
    let applied = admin.client.clone().apply_config(request).await?.into_inner();
    Ok(applied.version.context("a version")?.revision)
}

async fn measure(agents: usize, pushes: usize) -> anyhow::Result<()> {
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    let first = apply(&admin, "start").await?;
    let empty = Usage::of(control_plane.process.id())?;

    let began = Instant::now();
    let fleet = Fleet::start(&control_plane.url, agents);
    everybody(&fleet, first).await?;
    let connected = began.elapsed();
    // Heartbeats of all have come once.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let full = Usage::of(control_plane.process.id())?;
    let per_agent = full.rss_bytes.saturating_sub(empty.rss_bytes) / agents as u64;

    let idle_time = Duration::from_secs(10);
    tokio::time::sleep(idle_time).await;
    let idle = Usage::of(control_plane.process.id())?.cpu.saturating_sub(full.cpu);

    let (mut delays, before) = (Vec::new(), Usage::of(control_plane.process.id())?);
    for push in 0..pushes {
        let began = Instant::now();
        let revision = apply(&admin, &push.to_string()).await?;
        everybody(&fleet, revision).await?;
        delays.extend(fleet.delays_micros(began));
    }
    let spent = Usage::of(control_plane.process.id())?.cpu.saturating_sub(before.cpu);
    delays.sort_unstable();

    let verdict = verdict(&admin, &fleet).await?;

    let control_plane = control_plane.restart();
    let began = Instant::now();
    let whole_before = fleet.snapshots();
    let last = apply(&control_plane.admin().await, "end").await?;
    everybody(&fleet, last).await?;
    let back = began.elapsed();
    println!(
        "| {agents} | {:.1} KB | {:.1} s | {:.0} ms | {:.0} ms | {:.0} µs | {:.0} ms | {:.1} % | {:.1} s | {} |",
        per_agent as f64 / 1e3,
        connected.as_secs_f64(),
        quantile(&delays, 50) / 1e3,
        quantile(&delays, 99) / 1e3,
        spent.as_micros() as f64 / (pushes * agents) as f64,
        verdict.as_secs_f64() * 1e3,
        idle.as_secs_f64() / idle_time.as_secs_f64() * 100.0,
        back.as_secs_f64(),
        fleet.snapshots() - whole_before,
    );
    Ok(())
}

async fn everybody(fleet: &Fleet, revision: u64) -> anyhow::Result<()> {
    let holding = fleet.wait_for(revision, LIMIT).await;
    ensure!(holding == fleet.len(), "only {holding} of {} agents got revision {revision}", fleet.len());
    Ok(())
}

/// From the call until 99 % of the agents were told that a breaker is forced open.
async fn verdict(admin: &Admin, fleet: &Fleet) -> anyhow::Result<Duration> {
    let target = fleet.publications() + fleet.len() as u64 * 99 / 100;
    let began = Instant::now();
    let request = SetBreakerRequest {
        deployment: "provider-0/deployment-0".to_owned(),
        state: BreakerState::ForcedOpen.into(),
        ..SetBreakerRequest::default()
    };
    admin.client.clone().set_breaker(request).await?;
    while fleet.publications() < target {
        ensure!(began.elapsed() < LIMIT, "a verdict did not reach all agents");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(began.elapsed())
}

fn quantile(sorted: &[u64], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len() - 1);
    sorted[index] as f64
}
