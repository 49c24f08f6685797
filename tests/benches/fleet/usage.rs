//! Memory and processor time of a process, from `/proc`.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// Clock ticks per second in `/proc`: fixed for user space on all Linux platforms.
const TICK: Duration = Duration::from_millis(10);

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Memory it has now.
    pub(crate) rss_bytes: u64,
    /// Of all its threads, in user and system mode.
    pub(crate) cpu: Duration,
}

impl Usage {
    pub(crate) fn of(process: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).context("read /proc")?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kilobytes: u64 = rss.trim().trim_end_matches(" kB").parse().context("VmRSS is a number")?;
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("read /proc")?;
        // The name in parentheses may hold spaces; user and system time are 14 and 15.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
        Ok(Self { rss_bytes: kilobytes * 1024, cpu: TICK * (ticks(11) + ticks(12)) })
    }
}
