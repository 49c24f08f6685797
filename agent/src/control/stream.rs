//! One stream to the control plane: updates, verdicts and orders in; acknowledgements,
//! heartbeats and protections out. Only the newest state travels; nothing is queued.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic_types::pb;
use trunkline_proto::{
    agent::v1::{
        Ack, BudgetDemand, Drain, Heartbeat, HeartbeatAck, Hello, ProtectionStates, Publication, SyncRequest,
        SyncResponse, Update, Welcome, agent_service_client::AgentServiceClient, sync_request, sync_response,
    },
    convert::sync::MESSAGE_BYTES_MAX,
    types::v1::Version,
};

use crate::budgets::Budgets;

use super::{
    Orders, SyncContext, Verdicts,
    backoff::{Ended, SPREAD},
    duration_from_wire, orders, wire_version,
};

/// Until the control plane says otherwise.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Three heartbeats. Also the wait for the first message.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(30);
/// What the control plane may ask for.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Protections change in bursts; the control plane needs the last of each.
const PROTECTIONS_INTERVAL: Duration = Duration::from_millis(50);
/// Parts of one update together. The largest configuration has some 20 MiB.
const UPDATE_BYTES_MAX: usize = 64 << 20;
/// Heartbeats that show a newer revision without an update: the stream is mute.
const BEHIND_MAX: u32 = 2;
/// What the control plane looks at in one demand.
const CLAIMS_MAX: usize = 1_000;
/// An acknowledgement, a heartbeat, protections, a probe's result: never more at the same
/// time.
const OUTBOUND_MAX: usize = 4;
/// A control plane that asks to stay away longer is obeyed this long.
const STAY_AWAY_MAX: Duration = Duration::from_secs(60);

/// The highest `Publication.sequence` that was seen of one epoch. It outlives streams,
/// not the process: a control plane that lost commits meets agents that ran on.
#[derive(Debug, Default)]
pub(super) struct SeenSequence {
    epoch: String,
    sequence: u64,
}

impl SeenSequence {
    fn note(&mut self, epoch: &str, sequence: u64) {
        if self.epoch != epoch {
            epoch.clone_into(&mut self.epoch);
            self.sequence = 0;
        }
        self.sequence = self.sequence.max(sequence);
    }

    /// 0: none of that epoch.
    fn of(&self, version: Option<&Version>) -> u64 {
        if version.is_some_and(|version| version.epoch == self.epoch) { self.sequence } else { 0 }
    }
}

/// One stream from Hello to its end.
pub(super) struct Stream<'a> {
    context: &'a SyncContext,
    seen: &'a mut SeenSequence,
    /// Of the control plane's store, from Welcome.
    epoch: String,
    ended: Ended,
    /// How long the control plane asked to stay away.
    stay_away: Option<Duration>,
    parts: Vec<Update>,
    part_bytes: usize,
    heartbeat_interval: Duration,
    liveness_timeout: Duration,
    heartbeats: u64,
    behind: u32,
    /// The version that was refused: being behind it is no surprise.
    refused: Option<Version>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(context: &'a SyncContext, seen: &'a mut SeenSequence) -> Self {
        Self {
            context,
            seen,
            epoch: String::new(),
            ended: Ended::Silent,
            stay_away: None,
            parts: Vec::new(),
            part_bytes: 0,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            liveness_timeout: LIVENESS_TIMEOUT,
            heartbeats: 0,
            behind: 0,
            refused: None,
        }
    }

    /// How it ended, and how long the control plane asked to stay away.
    pub(super) fn end(&self) -> (Ended, Option<Duration>) {
        (self.ended, self.stay_away)
    }

    /// Serves until the stream ends, is drained, or a drill takes the control plane away.
    ///
    /// # Errors
    /// Why it ended.
    pub(super) async fn run(&mut self) -> Result<(), Status> {
        let (outbound, requests) = mpsc::channel(OUTBOUND_MAX);
        let outbound = Outbound(outbound);
        // The control plane may wait for it before it answers.
        outbound.send(sync_request::Message::Hello(self.hello())).await?;
        let mut client = AgentServiceClient::new(self.context.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let opened = timeout(LIVENESS_TIMEOUT, client.sync(ReceiverStream::new(requests)));
        let silent = |_| Status::deadline_exceeded("the control plane is silent");
        let mut inbound = opened.await.map_err(silent)??.into_inner();

        let mut protections = self.context.protections.clone();
        // Each connection starts with the state.
        protections.mark_changed();
        let mut protections_quiet_until = Instant::now();
        let mut heartbeat_at = Instant::now() + self.heartbeat_interval;
        let mut dead_at = Instant::now() + self.liveness_timeout;
        let mut orders = self.context.orders.subscribe();
        // Each connection starts with all there is to tell.
        let (mut all_told, mut budgets_told) = (false, Instant::now());
        let _ledger = LedgerThere(&self.context.budgets);
        loop {
            // A drill ends the stream. Then what comes in: it may change everything below.
            // Death comes last, so that a message that waits counts as life.
            tokio::select! {
                biased;
                () = orders::control_plane_lost(&mut orders) => {
                    return Err(Status::cancelled("a drill takes the control plane away"));
                }
                message = inbound.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    let welcomed = self.ended == Ended::Silent;
                    self.receive(message, &outbound).await?;
                    if self.stay_away.is_some() {
                        return Ok(());
                    }
                    if welcomed {
                        heartbeat_at = Instant::now() + self.heartbeat_interval;
                    }
                    dead_at = Instant::now() + self.liveness_timeout;
                    self.context.heard_until.send_replace(dead_at);
                }
                // Other agents wait for it.
                result = self.context.probe_results.next(), if self.ended == Ended::Answered => {
                    outbound.send(sync_request::Message::ProbeResult(result)).await?;
                }
                () = sleep_until(heartbeat_at) => {
                    heartbeat_at = Instant::now() + self.heartbeat_interval;
                    let heartbeat = self.heartbeat();
                    outbound.send(sync_request::Message::Heartbeat(heartbeat)).await?;
                }
                changed = async {
                    sleep_until(protections_quiet_until).await;
                    protections.changed().await
                }, if self.ended == Ended::Answered => {
                    if changed.is_err() {
                        // The rest of the agent is gone; so is this stream soon.
                        protections_quiet_until = Instant::now() + LIVENESS_TIMEOUT;
                        continue;
                    }
                    protections_quiet_until = Instant::now() + PROTECTIONS_INTERVAL;
                    let protections = protections.borrow_and_update().to_vec();
                    let states = ProtectionStates { protections };
                    outbound.send(sync_request::Message::Protections(states)).await?;
                }
                () = self.context.budgets.due(budgets_told), if self.ended == Ended::Answered => {
                    let claims = self.context.budgets.claims(!all_told);
                    (all_told, budgets_told) = (true, Instant::now());
                    for some in claims.chunks(CLAIMS_MAX) {
                        let demand = BudgetDemand { claims: some.to_vec() };
                        outbound.send(sync_request::Message::BudgetDemand(demand)).await?;
                    }
                }
                () = sleep_until(dead_at) => return Err(silent_stream()),
            }
        }
    }

    async fn receive(&mut self, message: SyncResponse, outbound: &Outbound) -> Result<(), Status> {
        self.ended = Ended::Answered;
        match message.message {
            Some(sync_response::Message::Welcome(welcome)) => self.welcome(&welcome),
            Some(sync_response::Message::Update(update)) => {
                if let Some(ack) = self.update(update)? {
                    outbound.send(sync_request::Message::Ack(ack)).await?;
                }
            }
            Some(sync_response::Message::Publication(publication)) => {
                self.publication(publication);
            }
            Some(sync_response::Message::BudgetGrant(grant)) => self.context.budgets.hear(&grant.leases),
            Some(sync_response::Message::HeartbeatAck(ack)) => self.heartbeat_ack(&ack)?,
            Some(sync_response::Message::Drain(drain)) => {
                tracing::info!(reason = drain.reason, "the control plane drains its streams");
                self.stay_away = Some(stay_away(&drain, rand::random()));
            }
            Some(sync_response::Message::FleetModels(models)) => self.context.models.put(models),
            // Of a newer control plane.
            None => {}
        }
        Ok(())
    }

    fn welcome(&mut self, welcome: &Welcome) {
        let positive = |duration: Option<prost_types::Duration>| {
            duration.and_then(duration_from_wire).filter(|duration| !duration.is_zero())
        };
        if let Some(interval) = positive(welcome.heartbeat_interval) {
            self.heartbeat_interval = interval.max(INTERVAL_MIN);
        }
        if let Some(limit) = positive(welcome.liveness_timeout) {
            self.liveness_timeout = limit.max(INTERVAL_MIN);
        }
        if let Some(interval) = positive(welcome.report_interval) {
            self.context.report_interval.send_replace(interval);
        }
        if let Some(current) = &welcome.current {
            self.epoch.clone_from(&current.epoch);
        }
        self.context.budgets.set_ledger(true);
        tracing::info!(server_instance = %welcome.server_instance, "control plane connected");
    }

    fn publication(&mut self, publication: Publication) {
        let now = Instant::now();
        self.seen.note(&self.epoch, publication.sequence);
        let orders = Orders::from_wire(&publication, &self.context.identity.agent_id, now);
        self.context.orders.send_replace(Arc::new(orders));
        let verdicts = Verdicts::from_wire(publication, &self.epoch, now);
        self.context.verdicts.send_replace(Arc::new(verdicts));
    }

    /// Collects parts; the last one is answered.
    fn update(&mut self, update: Update) -> Result<Option<Ack>, Status> {
        self.behind = 0;
        if self.parts.first().is_some_and(|first| first.nonce != update.nonce) {
            // Another update began before the last was whole.
            self.parts.clear();
            self.part_bytes = 0;
        }
        self.part_bytes += update.encoded_len();
        if self.part_bytes > UPDATE_BYTES_MAX {
            return Err(Status::resource_exhausted("update is larger than 64 MiB"));
        }
        let (nonce, more, version) = (update.nonce.clone(), update.more, update.version.clone());
        self.parts.push(update);
        if more {
            return Ok(None);
        }
        self.part_bytes = 0;
        let recorder = &self.context.recorder;
        let has_traffic = |model: &str| recorder.has_traffic(model);
        let parts = std::mem::take(&mut self.parts);
        let error_detail = match self.context.tables.apply_update(parts, &has_traffic) {
            Ok(loaded) => {
                self.refused = None;
                let version = &loaded.table.version;
                tracing::info!(revision = version.revision, "routing table applied");
                None
            }
            Err(error) => {
                self.refused = version;
                tracing::warn!(%error, "routing table refused");
                let code = error.code() as i32;
                Some(pb::Status { code, message: error.to_string(), details: Vec::new() })
            }
        };
        Ok(Some(Ack { nonce, applied: self.applied(), error_detail }))
    }

    fn heartbeat_ack(&mut self, ack: &HeartbeatAck) -> Result<(), Status> {
        let up_to_date = ack.current.is_none()
            || ack.current == self.applied()
            || ack.current == self.refused
            || !self.parts.is_empty();
        self.behind = if up_to_date { 0 } else { self.behind + 1 };
        if self.behind > BEHIND_MAX {
            return Err(Status::aborted("the control plane has a newer revision, no update came"));
        }
        Ok(())
    }

    fn hello(&self) -> Hello {
        let identity = &self.context.identity;
        let applied = self.context.tables.resume_from().as_ref().map(wire_version);
        Hello {
            agent_id: identity.agent_id.clone(),
            incarnation: identity.incarnation.clone(),
            build_version: identity.build_version.clone(),
            advertise: identity.advertise.clone(),
            seen_sequence: self.seen.of(applied.as_ref()),
            held_verdicts: applied
                .as_ref()
                .map(|applied| self.context.verdicts.borrow().held(&applied.epoch))
                .unwrap_or_default(),
            applied,
            missing_credentials: self.missing_credentials(),
        }
    }

    fn heartbeat(&mut self) -> Heartbeat {
        self.heartbeats += 1;
        let orders = Arc::clone(&self.context.orders.borrow());
        Heartbeat {
            seq: self.heartbeats,
            applied: self.applied(),
            in_flight: self.context.in_flight.load(Ordering::Relaxed),
            missing_credentials: self.missing_credentials(),
            active_faults: orders.active(Instant::now()).map(|fault| fault.name.clone()).collect(),
            draining: orders.out_of_service.is_some(),
        }
    }

    fn applied(&self) -> Option<Version> {
        self.context.tables.applied().as_ref().map(wire_version)
    }

    fn missing_credentials(&self) -> Vec<String> {
        let newest = self.context.tables.newest();
        newest.map_or_else(Vec::new, |loaded| self.context.credentials.missing(&loaded.table))
    }
}

/// A random time between the two that the control plane asks for; without them as after
/// any stream that ended.
fn stay_away(drain: &Drain, chance: f64) -> Duration {
    let bounded = |time: Option<prost_types::Duration>| Some(duration_from_wire(time?)?.min(STAY_AWAY_MAX));
    let min = bounded(drain.reconnect_after_min).unwrap_or_default();
    let max = bounded(drain.reconnect_after_max).unwrap_or(SPREAD).max(min);
    min + max.saturating_sub(min).mul_f64(chance)
}

/// The ledger of budgets goes with the stream.
struct LedgerThere<'a>(&'a Budgets);

impl Drop for LedgerThere<'_> {
    fn drop(&mut self) {
        self.0.set_ledger(false);
    }
}

/// The only writer of the stream.
struct Outbound(mpsc::Sender<SyncRequest>);

impl Outbound {
    /// Waits for room, but not for a control plane that reads nothing.
    async fn send(&self, message: sync_request::Message) -> Result<(), Status> {
        let request = SyncRequest { message: Some(message) };
        match timeout(LIVENESS_TIMEOUT, self.0.send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::unavailable("stream closed")),
            Err(_) => Err(silent_stream()),
        }
    }
}

fn silent_stream() -> Status {
    Status::deadline_exceeded("no message from the control plane within the liveness timeout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_keeps_the_agent_away_within_its_bounds_and_a_minute() {
        let wire = |seconds: i64| Some(prost_types::Duration { seconds, nanos: 0 });
        let check = |min: Option<i64>, max: Option<i64>, expected: [u64; 2]| {
            let drain = Drain {
                reconnect_after_min: min.and_then(wire),
                reconnect_after_max: max.and_then(wire),
                ..Drain::default()
            };
            let bounds = [0.0, 1.0].map(|chance| stay_away(&drain, chance).as_secs());
            assert_eq!(bounds, expected, "{min:?} {max:?}");
        };
        check(Some(5), Some(15), [5, 15]);
        check(None, None, [0, 2]);
        check(Some(9), Some(3), [9, 9]);
        check(Some(3_600), Some(7_200), [60, 60]);
        check(Some(-1), Some(-1), [0, 2]);
    }

    #[test]
    fn the_seen_sequence_never_falls_within_an_epoch_and_is_none_of_another() {
        let version = |epoch: &str| Some(Version { epoch: epoch.to_owned(), revision: 1 });
        let mut seen = SeenSequence::default();
        seen.note("e", 7);
        seen.note("e", 5);
        assert_eq!(
            (seen.of(version("e").as_ref()), seen.of(version("f").as_ref()), seen.of(None)),
            (7, 0, 0)
        );
        seen.note("f", 2);
        assert_eq!((seen.of(version("e").as_ref()), seen.of(version("f").as_ref())), (0, 2));
    }
}
