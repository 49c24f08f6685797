//! RoutingService on the control plane, reflection and the ops listener over sockets.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tonic_types::StatusExt as _;
use trunkline_proto::{
    admin::v1::{GetStatsRequest, SetBreakerRequest},
    agent::v1::{Hello, SyncRequest, SyncResponse, agent_service_client::AgentServiceClient, sync_request},
    routing::v1::{
        CompleteRequest, ExplainDecisionRequest, ReportOutcomeRequest, RouteRequest, StreamCompleteRequest,
        WatchRoutesRequest, routing_service_client::RoutingServiceClient,
    },
    types::v1::{BreakerState, Decision, ExclusionReason, OutcomeClass, Usage},
};

use crate::support::{DOCUMENT, PATIENCE, Plane, apply, config};

fn client(plane: &Plane) -> RoutingServiceClient<Channel> {
    RoutingServiceClient::new(plane.channel.clone())
}

async fn route(plane: &Plane, model: &str) -> Decision {
    let request = RouteRequest { model: model.into(), ..Default::default() };
    client(plane).route(request).await.unwrap().into_inner().decision.unwrap()
}

#[tokio::test]
async fn a_hundred_routes_are_shared_exactly() {
    let plane = Plane::configured().await;
    let mut first: HashMap<String, u32> = HashMap::new();
    for _ in 0..100 {
        let decision = route(&plane, "chat").await;
        assert_eq!(decision.candidates.len(), 2);
        *first.entry(decision.candidates[0].deployment.clone()).or_default() += 1;
    }
    assert_eq!((first["one/small"], first["two/small"]), (70, 30));
    let pinned = route(&plane, "one/large").await;
    assert_eq!(pinned.candidates[0].deployment, "one/large");
    let unknown = RouteRequest { model: "nope".into(), ..Default::default() };
    assert_eq!(client(&plane).route(unknown).await.unwrap_err().code(), Code::NotFound);
    plane.stop().await;
}

#[tokio::test]
async fn an_outcome_is_explained_and_counted() {
    let mut plane = Plane::configured().await;
    let decision = route(&plane, "chat").await;
    let usage = Usage { input_tokens: 1_000_000, output_tokens: 0, ..Default::default() };
    let report = |deployment: &str| ReportOutcomeRequest {
        decision_id: decision.decision_id.clone(),
        deployment: deployment.into(),
        outcome: OutcomeClass::Ok.into(),
        usage: Some(usage),
        ..Default::default()
    };
    client(&plane).report_outcome(report("one/small")).await.unwrap();
    let foreign = client(&plane).report_outcome(report("one/large")).await.unwrap_err();
    assert_eq!(foreign.code(), Code::InvalidArgument);
    let explain = ExplainDecisionRequest { decision_id: decision.decision_id.clone() };
    let explained = client(&plane).explain_decision(explain).await.unwrap().into_inner().decision.unwrap();
    assert_eq!((explained.chosen.as_str(), explained.attempts.len()), ("one/small", 1));
    let stats = plane.admin.get_stats(GetStatsRequest::default()).await.unwrap().into_inner();
    let row = stats.rows.iter().find(|row| row.deployment == "one/small").unwrap();
    assert_eq!((row.attempts, row.successes, row.cost_nano_usd), (1, 1, 1_000_000_000));
    plane.stop().await;
}

#[tokio::test]
async fn failures_and_operators_take_targets_out_and_watchers_see_it() {
    let mut plane = Plane::configured().await;
    let watch = client(&plane).watch_routes(WatchRoutesRequest::default()).await.unwrap();
    let mut states = watch.into_inner();
    let start = states.message().await.unwrap().unwrap();
    assert_eq!(start.routes[0].targets.iter().map(|target| target.share).collect::<Vec<_>>(), [0.7, 0.3]);

    let decision = route(&plane, "chat").await;
    for _ in 0..5 {
        let report = ReportOutcomeRequest {
            decision_id: decision.decision_id.clone(),
            deployment: "one/small".into(),
            status: 503,
            ..Default::default()
        };
        client(&plane).report_outcome(report).await.unwrap();
    }
    let seen = states.message();
    let opened = tokio::time::timeout(PATIENCE, seen).await.unwrap().unwrap().unwrap();
    assert_eq!(opened.routes[0].targets[0].breaker_state(), BreakerState::Open);

    let state = BreakerState::ForcedOpen.into();
    let request = SetBreakerRequest { deployment: "two/small".into(), state, ..Default::default() };
    plane.admin.set_breaker(request).await.unwrap();
    let decision = route(&plane, "chat").await;
    let reasons: Vec<_> =
        decision.excluded.iter().map(trunkline_proto::types::v1::Exclusion::reason).collect();
    assert!(reasons.contains(&ExclusionReason::ForcedOpen), "{reasons:?}");
    drop(states);
    plane.stop().await;
}

#[tokio::test]
async fn completions_are_refused_with_the_agents_that_serve_them() {
    let plane = Plane::configured().await;
    let error = client(&plane).complete(CompleteRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let info = error.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["agents"].as_str()), ("AGENT_REQUIRED", ""));

    let agents = [connect_agent(&plane, "b").await, connect_agent(&plane, "a").await];
    let error = client(&plane).stream_complete(StreamCompleteRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("http://a:1"), "{}", error.message());
    assert_eq!(error.get_details_error_info().unwrap().metadata["agents"], "http://a:1,http://b:1");
    drop(agents);
    plane.stop().await;
}

/// An agent that said Hello; it is connected until dropped.
async fn connect_agent(plane: &Plane, id: &str) -> (mpsc::Sender<SyncRequest>, Streaming<SyncResponse>) {
    let advertise = format!("http://{id}:1");
    let hello = Hello { agent_id: id.into(), incarnation: "i".into(), advertise, ..Hello::default() };
    let (outbox, messages) = mpsc::channel(1);
    outbox.send(SyncRequest { message: Some(sync_request::Message::Hello(hello)) }).await.unwrap();
    let stream = AgentServiceClient::new(plane.channel.clone()).sync(ReceiverStream::new(messages)).await;
    let mut stream = stream.unwrap().into_inner();
    // The welcome: it is known now.
    stream.message().await.unwrap().unwrap();
    (outbox, stream)
}

#[tokio::test]
async fn configured_keys_are_required() {
    let mut plane = Plane::empty().await;
    let other = "  - {name: other, strategy: STRATEGY_WEIGHTED, \
                 tiers: [{targets: [{deployment: one/large, weight: 1}]}]}\n";
    // The SHA-256 of "secret".
    let keys = "api_keys: [{name: team, allowed_models: [chat], \
                secret_sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}]\n";
    plane.admin.apply_config(apply(config(&format!("{DOCUMENT}{other}{keys}")))).await.unwrap();
    let request = |model: &str, key: &str| {
        let mut request = Request::new(RouteRequest { model: model.into(), ..Default::default() });
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        request
    };
    let wrong = client(&plane).route(request("chat", "guess")).await.unwrap_err();
    assert_eq!(wrong.code(), Code::Unauthenticated);
    let pinned = client(&plane).route(request("one/small", "secret")).await.unwrap_err();
    assert_eq!(pinned.code(), Code::PermissionDenied);
    let decision =
        client(&plane).route(request("chat", "secret")).await.unwrap().into_inner().decision.unwrap();
    assert_eq!(decision.tenant, "team");

    let complete = client(&plane).complete(CompleteRequest::default()).await.unwrap_err();
    assert_eq!(complete.code(), Code::Unauthenticated);
    let mut watch = Request::new(WatchRoutesRequest::default());
    watch.metadata_mut().insert("x-api-key", "secret".parse().unwrap());
    let mut states = client(&plane).watch_routes(watch).await.unwrap().into_inner();
    let routes = states.message().await.unwrap().unwrap().routes;
    assert_eq!(routes.iter().map(|route| route.model.as_str()).collect::<Vec<_>>(), ["chat"]);
    // A key that is taken away sees nothing any more.
    let keys = keys.replace("name: team", "name: others");
    plane.admin.apply_config(apply(config(&format!("{DOCUMENT}{other}{keys}")))).await.unwrap();
    let after = tokio::time::timeout(PATIENCE, states.message()).await.unwrap();
    assert!(after.unwrap().unwrap().routes.is_empty());
    plane.stop().await;
}

#[tokio::test]
async fn all_services_are_healthy() {
    let plane = Plane::empty().await;
    let mut health = HealthClient::new(plane.channel.clone());
    for service in [
        "",
        "trunkline.admin.v1.AdminService",
        "trunkline.agent.v1.AgentService",
        "trunkline.routing.v1.RoutingService",
        "trunkline.telemetry.v1.TelemetryService",
    ] {
        let status = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(status.status(), ServingStatus::Serving, "{service}");
    }
    plane.stop().await;
}

#[tokio::test]
async fn administration_is_not_served_while_nothing_can_be_stored() {
    let dir = tempfile::tempdir().unwrap();
    let obstacle = obstruct(dir.path());
    let mut plane = Plane::on_disk(dir.path()).await;
    let mut health = HealthClient::new(plane.channel.clone());
    let request = |service: &str| HealthCheckRequest { service: service.into() };
    let watch = health.watch(request("trunkline.admin.v1.AdminService")).await.unwrap();
    let mut admin = watch.into_inner();
    await_status(&mut admin, ServingStatus::NotServing).await;
    let routing = health.check(request("trunkline.routing.v1.RoutingService")).await.unwrap();
    assert_eq!(routing.into_inner().status(), ServingStatus::Serving);

    std::fs::remove_dir(&obstacle).unwrap();
    plane.admin.apply_config(apply(config(DOCUMENT))).await.unwrap();
    await_status(&mut admin, ServingStatus::Serving).await;
    drop(admin);
    plane.stop().await;
}

/// Puts something where the store keeps its reserve of space.
pub(crate) fn obstruct(directory: &Path) -> PathBuf {
    let obstacle = directory.join("ballast");
    std::fs::create_dir(&obstacle).unwrap();
    obstacle
}

#[tokio::test]
async fn writes_are_refused_while_nothing_can_be_stored() {
    let dir = tempfile::tempdir().unwrap();
    obstruct(dir.path());
    let mut plane = Plane::on_disk(dir.path()).await;
    for _ in 0..2 {
        let error = plane.admin.apply_config(apply(config(DOCUMENT))).await.unwrap_err();
        let reason = error.get_details_error_info().unwrap().reason;
        assert_eq!((error.code(), reason.as_str()), (Code::Unavailable, "STORE_READ_ONLY"));
        assert!(error.get_details_retry_info().is_some());
    }
    plane.stop().await;
}

async fn await_status(states: &mut Streaming<HealthCheckResponse>, wanted: ServingStatus) {
    loop {
        let state = tokio::time::timeout(PATIENCE, states.message()).await.unwrap();
        if state.unwrap().unwrap().status() == wanted {
            return;
        }
    }
}

#[tokio::test]
async fn reflection_names_all_services_in_both_versions() {
    macro_rules! services {
        ($plane:expr, $version:ident) => {{
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let requests = tokio_stream::iter([request]);
            let mut client = ServerReflectionClient::new($plane.channel.clone());
            let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
            let answer = answers.message().await.unwrap().unwrap().message_response;
            let Some(MessageResponse::ListServicesResponse(listed)) = answer else { panic!("{answer:?}") };
            listed.service.into_iter().map(|service| service.name).collect::<BTreeSet<_>>()
        }};
    }
    let plane = Plane::empty().await;
    for services in [services!(plane, v1), services!(plane, v1alpha)] {
        for package in ["admin.v1.Admin", "agent.v1.Agent", "routing.v1.Routing", "telemetry.v1.Telemetry"] {
            assert!(services.contains(&format!("trunkline.{package}Service")), "{services:?}");
        }
        assert!(services.contains("grpc.health.v1.Health"), "{services:?}");
    }
    plane.stop().await;
}

#[tokio::test]
async fn the_ops_listener_answers() {
    let plane = Plane::configured().await;
    let get = async |path: &str| plane.page(path).await;
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/nope").await.starts_with("HTTP/1.1 404"));
    let metrics = get("/metrics").await;
    assert!(metrics.contains("trunkline_control_plane_config_revision 1"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    plane.stop().await;
}
