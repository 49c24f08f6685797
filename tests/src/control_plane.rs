//! A control plane as a process.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::{admin::Admin, process::Process};

/// A control plane.
#[derive(Debug)]
pub struct ControlPlane {
    /// Its process.
    pub process: Process,
    /// Its gRPC.
    pub url: String,
    /// Its `/metrics` and `/readyz`.
    pub ops_url: String,
    data: TempDir,
}

impl ControlPlane {
    /// One with an empty store.
    pub fn start() -> Self {
        Self::on("127.0.0.1:0", TempDir::new().unwrap())
    }

    /// Kills it with SIGKILL and starts it again at the same address on the same data.
    #[must_use]
    pub fn restart(self) -> Self {
        let stopped = self.kill();
        stopped.start()
    }

    /// Kills it with SIGKILL; what is left can be started again.
    #[must_use]
    pub fn kill(mut self) -> Stopped {
        self.process.kill();
        Stopped { listen: self.url.trim_start_matches("http://").to_owned(), data: self.data }
    }

    /// Asks it to end and waits. The exit code, and what is left.
    pub async fn stop(mut self) -> (Option<i32>, Stopped) {
        self.process.terminate();
        let status = self.process.ended().await;
        let listen = self.url.trim_start_matches("http://").to_owned();
        (status.code(), Stopped { listen, data: self.data })
    }

    /// Where it keeps its state.
    pub fn data(&self) -> PathBuf {
        self.data.path().join("control-plane")
    }

    /// A client of its admin API.
    pub async fn admin(&self) -> Admin {
        Admin::connect(&self.url).await
    }

    fn on(listen: &str, data: TempDir) -> Self {
        let directory = data.path().join("control-plane").display().to_string();
        let arguments =
            ["--listen", listen, "--ops-listen", "127.0.0.1:0", "--data-dir", &directory].map(str::to_owned);
        let process = Process::start("tested-control-plane", &arguments, &[]);
        let (url, ops_url) = (process.url("control-plane"), process.url("control-plane-ops"));
        Self { process, url, ops_url, data }
    }
}

/// What a control plane leaves behind.
#[derive(Debug)]
pub struct Stopped {
    listen: String,
    data: TempDir,
}

impl Stopped {
    /// Starts it again.
    #[must_use]
    pub fn start(self) -> ControlPlane {
        ControlPlane::on(&self.listen, self.data)
    }
}
