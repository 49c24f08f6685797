//! gRPC calls: what is counted, reported and watched.

use tonic::{Code, Request};
use trunkline_proto::routing::v1::{
    CompleteRequest, ExplainDecisionRequest, Message, ReportOutcomeRequest, RouteRequest,
    StreamCompleteRequest, WatchRoutesRequest, routing_service_client::RoutingServiceClient,
};

use super::*;

fn complete(model: &str) -> CompleteRequest {
    let message = Message { role: "user".to_owned(), content: "hi".to_owned(), ..Message::default() };
    CompleteRequest { model: model.to_owned(), messages: vec![message], ..CompleteRequest::default() }
}

fn route() -> RouteRequest {
    RouteRequest { model: "chat".to_owned(), ..RouteRequest::default() }
}

#[tokio::test]
async fn calls_are_counted_by_how_they_ended() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut client = RoutingServiceClient::new(agent.grpc().await);
    client.route(route()).await.unwrap();
    client.complete(complete("chat")).await.unwrap();
    client.complete(complete("nonesuch")).await.unwrap_err();
    client.stream_complete(StreamCompleteRequest { request: None }).await.unwrap_err();
    for (route, status) in [("route", 200), ("complete", 200), ("complete", 404), ("stream_complete", 400)] {
        let line = format!("trunkline_agent_requests_total{{route=\"{route}\",status=\"{status}\"}} 1");
        agent.counted(&line).await;
    }
}

#[tokio::test]
async fn running_call_is_in_flight_and_a_client_that_left_is_counted() {
    let mut provider = Provider::start(Play::Silence).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut client = RoutingServiceClient::new(agent.grpc().await);
    let stream = StreamCompleteRequest { request: Some(complete("chat")) };
    let call =
        AbortOnDropHandle::new(tokio::spawn(async move { client.stream_complete(stream).await.map(drop) }));
    provider.until(|seen| seen.0 == 1).await;
    agent.counted("trunkline_agent_in_flight 1").await;
    drop(call);
    agent.counted("trunkline_agent_requests_total{route=\"stream_complete\",status=\"499\"} 1").await;
    agent.counted("trunkline_agent_in_flight 0").await;
}

#[tokio::test]
async fn report_on_attempts_of_the_agent_is_refused() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut client = RoutingServiceClient::new(agent.grpc().await);
    let decision = client.complete(complete("chat")).await.unwrap().into_inner().decision.unwrap();
    let report = ReportOutcomeRequest {
        decision_id: decision.decision_id,
        deployment: "p0/m".to_owned(),
        status: 500,
        ..ReportOutcomeRequest::default()
    };
    let refused = client.report_outcome(report).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
}

#[tokio::test]
async fn report_that_is_sent_again_counts_once() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut client = RoutingServiceClient::new(agent.grpc().await);
    let decision = client.route(route()).await.unwrap().into_inner().decision.unwrap();
    let mut report = ReportOutcomeRequest {
        decision_id: decision.decision_id.clone(),
        deployment: "p0/m".to_owned(),
        status: 500,
        ..ReportOutcomeRequest::default()
    };
    client.report_outcome(report.clone()).await.unwrap();
    client.report_outcome(report.clone()).await.unwrap();
    let explain = ExplainDecisionRequest { decision_id: decision.decision_id };
    let explained = client.explain_decision(explain).await.unwrap().into_inner().decision.unwrap();
    assert_eq!(explained.attempts.len(), 1, "{explained:?}");
    let mut refused = None;
    for millis in 1..100 {
        report.duration = Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 });
        refused = client.report_outcome(report.clone()).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused.unwrap().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn report_on_a_call_of_the_app_uses_up_no_limit_of_the_agent() {
    let provider = Provider::start(Play::Answer).await;
    let limited =
        document(&[&provider], "").replace("{name: m}", "{name: m, limits: {requests_per_minute: 1}}");
    let agent = Agent::start(&limited, Limits::default()).await;
    let mut client = RoutingServiceClient::new(agent.grpc().await);
    let decision = client.route(route()).await.unwrap().into_inner().decision.unwrap();
    let report = ReportOutcomeRequest {
        decision_id: decision.decision_id,
        deployment: "p0/m".to_owned(),
        status: 200,
        ..ReportOutcomeRequest::default()
    };
    client.report_outcome(report).await.unwrap();
    let decision = client.complete(complete("chat")).await.unwrap().into_inner().decision.unwrap();
    assert_eq!(decision.attempts.len(), 1, "{decision:?}");
}

fn watch_of(models: Vec<String>, secret: &str) -> Request<WatchRoutesRequest> {
    let mut request = Request::new(WatchRoutesRequest { models });
    request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
    request
}

#[tokio::test]
async fn watch_shows_what_the_key_allows_and_no_more() {
    let provider = Provider::start(Play::Answer).await;
    let more = format!(
        "  - name: other\n    tiers: [{{targets: [{{deployment: p0/m, weight: 1}}]}}]\napi_keys:\n{}{}",
        api_key("some", "secret-of-some", "chat"),
        api_key("every", "secret-of-every", "chat, other"),
    );
    let agent = Agent::start(&document(&[&provider], &more), Limits::default()).await;
    let mut client = RoutingServiceClient::new(agent.grpc().await);
    for (secret, seen) in [("secret-of-some", 1), ("secret-of-every", 2)] {
        let mut watch = client.watch_routes(watch_of(Vec::new(), secret)).await.unwrap().into_inner();
        let state = within(watch.message()).await.unwrap().unwrap();
        assert_eq!(state.routes.len(), seen, "{state:?}");
    }
    for (models, code) in [
        (vec!["other".to_owned()], Code::PermissionDenied),
        (vec!["nonesuch".to_owned()], Code::NotFound),
        (vec!["chat".to_owned(); 1_001], Code::InvalidArgument),
    ] {
        let refused = client.watch_routes(watch_of(models, "secret-of-some")).await.err().unwrap();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
}
