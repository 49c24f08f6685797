//! What all sessions share: updates, the pace of configuration, places for snapshots, and
//! the window in which agents come back after a stop.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rand::RngExt;
use tokio::sync::watch;
use tonic::Status;
use trunkline_proto::{agent::v1::Drain, status};

use super::{
    admission::{Admission, Crowded},
    pace,
    update::Updates,
};
use crate::{
    grpc::{Context, wire_duration},
    repository::ConfigState,
};

/// When an agent that found too many waiting for a snapshot comes again: spread, or all
/// would come at the same moment.
const CROWDED_RETRY_MS: std::ops::Range<u64> = 1_000..5_000;

/// Agents that may come back in a second: what two cores take beside their other work.
const RETURNS_PER_SECOND: u64 = 100;

/// The shortest and longest time over which agents come back.
const RETURN_WINDOW_MIN: Duration = Duration::from_secs(2);
const RETURN_WINDOW_MAX: Duration = Duration::from_secs(30);

/// Shared by all sessions.
#[derive(Debug)]
pub(super) struct Fleet {
    /// The newest configuration at the pace at which agents get it.
    pub(super) config: watch::Sender<Arc<ConfigState>>,
    pub(super) updates: Updates,
    pub(super) admission: Arc<Admission>,
    /// Set when the control plane stops.
    return_window: OnceLock<Duration>,
}

impl Fleet {
    /// Starts what keeps it up to date.
    pub(super) fn start(context: &Context) -> Arc<Self> {
        let metrics = &context.metrics;
        let admission =
            Admission::new(metrics.snapshots_under_way.clone(), metrics.snapshots_waiting.clone());
        let fleet = Arc::new(Self {
            config: watch::Sender::new(context.repository.state()),
            updates: Updates::default(),
            admission: Arc::new(admission),
            return_window: OnceLock::new(),
        });
        let newest = context.repository.subscribe();
        context.tasks.spawn(pace::follow(newest, fleet.config.clone(), context.shutdown.clone()));
        fleet
    }

    /// What an agent is told before its stream ends with the control plane.
    pub(super) fn drain(&self, context: &Context) -> Drain {
        // Of the moment at which the stop begins: streams end one after the other.
        let window = self.return_window.get_or_init(|| return_window(context.registry.connected()));
        Drain {
            reconnect_after_min: Some(wire_duration(Duration::ZERO)),
            reconnect_after_max: Some(wire_duration(*window)),
            reason: "the control plane stops".into(),
        }
    }
}

/// What an agent is told that found too many waiting.
pub(super) fn refuse(crowded: &Crowded) -> Status {
    let after = Duration::from_millis(rand::rng().random_range(CROWDED_RETRY_MS));
    status::unavailable("TOO_MANY_SNAPSHOTS", crowded.to_string(), Some(after))
}

fn return_window(agents: usize) -> Duration {
    let needed = Duration::from_millis(agents as u64 * 1_000 / RETURNS_PER_SECOND);
    needed.clamp(RETURN_WINDOW_MIN, RETURN_WINDOW_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_fleet_comes_back_over_a_longer_time() {
        for (agents, seconds) in [(0, 2), (100, 2), (200, 2), (1_000, 10), (10_000, 30)] {
            assert_eq!(return_window(agents), Duration::from_secs(seconds), "{agents}");
        }
    }
}
