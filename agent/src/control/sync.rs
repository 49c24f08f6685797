//! Keeps a stream to the control plane open: when to open the next one.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use trunkline_proto::types::v1::Protection;

use super::{
    ControlPlane, Identity, ModelInbox, Orders, ProbeResults, Recorder, TableStore, VerdictCache, Verdicts,
    backoff::{Backoff, SPREAD},
    orders,
    stream::{SeenSequence, Stream},
};
use crate::{budgets::Budgets, credentials::Credentials};

/// What the stream works with.
#[derive(Clone, Debug)]
pub struct SyncContext {
    /// To the control plane; may be shared.
    pub channel: ControlPlane,
    /// Who this agent is.
    pub identity: Arc<Identity>,
    /// Gets updates.
    pub tables: Arc<TableStore>,
    /// Says which providers can't be used here.
    pub credentials: Arc<Credentials>,
    /// Says which virtual models are in use.
    pub recorder: Arc<Recorder>,
    /// All that are active.
    pub protections: watch::Receiver<Arc<Vec<Protection>>>,
    /// Gets what operators forced, what the fleet's breakers say, and leases.
    pub verdicts: watch::Sender<Arc<Verdicts>>,
    /// Keeps them. None: nothing is kept on disk.
    pub verdict_cache: Option<VerdictCache>,
    /// Gets until when the control plane counts as heard.
    pub heard_until: watch::Sender<Instant>,
    /// Says what came of leases.
    pub probe_results: ProbeResults,
    /// Gets drills and being out of service.
    pub orders: watch::Sender<Arc<Orders>>,
    /// Gets the pace of telemetry.
    pub report_interval: watch::Sender<Duration>,
    /// Gets what the control plane learned.
    pub models: Arc<ModelInbox>,
    /// Requests running.
    pub in_flight: Arc<AtomicU32>,
    /// Ask for leases, and get them.
    pub(crate) budgets: Arc<Budgets>,
}

/// Keeps a stream open until `shutdown`. Verdicts, orders and the table stay as they are
/// while there is none; verdicts and drills end when their time is over. The newest table
/// is kept on disk meanwhile, and at the end.
pub async fn run(context: SyncContext, shutdown: CancellationToken) {
    let serve = async {
        tokio::select! {
            biased; // Neither ever ends.
            () = streams(&context) => {}
            () = orders::expire(&context.orders) => {}
        }
    };
    // Beside each other: no stream waits for the disk.
    let keep_verdicts = async {
        if let Some(cache) = &context.verdict_cache {
            cache.keep(context.verdicts.subscribe(), &shutdown).await;
        }
    };
    tokio::join!(shutdown.run_until_cancelled(serve), context.tables.keep(&shutdown), keep_verdicts);
}

async fn streams(context: &SyncContext) {
    // Agents that can serve don't all come at once when a machine starts.
    if context.tables.applied().is_some() {
        sleep(SPREAD.mul_f64(rand::random())).await;
    }
    let mut backoff = Backoff::default();
    let mut seen = SeenSequence::default();
    let orders = context.orders.subscribe();
    loop {
        let mut stream = Stream::new(context, &mut seen);
        let status = match stream.run().await {
            Ok(()) => Status::ok("closed by the control plane"),
            Err(status) => status,
        };
        let (ended, told) = stream.end();
        let wait = told.unwrap_or_else(|| backoff.after(ended, rand::random()));
        tracing::info!(%status, ?wait, "control plane stream ended");
        if orders::control_plane_back(&orders).await {
            tracing::info!("drill over: the control plane may be reached again");
        }
        sleep(wait).await;
    }
}
