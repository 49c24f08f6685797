//! Child processes, where they run, and what of the machine they used.

use std::{
    fmt, fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

/// Clock ticks per second in `/proc`: fixed for user space on all Linux platforms.
const TICK: Duration = Duration::from_millis(10);

/// Which core whom, where the machine allows it: what is measured has one of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    pinned: bool,
}

impl Placement {
    /// Two cores and taskset make it possible.
    pub(crate) fn find() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { pinned: cores >= 2 && answers("taskset", "--version") }
    }

    /// This process generates load: beside the mock.
    pub(crate) fn settle_here(self) -> anyhow::Result<()> {
        if !self.pinned {
            return Ok(());
        }
        let done = Command::new("taskset")
            .args(["-a", "-c", "-p", "1", &std::process::id().to_string()])
            .stdout(Stdio::null())
            .status()
            .context("run taskset")?;
        ensure!(done.success(), "taskset can't move this process to core 1");
        Ok(())
    }

    /// A command on the core of what is measured.
    pub(crate) fn measured(self, program: &Path) -> Command {
        self.on("0", program)
    }

    fn on(self, core: &str, program: &Path) -> Command {
        if !self.pinned {
            return Command::new(program);
        }
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(program);
        command
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.pinned {
            "what is measured on core 0 with one worker, mock provider and load generator on core 1"
        } else {
            "not pinned: needs two cores and taskset"
        })
    }
}

/// Whether there is such a program.
pub(crate) fn answers(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Load averages as the system shows them.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// A child that ends with this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// This program again, as a provider.
    pub(crate) fn mock(placement: Placement) -> anyhow::Result<Self> {
        let mut command = placement.on("1", &std::env::current_exe()?);
        command.arg("--mock");
        Self::listening(command, "mock")
    }

    /// A program that tells its address in a line `listening <role> http://<address>`.
    pub(crate) fn listening(mut command: Command, role: &str) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("it has no output")?;
        let start = format!("listening {role} http://");
        for line in BufReader::new(out).lines() {
            if let Some(address) = line?.strip_prefix(&start) {
                let address = address.parse().with_context(|| format!("read the address {address}"))?;
                return Ok(Self { child, address });
            }
        }
        anyhow::bail!("it ended without a line `{start}...`")
    }

    /// A program that was told its address.
    pub(crate) fn at(mut command: Command, address: SocketAddr) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).spawn()?;
        Ok(Self { child, address })
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        Cpu::of(&self.child.id().to_string())
    }

    /// Resident memory now, in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 =
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("find VmRSS")?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// CPU time, the program's and the kernel's for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Cpu {
    /// Of this process.
    pub(crate) fn own() -> anyhow::Result<Self> {
        Self::of("self")
    }

    fn of(process: &str) -> anyhow::Result<Self> {
        let path = format!("/proc/{process}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        // The name in parentheses may hold anything; utime and stime are the 12th and
        // 13th field after it.
        let (_, fields) = text.rsplit_once(')').context("find the end of the name")?;
        let ticks = |at: usize| fields.split_whitespace().nth(at)?.parse::<u32>().ok();
        let (user, system) = ticks(11).zip(ticks(12)).context("find utime and stime")?;
        Ok(Self { user: TICK * user, system: TICK * system })
    }

    /// What was used after `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    /// Both.
    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }
}
