//! One agent's stream: reads what the agent says, writes the newest state. Nothing is
//! queued: who is slow skips states.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tonic::{Status, Streaming};
use trunkline_proto::{
    agent::v1::{
        BreakerVerdict, HeartbeatAck, Publication, SyncRequest, SyncResponse, Update, Welcome,
        sync_request::Message, sync_response,
    },
    status,
    types::v1::{BreakerState, Version},
};

use super::{
    hello,
    progress::{Answer, Next, Progress},
    update::Updates,
};
use crate::{
    grpc::{Context, REPORT_INTERVAL, wire_duration, wire_version},
    metrics::{UpdateKind, UpdateLabels},
    registry::Connection,
    repository::{ConfigState, Verdict, VerdictSet, VerdictState},
};

/// How often agents say that they are there.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Three heartbeats missed: the agent is gone, or the way to it.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(15);

/// An agent that takes no message for so long is cut off; it will start again from
/// the newest state.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest refusal that is kept for ListAgents.
const NACK_BYTES_MAX: usize = 2_048;

/// Where messages to the agent go.
pub(super) type Outbox = mpsc::Sender<Result<SyncResponse, Status>>;

/// The stream of one agent that said Hello.
pub(super) struct Session {
    context: Arc<Context>,
    updates: Arc<Updates>,
    connection: Connection,
    outbox: Outbox,
    progress: Progress,
    config: watch::Receiver<Arc<ConfigState>>,
    verdicts: watch::Receiver<Arc<VerdictSet>>,
    publications: u64,
    heard: Instant,
}

/// Why a stream ends.
pub(super) enum End {
    /// The agent closed it, or the control plane stops.
    Done,
    /// Nobody reads any more.
    Unread,
    /// With an error for the agent.
    Failed(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

impl Session {
    pub(super) fn new(
        context: Arc<Context>,
        updates: Arc<Updates>,
        connection: Connection,
        outbox: Outbox,
        held: Version,
    ) -> Self {
        let (config, verdicts) = (context.repository.subscribe(), context.repository.subscribe_verdicts());
        let progress = Progress::new(held);
        let heard = Instant::now();
        Self { context, updates, connection, outbox, progress, config, verdicts, publications: 0, heard }
    }

    /// Serves until the stream ends.
    pub(super) async fn run(mut self, mut inbound: Streaming<SyncRequest>) -> End {
        match self.serve(&mut inbound).await {
            Ok(()) => End::Done,
            Err(end) => end,
        }
    }

    async fn serve(&mut self, inbound: &mut Streaming<SyncRequest>) -> Result<(), End> {
        self.welcome().await?;
        self.publish().await?;
        loop {
            let wake = self.update().await?;
            let alive_until = self.heard + LIVENESS_TIMEOUT;
            tokio::select! {
                // Ends first; then what the agent says, for it frees the way for more;
                // verdicts before configuration, for they stop traffic to what fails.
                biased;
                () = self.context.shutdown.cancelled() => return Ok(()),
                () = self.connection.superseded() => return Err(superseded(self.connection.agent_id()).into()),
                message = inbound.message() => match message {
                    Ok(Some(SyncRequest { message: Some(message) })) => self.hear(message).await?,
                    Ok(Some(SyncRequest { message: None })) => {
                        return Err(status::invalid_field("message", "is required").into());
                    }
                    // A stream that broke is no news for anybody but the registry.
                    Ok(None) | Err(_) => return Ok(()),
                },
                changed = self.verdicts.changed() => {
                    if changed.is_err() { return Ok(()); }
                    self.publish().await?;
                }
                changed = self.config.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep_until(wake.unwrap_or(alive_until)), if wake.is_some() => {}
                () = tokio::time::sleep_until(alive_until) => return Err(silent().into()),
            }
        }
    }

    async fn welcome(&self) -> Result<(), End> {
        let welcome = Welcome {
            server_instance: self.context.instance.clone(),
            current: Some(wire_version(&self.context.repository.state().version)),
            heartbeat_interval: Some(wire_duration(HEARTBEAT_INTERVAL)),
            liveness_timeout: Some(wire_duration(LIVENESS_TIMEOUT)),
            report_interval: Some(wire_duration(REPORT_INTERVAL)),
        };
        self.send(sync_response::Message::Welcome(welcome)).await
    }

    /// All verdicts as they are now.
    async fn publish(&mut self) -> Result<(), End> {
        self.publications += 1;
        let now = SystemTime::now();
        let set = Arc::clone(&self.verdicts.borrow_and_update());
        let verdicts = set.iter().filter_map(|verdict| breaker_verdict(verdict, now)).collect();
        self.send(sync_response::Message::Publication(Publication {
            seq: self.publications,
            verdicts,
            ..Publication::default()
        }))
        .await
    }

    /// Sends the newest state if it is due; else says when to look again.
    async fn update(&mut self) -> Result<Option<Instant>, End> {
        let state = Arc::clone(&self.config.borrow_and_update());
        let newest = wire_version(&state.version);
        let base = match self.progress.next(&newest, Instant::now()) {
            Next::Nothing => return Ok(None),
            Next::Wait(until) => return Ok(Some(until)),
            Next::Send { base } => base,
        };
        let parts = self.updates.to(&self.context.repository, &state, base.as_ref(), self.progress.held());
        let kind = if parts.iter().any(|part| part.full) { UpdateKind::snapshot } else { UpdateKind::delta };
        self.context.metrics.updates.get_or_create(&UpdateLabels { kind }).inc();
        let nonce = self.progress.sent(newest, Instant::now());
        for part in parts.iter() {
            let update = Update { nonce: nonce.clone(), ..part.clone() };
            self.send(sync_response::Message::Update(update)).await?;
        }
        Ok(None)
    }

    async fn hear(&mut self, message: Message) -> Result<(), End> {
        self.heard = Instant::now();
        let now = SystemTime::now();
        match message {
            Message::Hello(_) => {
                return Err(status::invalid_field("hello", "must be the first message only").into());
            }
            Message::Ack(ack) => {
                hello::check_applied("ack.applied", ack.applied.as_ref())?;
                let refusal = match self.progress.acknowledged(&ack, self.heard) {
                    Answer::Stale => return Ok(()),
                    Answer::Applied => None,
                    Answer::Refused(reason) => Some(self.refused(reason)),
                };
                self.connection.acknowledged(Some(self.progress.held().clone()), refusal, now);
            }
            Message::Heartbeat(heartbeat) => {
                hello::check_applied("heartbeat.applied", heartbeat.applied.as_ref())?;
                hello::check_credentials("heartbeat.missing_credentials", &heartbeat.missing_credentials)?;
                self.connection.heartbeat(&heartbeat, now);
                let current = Some(wire_version(&self.context.repository.state().version));
                let ack = HeartbeatAck { seq: heartbeat.seq, current };
                self.send(sync_response::Message::HeartbeatAck(ack)).await?;
            }
            Message::Protections(states) => self.connection.protections(states.protections, now),
        }
        Ok(())
    }

    fn refused(&self, mut reason: String) -> String {
        self.context.metrics.nacks.inc();
        reason.truncate(reason.floor_char_boundary(NACK_BYTES_MAX));
        if reason.is_empty() {
            reason.push_str("refused without a reason");
        }
        tracing::warn!(agent_id = self.connection.agent_id(), reason, "agent refused an update");
        reason
    }

    async fn send(&self, message: sync_response::Message) -> Result<(), End> {
        let response = SyncResponse { message: Some(message) };
        tokio::select! {
            biased; // What fits is sent; an agent that reads nothing must not hold up a drain.
            sent = self.outbox.send(Ok(response)) => sent.map_err(|_| End::Unread),
            () = self.context.shutdown.cancelled() => Err(End::Done),
            () = self.connection.superseded() => Err(superseded(self.connection.agent_id()).into()),
            () = tokio::time::sleep(SEND_TIMEOUT) => Err(End::Unread),
        }
    }
}

fn breaker_verdict(verdict: Verdict, now: SystemTime) -> Option<BreakerVerdict> {
    let remaining = match verdict.expires_unix_ms {
        None => None,
        Some(end) => Some((UNIX_EPOCH + Duration::from_millis(end)).duration_since(now).ok()?),
    };
    let state = match verdict.state {
        VerdictState::ForcedOpen => BreakerState::ForcedOpen,
        VerdictState::ForcedClosed => BreakerState::ForcedClosed,
    };
    Some(BreakerVerdict {
        deployment: verdict.deployment,
        state: state.into(),
        generation: verdict.generation,
        remaining: remaining.map(wire_duration),
        reason: verdict.reason,
    })
}

fn superseded(agent_id: &str) -> Status {
    let message = format!("a newer stream of agent {agent_id:?} is open; agent ids must be unique");
    status::aborted("AGENT_SUPERSEDED", message, std::collections::HashMap::new())
}

fn silent() -> Status {
    let message = format!("nothing was heard for {} s", LIVENESS_TIMEOUT.as_secs());
    status::unavailable("AGENT_SILENT", message, None)
}
