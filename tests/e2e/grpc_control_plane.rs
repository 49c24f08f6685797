//! The routing service of the control plane, for services without an agent.

use trunkline_proto::routing::v1::routing_service_client::RoutingServiceClient;
use trunkline_sdk::{
    Client, Code, CompleteRequestExt as _, CompleteResponseExt as _, RouteRequestExt as _,
    types::{CompleteRequest, Event, OutcomeClass, ReportOutcomeRequest, RouteRequest},
};
use trunkline_tests::{
    agent::Agent,
    control_plane::ControlPlane,
    document::Document,
    patience::{until, within},
    provider::{ANSWER, Provider},
};

fn request() -> CompleteRequest {
    CompleteRequest::user("chat", "hello, world").max_output_tokens(16)
}

#[tokio::test]
async fn complete_names_the_agents_and_the_sdk_follows() {
    let provider = Provider::start("alpha").await;
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    admin.apply(&Document::even(&[&provider])).await;
    let agent = Agent::following(&control_plane.url);
    admin.agents_hold(1, 1).await;

    let mut raw = RoutingServiceClient::connect(control_plane.url.clone()).await.unwrap();
    let refused = raw.complete(request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    let details = tonic_types::StatusExt::get_error_details(&refused);
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "AGENT_REQUIRED");
    assert_eq!(info.metadata["agents"], agent.url);

    let sdk = Client::connect(control_plane.url.as_str()).await.unwrap();
    assert_eq!(sdk.complete(request()).await.unwrap().text(), ANSWER);
    let mut events = sdk.stream_complete(request()).await.unwrap();
    let mut text = String::new();
    while let Some(event) = within("an event", events.next()).await {
        if let Event::Delta(delta) = event.unwrap() {
            text.push_str(&delta.content);
        }
    }
    assert_eq!(text, ANSWER);
    assert_eq!(provider.requests(), 2);
}

#[tokio::test]
async fn route_and_report_work_without_any_agent() {
    let (alpha, beta) = (Provider::start("alpha").await, Provider::start("beta").await);
    let control_plane = ControlPlane::start();
    control_plane.admin().await.apply(&Document::even(&[&alpha, &beta])).await;
    let sdk = Client::connect(control_plane.url.as_str()).await.unwrap();
    let decide = async || sdk.route(RouteRequest::model("chat")).await.unwrap().decision.unwrap();
    let decision = decide().await;
    assert_eq!(decision.candidates.len(), 2, "{decision:?}");

    for _ in 0..5 {
        let decision = decide().await;
        let outcome = ReportOutcomeRequest {
            decision_id: decision.decision_id.clone(),
            deployment: "alpha/m".to_owned(),
            outcome: OutcomeClass::Connect.into(),
            ..ReportOutcomeRequest::default()
        };
        sdk.report_outcome(outcome).await.unwrap();
        let explained = sdk.explain_decision(decision.decision_id).await.unwrap();
        assert_eq!(explained.attempts[0].outcome(), OutcomeClass::Connect, "{explained:?}");
    }
    let first = async || decide().await.candidates[0].deployment.clone();
    until("the failing target to be avoided", first, |first| first == "beta/m").await;
    assert_eq!(first().await, "beta/m");
    assert_eq!((alpha.requests(), beta.requests()), (0, 0));
}
