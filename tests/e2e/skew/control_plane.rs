//! A control plane of the older build, as far as its streams go: one table, and a sum of
//! what is reported.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use trunkline_tests::{
    older::{
        agent::v1::{
            HeartbeatAck, Publication, Resource, SyncRequest, SyncResponse, Update, Welcome,
            agent_service_server::{AgentService, AgentServiceServer},
            resource, sync_request, sync_response,
        },
        telemetry::v1::{
            StreamReportsRequest, StreamReportsResponse,
            telemetry_service_server::{TelemetryService, TelemetryServiceServer},
        },
        types::v1::{
            Deployment, Dialect, OutcomeClass, Provider, Strategy, Target, Tier, Version, VirtualModel,
        },
    },
    patience::until,
};

use super::state_sha256;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// It listens until it is dropped.
pub(super) struct OlderControlPlane {
    pub(super) url: String,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    applied: AtomicU64,
    successes: AtomicU64,
}

impl OlderControlPlane {
    pub(super) async fn start(base_url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counts = Arc::<Counts>::default();
        let service = Services { table: table(base_url), counts: Arc::clone(&counts) };
        let service = Arc::new(service);
        let router = Server::builder()
            .add_service(AgentServiceServer::from_arc(Arc::clone(&service)))
            .add_service(TelemetryServiceServer::from_arc(service));
        let task = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { url, counts, task }
    }

    /// Updates that were applied, once there is one.
    pub(super) async fn applied(&self) -> u64 {
        let applied = async || self.counts.applied.load(Ordering::SeqCst);
        until("an acknowledgement", applied, |applied| *applied > 0).await
    }

    /// Successes in all reports.
    pub(super) fn successes(&self) -> u64 {
        self.counts.successes.load(Ordering::SeqCst)
    }
}

impl Drop for OlderControlPlane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Services {
    table: Vec<Resource>,
    counts: Arc<Counts>,
}

fn table(base_url: &str) -> Vec<Resource> {
    let deployment =
        Deployment { name: "m".to_owned(), upstream_model: "m".to_owned(), ..Deployment::default() };
    let provider = Provider {
        name: "alpha".to_owned(),
        dialect: Dialect::Openai.into(),
        base_url: base_url.to_owned(),
        allow_private_network: true,
        deployments: vec![deployment],
        ..Provider::default()
    };
    let target = Target { deployment: "alpha/m".to_owned(), weight: Some(1) };
    let model = VirtualModel {
        name: "chat".to_owned(),
        strategy: Strategy::Weighted.into(),
        tiers: vec![Tier { targets: vec![target], ..Tier::default() }],
        ..VirtualModel::default()
    };
    [resource::Resource::Provider(provider), resource::Resource::VirtualModel(model)]
        .map(|one| Resource { resource: Some(one) })
        .to_vec()
}

#[tonic::async_trait]
impl AgentService for Services {
    type SyncStream = Answers<SyncResponse>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let version = Version { epoch: "older".to_owned(), revision: 1 };
        let interval = |seconds| Some(Duration::from_secs(seconds).try_into().unwrap());
        let welcome = Welcome {
            server_instance: "older".to_owned(),
            current: Some(version.clone()),
            heartbeat_interval: interval(5),
            liveness_timeout: interval(15),
            report_interval: interval(1),
        };
        let update = Update {
            nonce: "1".to_owned(),
            version: Some(version.clone()),
            full: true,
            upserts: self.table.clone(),
            state_sha256: state_sha256(&self.table),
            ..Update::default()
        };
        let (outbound, answers) = mpsc::channel(4);
        let counts = Arc::clone(&self.counts);
        let mut inbound = request.into_inner();
        tokio::spawn(async move {
            let send = async |message| {
                // The agent may be gone, as at its restart.
                outbound.send(Ok(SyncResponse { message: Some(message) })).await.ok();
            };
            send(sync_response::Message::Welcome(welcome)).await;
            send(sync_response::Message::Publication(Publication { seq: 1, verdicts: Vec::new() })).await;
            while let Some(Ok(message)) = inbound.next().await {
                match message.message {
                    Some(sync_request::Message::Hello(hello)) if hello.applied.as_ref() != Some(&version) => {
                        send(sync_response::Message::Update(update.clone())).await;
                    }
                    Some(sync_request::Message::Ack(ack)) => {
                        assert_eq!(ack.error_detail, None, "the agent refused the older table");
                        counts.applied.fetch_add(1, Ordering::SeqCst);
                    }
                    Some(sync_request::Message::Heartbeat(heartbeat)) => {
                        let ack = HeartbeatAck { seq: heartbeat.seq, current: Some(version.clone()) };
                        send(sync_response::Message::HeartbeatAck(ack)).await;
                    }
                    _ => {}
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

#[tonic::async_trait]
impl TelemetryService for Services {
    type StreamReportsStream = Answers<StreamReportsResponse>;

    async fn stream_reports(
        &self,
        request: Request<Streaming<StreamReportsRequest>>,
    ) -> Result<Response<Self::StreamReportsStream>, Status> {
        let counts = Arc::clone(&self.counts);
        let answers = request.into_inner().map(move |report| {
            let report = report?;
            let outcomes = report.targets.iter().flat_map(|target| &target.outcomes);
            let ok = outcomes.filter(|outcome| outcome.outcome() == OutcomeClass::Ok);
            counts.successes.fetch_add(ok.map(|outcome| outcome.count).sum(), Ordering::SeqCst);
            Ok(StreamReportsResponse { acked_seq: report.seq, ..StreamReportsResponse::default() })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
