//! Sends what the [`Recorder`] counted, in numbered reports. Counts are taken each
//! interval, whether there is a control plane or not, and wait in the backlog and in its
//! spool on disk until they are acknowledged.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use trunkline_proto::telemetry::v1::{
    StreamReportsRequest, StreamReportsResponse, telemetry_service_client::TelemetryServiceClient,
};

mod counts;

use self::counts::State;
use super::{
    ControlPlane, Identity, Orders, TableStore,
    backoff::{Backoff, Ended},
    duration_from_wire, orders,
    recorder::Recorder,
    window::Window,
};

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
    pub channel: ControlPlane,
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
    /// The file that keeps what is not acknowledged, `telemetry.spool` in the data
    /// directory. None: only memory does.
    pub spool: Option<PathBuf>,
    /// Says when windows ended: `SystemTime::now`.
    pub wall_clock: fn() -> SystemTime,
}

/// Reports until `shutdown`, then sends what is left and waits at most two seconds for
/// its acknowledgement. What was not acknowledged stays in the spool for the next start.
/// Attempts recorded after `shutdown` may be lost.
pub async fn run(context: TelemetryContext, shutdown: CancellationToken) {
    let reporter = Reporter::open(context).await;
    let work = async {
        tokio::select! {
            biased; // Neither ends. Counts are taken first, so that they are sent in time.
            () = reporter.take_counts() => {}
            () = reporter.send(Until::Cancelled) => {}
        }
    };
    shutdown.run_until_cancelled(work).await;
    reporter.fold();
    reporter.close();
    if timeout(FLUSH_LIMIT, reporter.send(Until::Acknowledged)).await.is_err() {
        tracing::warn!("telemetry not acknowledged before the end; the spool keeps it");
    }
    reporter.persist(End::Clean).await;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Cancelled,
    Acknowledged,
}

/// Whether the agent goes on after a write of the spool.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    No,
    Clean,
}

struct Reporter {
    context: TelemetryContext,
    state: Mutex<State>,
    /// Something was added to the backlog.
    added: Notify,
    interval: watch::Sender<Duration>,
}

impl Reporter {
    fn set_interval(&self, wanted: Duration) {
        self.interval.send_replace(wanted.clamp(INTERVAL_MIN, INTERVAL_MAX));
    }

    /// Streams, one after the other.
    async fn send(&self, until: Until) {
        let mut backoff = Backoff::default();
        while until == Until::Cancelled || !self.state.lock().backlog.is_empty() {
            orders::control_plane_back(&self.context.orders).await;
            let paused_until = self.state.lock().paused_until;
            sleep_until(paused_until).await;
            let mut ended = Ended::Silent;
            match self.stream(until, &mut ended).await {
                // It will be sent again and refused again: one of the two has a bug.
                Err(status) if status.code() == Code::InvalidArgument => {
                    tracing::error!(%status, "telemetry report refused");
                }
                Err(status) => self.tell_end(&status),
                Ok(Over::Incarnation) => continue,
                Ok(Over::Stream) => {}
            }
            match until {
                Until::Cancelled => sleep(backoff.after(ended, rand::random())).await,
                Until::Acknowledged => sleep(FLUSH_RETRY).await,
            }
        }
    }

    /// A refusal lasts until an operator does something: it is told, and once.
    fn tell_end(&self, status: &Status) {
        if newly_refused(&mut self.state.lock().refusal, status.code()) {
            let agent_id = &self.context.identity.agent_id;
            tracing::warn!(
                %status,
                agent_id,
                "the control plane refuses this agent's telemetry; look at the token and at --agent-id"
            );
        } else {
            tracing::debug!(%status, "telemetry stream ended");
        }
    }

    /// Whose reports the next stream carries. One is numbered at least.
    async fn begin(&self) -> String {
        let first = || self.state.lock().backlog.first_incarnation().map(str::to_owned);
        if let Some(incarnation) = first() {
            return incarnation;
        }
        // A control plane may wait for the first report before it answers.
        if !self.fold() && self.state.lock().backlog.is_empty() {
            let opening = Window::new((self.context.wall_clock)(), Duration::ZERO, Vec::new());
            self.state.lock().backlog.add(opening);
        }
        self.close();
        self.number();
        self.persist(End::No).await;
        first().unwrap_or_else(|| self.context.identity.incarnation.clone())
    }

    /// One stream, until it ends or everything is acknowledged. It carries reports of one
    /// incarnation, for acknowledgements don't say whose numbers they mean.
    async fn stream(&self, until: Until, ended: &mut Ended) -> Result<Over, Status> {
        let incarnation = self.begin().await;
        let own = incarnation == self.context.identity.incarnation;
        let mut sent = 0;
        // One waits in the channel; the rest wait here, where they can be acknowledged.
        let (outbound, reports) = mpsc::channel(1);
        if let Some(report) = self.report(&incarnation, sent) {
            sent += usize::from(outbound.try_send(report).is_ok());
        }
        let mut client = TelemetryServiceClient::new(self.context.channel.clone());
        let mut orders = self.context.orders.clone();
        let mut inbound = tokio::select! {
            biased; // A drill ends the stream before it began.
            () = orders::control_plane_lost(&mut orders) => return Err(lost()),
            opened = client.stream_reports(ReceiverStream::new(reports)) => opened?.into_inner(),
        };
        while until == Until::Cancelled || !self.state.lock().backlog.is_empty() {
            let paused_until = self.state.lock().paused_until;
            let paused = Instant::now() < paused_until;
            let mut ready = self.report(&incarnation, sent).is_some();
            if !ready && own && !paused && self.number() {
                // On disk before it is on the wire: sent again, it is the same.
                self.persist(End::No).await;
                ready = true;
            }
            // A drill ends the stream. Acknowledgements come first, for they make room; then
            // old reports, then new ones.
            tokio::select! {
                biased;
                () = orders::control_plane_lost(&mut orders) => return Err(lost()),
                message = inbound.message() => {
                    let Some(response) = message? else { return Ok(Over::Stream) };
                    *ended = Ended::Answered;
                    sent = self.apply(&response, &incarnation, sent);
                    if !own && self.report(&incarnation, 0).is_none() {
                        return Ok(Over::Incarnation);
                    }
                }
                () = sleep_until(paused_until), if paused => {}
                permit = outbound.reserve(), if !paused && ready => {
                    match (permit, self.report(&incarnation, sent)) {
                        (Ok(permit), Some(report)) => {
                            permit.send(report);
                            sent += 1;
                        }
                        (Ok(_), None) => {}
                        // The stream is over: what ended it comes in.
                        (Err(_), _) => return Err(Status::unavailable("stream closed")),
                    }
                }
                () = self.added.notified() => {}
            }
        }
        Ok(Over::Stream)
    }

    fn report(&self, incarnation: &str, index: usize) -> Option<StreamReportsRequest> {
        self.state.lock().backlog.report(incarnation, index).cloned()
    }

    /// Takes an answer; gives how many reports that are left were sent.
    fn apply(&self, response: &StreamReportsResponse, incarnation: &str, sent: usize) -> usize {
        let acknowledged = {
            let mut state = self.state.lock();
            state.refusal = None;
            let acknowledged = state.backlog.acknowledge(incarnation, response.acked_seq);
            if acknowledged > 0 {
                state.moved();
            }
            acknowledged
        };
        if let Some(interval) = response.report_interval.and_then(duration_from_wire) {
            self.set_interval(interval);
        }
        if let Some(pause) = response.pause_for.and_then(duration_from_wire) {
            self.state.lock().paused_until = Instant::now() + pause.min(PAUSE_MAX);
        }
        if response.resend_from_first_unacked { 0 } else { sent.saturating_sub(acknowledged) }
    }
}

/// Whether a stream's end is a refusal that was not `told` last.
fn newly_refused(told: &mut Option<Code>, code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::Unauthenticated) && told.replace(code) != Some(code)
}

/// What is over without an error.
enum Over {
    /// The control plane closed it, or all is acknowledged.
    Stream,
    /// All reports of an earlier incarnation are acknowledged; another stream follows.
    Incarnation,
}

fn lost() -> Status {
    Status::cancelled("a drill takes the control plane away")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_once_until_it_changes() {
        let mut told = None;
        let mut check = |code, expected| assert_eq!(newly_refused(&mut told, code), expected, "{code:?}");
        check(Code::Unavailable, false);
        check(Code::Unauthenticated, true);
        check(Code::Unauthenticated, false);
        check(Code::Unavailable, false);
        check(Code::Unauthenticated, false);
        check(Code::PermissionDenied, true);
        check(Code::Unauthenticated, true);
    }
}
