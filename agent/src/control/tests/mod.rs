//! Sync and telemetry over loopback against a control plane that the test plays.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::Connected},
};
use trunkline_proto::{
    agent::v1::{
        Hello, SyncRequest, SyncResponse,
        agent_service_server::{AgentService, AgentServiceServer},
        sync_request,
    },
    telemetry::v1::{
        StreamReportsRequest, StreamReportsResponse,
        telemetry_service_server::{TelemetryService, TelemetryServiceServer},
    },
    types::v1::Protection,
};

use super::*;
use crate::credentials::Credentials;
use crate::{budgets::Budgets, clock::Clock};

mod away;
mod sync;
mod telemetry;

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
    channel: ControlPlane,
    identity: Arc<Identity>,
    tables: Arc<TableStore>,
    recorder: Arc<Recorder>,
    protections: watch::Sender<Arc<Vec<Protection>>>,
    verdicts: watch::Sender<Arc<Verdicts>>,
    heard_until: watch::Sender<tokio::time::Instant>,
    probe_results: ProbeResults,
    orders: watch::Sender<Arc<Orders>>,
    report_interval: watch::Sender<Duration>,
    wall_clock: fn() -> SystemTime,
    _server: AbortOnDropHandle<()>,
    directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let channel = Endpoint::from_shared(address).unwrap().connect_lazy();
        Self::over(TcpListenerStream::new(listener), channel)
    }

    fn over<I, E>(incoming: impl Stream<Item = Result<I, E>> + Send + 'static, channel: Channel) -> Self
    where
        I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + std::marker::Sync>> + Send + 'static,
    {
        let (sync_door, syncs) = mpsc::channel(8);
        let (report_door, reports) = mpsc::channel(8);
        let doors = Doors { syncs: sync_door, reports: report_door };
        let serving = Server::builder()
            .add_service(AgentServiceServer::new(doors.clone()))
            .add_service(TelemetryServiceServer::new(doors))
            .serve_with_incoming(incoming);
        let server = tokio::spawn(async move { serving.await.unwrap() });
        let directory = tempfile::tempdir().unwrap();
        let identity = Identity::load(directory.path(), "http://agent".to_owned()).unwrap();
        Self {
            syncs,
            reports,
            channel: InterceptedService::new(channel, Bearer::none()),
            identity: Arc::new(identity),
            tables: Arc::new(TableStore::new(Some(Cache::new(directory.path().join("cache"))))),
            recorder: Arc::default(),
            protections: watch::Sender::new(Arc::default()),
            verdicts: watch::Sender::new(Arc::default()),
            heard_until: watch::Sender::new(tokio::time::Instant::now()),
            probe_results: ProbeResults::default(),
            orders: watch::Sender::new(Arc::default()),
            report_interval: watch::Sender::new(Duration::from_millis(50)),
            wall_clock: SystemTime::now,
            _server: AbortOnDropHandle::new(server),
            directory,
        }
    }

    fn start_sync(&self) -> AbortOnDropHandle<()> {
        self.start_sync_until(&CancellationToken::new())
    }

    fn start_sync_until(&self, shutdown: &CancellationToken) -> AbortOnDropHandle<()> {
        let context = SyncContext {
            budgets: Arc::new(Budgets::new(Clock::start(), "start".to_owned(), None)),
            channel: self.channel.clone(),
            identity: Arc::clone(&self.identity),
            tables: Arc::clone(&self.tables),
            credentials: Arc::new(Credentials::new()),
            recorder: Arc::clone(&self.recorder),
            protections: self.protections.subscribe(),
            verdicts: self.verdicts.clone(),
            verdict_cache: Some(VerdictCache::new(self.directory.path().join("cache"))),
            heard_until: self.heard_until.clone(),
            probe_results: self.probe_results.clone(),
            orders: self.orders.clone(),
            report_interval: self.report_interval.clone(),
            models: Arc::default(),
            in_flight: Arc::default(),
        };
        AbortOnDropHandle::new(tokio::spawn(run_sync(context, shutdown.clone())))
    }

    fn start_telemetry(&self, shutdown: &CancellationToken) -> tokio::task::JoinHandle<()> {
        let context = TelemetryContext {
            channel: self.channel.clone(),
            identity: Arc::clone(&self.identity),
            recorder: Arc::clone(&self.recorder),
            tables: Arc::clone(&self.tables),
            report_interval: self.report_interval.subscribe(),
            orders: self.orders.subscribe(),
            spool: Some(self.directory.path().join(SPOOL_FILE)),
            wall_clock: self.wall_clock,
        };
        tokio::spawn(run_telemetry(context, shutdown.clone()))
    }

    /// Waits until the next start would find this revision.
    async fn kept_on_disk(&self, revision: u64) {
        let cache = Cache::new(self.directory.path().join("cache"));
        let kept = async {
            while cache.load().states.first().is_none_or(|(held, _)| held.revision != revision) {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, kept).await.expect("kept on disk");
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
