//! A control plane as a process.

use std::path::{Path, PathBuf};

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
    settings: Settings,
}

/// How a control plane is started, apart from where.
#[derive(Clone, Debug, Default)]
struct Settings {
    /// A command that becomes the control plane.
    wrapper: Vec<String>,
    variables: Vec<(&'static str, String)>,
    /// Where its data is, if not in a directory of the test's own.
    data: Option<PathBuf>,
}

impl ControlPlane {
    /// One with an empty store.
    pub fn start() -> Self {
        Self::on("127.0.0.1:0", TempDir::new().unwrap(), Settings::default())
    }

    /// The same with environment variables.
    pub fn start_with(variables: &[(&'static str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let settings = Settings { variables, ..Settings::default() };
        Self::on("127.0.0.1:0", TempDir::new().unwrap(), settings)
    }

    /// One that another command starts, with its data in a directory that this command
    /// knows.
    pub fn start_under(wrapper: &[String], data: &Path) -> Self {
        let settings =
            Settings { wrapper: wrapper.to_vec(), data: Some(data.to_owned()), ..Settings::default() };
        Self::on("127.0.0.1:0", TempDir::new().unwrap(), settings)
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
        let listen = self.url.trim_start_matches("http://").to_owned();
        Stopped { listen, data: self.data, settings: self.settings }
    }

    /// Waits until it has ended by itself; what is left can be started again.
    pub async fn ended(mut self) -> Stopped {
        self.process.ended().await;
        let listen = self.url.trim_start_matches("http://").to_owned();
        Stopped { listen, data: self.data, settings: self.settings }
    }

    /// Asks it to end and waits. The exit code, and what is left.
    pub async fn stop(mut self) -> (Option<i32>, Stopped) {
        self.process.terminate();
        let status = self.process.ended().await;
        let listen = self.url.trim_start_matches("http://").to_owned();
        (status.code(), Stopped { listen, data: self.data, settings: self.settings })
    }

    /// Where it keeps its state.
    pub fn data(&self) -> PathBuf {
        self.settings.data.clone().unwrap_or_else(|| self.data.path().join("control-plane"))
    }

    /// A client of its admin API.
    pub async fn admin(&self) -> Admin {
        Admin::connect(&self.url).await
    }

    fn on(listen: &str, data: TempDir, settings: Settings) -> Self {
        let directory = settings.data.clone().unwrap_or_else(|| data.path().join("control-plane"));
        let directory = directory.display().to_string();
        let arguments =
            ["--listen", listen, "--ops-listen", "127.0.0.1:0", "--data-dir", &directory].map(str::to_owned);
        let variables: Vec<_> =
            settings.variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let process = Process::start_under(&settings.wrapper, "tested-control-plane", &arguments, &variables);
        let (url, ops_url) = (process.url("control-plane"), process.url("control-plane-ops"));
        Self { process, url, ops_url, data, settings }
    }
}

/// What a control plane leaves behind.
#[derive(Debug)]
pub struct Stopped {
    listen: String,
    data: TempDir,
    settings: Settings,
}

impl Stopped {
    /// Starts it again.
    #[must_use]
    pub fn start(self) -> ControlPlane {
        ControlPlane::on(&self.listen, self.data, self.settings)
    }

    /// Where its state is.
    pub fn data(&self) -> PathBuf {
        self.settings.data.clone().unwrap_or_else(|| self.data.path().join("control-plane"))
    }

    /// With its state elsewhere from now on.
    #[must_use]
    pub fn with_data(mut self, data: &Path) -> Self {
        self.settings.data = Some(data.to_owned());
        self
    }

    /// Starts it again with other environment variables, or none.
    #[must_use]
    pub fn start_with(mut self, variables: &[(&'static str, &str)]) -> ControlPlane {
        self.settings.variables =
            variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.start()
    }
}
