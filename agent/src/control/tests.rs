//! Sync and telemetry over loopback against a control plane that the test plays.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use trunkline_proto::{
    admin::v1::Config,
    agent::v1::{
        Ack, BreakerVerdict, Hello, Publication, SyncRequest, SyncResponse, Update, Welcome,
        agent_service_server::{AgentService, AgentServiceServer},
        sync_request, sync_response,
    },
    convert::sync,
    telemetry::v1::{
        StreamReportsRequest, StreamReportsResponse,
        telemetry_service_server::{TelemetryService, TelemetryServiceServer},
    },
    types::v1::{BreakerState, Deployment, Dialect, Protection, Provider, Version},
};
use trunkline_routing::{
    classify::OutcomeClass,
    money::{NanoUsd, Tokens},
};

use super::*;
use crate::credentials::Credentials;

const LIMIT: Duration = Duration::from_secs(20);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One stream as the control plane sees it. Dropped, it ends.
struct Session<Q, A> {
    requests: Streaming<Q>,
    answers: mpsc::Sender<Result<A, Status>>,
}

impl<Q, A> Session<Q, A> {
    async fn next(&mut self) -> Q {
        timeout(LIMIT, self.requests.message()).await.expect("in time").unwrap().unwrap()
    }

    async fn answer(&self, answer: A) {
        self.answers.send(Ok(answer)).await.unwrap();
    }
}

type Sync = Session<SyncRequest, SyncResponse>;
type Reports = Session<StreamReportsRequest, StreamReportsResponse>;

#[derive(Clone)]
struct Doors {
    syncs: mpsc::Sender<Sync>,
    reports: mpsc::Sender<Reports>,
}

async fn enter<Q, A>(
    door: &mpsc::Sender<Session<Q, A>>,
    request: Request<Streaming<Q>>,
) -> Response<Answers<A>>
where
    A: Send + 'static,
{
    let (answers, receiver) = mpsc::channel(8);
    let session = Session { requests: request.into_inner(), answers };
    door.send(session).await.ok().unwrap();
    Response::new(Box::pin(ReceiverStream::new(receiver)))
}

#[tonic::async_trait]
impl AgentService for Doors {
    type SyncStream = Answers<SyncResponse>;
    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        Ok(enter(&self.syncs, request).await)
    }
}

#[tonic::async_trait]
impl TelemetryService for Doors {
    type StreamReportsStream = Answers<StreamReportsResponse>;
    async fn stream_reports(
        &self,
        request: Request<Streaming<StreamReportsRequest>>,
    ) -> Result<Response<Self::StreamReportsStream>, Status> {
        Ok(enter(&self.reports, request).await)
    }
}

/// A control plane and everything that an agent has towards it.
struct World {
    syncs: mpsc::Receiver<Sync>,
    reports: mpsc::Receiver<Reports>,
    channel: Channel,
    identity: Arc<Identity>,
    tables: Arc<TableStore>,
    recorder: Arc<Recorder>,
    protections: watch::Sender<Arc<Vec<Protection>>>,
    verdicts: watch::Sender<Arc<Verdicts>>,
    report_interval: watch::Sender<Duration>,
    _server: AbortOnDropHandle<()>,
    directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sync_door, syncs) = mpsc::channel(8);
        let (report_door, reports) = mpsc::channel(8);
        let doors = Doors { syncs: sync_door, reports: report_door };
        let serving = Server::builder()
            .add_service(AgentServiceServer::new(doors.clone()))
            .add_service(TelemetryServiceServer::new(doors))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::load(directory.path(), "http://agent".to_owned()).unwrap();
        Self {
            syncs,
            reports,
            channel: channel(&format!("http://{address}")).unwrap(),
            identity: Arc::new(identity),
            tables: Arc::new(TableStore::new(Some(Cache::new(directory.path().join("cache"))))),
            recorder: Arc::default(),
            protections: watch::Sender::new(Arc::default()),
            verdicts: watch::Sender::new(Arc::default()),
            report_interval: watch::Sender::new(Duration::from_millis(50)),
            _server: AbortOnDropHandle::new(server),
            directory,
        }
    }

    fn start_sync(&self) -> AbortOnDropHandle<()> {
        let context = SyncContext {
            channel: self.channel.clone(),
            identity: Arc::clone(&self.identity),
            tables: Arc::clone(&self.tables),
            credentials: Arc::new(Credentials::new()),
            recorder: Arc::clone(&self.recorder),
            protections: self.protections.subscribe(),
            verdicts: self.verdicts.clone(),
            report_interval: self.report_interval.clone(),
            in_flight: Arc::default(),
        };
        AbortOnDropHandle::new(tokio::spawn(run_sync(context, CancellationToken::new())))
    }

    fn start_telemetry(&self, shutdown: &CancellationToken) -> tokio::task::JoinHandle<()> {
        let context = TelemetryContext {
            channel: self.channel.clone(),
            identity: Arc::clone(&self.identity),
            recorder: Arc::clone(&self.recorder),
            tables: Arc::clone(&self.tables),
            report_interval: self.report_interval.subscribe(),
        };
        tokio::spawn(run_telemetry(context, shutdown.clone()))
    }

    async fn accept_sync(&mut self) -> (Sync, Hello) {
        let mut session = timeout(LIMIT, self.syncs.recv()).await.expect("in time").unwrap();
        match session.next().await.message {
            Some(sync_request::Message::Hello(hello)) => (session, hello),
            other => panic!("no Hello but {other:?}"),
        }
    }

    async fn accept_reports(&mut self) -> Reports {
        timeout(LIMIT, self.reports.recv()).await.expect("in time").unwrap()
    }
}

impl Sync {
    async fn send(&self, message: sync_response::Message) {
        self.answer(SyncResponse { message: Some(message) }).await;
    }

    async fn ack_of(&mut self, update: Update) -> Ack {
        self.send(sync_response::Message::Update(update)).await;
        loop {
            if let Some(sync_request::Message::Ack(ack)) = self.next().await.message {
                return ack;
            }
        }
    }
}

fn config(names: &[&str]) -> Config {
    let provider = |name: &&str| Provider {
        name: (*name).to_owned(),
        dialect: Dialect::Openai as i32,
        base_url: "https://api.example.com/v1".to_owned(),
        deployments: vec![Deployment { name: "d".to_owned(), ..Deployment::default() }],
        ..Provider::default()
    };
    Config { providers: names.iter().map(provider).collect(), ..Config::default() }
}

fn version(revision: u64) -> Version {
    Version { epoch: "e".to_owned(), revision }
}

fn snapshot(revision: u64, config: &Config) -> Update {
    Update {
        nonce: format!("n{revision}"),
        version: Some(version(revision)),
        full: true,
        upserts: sync::snapshot(config),
        state_sha256: sync::state_sha256(config).to_vec().into(),
        ..Update::default()
    }
}

fn delta(revision: u64, old: &Config, new: &Config) -> Update {
    let (upserts, removals) = sync::delta(old, new);
    let base = Some(version(revision - 1));
    Update { full: false, base, upserts, removals, ..snapshot(revision, new) }
}

#[tokio::test]
async fn snapshot_and_delta_are_applied_and_a_restart_resumes() {
    let mut world = World::new().await;
    let agent = world.start_sync();
    let (mut stream, hello) = world.accept_sync().await;
    assert_eq!((hello.agent_id, hello.applied), (world.identity.agent_id.clone(), None));
    stream.send(sync_response::Message::Welcome(Welcome::default())).await;

    // In two parts; nothing happens before the last.
    let (one, two) = (config(&["a", "b"]), config(&["a", "b", "c"]));
    let mut last = snapshot(1, &one);
    let first = Update { upserts: vec![last.upserts.remove(0)], more: true, ..last.clone() };
    stream.send(sync_response::Message::Update(first)).await;
    let ack = stream.ack_of(last).await;
    assert_eq!((ack.applied, ack.error_detail), (Some(version(1)), None));
    let ack = stream.ack_of(delta(2, &one, &two)).await;
    assert_eq!((ack.nonce.as_str(), ack.applied, ack.error_detail), ("n2", Some(version(2)), None));
    assert_eq!(world.tables.newest().unwrap().table.providers.len(), 3);

    // The stream breaks: the agent comes back with what it has.
    drop(stream);
    let (_stream, hello) = world.accept_sync().await;
    assert_eq!(hello.applied, Some(version(2)));
    drop(agent);

    let restarted = TableStore::new(Some(Cache::new(world.directory.path().join("cache"))));
    restarted.load_cache();
    assert_eq!(restarted.newest().unwrap().table.providers.len(), 3);
    assert_eq!(restarted.applied().map(|held| held.revision), Some(2));
}

#[tokio::test]
async fn a_refused_update_changes_nothing() {
    let mut world = World::new().await;
    let _agent = world.start_sync();
    let (mut stream, _) = world.accept_sync().await;
    let good = config(&["a", "b", "c"]);
    assert_eq!(stream.ack_of(snapshot(1, &good)).await.error_detail, None);

    let mut check = async |update: Update, expected: &str| {
        let ack = stream.ack_of(update).await;
        let refusal = ack.error_detail.expect(expected);
        assert!(refusal.message.contains(expected), "{refusal:?}");
        assert_eq!(ack.applied, Some(version(1)));
        assert_eq!(world.tables.newest().unwrap().config.providers.len(), 3);
    };
    let mut bad = config(&["a", "b", "c", "d"]);
    bad.providers[3].base_url = "ftp://example.com".to_owned();
    check(delta(2, &good, &bad), "base_url").await;
    let more = config(&["a", "b", "c", "d"]);
    check(delta(7, &good, &more), "revision 6").await;
    let forged = Update { state_sha256: vec![0; 32].into(), ..delta(2, &good, &more) };
    check(forged, "state_sha256").await;
    let less = config(&["a"]);
    check(delta(2, &good, &less), "force").await;

    let forced = Update { force: true, ..delta(2, &good, &less) };
    assert_eq!(stream.ack_of(forced).await.error_detail, None);
    assert_eq!(world.tables.newest().unwrap().config.providers.len(), 1);
}

#[tokio::test]
async fn verdicts_outlive_the_stream_and_protections_start_each() {
    let mut world = World::new().await;
    let gate = Protection { subject: "a/d".to_owned(), kind: None };
    world.protections.send_replace(Arc::new(vec![gate.clone()]));
    let _agent = world.start_sync();
    let mut verdicts = world.verdicts.subscribe();
    for _ in 0..2 {
        let (mut stream, _) = world.accept_sync().await;
        stream.send(sync_response::Message::Welcome(Welcome::default())).await;
        match stream.next().await.message {
            Some(sync_request::Message::Protections(states)) => {
                assert_eq!(states.protections, std::slice::from_ref(&gate));
            }
            other => panic!("no protections but {other:?}"),
        }
        let verdict = BreakerVerdict {
            deployment: "a/d".to_owned(),
            state: BreakerState::ForcedOpen as i32,
            ..BreakerVerdict::default()
        };
        let publication = Publication { seq: 1, verdicts: vec![verdict] };
        stream.send(sync_response::Message::Publication(publication)).await;
        timeout(LIMIT, verdicts.changed()).await.unwrap().unwrap();
    }
    let now = tokio::time::Instant::now();
    assert!(world.verdicts.borrow().get("a/d", now).unwrap().forced_open);
}

#[tokio::test]
async fn a_silent_control_plane_is_left() {
    let mut world = World::new().await;
    let _agent = world.start_sync();
    let (stream, _) = world.accept_sync().await;
    let short = prost_types::Duration { seconds: 0, nanos: 50_000_000 };
    let welcome = Welcome { liveness_timeout: Some(short), ..Welcome::default() };
    stream.send(sync_response::Message::Welcome(welcome)).await;
    // The stream is open all the time.
    let (_again, _) = world.accept_sync().await;
    drop(stream);
}

fn record(recorder: &Recorder, count: u64) {
    for _ in 0..count {
        recorder.record(AttemptSample {
            deployment: "a/d".into(),
            model: "chat".into(),
            outcome: OutcomeClass::Ok,
            ttft: None,
            duration: Duration::from_millis(5),
            tokens: Some((Tokens { input: 3, cached_input: 0, output: 4 }, UsageSource::Provider)),
            cost: Some(NanoUsd(10)),
        });
    }
}

fn acked(seq: u64) -> StreamReportsResponse {
    StreamReportsResponse { acked_seq: seq, ..StreamReportsResponse::default() }
}

#[tokio::test]
async fn totals_are_exact_when_streams_break_and_acknowledgements_come_late() {
    let mut world = World::new().await;
    let shutdown = CancellationToken::new();
    let agent = world.start_telemetry(&shutdown);
    // By number: what a control plane that merges once has.
    let mut merged: Vec<StreamReportsRequest> = Vec::new();
    let mut recorded = 0;
    for round in 1..=3 {
        let mut stream = world.accept_reports().await;
        record(&world.recorder, 7 * round);
        recorded += 7 * round;
        // Each stream takes the old ones again and at least two new ones, then breaks.
        let enough = merged.len() + 2;
        while merged.len() < enough {
            let report = stream.next().await;
            let known = merged.get(report.seq as usize - 1);
            match known {
                Some(known) => assert_eq!(*known, report, "a report changed"),
                None => {
                    assert_eq!(report.seq as usize, merged.len() + 1, "a gap");
                    merged.push(report);
                    record(&world.recorder, 1);
                    recorded += 1;
                }
            }
        }
        // Late: all but the last three.
        stream.answer(acked((merged.len() as u64).saturating_sub(3))).await;
    }
    shutdown.cancel();
    let deadline = tokio::time::sleep(LIMIT);
    tokio::pin!(agent, deadline);
    loop {
        // The agent ends by itself once everything is acknowledged.
        let mut stream = tokio::select! {
            biased;
            ended = &mut agent => break ended.unwrap(),
            Some(stream) = world.reports.recv() => stream,
            () = &mut deadline => panic!("the agent doesn't end"),
        };
        while let Ok(Some(report)) = stream.requests.message().await {
            match merged.get(report.seq as usize - 1) {
                Some(known) => assert_eq!(*known, report, "a report changed"),
                None => merged.push(report),
            }
            stream.answers.send(Ok(acked(merged.len() as u64))).await.ok();
        }
    }
    let targets = || merged.iter().flat_map(|report| &report.targets);
    let attempts: u64 = targets().flat_map(|target| &target.outcomes).map(|outcome| outcome.count).sum();
    assert_eq!(attempts, recorded);
    assert_eq!(targets().map(|target| target.output_tokens).sum::<u64>(), 4 * recorded);
    assert_eq!(targets().map(|target| target.cost_nano_usd).sum::<u64>(), 10 * recorded);
}

#[tokio::test]
async fn resend_starts_at_the_first_unacknowledged_report() {
    let mut world = World::new().await;
    let shutdown = CancellationToken::new();
    let agent = world.start_telemetry(&shutdown);
    let mut stream = world.accept_reports().await;
    let mut first = Vec::new();
    for _ in 0..3 {
        record(&world.recorder, 1);
        first.push(stream.next().await);
    }
    let resend = StreamReportsResponse { resend_from_first_unacked: true, ..acked(1) };
    stream.answer(resend).await;
    assert_eq!(stream.next().await, first[1]);
    assert_eq!(stream.next().await, first[2]);
    agent.abort();
}

#[tokio::test]
async fn the_last_window_is_flushed() {
    let mut world = World::new().await;
    // No window would close by itself.
    world.report_interval.send_replace(Duration::from_secs(60));
    let shutdown = CancellationToken::new();
    let agent = world.start_telemetry(&shutdown);
    let mut stream = world.accept_reports().await;
    let hello = stream.next().await;
    stream.answer(acked(hello.seq)).await;
    record(&world.recorder, 3);
    shutdown.cancel();
    let mut stream = world.accept_reports().await;
    let mut last = stream.next().await;
    if last.seq == hello.seq {
        // Its acknowledgement was still on the way.
        last = stream.next().await;
    }
    let counted: Vec<_> = last.targets.iter().map(|target| target.outcomes[0].count).collect();
    assert_eq!(counted, [3]);
    stream.answer(acked(last.seq)).await;
    timeout(LIMIT, agent).await.expect("ends once acknowledged").unwrap();
}
