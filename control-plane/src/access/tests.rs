//! Real sockets: every RPC with every role, over TLS, and what is said to who may not.

mod strangers;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut};
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Code, Request, Status,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming},
    metadata::MetadataValue,
    service::interceptor::InterceptedService,
    transport::Channel,
};
use tonic_types::StatusExt as _;
use tower_layer::Layer as _;
use tower_service::Service;
use trunkline_proto::{
    agent::v1::{Hello, SyncRequest, agent_service_client::AgentServiceClient, sync_request},
    telemetry::v1::{StreamReportsRequest, telemetry_service_client::TelemetryServiceClient},
};
use trunkline_transport::{
    bearer::Bearer,
    client::{Trust, endpoint},
    tls::Protocols,
};

use super::{
    Access, GuardLayer, Refused,
    roles::{Allowed, ROLES, Role},
};
use crate::{
    bootstrap::ConfigSource,
    config::ConfigPolicy,
    repository::{Repository, RepositoryOptions},
    security::{Security, TlsFiles},
    start::{Listen, Options, Recovery, Running, StartError, start},
};

const PATIENCE: Duration = Duration::from_secs(20);
const APP_KEY: &str = "app-key-0123456789abcdef";

/// A role's token, as the files have it.
fn token(role: Role) -> String {
    if role == Role::App { APP_KEY.to_owned() } else { format!("{role}-0123456789abcdef") }
}

/// A control plane with TLS, a token for each role, and one app key.
struct Plane {
    running: Running,
    channel: Channel,
    directory: tempfile::TempDir,
    trust: Trust,
    _shutdown: DropGuard,
}

impl Plane {
    async fn start() -> Self {
        Self::with(|_| {}, true).await
    }

    async fn with(change: impl FnOnce(&mut Options), app_keys: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (security, trust) = security(directory.path());
        let mut options = options(security, app_keys);
        change(&mut options);
        let shutdown = CancellationToken::new();
        let running = start(options, shutdown.clone()).await.unwrap();
        assert_eq!(running.scheme, "https");
        let channel = connect(&running, &trust).await;
        Self { running, channel, directory, trust, _shutdown: shutdown.drop_guard() }
    }

    fn file(&self, role: Role) -> PathBuf {
        self.directory.path().join(role.name())
    }

    /// Calls with an empty message, and reads no further than the answer's head.
    async fn call(&self, path: &'static str, token: Option<&str>) -> Result<Streaming<()>, Status> {
        Self::call_on(self.channel.clone(), path, token).await
    }

    async fn call_on(
        channel: Channel,
        path: &'static str,
        token: Option<&str>,
    ) -> Result<Streaming<()>, Status> {
        let mut request = Request::new(tokio_stream::once(()));
        if let Some(token) = token {
            let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.unwrap();
        let called = grpc.streaming(request, http::uri::PathAndQuery::from_static(path), Empty);
        let answer = tokio::time::timeout(PATIENCE, called).await.expect(path)?;
        Ok(answer.into_inner())
    }

    async fn refusal(&self, path: &'static str, token: Option<&str>) -> Status {
        self.call(path, token).await.map(drop).unwrap_err()
    }
}

async fn connect(running: &Running, trust: &Trust) -> Channel {
    let address = format!("https://127.0.0.1:{}", running.grpc_addr.port());
    endpoint(&address, trust).unwrap().connect().await.unwrap()
}

fn open_ops(options: &mut Options) {
    options.ops = Listen::Address("0.0.0.0:0".parse().unwrap());
}

fn options(security: Security, app_keys: bool) -> Options {
    let any = || Listen::Address("127.0.0.1:0".parse().unwrap());
    let key = Sha256::digest(APP_KEY).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let text = format!("api_keys: [{{name: team-a, secret_sha256: {key}}}]\n");
    let config = ConfigSource { origin: "test".to_owned(), text, policy: ConfigPolicy::Always };
    Options {
        grpc: any(),
        ops: any(),
        data_dir: None,
        recovery: Recovery::default(),
        config: app_keys.then_some(config),
        security,
        price_feed: None,
    }
}

fn security(directory: &Path) -> (Security, Trust) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let tls = TlsFiles {
        certificate: write("cert.pem", made.cert.pem()).unwrap(),
        key: write("key.pem", made.signing_key.serialize_pem()).unwrap(),
    };
    let tokens = |role: Role, name: &str| write(role.name(), format!("{name} {}\n", token(role)));
    let security = Security {
        tls: Some(tls),
        agent_tokens: tokens(Role::Agent, "a-1"),
        admin_tokens: tokens(Role::Admin, "alice"),
        operator_tokens: tokens(Role::Operator, "bob"),
        viewer_tokens: tokens(Role::Viewer, "carol"),
        insecure: false,
    };
    (security, Trust::pem(made.cert.pem().as_bytes(), "test").unwrap())
}

/// Messages of no bytes.
#[derive(Clone, Copy, Debug)]
struct Empty;

impl Codec for Empty {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Empty {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&[]);
        Ok(())
    }
}

impl Decoder for Empty {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

#[tokio::test]
async fn every_rpc_lets_in_exactly_the_roles_of_its_row() {
    let plane = Plane::start().await;
    let mut wrong = Vec::new();
    let mut check = |path: &str, who: &str, allowed: bool, refused: Code, code: Option<Code>| {
        let was_refused = matches!(code, Some(Code::Unauthenticated | Code::PermissionDenied));
        if (allowed && was_refused) || (!allowed && code != Some(refused)) {
            wrong.push(format!("{path} by {who}: {code:?}"));
        }
    };
    for (path, allowed) in ROLES {
        for role in [Role::Viewer, Role::Operator, Role::Admin, Role::Agent, Role::App] {
            let called = plane.call(path, Some(&token(role))).await;
            check(
                path,
                role.name(),
                allowed.role(role),
                Code::PermissionDenied,
                called.err().map(|one| one.code()),
            );
        }
        let everybody = *allowed == Allowed::Everybody;
        for (who, token) in [("nobody", None), ("a wrong token", Some("wrong-0123456789abcdef"))] {
            let called = plane.call(path, token).await;
            check(path, who, everybody, Code::Unauthenticated, called.err().map(|one| one.code()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn who_may_not_is_told_why_and_what_would_do() {
    let plane = Plane::start().await;
    let write = "/trunkline.admin.v1.AdminService/ApplyConfig";
    let status = plane.refusal(write, Some(&token(Role::Viewer))).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("role viewer may not call trunkline.admin.v1.AdminService/ApplyConfig")
    );
    assert!(status.message().ends_with("roles that may: admin"), "{status}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "ROLE_NOT_ALLOWED");

    let status = plane.refusal(write, None).await;
    let info = status.get_details_error_info().unwrap();
    let hint = HashMap::from([("www-authenticate".to_owned(), "Bearer".to_owned())]);
    assert_eq!((status.code(), info.metadata), (Code::Unauthenticated, hint));

    let wrong = "wrong-0123456789abcdef";
    let status = plane.refusal(write, Some(wrong)).await;
    assert!(!format!("{status:?} {status}").contains(wrong));

    let status = plane.refusal("/trunkline.admin.v1.AdminService/DropAll", Some(&token(Role::Admin))).await;
    assert_eq!(status.code(), Code::Unimplemented);
    let status = plane.refusal("/trunkline.admin.v1.AdminService/DropAll", None).await;
    assert_eq!(status.code(), Code::Unauthenticated, "strangers learn nothing");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_withdrawn() {
    let plane = Plane::start().await;
    let watch = "/trunkline.admin.v1.AdminService/WatchResources";
    let (viewer, operator) = (token(Role::Viewer), token(Role::Operator));
    let mut ends = plane.call(watch, Some(&viewer)).await.unwrap();
    let mut stays = plane.call(watch, Some(&operator)).await.unwrap();
    // By name, as by a deployment tool; the operator's file is not touched.
    std::fs::write(plane.file(Role::Viewer), "dora other-0123456789abcdef\n").unwrap();
    let end = async {
        loop {
            if let Err(status) = ends.message().await {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, end).await.unwrap();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    assert_eq!(plane.refusal(watch, Some(&viewer)).await.code(), Code::Unauthenticated);
    plane.call(watch, Some("other-0123456789abcdef")).await.unwrap();
    // Whatever it has said so far, it has not ended.
    while let Ok(said) = tokio::time::timeout(Duration::from_millis(50), stays.message()).await {
        said.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_agent_is_the_one_that_its_token_is_for() {
    let plane = Plane::start().await;
    let secret = token(Role::Agent).into();
    let bearer = Bearer::token(&secret).unwrap();
    let channel = InterceptedService::new(plane.channel.clone(), bearer);
    let mut agents = AgentServiceClient::new(channel.clone());
    let mut telemetry = TelemetryServiceClient::new(channel);
    for (agent_id, code) in [("a-2", Some(Code::PermissionDenied)), ("a-1", None)] {
        let hello = Hello { agent_id: agent_id.to_owned(), incarnation: "1".to_owned(), ..Hello::default() };
        let hello = SyncRequest { message: Some(sync_request::Message::Hello(hello)) };
        // The stream stays open, or an agent that is let in is sent nothing.
        let requests = tokio_stream::iter([hello]).chain(futures_util::stream::pending());
        let mut answers = agents.sync(requests).await.unwrap().into_inner();
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap();
        assert_eq!(answer.err().map(|status| status.code()), code, "{agent_id}");

        let report = StreamReportsRequest {
            agent_id: agent_id.to_owned(),
            incarnation: "1".to_owned(),
            seq: 1,
            ..StreamReportsRequest::default()
        };
        let mut answers = telemetry.stream_reports(tokio_stream::once(report)).await.unwrap().into_inner();
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap();
        assert_eq!(answer.err().map(|status| status.code()).filter(|_| code.is_some()), code, "{agent_id}");
    }
}

#[tokio::test]
async fn refusals_are_counted() {
    let plane = Plane::start().await;
    let read = "/trunkline.admin.v1.AdminService/GetStats";
    plane.refusal(read, Some("wrong-0123456789abcdef")).await;
    plane.refusal(read, None).await;
    plane.refusal(read, Some(&token(Role::Agent))).await;
    let (_, metrics) = https_get(&plane, "/metrics", None).await;
    for reason in ["unknown", "missing", "forbidden"] {
        let line = format!("trunkline_control_plane_calls_refused_total{{reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

/// Answers everything.
#[derive(Clone)]
struct Yes;

impl Service<http::Request<Body>> for Yes {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: http::Request<Body>) -> Self::Future {
        std::future::ready(Ok(http::Response::new(Body::empty())))
    }
}

#[tokio::test(start_paused = true)]
async fn who_tries_tokens_waits_and_who_has_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = security(directory.path()).0.load().unwrap().tokens;
    let repository = Repository::open(RepositoryOptions::default()).unwrap();
    let access = Access::new(tokens, repository, false, Refused::default());
    let mut guard = GuardLayer::new(access).layer(Yes);
    let mut call = async |token: &str| {
        let request = http::Request::get("/trunkline.admin.v1.AdminService/GetStats")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty())
            .unwrap();
        let began = tokio::time::Instant::now();
        guard.call(request).await.unwrap();
        began.elapsed()
    };
    // More than a slow machine refills meanwhile.
    let mut waited = Duration::ZERO;
    for _ in 0..50 {
        waited += call("wrong-0123456789abcdef").await;
    }
    assert!(waited >= super::limiter::DELAY, "{waited:?}");
    assert_eq!(call(&token(Role::Viewer)).await, Duration::ZERO);
}

#[tokio::test]
async fn apps_need_keys_beyond_loopback_even_while_none_are_configured() {
    let route = "/trunkline.routing.v1.RoutingService/Route";
    let open = |options: &mut Options| options.grpc = Listen::Address("0.0.0.0:0".parse().unwrap());
    let plane = Plane::with(open, false).await;
    let status = plane.refusal(route, None).await;
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("`api_keys`"), "{status}");

    let plane = Plane::with(|_| {}, false).await;
    let code = plane.call(route, None).await.map(drop).unwrap_err().code();
    assert_ne!(code, Code::Unauthenticated, "on loopback none are needed");
}

#[tokio::test]
async fn beyond_loopback_all_of_tls_and_tokens_are_needed() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, _) = security(directory.path());
    let open = || Listen::Address("0.0.0.0:0".parse().unwrap());
    for lacking in [
        Security { tls: None, ..whole.clone() },
        Security { admin_tokens: None, ..whole.clone() },
        Security { agent_tokens: None, ..whole.clone() },
        Security { tls: None, agent_tokens: None, ..whole.clone() },
    ] {
        let options = Options { grpc: open(), ..options(lacking, false) };
        let error = start(options, CancellationToken::new()).await.unwrap_err();
        assert!(matches!(error, StartError::Exposed(_)), "{error}");
    }
    let people = Security { admin_tokens: None, operator_tokens: None, viewer_tokens: None, ..whole.clone() };
    let options = Options { ops: open(), ..options(people, false) };
    let error = start(options, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("--viewer-token-file"), "{error}");
}

#[tokio::test]
async fn metrics_beyond_loopback_need_a_viewer_and_probes_do_not() {
    let plane = Plane::with(open_ops, true).await;
    let get = async |path: &str, role: Option<Role>| {
        let token = role.map(|role| format!("Bearer {}", token(role)));
        https_get(&plane, path, token).await.0
    };
    assert_eq!(get("/healthz", None).await, 200);
    assert_eq!(get("/readyz", None).await, 200);
    assert_eq!(get("/metrics", None).await, 401);
    for (role, status) in [(Role::Viewer, 200), (Role::Admin, 200), (Role::Agent, 401), (Role::App, 401)] {
        assert_eq!(get("/metrics", Some(role)).await, status, "{role}");
    }
}

/// Status and text of a page of the ops listener.
async fn https_get(plane: &Plane, path: &str, authorization: Option<String>) -> (u16, String) {
    let tls = plane.trust.client_config(Protocols::Http1).unwrap();
    let address = format!("127.0.0.1:{}", plane.running.ops_addr.port());
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let mut request = http::Request::get(path).header("host", "ops");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let body = http_body_util::Empty::<bytes::Bytes>::new();
    let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let text = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    drop(connection);
    (status, String::from_utf8(text.to_vec()).unwrap())
}
