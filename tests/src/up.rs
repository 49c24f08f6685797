//! `trunkline up` as a process.

use tempfile::TempDir;

use crate::process::Process;

/// A running `up`, with its data below a temporary directory.
#[derive(Debug)]
pub struct Up {
    /// Its process.
    pub process: Process,
    _data: TempDir,
}

impl Up {
    /// Without a configuration, on free ports.
    pub fn start() -> Self {
        let data = TempDir::new().unwrap();
        let directory = data.path().display().to_string();
        let free = "127.0.0.1:0";
        let arguments = ["up", "--data-dir", &directory, "--listen", free, "--ops-listen", free]
            .into_iter()
            .chain(["--control-plane-listen", free, "--control-plane-ops-listen", free]);
        let arguments: Vec<_> = arguments.map(str::to_owned).collect();
        Self { process: Process::start("tested-trunkline", &arguments, &[]), _data: data }
    }
}
