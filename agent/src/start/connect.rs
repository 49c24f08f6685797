//! The tasks between an agent and its control plane, and the one that probes.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::{Agent, StartError};
use crate::{
    checks::{self, Lead},
    control::{
        self, ControlPlane, Identity, ModelInbox, Orders, ProbeResults, Recorder, SyncContext, TableStore,
        TelemetryContext, VerdictCache, Verdicts, run_sync, run_telemetry,
    },
    engine::Worker,
    learning, protections,
    upstream::{self, Upstream},
};

/// Until the control plane says how often to report.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What outlives a stop.
pub(super) struct Kept {
    pub(super) tables: Arc<TableStore>,
    pub(super) verdicts: Verdicts,
    pub(super) data_dir: PathBuf,
}

impl Agent {
    /// Streams to and from the control plane.
    pub(super) fn connect(
        &self,
        channel: ControlPlane,
        identity: &Arc<Identity>,
        Kept { tables, verdicts, data_dir }: Kept,
        recorder: Arc<Recorder>,
        orders: &watch::Sender<Arc<Orders>>,
        probe_results: ProbeResults,
    ) {
        let (protections_in, protections_out) = watch::channel(Arc::new(Vec::new()));
        let (verdicts_in, verdicts_out) = watch::channel(Arc::new(verdicts));
        let (heard_in, heard_out) = watch::channel(tokio::time::Instant::now());
        let (interval_in, interval_out) = watch::channel(REPORT_INTERVAL);
        let models = Arc::new(ModelInbox::default());
        let sync = SyncContext {
            channel: channel.clone(),
            identity: Arc::clone(identity),
            tables: Arc::clone(&tables),
            credentials: Arc::clone(&self.shared.credentials),
            recorder: Arc::clone(&recorder),
            protections: protections_out,
            verdicts: verdicts_in,
            verdict_cache: Some(VerdictCache::new(data_dir.clone())),
            heard_until: heard_in,
            probe_results,
            orders: orders.clone(),
            report_interval: interval_in,
            models: Arc::clone(&models),
            in_flight: self.shared.in_flight_counter(),
            budgets: Arc::clone(&self.shared.budgets),
        };
        let telemetry = TelemetryContext {
            channel,
            identity: Arc::clone(identity),
            recorder,
            tables,
            report_interval: interval_out,
            orders: orders.subscribe(),
            spool: Some(data_dir.join(control::SPOOL_FILE)),
            wall_clock: SystemTime::now,
        };
        let shared = || Arc::clone(&self.shared);
        let words = protections::Words { verdicts: verdicts_out, heard_until: heard_out };
        self.background.spawn(run_sync(sync, self.stop.clone()));
        self.background.spawn(learning::follow(shared(), models, self.stop.clone()));
        self.background.spawn(run_telemetry(telemetry, self.stop_telemetry.clone()));
        self.background.spawn(protections::publish(shared(), protections_in, self.stop.clone()));
        self.background.spawn(protections::obey(shared(), words, self.stop.clone()));
    }

    /// Probes and health checks, with connections of their own.
    ///
    /// # Errors
    /// If TLS can't be set up.
    pub(super) fn check(&self, lead: Lead, results: ProbeResults) -> Result<(), StartError> {
        let upstream = Upstream::new(upstream::client_config()?);
        let worker = Arc::new(Worker { shared: Arc::clone(&self.shared), upstream });
        // They end when the agent begins to drain: nothing they find out is of use then.
        let shutdown = self.shared.draining.clone();
        self.background.spawn(checks::run(worker, results, lead, shutdown));
        Ok(())
    }
}
