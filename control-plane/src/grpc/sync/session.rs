//! One agent's stream: reads what the agent says, writes the newest state. Nothing is
//! queued: who is slow skips states.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tonic::{Status, Streaming};
use trunkline_proto::{
    agent::v1::{
        HeartbeatAck, Publication, SyncRequest, SyncResponse, Update, Welcome, sync_request::Message,
        sync_response,
    },
    status,
    types::v1::Version,
};

use trunkline_routing::money::NanoUsd;

use super::{
    admission::Turn,
    fleet::{Fleet, refuse},
    hello, probe,
    progress::{Answer, Next, Progress},
    publication::{Following, Orders},
};
use crate::{
    budgets::Line,
    fleet::Membership,
    grpc::{Context, wire_duration, wire_version},
    learning::Published,
    metrics::{UpdateKind, UpdateLabels},
    registry::Connection,
    repository::ConfigState,
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
    fleet: Arc<Fleet>,
    connection: Connection,
    membership: Membership,
    outbox: Outbox,
    progress: Progress,
    /// The newest state when the stream was opened, until the paced one is as new: who
    /// just came need not wait for the end of a burst.
    opening: Option<Arc<ConfigState>>,
    config: watch::Receiver<Arc<ConfigState>>,
    following: Following,
    /// What the agent was told. None: nothing.
    orders: Option<Orders>,
    publications: u64,
    models: watch::Receiver<Arc<Published>>,
    /// The newest models that the agent was told.
    models_told: u64,
    turn: Turn,
    outgoing: Option<Outgoing>,
    heard: Instant,
    /// The agent saw more of this store than the store holds.
    ahead: bool,
    budgets: Line,
}

/// An update of which parts are left to hand to the transport.
struct Outgoing {
    parts: Arc<[Update]>,
    next: usize,
    nonce: String,
    /// No part was taken since.
    since: Instant,
}

/// Why a stream ends.
pub(super) enum End {
    /// The agent closed it.
    Done,
    /// The control plane stops.
    Stopping,
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
        fleet: Arc<Fleet>,
        (connection, membership): (Connection, Membership),
        outbox: Outbox,
        held: Version,
        ahead: bool,
    ) -> Self {
        Self {
            opening: Some(context.repository.state()),
            config: fleet.config.subscribe(),
            following: Following::new(&context.repository, membership.leases()),
            turn: Turn::new(Arc::clone(&fleet.admission)),
            progress: Progress::new(held),
            heard: Instant::now(),
            budgets: context.budgets.line(connection.agent_id()),
            models: context.learning.subscribe(),
            models_told: 0,
            context,
            fleet,
            connection,
            membership,
            outbox,
            orders: None,
            publications: 0,
            outgoing: None,
            ahead,
        }
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
        self.tell_models();
        loop {
            let wake = self.update().await?;
            let alive_until = self.heard + LIVENESS_TIMEOUT;
            tokio::select! {
                // Ends first; then what the agent says, for it frees the way for more;
                // orders before configuration, for they stop traffic to what fails; leases
                // too, for requests may wait for them.
                biased;
                () = self.context.shutdown.cancelled() => return Err(End::Stopping),
                () = self.connection.superseded() => return Err(superseded(self.connection.agent_id()).into()),
                // Also when the agent's token is withdrawn: what it says counts no more.
                () = self.outbox.closed() => return Err(End::Unread),
                message = inbound.message() => match message {
                    Ok(Some(SyncRequest { message: Some(message) })) => self.hear(message).await?,
                    Ok(Some(SyncRequest { message: None })) => {
                        return Err(status::invalid_field("message", "is required").into());
                    }
                    // A stream that broke is no news for anybody but the registry.
                    Ok(None) | Err(_) => return Ok(()),
                },
                () = self.following.changed() => self.publish().await?,
                grant = self.budgets.next() => {
                    self.send(sync_response::Message::BudgetGrant(grant)).await?;
                }
                read = has_room(&self.outbox), if self.outgoing.is_some() => {
                    if !read { return Err(End::Unread); }
                    self.hand_over();
                }
                () = self.turn.granted() => {}
                Ok(()) = self.models.changed() => self.tell_models(),
                changed = self.config.changed() => if changed.is_err() { return Err(End::Stopping) },
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
            report_interval: Some(wire_duration(self.context.pace.interval(self.context.reports.backlog()))),
        };
        self.send(sync_response::Message::Welcome(welcome)).await
    }

    /// All orders as they are now, if the agent was told others.
    async fn publish(&mut self) -> Result<(), End> {
        let orders = self.following.orders();
        let agent_id = self.connection.agent_id();
        // Those of a store that lost commits may lack what the agent was told before.
        if self.ahead || self.orders.as_ref().is_some_and(|told| told.same_for(&orders, agent_id)) {
            return Ok(());
        }
        self.publications += 1;
        let publication = Publication {
            seq: self.publications,
            // Read after the orders: it grows before they change.
            sequence: self.context.repository.sequence(),
            ..orders.publication(agent_id, SystemTime::now())
        };
        self.orders = Some(orders);
        self.send(sync_response::Message::Publication(publication)).await
    }

    fn newest(&mut self) -> Arc<ConfigState> {
        let paced = Arc::clone(&self.config.borrow_and_update());
        let as_new = |opening: &mut Arc<ConfigState>| opening.version.revision <= paced.version.revision;
        self.opening.take_if(as_new);
        self.opening.clone().unwrap_or(paced)
    }

    /// Begins to send the newest state if it is due. The answer is when to look again.
    async fn update(&mut self) -> Result<Option<Instant>, End> {
        let state = self.newest();
        let now = Instant::now();
        let given_back = self.turn.expire(now);
        if let Some(outgoing) = &self.outgoing {
            let cut = outgoing.since + SEND_TIMEOUT;
            return if cut <= now {
                Err(End::Unread)
            } else {
                Ok(Some(given_back.map_or(cut, |at| at.min(cut))))
            };
        }
        let newest = wire_version(&state.version);
        let wait = |until: Option<Instant>| Ok(until.into_iter().chain(given_back).min());
        let base = match self.progress.next(&newest, now) {
            _ if self.ahead && self.progress.held().epoch == newest.epoch => return wait(None),
            Next::Nothing => return wait(None),
            Next::Wait(until) => return wait(Some(until)),
            Next::Send { base } => base.and_then(|base| self.context.repository.recent(base.revision)),
        };
        let snapshot = base.is_none();
        if !snapshot {
            self.turn.release();
        } else if !self.turn.ask(now).map_err(|crowded| refuse(&crowded))? {
            return Ok(None);
        }
        let held = self.progress.held();
        let parts = self.fleet.updates.to(&self.context.repository, &state, base, held).await?;
        // It may have waited for others.
        let now = Instant::now();
        let kind = if snapshot { UpdateKind::snapshot } else { UpdateKind::delta };
        self.context.metrics.updates.get_or_create(&UpdateLabels { kind }).inc();
        let nonce = self.progress.sent(newest, now);
        self.outgoing = Some(Outgoing { parts, next: 0, nonce, since: now });
        Ok(Some(now + SEND_TIMEOUT))
    }

    /// Gives the next part to the transport, which has room.
    fn hand_over(&mut self) {
        let Some(outgoing) = &mut self.outgoing else { return };
        let part = outgoing.parts.get(outgoing.next).cloned().unwrap_or_default();
        let update = Update { nonce: outgoing.nonce.clone(), ..part };
        let message = Some(sync_response::Message::Update(update));
        // Only this session fills it.
        if self.outbox.try_send(Ok(SyncResponse { message })).is_err() {
            return;
        }
        outgoing.next += 1;
        outgoing.since = Instant::now();
        if outgoing.next >= outgoing.parts.len() {
            self.progress.handed_over(outgoing.since);
            self.outgoing = None;
        }
    }

    /// What was learned since the agent was told last. An agent that does not read now is
    /// told all of it with the next publication.
    fn tell_models(&mut self) {
        let published = Arc::clone(&self.models.borrow_and_update());
        let Some(models) = published.message_after(self.models_told) else { return };
        let message = Some(sync_response::Message::FleetModels(models));
        if self.outbox.try_send(Ok(SyncResponse { message })).is_ok() {
            self.models_told = published.seq();
        }
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
                // What is left of the update helps nobody now.
                self.outgoing = None;
                self.turn.release();
                self.connection.acknowledged(Some(self.progress.held().clone()), refusal, now);
            }
            Message::Heartbeat(heartbeat) => {
                hello::check_heartbeat(&heartbeat)?;
                self.connection.heartbeat(&heartbeat, now);
                // An agent that hears of a newer version for long comes again, and would
                // lose its turn.
                let current = if self.turn.is_waiting() {
                    self.progress.held().clone()
                } else {
                    wire_version(&self.context.repository.state().version)
                };
                let ack = HeartbeatAck { seq: heartbeat.seq, current: Some(current) };
                self.send(sync_response::Message::HeartbeatAck(ack)).await?;
            }
            Message::BudgetDemand(demand) => self.budgets.ask(demand.claims),
            Message::Protections(states) => {
                self.membership.protections(&states.protections);
                self.connection.protections(states.protections, now);
            }
            Message::ProbeResult(result) => {
                let known = self.membership.probed(
                    result.lease_id,
                    &result.deployment,
                    probe::outcome(&result)?,
                    NanoUsd(result.cost_nano_usd),
                );
                let (agent_id, lease_id) = (self.connection.agent_id(), result.lease_id);
                tracing::debug!(agent_id, lease_id, known, outcome = ?result.outcome(), "a probe ended");
            }
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
            () = self.context.shutdown.cancelled() => Err(End::Stopping),
            () = self.connection.superseded() => Err(superseded(self.connection.agent_id()).into()),
            () = tokio::time::sleep(SEND_TIMEOUT) => Err(End::Unread),
        }
    }
}

/// Ends when a message fits; false if nobody reads any more.
async fn has_room(outbox: &Outbox) -> bool {
    outbox.reserve().await.is_ok()
}

fn superseded(agent_id: &str) -> Status {
    let message = format!("a newer stream of agent {agent_id:?} is open; agent ids must be unique");
    status::aborted("AGENT_SUPERSEDED", message, std::collections::HashMap::new())
}

fn silent() -> Status {
    let message = format!("nothing was heard for {} s", LIVENESS_TIMEOUT.as_secs());
    status::unavailable("AGENT_SILENT", message, None)
}
