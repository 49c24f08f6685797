//! The one task that makes transitions durable and grants leases.

use std::{sync::Arc, time::Duration};

use prometheus_client::metrics::counter::Counter;
use tokio_util::sync::CancellationToken;
use trunkline_routing::fleet::{Forced, Transition, ttl};

use super::Fleet;
use crate::{
    repository::{
        CommitError, ConfigState, FORCED_DEPLOYMENTS_MAX, FleetChange, Repository, VerdictSet, VerdictState,
    },
    stats::Stats,
};

/// When a store that refused a transition is asked again. The repository itself looks
/// every few seconds whether it can write.
const RETRY: Duration = Duration::from_secs(1);

/// What the keeper needs beside the verdicts.
pub(crate) struct Keeper {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) repository: Arc<Repository>,
    pub(crate) stats: Arc<Stats>,
    /// Transitions that became durable.
    pub(crate) transitions: Counter,
}

impl Keeper {
    /// Runs until the control plane stops.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut config = self.repository.subscribe();
        let mut verdicts = self.repository.subscribe_verdicts();
        config.mark_changed();
        verdicts.mark_changed();
        loop {
            if config.has_changed().unwrap_or_default() {
                let newest = Arc::clone(&config.borrow_and_update());
                self.configure(&newest);
            }
            if verdicts.has_changed().unwrap_or_default() {
                let newest = Arc::clone(&verdicts.borrow_and_update());
                self.adopt(&newest);
            }
            let due = match self.step().await {
                Ok(true) => continue,
                Ok(false) => self.grant(),
                Err(error) => {
                    tracing::warn!(%error, "a breaker's verdict was not stored; it is not published");
                    Some(RETRY)
                }
            };
            tokio::select! {
                biased; // A stop first; then what operators say, before what is found.
                () = shutdown.cancelled() => return,
                changed = verdicts.changed() => if changed.is_err() { return } else { verdicts.mark_changed() },
                changed = config.changed() => if changed.is_err() { return } else { config.mark_changed() },
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
                () = self.fleet.news.notified() => {}
            }
        }
    }

    fn configure(&self, state: &ConfigState) {
        self.fleet.state.lock().verdicts.set_table(&state.table);
    }

    /// Takes over all that changed, whoever changed it.
    fn adopt(&self, newest: &VerdictSet) {
        let wall = super::unix_ms();
        let now = self.fleet.now();
        let mut state = self.fleet.state.lock();
        for verdict in newest.fleet() {
            let forced = verdict.forced.map(|forced| match forced {
                VerdictState::ForcedOpen => Forced::Open,
                VerdictState::ForcedClosed => Forced::Closed,
            });
            let age = Duration::from_millis(wall.saturating_sub(verdict.since_unix_ms));
            state.verdicts.adopt(&verdict.subject, verdict.generation, (verdict.record, forced), age, now);
        }
    }

    /// Makes durable what is due. The answer is whether anything was.
    async fn step(&self) -> Result<bool, CommitError> {
        let wanted = self.fleet.state.lock().verdicts.lease_numbers_wanted();
        if let Some(end) = wanted {
            let end = self.repository.reserve_leases(end).await?;
            self.fleet.state.lock().verdicts.reserve_leases(end);
        }
        let now = self.fleet.now();
        let transitions = self.fleet.state.lock().verdicts.decide(now, &mut rand::rng());
        if transitions.is_empty() {
            return Ok(false);
        }
        let changes = transitions.iter().map(|due| FleetChange {
            subject: due.subject.to_string(),
            from_generation: due.from_generation,
            record: due.record.clone(),
        });
        let taken = self.repository.change_fleet(changes.collect()).await?;
        for due in &transitions {
            self.note(due);
        }
        if taken == 0 {
            return Err(CommitError::TooMuch {
                what: "deployments that ever had a verdict",
                max: FORCED_DEPLOYMENTS_MAX as u64,
            });
        }
        Ok(true)
    }

    fn note(&self, due: &Transition) {
        self.transitions.inc();
        let (state, reason) = (due.record.state, &due.record.reason);
        tracing::info!(subject = %due.subject, ?state, %reason, "the fleet's breaker changed");
    }

    /// Gives leases and takes them away. The answer is when to look again.
    fn grant(&self) -> Option<Duration> {
        let now = self.fleet.now();
        let mut state = self.fleet.state.lock();
        let usual = |deployment: &str| ttl(self.stats.ttft_p99(deployment));
        if state.verdicts.grant(usual, now, &mut rand::rng()) {
            state.publish_leases(|at| self.fleet.instant(at));
        }
        state.verdicts.next_due(now).map(|due| due.since(self.fleet.now()))
    }
}
