//! What is measured: the mock itself, the agent before it, nginx before it.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, ensure};
use http_body_util::BodyExt as _;
use tempfile::TempDir;

use crate::{
    caller::Caller,
    nginx,
    process::{Cpu, Placement, Process},
};

/// A way to the mock provider.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// Where whole answers are asked for.
    pub(crate) whole: SocketAddr,
    /// Where streams are.
    pub(crate) stream: SocketAddr,
    process: Option<Process>,
    /// Its files.
    _directory: Option<TempDir>,
}

impl Subject {
    /// Nothing in between.
    pub(crate) fn direct(mock: SocketAddr) -> Self {
        Self { name: "direct", whole: mock, stream: mock, process: None, _directory: None }
    }

    /// An agent alone on a configuration: two providers at 70 to 30, with a key and a
    /// price each.
    pub(crate) fn agent(
        name: &'static str,
        program: &Path,
        placement: Placement,
        mock: SocketAddr,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("config.yaml");
        fs::write(&config, agent_config(mock))?;
        let mut command = placement.measured(program);
        command
            .env("TRUNKLINE_BENCH_KEY", "sk-of-no-value")
            .args([
                "--listen",
                "127.0.0.1:0",
                "--ops-listen",
                "127.0.0.1:0",
                "--workers",
                "1",
                "--log",
                "warn",
            ])
            .arg("--static-config")
            .arg(&config)
            .arg("--data-dir")
            .arg(directory.path());
        let process =
            Process::listening(command, "agent").with_context(|| format!("run {}", program.display()))?;
        let address = process.address;
        Ok(Self {
            name,
            whole: address,
            stream: address,
            process: Some(process),
            _directory: Some(directory),
        })
    }

    /// nginx with one worker and kept connections.
    pub(crate) fn nginx(placement: Placement, mock: SocketAddr) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (process, stream) = nginx::start(placement, mock, directory.path())?;
        Ok(Self {
            name: "nginx",
            whole: process.address,
            stream,
            process: Some(process),
            _directory: Some(directory),
        })
    }

    /// Whether it stands between caller and mock.
    pub(crate) fn is_proxy(&self) -> bool {
        self.process.is_some()
    }

    /// Its CPU time so far; nothing between needs none.
    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        self.process.as_ref().map_or(Ok(Cpu::default()), Process::cpu)
    }

    /// Its memory now.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<Option<f64>> {
        self.process.as_ref().map(Process::resident_mib).transpose()
    }

    /// Whether the caller gets through it what the mock says. Waits until it listens.
    pub(crate) async fn check(&self, mock: SocketAddr) -> anyhow::Result<()> {
        let expected = Caller::connect(mock, false).await?.call().await?;
        let mut caller = nginx::patiently(|| Caller::connect(self.whole, false)).await?;
        let answer = caller.send().await?;
        ensure!(answer.into_body().collect().await?.to_bytes() == expected, "the answer came changed");
        Ok(())
    }
}

fn agent_config(mock: SocketAddr) -> String {
    let provider = |name: &str| {
        format!(
            "  - name: {name}
    dialect: DIALECT_OPENAI
    base_url: http://{mock}/v1
    allow_private_network: true
    credential: {{env: TRUNKLINE_BENCH_KEY}}
    deployments:
      - name: bench-model
        price: {{input_usd_per_mtok: \"0.40\", output_usd_per_mtok: \"1.60\"}}
"
        )
    };
    format!(
        "\
providers:
{}{}virtual_models:
  - name: chat
    strategy: STRATEGY_WEIGHTED
    tiers:
      - targets: [{{deployment: one/bench-model, weight: 70}}, {{deployment: two/bench-model, weight: 30}}]
",
        provider("one"),
        provider("two")
    )
}
