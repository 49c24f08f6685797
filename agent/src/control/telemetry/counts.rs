//! From the [`Recorder`](super::Recorder) to the backlog and to the spool: when counts are
//! taken, when they are a report, and when all of it is on disk.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tonic::Code;

use super::{
    super::{
        backlog::{Backlog, Stamp},
        spool::{Found, Spool},
        window::Window,
        wire_version,
    },
    End, INTERVAL_MAX, INTERVAL_MIN, Reporter, TelemetryContext,
};

/// Counts are taken, and kept on disk, at least this often, however seldom reports are
/// due: what a kill may lose. Written for counts alone it is not more
/// often: all that waits is written each time.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// What a reporter has.
pub(super) struct State {
    pub(super) backlog: Backlog,
    pub(super) spool: Option<Spool>,
    /// The disk refused the last write, and that was said.
    pub(super) warned: bool,
    pub(super) last_seq: u64,
    /// For the first report of this incarnation.
    pub(super) lost_before: Option<Duration>,
    /// The backlog holds what the spool does not.
    pub(super) unkept: bool,
    /// When counts were last taken that the spool holds.
    pub(super) kept_at: Instant,
    /// The last refusal that was told.
    pub(super) refusal: Option<Code>,
    pub(super) window_start: Instant,
    pub(super) report_start: Instant,
    pub(super) paused_until: Instant,
}

impl Reporter {
    /// With what the predecessor left.
    pub(super) async fn open(context: TelemetryContext) -> Self {
        let spool = context.spool.clone().map(Spool::new);
        let found = match spool.clone() {
            None => None,
            Some(spool) => {
                let now = (context.wall_clock)();
                tokio::task::spawn_blocking(move || spool.load(now)).await.ok()
            }
        };
        let mut found = found.unwrap_or_default();
        if let Some((path, why)) = &found.set_aside {
            tracing::warn!(path = %path.display(), error = %why, "telemetry spool set aside; its counts are lost");
        }
        let lost = adopt(&mut found, &context);
        let (numbered, waiting) = (found.backlog.numbered().len(), found.backlog.waiting().count());
        if numbered + waiting > 0 {
            tracing::info!(numbered, waiting, "telemetry of an earlier start goes on");
        }
        let now = Instant::now();
        let interval = context.report_interval.borrow().clamp(INTERVAL_MIN, INTERVAL_MAX);
        let state = State {
            backlog: found.backlog,
            spool,
            warned: false,
            last_seq: 0,
            lost_before: lost,
            unkept: false,
            kept_at: now,
            refusal: None,
            window_start: now,
            report_start: now,
            paused_until: now,
        };
        let reporter = Self {
            context,
            state: Mutex::new(state),
            added: Notify::new(),
            interval: watch::Sender::new(interval),
        };
        // From now on an end without a stop is one.
        reporter.persist(End::No).await;
        reporter
    }

    /// Takes the counts away, keeps them, and says when a report is due. Never returns.
    pub(super) async fn take_counts(&self) {
        let (mut asked, mut interval) = (self.context.report_interval.clone(), self.interval.subscribe());
        loop {
            let every = *interval.borrow_and_update();
            let (fold_at, report_at) = {
                let state = self.state.lock();
                let report_at = state.report_start + every;
                let keep_from = if state.unkept { state.kept_at } else { state.window_start };
                (report_at.min(keep_from + KEEP_EVERY), report_at)
            };
            tokio::select! {
                biased; // A new interval may end the window sooner.
                Ok(()) = asked.changed() => {
                    let wanted = *asked.borrow_and_update();
                    self.set_interval(wanted);
                }
                Ok(()) = interval.changed() => {}
                () = sleep_until(fold_at) => {
                    self.fold();
                    let due = Instant::now() >= report_at && self.close();
                    if self.keep_now() {
                        self.persist(End::No).await;
                    }
                    if due {
                        self.added.notify_one();
                    }
                }
            }
        }
    }

    /// Whether the spool is to be brought up to date.
    fn keep_now(&self) -> bool {
        let state = self.state.lock();
        state.unkept && state.window_start >= state.kept_at + KEEP_EVERY
    }

    /// Takes the counts since the last time into the backlog. False: there were none.
    pub(super) fn fold(&self) -> bool {
        let taken = self.context.recorder.take();
        let uncounted = self.context.recorder.take_overflowed();
        if uncounted > 0 {
            tracing::warn!(uncounted, "too many pairs of deployment and model to count");
        }
        let targets: Vec<_> = taken.counts.iter().map(|(key, counts)| counts.to_wire(key)).collect();
        let mut state = self.state.lock();
        let now = Instant::now();
        let covered = now.duration_since(state.window_start);
        state.window_start = now;
        if targets.is_empty() {
            return false;
        }
        state.backlog.add(
            Window::new((self.context.wall_clock)(), covered, targets)
                .with_samples(taken.samples.into_wire(now)),
        );
        state.unkept = true;
        true
    }

    /// Ends what the next report counts. False: nothing.
    pub(super) fn close(&self) -> bool {
        let mut state = self.state.lock();
        state.report_start = Instant::now();
        state.backlog.close()
    }

    /// Brings the spool up to date. A disk that refuses is told once; counts then stay in
    /// memory.
    pub(super) async fn persist(&self, end: End) {
        let write = {
            let mut state = self.state.lock();
            state.unkept = false;
            state.kept_at = state.window_start;
            let State { spool, backlog, .. } = &mut *state;
            let Some(spool) = spool else { return };
            spool.prepare(backlog, end == End::Clean, KEEP_EVERY, (self.context.wall_clock)())
        };
        let result = match tokio::task::spawn_blocking(move || write.run()).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let warned = {
            let mut state = self.state.lock();
            // Once more in a while.
            state.unkept |= result.is_err();
            std::mem::replace(&mut state.warned, result.is_err())
        };
        match result {
            Err(error) if !warned => {
                tracing::warn!(error, "telemetry spool not written; counts stay in memory");
            }
            Ok(()) if warned => tracing::info!("telemetry spool written again"),
            _ => {}
        }
    }

    /// Gives all counts a number that are due. False: there are none, or too much waits
    /// for its acknowledgement.
    pub(super) fn number(&self) -> bool {
        let mut state = self.state.lock();
        let identity = &self.context.identity;
        let applied = self.context.tables.applied().as_ref().map(wire_version);
        let before = state.last_seq;
        loop {
            let stamp = Stamp {
                agent_id: &identity.agent_id,
                incarnation: &identity.incarnation,
                seq: state.last_seq + 1,
                applied: applied.clone(),
                lost_before: state.lost_before,
            };
            if !state.backlog.number(stamp) {
                break;
            }
            state.last_seq += 1;
            state.lost_before = None;
        }
        let numbered = state.last_seq > before;
        if numbered {
            state.moved();
        }
        numbered
    }
}

impl State {
    /// Counts got a number or were acknowledged.
    pub(super) fn moved(&mut self) {
        self.unkept = true;
        if let Some(spool) = &mut self.spool {
            spool.moved();
        }
    }
}

/// Reports that an agent of another name left here are counted under this one's. Gives
/// what the first report has to say is missing.
fn adopt(found: &mut Found, context: &TelemetryContext) -> Option<Duration> {
    let agent_id = &context.identity.agent_id;
    let adopted = found.backlog.adopt(agent_id, (context.wall_clock)());
    if adopted.reports == 0 {
        return found.lost;
    }
    tracing::warn!(
        reports = adopted.reports,
        agent_id,
        "telemetry of another agent id goes on under this one; what was taken but not acknowledged counts twice"
    );
    let lost = found.lost.unwrap_or_default().saturating_add(adopted.lost_before);
    (!lost.is_zero()).then_some(lost).or(found.lost)
}
