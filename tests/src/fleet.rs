//! Many agents, as their control plane sees them: streams that say Hello, take updates,
//! acknowledge them and send heartbeats. No proxying.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Endpoint};
use trunkline_proto::{
    agent::v1::{
        Ack, Heartbeat, Hello, SyncRequest, SyncResponse, agent_service_client::AgentServiceClient,
        sync_request, sync_response,
    },
    types::v1::Version,
};

/// Before a stream that ended is opened again: as agents do it.
const RECONNECT_SPREAD: Duration = Duration::from_secs(2);

/// A control plane that says nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Agents that follow one control plane.
#[derive(Debug)]
pub struct Fleet {
    state: Arc<State>,
    members: JoinSet<()>,
}

/// What all members count.
#[derive(Debug)]
struct State {
    url: String,
    /// Each member's newest revision.
    held: Vec<AtomicU64>,
    /// When each member got its newest revision, in microseconds since the start.
    applied_micros: Vec<AtomicU64>,
    connected: AtomicUsize,
    snapshots: AtomicU64,
    deltas: AtomicU64,
    publications: AtomicU64,
    refused: AtomicU64,
    started: Instant,
    changed: watch::Sender<()>,
}

impl Fleet {
    /// `count` agents with a connection each.
    pub fn start(url: &str, count: usize) -> Self {
        let numbers = || (0..count).map(|_| AtomicU64::new(0)).collect();
        let state = Arc::new(State {
            url: url.to_owned(),
            held: numbers(),
            applied_micros: numbers(),
            connected: AtomicUsize::new(0),
            snapshots: AtomicU64::new(0),
            deltas: AtomicU64::new(0),
            publications: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            started: Instant::now(),
            changed: watch::Sender::new(()),
        });
        let mut members = JoinSet::new();
        for number in 0..count {
            members.spawn(follow(Arc::clone(&state), number));
        }
        Self { state, members }
    }

    /// Members.
    pub fn len(&self) -> usize {
        self.state.held.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Members with an open stream.
    pub fn connected(&self) -> usize {
        self.state.connected.load(Ordering::Relaxed)
    }

    /// Members that hold this revision or a newer one.
    pub fn holding(&self, revision: u64) -> usize {
        self.state.held.iter().filter(|held| held.load(Ordering::Relaxed) >= revision).count()
    }

    /// Whole tables that were sent, over all members.
    pub fn snapshots(&self) -> u64 {
        self.state.snapshots.load(Ordering::Relaxed)
    }

    /// Changes that were sent, over all members.
    pub fn deltas(&self) -> u64 {
        self.state.deltas.load(Ordering::Relaxed)
    }

    /// Publications that were sent, over all members.
    pub fn publications(&self) -> u64 {
        self.state.publications.load(Ordering::Relaxed)
    }

    /// Streams that were refused.
    pub fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::Relaxed)
    }

    /// Waits until all members hold this revision, but no longer than `limit`. How many do.
    pub async fn wait_for(&self, revision: u64, limit: Duration) -> usize {
        let mut changed = self.state.changed.subscribe();
        let all = async { while self.holding(revision) < self.len() && changed.changed().await.is_ok() {} };
        // The count tells.
        timeout(limit, all).await.ok();
        self.holding(revision)
    }

    /// Microseconds from `since` until each member had its newest revision, in order.
    pub fn delays_micros(&self, since: Instant) -> Vec<u64> {
        let since = since.duration_since(self.state.started).as_micros() as u64;
        let applied = self.state.applied_micros.iter().map(|at| at.load(Ordering::Relaxed));
        let mut delays: Vec<_> = applied.map(|at| at.saturating_sub(since)).collect();
        delays.sort_unstable();
        delays
    }
}

async fn follow(state: Arc<State>, number: usize) {
    let mut applied = None;
    loop {
        let ended = stream(&state, number, &mut applied).await;
        if ended.is_err() {
            state.refused.fetch_add(1, Ordering::Relaxed);
        }
        sleep(RECONNECT_SPREAD.mul_f64(spread(number))).await;
    }
}

/// Between 0 and 1, another one for each member.
fn spread(number: usize) -> f64 {
    (number.wrapping_mul(7919) % 1000) as f64 / 1000.0
}

struct Connected<'a>(&'a State);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn stream(state: &State, number: usize, applied: &mut Option<Version>) -> Result<(), Status> {
    let endpoint = Endpoint::from_shared(state.url.clone()).unwrap().connect_timeout(SILENCE_MAX);
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let (outbound, requests) = mpsc::channel(4);
    let hello = Hello {
        agent_id: format!("member-{number:05}"),
        incarnation: "1".to_owned(),
        applied: applied.clone(),
        ..Hello::default()
    };
    send(&outbound, sync_request::Message::Hello(hello)).await;
    let mut client = AgentServiceClient::new(channel);
    let mut inbound = client.sync(ReceiverStream::new(requests)).await?.into_inner();
    state.connected.fetch_add(1, Ordering::Relaxed);
    let _connected = Connected(state);
    let mut heartbeat_interval = Duration::from_secs(5);
    let mut heartbeat_at = Instant::now() + heartbeat_interval.mul_f64(spread(number));
    let mut seq = 0;
    loop {
        tokio::select! {
            biased; // What comes in may change the rest.
            message = timeout(SILENCE_MAX, inbound.message()) => {
                let Ok(Some(SyncResponse { message: Some(message) })) = message.unwrap_or(Ok(None)) else {
                    return Ok(());
                };
                match message {
                    sync_response::Message::Welcome(welcome) => {
                        let told = welcome.heartbeat_interval.and_then(|told| Duration::try_from(told).ok());
                        heartbeat_interval = told.unwrap_or(heartbeat_interval);
                    }
                    sync_response::Message::Update(update) if update.more => {}
                    sync_response::Message::Update(update) => {
                        let kind = if update.full { &state.snapshots } else { &state.deltas };
                        kind.fetch_add(1, Ordering::Relaxed);
                        applied.clone_from(&update.version);
                        let ack = Ack { nonce: update.nonce, applied: update.version, error_detail: None };
                        state.apply(number, applied.as_ref().map_or(0, |version| version.revision));
                        send(&outbound, sync_request::Message::Ack(ack)).await;
                    }
                    sync_response::Message::Publication(_) => {
                        state.publications.fetch_add(1, Ordering::Relaxed);
                    }
                    sync_response::Message::Drain(_) => return Ok(()),
                    sync_response::Message::HeartbeatAck(_)
                    | sync_response::Message::BudgetGrant(_)
                    | sync_response::Message::FleetModels(_) => {}
                }
            }
            () = tokio::time::sleep_until(heartbeat_at) => {
                heartbeat_at = Instant::now() + heartbeat_interval;
                seq += 1;
                let heartbeat = Heartbeat { seq, applied: applied.clone(), ..Heartbeat::default() };
                send(&outbound, sync_request::Message::Heartbeat(heartbeat)).await;
            }
        }
    }
}

impl State {
    fn apply(&self, number: usize, revision: u64) {
        let at = self.started.elapsed().as_micros() as u64;
        self.applied_micros[number].store(at, Ordering::Relaxed);
        self.held[number].store(revision, Ordering::Relaxed);
        self.changed.send_replace(());
    }
}

async fn send(outbound: &mpsc::Sender<SyncRequest>, message: sync_request::Message) {
    // The stream has ended if nobody takes it; that shows when it is read.
    outbound.send(SyncRequest { message: Some(message) }).await.ok();
}
