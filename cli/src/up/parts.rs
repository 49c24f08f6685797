//! The parts that `up` runs, and the order in which they end: the agent first, so
//! that requests finish and telemetry still finds the control plane; the providers
//! last.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trunkline_control_plane::{
    config::ConfigPolicy,
    security::Security,
    start::{ConfigSource, Listen, Options, Recovery, start},
};

use super::simulated::{self, Simulated};
use crate::{args::UpArgs, failure::Failure};

/// All that runs.
#[derive(Debug, Default)]
pub(super) struct Parts {
    agent: Part,
    control_plane: Part,
    providers: TaskTracker,
    providers_stop: CancellationToken,
}

/// Where a part listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listening {
    pub(super) main: SocketAddr,
    pub(super) ops: SocketAddr,
}

impl Parts {
    pub(super) async fn start_simulated(&mut self) -> anyhow::Result<Vec<Simulated>> {
        simulated::start(&self.providers, &self.providers_stop).await
    }

    pub(super) async fn start_control_plane(&mut self, args: &UpArgs) -> Result<Listening, Failure> {
        let options = Options {
            grpc: Listen::Address(args.control_plane_listen),
            ops: Listen::Address(args.control_plane_ops_listen),
            data_dir: Some(args.data_dir.join("control-plane")),
            recovery: Recovery::default(),
            config: args.config.as_deref().map(|path| config_source(path, args)).transpose()?,
            security: Security { insecure: args.insecure, ..Security::default() },
            price_feed: None,
        };
        let stop = self.control_plane.stop.clone();
        let running = start(options, stop).await.map_err(|error| {
            if error.is_input() {
                Failure::wrong_input(error)
            } else {
                anyhow::Error::new(error).context("start the control plane").into()
            }
        })?;
        let listening = Listening { main: running.grpc_addr, ops: running.ops_addr };
        self.control_plane.run(async move { running.wait().await.context("run the control plane") });
        Ok(listening)
    }

    pub(super) async fn start_agent(
        &mut self,
        args: &UpArgs,
        control_plane: SocketAddr,
    ) -> Result<Listening, Failure> {
        let options = trunkline_agent::Options {
            listen: args.listen,
            ops_listen: args.ops_listen,
            data_dir: args.data_dir.join("agent"),
            control_plane: Some(format!("http://{control_plane}")),
            agent_id: None,
            advertise: None,
            static_config: None,
            security: trunkline_agent::security::Security { insecure: args.insecure, ..Default::default() },
            record: None,
            workers: trunkline_agent::default_workers(),
        };
        let stop = self.agent.stop.clone();
        let running = trunkline_agent::start(options, stop).await.map_err(|error| {
            if error.is_input() {
                Failure::wrong_input(error)
            } else {
                anyhow::Error::new(error).context("start the agent").into()
            }
        })?;
        let listening = Listening { main: running.listen, ops: running.ops_listen };
        self.agent.run(async move {
            running.wait().await;
            Ok(())
        });
        Ok(listening)
    }

    /// Waits until a part ends without having been asked to. Why it did.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let (part, result) = tokio::select! {
            biased; // Without the control plane the agent goes on; so its end tells more.
            result = self.agent.ended() => ("agent", result),
            result = self.control_plane.ended() => ("control plane", result),
        };
        result.err().unwrap_or_else(|| anyhow!("the {part} ended by itself"))
    }

    /// Ends everything in order. The first failure is told; the others follow anyway.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let agent = self.agent.end().await;
        let control_plane = self.control_plane.end().await;
        self.providers_stop.cancel();
        self.providers.close();
        self.providers.wait().await;
        agent.and(control_plane)
    }
}

/// A task and how to end it.
#[derive(Debug, Default)]
struct Part {
    stop: CancellationToken,
    /// `None` before it started and after it ended.
    task: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Part {
    fn run(&mut self, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.task = Some(tokio::spawn(work));
    }

    async fn ended(&mut self) -> anyhow::Result<()> {
        let Some(task) = &mut self.task else {
            return Ok(());
        };
        let result = task.await;
        self.task = None;
        result.context("a task of it panicked")?
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.ended().await
    }
}

fn config_source(path: &Path, args: &UpArgs) -> anyhow::Result<ConfigSource> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("read {origin}"))?;
    let policy = if args.config_always { ConfigPolicy::Always } else { ConfigPolicy::Bootstrap };
    Ok(ConfigSource { origin, text, policy })
}

/// Where this machine reaches a listener that is bound to all addresses.
pub(super) fn reachable(mut bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() {
        bound.set_ip(match bound.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_listener_is_reached_over_loopback() {
        let check = |bound: &str, expected: &str| {
            assert_eq!(reachable(bound.parse().unwrap()), expected.parse().unwrap());
        };
        check("0.0.0.0:7600", "127.0.0.1:7600");
        check("[::]:7600", "[::1]:7600");
        check("10.0.0.1:7600", "10.0.0.1:7600");
    }

    #[tokio::test]
    async fn part_that_ends_by_itself_is_told_once() {
        let mut part = Part::default();
        part.run(async { Err(anyhow!("broken")) });
        assert_eq!(part.ended().await.unwrap_err().to_string(), "broken");
        assert!(part.end().await.is_ok());
    }

    #[tokio::test]
    async fn part_ends_when_asked() {
        let mut part = Part::default();
        let stop = part.stop.clone();
        part.run(async move {
            stop.cancelled().await;
            Ok(())
        });
        assert!(part.end().await.is_ok());
    }
}
