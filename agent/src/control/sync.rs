//! The stream to the control plane: updates and verdicts in; acknowledgements,
//! heartbeats and protections out. Only the newest state travels; nothing is queued.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use tonic_types::pb;
use trunkline_proto::{
    agent::v1::{
        Ack, Heartbeat, HeartbeatAck, Hello, ProtectionStates, SyncRequest, SyncResponse, Update, Welcome,
        agent_service_client::AgentServiceClient, sync_request, sync_response,
    },
    types::v1::{Protection, Version},
};

use super::{
    Identity, Recorder, TableStore, Verdicts,
    backoff::{Backoff, Ended, SPREAD},
    duration_from_wire, wire_version,
};
use crate::credentials::Credentials;

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
/// An acknowledgement, a heartbeat, protections: never more at the same time.
const OUTBOUND_MAX: usize = 4;

/// What the stream works with.
#[derive(Clone, Debug)]
pub struct SyncContext {
    /// To the control plane; may be shared.
    pub channel: Channel,
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
    /// Gets what operators forced.
    pub verdicts: watch::Sender<Arc<Verdicts>>,
    /// Gets the pace of telemetry.
    pub report_interval: watch::Sender<Duration>,
    /// Requests running.
    pub in_flight: Arc<AtomicU32>,
}

/// Keeps a stream open until `shutdown`. Verdicts and the table stay as they are while
/// there is none.
pub async fn run(context: SyncContext, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(streams(context)).await;
}

async fn streams(context: SyncContext) {
    // Agents that can serve don't all come at once when a machine starts.
    if context.tables.applied().is_some() {
        sleep(SPREAD.mul_f64(rand::random())).await;
    }
    let mut backoff = Backoff::default();
    loop {
        let mut stream = Stream::new(&context);
        let status = match stream.run().await {
            Ok(()) => Status::ok("closed by the control plane"),
            Err(status) => status,
        };
        let wait = backoff.after(stream.ended, rand::random());
        tracing::info!(%status, ?wait, "control plane stream ended");
        sleep(wait).await;
    }
}

/// One stream from Hello to its end.
struct Stream<'a> {
    context: &'a SyncContext,
    ended: Ended,
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
    fn new(context: &'a SyncContext) -> Self {
        Self {
            context,
            ended: Ended::Silent,
            parts: Vec::new(),
            part_bytes: 0,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            liveness_timeout: LIVENESS_TIMEOUT,
            heartbeats: 0,
            behind: 0,
            refused: None,
        }
    }

    async fn run(&mut self) -> Result<(), Status> {
        let (outbound, requests) = mpsc::channel(OUTBOUND_MAX);
        let outbound = Outbound(outbound);
        // The control plane may wait for it before it answers.
        outbound.send(sync_request::Message::Hello(self.hello())).await?;
        let mut client = AgentServiceClient::new(self.context.channel.clone());
        let opened = timeout(LIVENESS_TIMEOUT, client.sync(ReceiverStream::new(requests)));
        let silent = |_| Status::deadline_exceeded("the control plane is silent");
        let mut inbound = opened.await.map_err(silent)??.into_inner();

        let mut protections = self.context.protections.clone();
        // Each connection starts with the state.
        protections.mark_changed();
        let mut protections_quiet_until = Instant::now();
        let mut heartbeat_at = Instant::now() + self.heartbeat_interval;
        let mut dead_at = Instant::now() + self.liveness_timeout;
        loop {
            // What comes in first: it may change everything below. Death comes last, so
            // that a message that waits counts as life.
            tokio::select! {
                biased;
                message = inbound.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    let welcomed = self.ended == Ended::Silent;
                    self.receive(message, &outbound).await?;
                    if welcomed {
                        heartbeat_at = Instant::now() + self.heartbeat_interval;
                    }
                    dead_at = Instant::now() + self.liveness_timeout;
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
                () = sleep_until(dead_at) => return Err(silent_stream()),
            }
        }
    }

    async fn receive(&mut self, message: SyncResponse, outbound: &Outbound) -> Result<(), Status> {
        self.ended = Ended::Answered;
        match message.message {
            Some(sync_response::Message::Welcome(welcome)) => self.welcome(&welcome),
            Some(sync_response::Message::Update(update)) => {
                if let Some(ack) = self.update(update).await? {
                    outbound.send(sync_request::Message::Ack(ack)).await?;
                }
            }
            Some(sync_response::Message::Publication(publication)) => {
                let verdicts = Verdicts::from_wire(publication, Instant::now());
                self.context.verdicts.send_replace(Arc::new(verdicts));
            }
            Some(sync_response::Message::HeartbeatAck(ack)) => self.heartbeat_ack(&ack)?,
            // The stream ends by itself when the control plane stops.
            Some(sync_response::Message::Drain(_)) => {}
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
        tracing::info!(server_instance = %welcome.server_instance, "control plane connected");
    }

    /// Collects parts; the last one is answered.
    async fn update(&mut self, update: Update) -> Result<Option<Ack>, Status> {
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
        let error_detail = match self.context.tables.apply_update(parts, &has_traffic).await {
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
        Hello {
            agent_id: identity.agent_id.clone(),
            incarnation: identity.incarnation.clone(),
            build_version: identity.build_version.clone(),
            advertise: identity.advertise.clone(),
            applied: self.applied(),
            missing_credentials: self.missing_credentials(),
            ..Hello::default()
        }
    }

    fn heartbeat(&mut self) -> Heartbeat {
        self.heartbeats += 1;
        Heartbeat {
            seq: self.heartbeats,
            applied: self.applied(),
            in_flight: self.context.in_flight.load(Ordering::Relaxed),
            missing_credentials: self.missing_credentials(),
            ..Heartbeat::default()
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
