//! How often agents report, so that merging keeps up however many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Reports a second over all agents. One core merges several times as many.
const REPORTS_PER_SECOND: u32 = 500;

/// An agent that is killed loses so much, if its disk is lost too.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Longer, and steps of 10 s would not show what happened in them.
const INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Counts the agents that report.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    reporting: Arc<AtomicUsize>,
}

/// An agent that reports, until dropped.
#[derive(Debug)]
pub(crate) struct Reporting(Arc<AtomicUsize>);

impl Pace {
    /// Notes one more agent.
    pub(crate) fn enter(&self) -> Reporting {
        self.reporting.fetch_add(1, Ordering::Relaxed);
        Reporting(Arc::clone(&self.reporting))
    }

    /// The interval for all of them. `backlog`: reports that wait to be merged, in units
    /// of what one commit takes; each makes it longer by as much again.
    pub(crate) fn interval(&self, backlog: f64) -> Duration {
        let reporting = self.reporting.load(Ordering::Relaxed) as f64;
        let seconds = reporting * (1.0 + backlog.max(0.0)) / f64::from(REPORTS_PER_SECOND);
        Duration::from_secs_f64(seconds.clamp(INTERVAL_MIN.as_secs_f64(), INTERVAL_MAX.as_secs_f64()))
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_agents_report_less_often_and_a_backlog_slows_them_down() {
        let pace = Pace::default();
        assert_eq!(pace.interval(0.0), INTERVAL_MIN);
        let mut agents: Vec<_> = (0..1_000).map(|_| pace.enter()).collect();
        assert_eq!(pace.interval(0.0), Duration::from_secs(2));
        assert_eq!(pace.interval(1.5), Duration::from_secs(5));
        assert_eq!(pace.interval(1_000.0), INTERVAL_MAX);
        agents.truncate(750);
        assert_eq!(pace.interval(0.0), Duration::from_millis(1_500));
        drop(agents);
        assert_eq!(pace.interval(1_000.0), INTERVAL_MIN);
    }
}
