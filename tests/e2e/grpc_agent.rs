//! The routing service of an agent: every call of it, as a service makes them.

use trunkline_sdk::{
    Client, CompleteRequestExt as _, CompleteResponseExt as _, Error, RouteRequestExt as _,
    types::{
        BreakerState, CompleteRequest, CostSource, Decision, Event, OutcomeClass, ReportOutcomeRequest,
        RouteRequest, WatchRoutesResponse,
    },
};
use trunkline_simulator::live::Fault;
use trunkline_tests::{
    agent::Agent,
    control_plane::ControlPlane,
    document::Document,
    patience::{until, within},
    provider::{ANSWER, Provider},
};

async fn pair() -> (Provider, Provider, Agent, Client) {
    let (alpha, beta) = (Provider::start("alpha").await, Provider::start("beta").await);
    let agent = Agent::alone(&Document::even(&[&alpha, &beta])).await;
    let sdk = agent.sdk().await;
    (alpha, beta, agent, sdk)
}

fn request() -> CompleteRequest {
    CompleteRequest::user("chat", "hello, world").max_output_tokens(16)
}

fn order(decision: &Decision) -> Vec<&str> {
    decision.candidates.iter().map(|candidate| candidate.deployment.as_str()).collect()
}

#[tokio::test]
async fn route_tells_the_order_and_alternates() {
    let (alpha, beta, _agent, sdk) = pair().await;
    let mut firsts = Vec::new();
    for _ in 0..4 {
        let response = sdk.route(RouteRequest::model("chat")).await.unwrap();
        let decision = response.decision.unwrap();
        assert_eq!(order(&decision).len(), 2, "{decision:?}");
        assert!(decision.candidates.iter().all(|one| one.breaker_state() == BreakerState::Closed));
        assert!((decision.candidates[0].probability - 0.5).abs() < 1e-9, "{decision:?}");
        assert!(response.valid_for.is_some());
        firsts.push(order(&decision)[0].to_owned());
        let explained = sdk.explain_decision(decision.decision_id.as_str()).await.unwrap();
        assert_eq!(explained, decision);
    }
    firsts.sort_unstable();
    assert_eq!(firsts, ["alpha/m", "alpha/m", "beta/m", "beta/m"]);
    assert_eq!((alpha.requests(), beta.requests()), (0, 0), "Route sends nothing");
    let unknown = sdk.route(RouteRequest::model("nonesuch")).await;
    assert!(matches!(unknown, Err(Error::NotFound(_))), "{unknown:?}");
}

#[tokio::test]
async fn complete_returns_the_whole_answer_with_failover() {
    let (alpha, _beta, _agent, sdk) = pair().await;
    alpha.fail(Fault::status(502));
    for _ in 0..2 {
        let answer = sdk.complete(request()).await.unwrap();
        assert_eq!((answer.text(), answer.finish_reason.as_str()), (ANSWER, "stop"));
        let usage = answer.usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (3, 10));
        assert_eq!(usage.source(), CostSource::Provider);
        let decision = answer.decision.unwrap();
        assert_eq!(decision.chosen, "beta/m");
        let last = decision.attempts.last().unwrap();
        assert_eq!((last.outcome(), last.cost_nano_usd), (OutcomeClass::Ok, Some(43_000)));
    }
    assert_eq!(alpha.requests(), 1);
}

#[tokio::test]
async fn stream_complete_is_started_deltas_finished() {
    let (alpha, _beta, _agent, sdk) = pair().await;
    alpha.fail(Fault::status(502));
    for _ in 0..2 {
        let mut events = sdk.stream_complete(request()).await.unwrap();
        let Some(Ok(Event::Started(started))) = events.next().await else { panic!("no started") };
        assert_eq!(started.decision.unwrap().chosen, "beta/m");
        let (mut text, mut finished) = (String::new(), None);
        while let Some(event) = within("an event", events.next()).await {
            match event.unwrap() {
                Event::Delta(delta) => text.push_str(&delta.content),
                Event::Finished(last) => finished = Some(last),
                Event::Started(_) => panic!("started twice"),
            }
        }
        let finished = finished.unwrap();
        assert_eq!((text.as_str(), finished.finish_reason.as_str()), (ANSWER, "stop"));
        assert_eq!(finished.usage.unwrap().output_tokens, 10);
    }
}

#[tokio::test]
async fn stream_that_breaks_off_is_a_status_after_the_deltas() {
    let provider = Provider::talkative("alpha", 100).await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    let sdk = agent.sdk().await;
    provider.fail(Fault::CutAfterTokens(40));
    let mut events = sdk.stream_complete(request().max_output_tokens(100)).await.unwrap();
    let (mut deltas, mut failures) = (0, Vec::new());
    while let Some(event) = within("an event", events.next()).await {
        match event {
            Ok(Event::Started(_)) => assert_eq!(deltas, 0),
            Ok(Event::Delta(_)) => deltas += 1,
            Ok(Event::Finished(_)) => panic!("an answer that broke off is not finished"),
            Err(error) => failures.push(error),
        }
    }
    assert_eq!(deltas, 40);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(matches!(failures[0], Error::Unavailable(_)), "{failures:?}");
}

#[tokio::test]
async fn deadline_of_the_call_is_kept() {
    let (alpha, beta, _agent, sdk) = pair().await;
    alpha.fail(Fault::Silent);
    beta.fail(Fault::Silent);
    let sdk = sdk.with_deadline(std::time::Duration::from_millis(400));
    let outcome = within("the deadline", Box::pin(sdk.complete(request()))).await;
    assert!(matches!(outcome, Err(Error::DeadlineExceeded { .. })), "{outcome:?}");
}

#[tokio::test]
async fn reported_outcomes_open_the_breaker() {
    let (alpha, beta, agent, sdk) = pair().await;
    for _ in 0..5 {
        let decision = sdk.route(RouteRequest::model("chat")).await.unwrap().decision.unwrap();
        let outcome = ReportOutcomeRequest {
            decision_id: decision.decision_id.clone(),
            deployment: "alpha/m".to_owned(),
            status: 502,
            ..ReportOutcomeRequest::default()
        };
        sdk.report_outcome(outcome).await.unwrap();
        let explained = sdk.explain_decision(decision.decision_id).await.unwrap();
        assert_eq!(explained.attempts[0].outcome(), OutcomeClass::Unavailable, "{explained:?}");
    }
    let decision = sdk.route(RouteRequest::model("chat")).await.unwrap().decision.unwrap();
    assert_eq!(order(&decision)[0], "beta/m", "{decision:?}");
    for _ in 0..4 {
        assert_eq!(agent.chat(false).await.header("x-trunkline-attempts"), "beta/m:ok");
    }
    assert_eq!((alpha.requests(), beta.requests()), (0, 4));
}

#[tokio::test]
async fn outcome_of_another_deployment_is_refused() {
    let (_alpha, _beta, _agent, sdk) = pair().await;
    let decision = sdk.route(RouteRequest::model("alpha/m")).await.unwrap().decision.unwrap();
    let outcome = |decision_id: &str, deployment: &str| ReportOutcomeRequest {
        decision_id: decision_id.to_owned(),
        deployment: deployment.to_owned(),
        status: 200,
        ..ReportOutcomeRequest::default()
    };
    let stranger = sdk.report_outcome(outcome(&decision.decision_id, "beta/m")).await;
    assert!(matches!(stranger, Err(Error::InvalidRequest(_))), "{stranger:?}");
    let unknown = sdk.report_outcome(outcome("nonesuch", "alpha/m")).await;
    assert!(matches!(unknown, Err(Error::NotFound(_))), "{unknown:?}");
    sdk.report_outcome(outcome(&decision.decision_id, "alpha/m")).await.unwrap();
}

#[tokio::test]
async fn watch_sees_what_an_operator_forces() {
    let (alpha, beta) = (Provider::start("alpha").await, Provider::start("beta").await);
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    admin.apply(&Document::weighted(&[(&alpha, 70), (&beta, 30)])).await;
    let agent = Agent::following(&control_plane.url);
    agent.ready().await;
    let mut watch = agent.sdk().await.watch_routes(["chat"]).await.unwrap();
    let share = |state: &WatchRoutesResponse, deployment: &str| {
        let target = state.routes[0].targets.iter().find(|target| target.deployment == deployment);
        let target = target.unwrap();
        (target.share, target.breaker_state())
    };
    let mut next = async || within("a state", watch.next()).await.unwrap().unwrap();
    let first = next().await;
    let (of_alpha, state) = share(&first, "alpha/m");
    assert!((of_alpha - 0.7).abs() < 1e-9 && state == BreakerState::Closed, "{first:?}");

    admin.set_breaker("alpha/m", BreakerState::ForcedOpen, None).await;
    let forced =
        until("the forced state", next, |seen| share(seen, "alpha/m").1 == BreakerState::ForcedOpen).await;
    assert!(share(&forced, "alpha/m").0.abs() < 1e-9, "{forced:?}");
    assert!((share(&forced, "beta/m").0 - 1.0).abs() < 1e-9, "{forced:?}");
}
