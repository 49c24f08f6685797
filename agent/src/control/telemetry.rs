//! Sends what the [`Recorder`] counted, in numbered reports. A report that was sent
//! stays as it is until it is acknowledged; what was not sent yet stays in the recorder
//! and is merged there, so nothing queues up and nothing is dropped.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};
use trunkline_proto::telemetry::v1::{
    StreamReportsRequest, StreamReportsResponse, TargetStats,
    telemetry_service_client::TelemetryServiceClient,
};

use super::{
    Identity, Orders, TableStore,
    backoff::{Backoff, Ended},
    duration_from_wire, duration_to_wire, orders,
    recorder::{Recorder, Window},
    wire_version,
};

/// Reports sent and not acknowledged; with one a second, a minute of a slow control plane.
const UNACKED_MAX: usize = 64;
/// Targets in one report: keeps it far below the 1 MiB that the control plane takes.
const TARGETS_MAX: usize = 200;
/// At the end: how long the last window may take.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// Waits between streams while flushing.
const FLUSH_RETRY: Duration = Duration::from_millis(50);
/// What the control plane may ask for.
const INTERVAL_MIN: Duration = Duration::from_millis(50);
/// Longer would look like a dead agent.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// A control plane that asks for longer is obeyed this long.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What telemetry works with.
#[derive(Clone, Debug)]
pub struct TelemetryContext {
    /// To the control plane; may be shared.
    pub channel: Channel,
    /// Who reports.
    pub identity: Arc<Identity>,
    /// What is reported.
    pub recorder: Arc<Recorder>,
    /// Which table is in use.
    pub tables: Arc<TableStore>,
    /// How often; set when the agent connects.
    pub report_interval: watch::Receiver<Duration>,
    /// A drill may take the control plane away.
    pub orders: watch::Receiver<Arc<Orders>>,
}

/// Reports until `shutdown`, then sends what is left and waits at most two seconds for
/// its acknowledgement. Attempts recorded after `shutdown` may be lost.
pub async fn run(context: TelemetryContext, shutdown: CancellationToken) {
    let mut reporter = Reporter::new(context);
    let stopped = shutdown.run_until_cancelled(reporter.report(Until::Cancelled)).await;
    debug_assert!(stopped.is_none(), "reporting goes on until it is stopped");
    reporter.fold();
    if timeout(FLUSH_LIMIT, reporter.report(Until::Acknowledged)).await.is_err() {
        let reports = reporter.unacked.len();
        tracing::warn!(reports, "telemetry not acknowledged before the end");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Cancelled,
    Acknowledged,
}

struct Reporter {
    context: TelemetryContext,
    /// Numbered and never changed. Oldest first.
    unacked: VecDeque<StreamReportsRequest>,
    /// How many of `unacked` were sent on the current stream.
    sent: usize,
    last_seq: u64,
    window_start: Instant,
    paused_until: Instant,
    interval: Duration,
}

impl Reporter {
    fn new(context: TelemetryContext) -> Self {
        let now = Instant::now();
        let interval = *context.report_interval.borrow();
        Self {
            context,
            unacked: VecDeque::new(),
            sent: 0,
            last_seq: 0,
            window_start: now,
            paused_until: now,
            interval: interval.clamp(INTERVAL_MIN, INTERVAL_MAX),
        }
    }

    /// Takes the counts since the last time into numbered reports; none if there are none.
    fn fold(&mut self) {
        let now = Instant::now();
        let covered = now.duration_since(self.window_start);
        self.window_start = now;
        let window = self.context.recorder.take();
        let uncounted = self.context.recorder.take_overflowed();
        if uncounted > 0 {
            tracing::warn!(uncounted, "too many pairs of deployment and model to count");
        }
        for targets in chunks(&window) {
            self.push(targets, covered);
        }
    }

    fn push(&mut self, targets: Vec<TargetStats>, covered: Duration) {
        self.last_seq += 1;
        let identity = &self.context.identity;
        self.unacked.push_back(StreamReportsRequest {
            agent_id: identity.agent_id.clone(),
            incarnation: identity.incarnation.clone(),
            seq: self.last_seq,
            covered: Some(duration_to_wire(covered)),
            applied: self.context.tables.applied().as_ref().map(wire_version),
            targets,
            ..StreamReportsRequest::default()
        });
    }

    /// Streams, one after the other.
    async fn report(&mut self, until: Until) {
        let mut backoff = Backoff::default();
        while until == Until::Cancelled || !self.unacked.is_empty() {
            let mut ended = Ended::Silent;
            orders::control_plane_back(&self.context.orders).await;
            match self.stream(until, &mut ended).await {
                // It will be sent again and refused again: one of the two has a bug.
                Err(status) if status.code() == Code::InvalidArgument => {
                    tracing::error!(%status, "telemetry report refused");
                }
                Err(status) => tracing::debug!(%status, "telemetry stream ended"),
                Ok(()) => {}
            }
            match until {
                Until::Cancelled => sleep(backoff.after(ended, rand::random())).await,
                Until::Acknowledged => sleep(FLUSH_RETRY).await,
            }
        }
    }

    /// One stream, until it ends or everything is acknowledged.
    async fn stream(&mut self, until: Until, ended: &mut Ended) -> Result<(), Status> {
        self.sent = 0;
        // A control plane may wait for the first report before it answers.
        if self.unacked.is_empty() {
            self.fold();
        }
        if self.unacked.is_empty() {
            self.push(Vec::new(), Duration::ZERO);
        }
        // One waits in the channel; the rest wait here, where they can be acknowledged.
        let (outbound, reports) = mpsc::channel(1);
        outbound.try_send(self.next()).ok();
        let mut client = TelemetryServiceClient::new(self.context.channel.clone());
        let mut inbound = client.stream_reports(ReceiverStream::new(reports)).await?.into_inner();
        let mut orders = self.context.orders.clone();
        while until == Until::Cancelled || !self.unacked.is_empty() {
            let paused = Instant::now() < self.paused_until;
            let fold_at = self.window_start + self.interval;
            // A drill ends the stream. Acknowledgements come first, for they make room; then
            // old reports, then new ones.
            tokio::select! {
                biased;
                () = orders::control_plane_lost(&mut orders) => {
                    return Err(Status::cancelled("a drill takes the control plane away"));
                }
                message = inbound.message() => {
                    let Some(response) = message? else { return Ok(()) };
                    *ended = Ended::Answered;
                    self.apply(&response);
                }
                Ok(()) = self.context.report_interval.changed() => {
                    let interval = *self.context.report_interval.borrow_and_update();
                    self.interval = interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
                }
                () = sleep_until(self.paused_until), if paused => {}
                permit = outbound.reserve(), if !paused && self.sent < self.unacked.len() => {
                    match permit {
                        Ok(permit) => permit.send(self.next()),
                        // The stream is over: what ended it comes in.
                        Err(_) => return Err(Status::unavailable("stream closed")),
                    }
                }
                () = sleep_until(fold_at), if self.unacked.len() < UNACKED_MAX => self.fold(),
            }
        }
        Ok(())
    }

    fn next(&mut self) -> StreamReportsRequest {
        self.sent += 1;
        self.unacked[self.sent - 1].clone()
    }

    fn apply(&mut self, response: &StreamReportsResponse) {
        while self.unacked.front().is_some_and(|report| report.seq <= response.acked_seq) {
            self.unacked.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
        if response.resend_from_first_unacked {
            self.sent = 0;
        }
        if let Some(interval) = response.report_interval.and_then(duration_from_wire) {
            self.interval = interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
        }
        if let Some(pause) = response.pause_for.and_then(duration_from_wire) {
            self.paused_until = Instant::now() + pause.min(PAUSE_MAX);
        }
    }
}

fn chunks(window: &Window) -> Vec<Vec<TargetStats>> {
    let stats: Vec<_> = window.iter().map(|(key, counts)| counts.to_wire(key)).collect();
    stats.chunks(TARGETS_MAX).map(<[_]>::to_vec).collect()
}
