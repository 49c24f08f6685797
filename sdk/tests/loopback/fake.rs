//! A routing service on loopback whose answers a test chooses.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says so")]

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::Stream;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::mpsc,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};
use trunkline_proto::{
    routing::v1::{
        CompleteRequest, CompleteResponse, ExplainDecisionRequest, ExplainDecisionResponse, Message,
        ReportOutcomeRequest, ReportOutcomeResponse, RouteRequest, RouteResponse, StreamCompleteRequest,
        StreamCompleteResponse, WatchRoutesRequest, WatchRoutesResponse,
        routing_service_server::{RoutingService, RoutingServiceServer},
        stream_complete_response::Event,
    },
    types::v1::Decision,
};
use trunkline_transport::{incoming::incoming, places::Limits, tls::Acceptor};

/// Far beyond what loopback needs; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the fake does when asked for a completion.
#[derive(Clone)]
pub(crate) enum Behaviour {
    /// Answers with these events and this status, if any; a unary call with its name.
    Answer { events: Vec<Event>, then: Option<Status> },
    /// Sends the first event, then nothing.
    Hang,
    /// Never answers.
    Silent,
    /// Refuses.
    Refuse(Status),
    /// Names agents, as a control plane does.
    Redirect(Arc<Mutex<String>>),
}

impl Behaviour {
    pub(crate) fn answer() -> Self {
        Self::Answer { events: Vec::new(), then: None }
    }
}

/// What a call carried.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) headers: HashMap<String, String>,
}

/// A running fake. Dropping it closes its port.
pub(crate) struct Fake {
    pub(crate) address: String,
    /// One item per completion asked for.
    pub(crate) calls: mpsc::Receiver<Seen>,
    /// One item per stream that was dropped, however it ended.
    pub(crate) ended_streams: mpsc::Receiver<()>,
    /// Its own, so that stopping it closes its connections too.
    runtime: Option<Runtime>,
}

impl Fake {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::with(behaviour, None).await
    }

    /// One that speaks TLS.
    pub(crate) async fn with(behaviour: Behaviour, tls: Option<Acceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (calls_in, calls) = mpsc::channel(64);
        let (ended_in, ended_streams) = mpsc::channel(64);
        let service = Service { name: address.clone(), behaviour, calls: calls_in, ended: ended_in };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = listener.into_std().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            Server::builder()
                .add_service(RoutingServiceServer::new(service))
                .serve_with_incoming(incoming(listener, tls, Limits::OPEN))
                .await
                .unwrap();
        });
        Self { address, calls, ended_streams, runtime: Some(runtime) }
    }

    /// Closes the port and every connection.
    pub(crate) async fn stop(mut self) -> String {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
        self.address.clone()
    }

    pub(crate) fn calls_so_far(&mut self) -> usize {
        let mut count = 0;
        while self.calls.try_recv().is_ok() {
            count += 1;
        }
        count
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// AGENT_REQUIRED, as the control plane says it.
pub(crate) fn agent_required(agents: &str) -> Status {
    let metadata = HashMap::from([("agents".to_owned(), agents.to_owned())]);
    let details = ErrorDetails::with_error_info("AGENT_REQUIRED", "trunkline", metadata);
    Status::with_error_details(Code::FailedPrecondition, "ask an agent", details)
}

struct Service {
    name: String,
    behaviour: Behaviour,
    calls: mpsc::Sender<Seen>,
    ended: mpsc::Sender<()>,
}

impl Service {
    fn see<T>(&self, request: &Request<T>) {
        let headers = request.metadata().clone().into_headers();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        self.calls.try_send(Seen { headers }).unwrap();
    }

    async fn refuse_if_told(&self) -> Result<(), Status> {
        match &self.behaviour {
            Behaviour::Refuse(status) => Err(status.clone()),
            Behaviour::Redirect(agents) => Err(agent_required(&agents.lock().unwrap().clone())),
            Behaviour::Silent => std::future::pending().await,
            Behaviour::Answer { .. } | Behaviour::Hang => Ok(()),
        }
    }

    fn decision(&self) -> Decision {
        Decision { chosen: self.name.clone(), ..Decision::default() }
    }
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl RoutingService for Service {
    type StreamCompleteStream = Boxed<StreamCompleteResponse>;
    type WatchRoutesStream = Boxed<WatchRoutesResponse>;

    async fn route(&self, request: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        self.see(&request);
        Ok(Response::new(RouteResponse { decision: Some(self.decision()), valid_for: None }))
    }

    async fn complete(
        &self,
        request: Request<CompleteRequest>,
    ) -> Result<Response<CompleteResponse>, Status> {
        self.see(&request);
        self.refuse_if_told().await?;
        let message = Message { content: self.name.clone(), ..Message::default() };
        Ok(Response::new(CompleteResponse {
            message: Some(message),
            decision: Some(self.decision()),
            ..CompleteResponse::default()
        }))
    }

    async fn stream_complete(
        &self,
        request: Request<StreamCompleteRequest>,
    ) -> Result<Response<Self::StreamCompleteStream>, Status> {
        self.see(&request);
        self.refuse_if_told().await?;
        let (sender, receiver) = mpsc::channel(64);
        let response = |event| StreamCompleteResponse { event: Some(event) };
        if let Behaviour::Answer { events, then } = self.behaviour.clone() {
            for event in events {
                sender.try_send(Ok(response(event))).unwrap();
            }
            if let Some(status) = then {
                sender.try_send(Err(status)).unwrap();
            }
        } else {
            let started =
                Event::Started(trunkline_proto::routing::v1::Started { decision: Some(self.decision()) });
            sender.try_send(Ok(response(started))).unwrap();
            // Keeps the stream open until the client leaves.
            tokio::spawn(async move { sender.closed().await });
        }
        let guard = Guard(self.ended.clone());
        let stream = ReceiverStream::new(receiver).map(move |item| {
            let _keep = &guard;
            item
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn report_outcome(
        &self,
        request: Request<ReportOutcomeRequest>,
    ) -> Result<Response<ReportOutcomeResponse>, Status> {
        self.see(&request);
        Ok(Response::new(ReportOutcomeResponse {}))
    }

    async fn explain_decision(
        &self,
        request: Request<ExplainDecisionRequest>,
    ) -> Result<Response<ExplainDecisionResponse>, Status> {
        self.see(&request);
        if matches!(self.behaviour, Behaviour::Redirect(_)) {
            return Err(Status::not_found("no such decision"));
        }
        Ok(Response::new(ExplainDecisionResponse { decision: Some(self.decision()) }))
    }

    async fn watch_routes(
        &self,
        request: Request<WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchRoutesStream>, Status> {
        self.see(&request);
        let states = [WatchRoutesResponse::default(), WatchRoutesResponse::default()];
        Ok(Response::new(Box::pin(tokio_stream::iter(states.map(Ok)))))
    }
}

/// Tells when a stream was dropped.
struct Guard(mpsc::Sender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.try_send(()).ok();
    }
}
