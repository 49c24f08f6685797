//! A caller that leaves, in every phase: the provider's work is cancelled at once, and
//! nobody else is asked.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::Value;
use trunkline_sdk::types::OutcomeClass;
use trunkline_simulator::live::Fault;
use trunkline_tests::{
    agent::Agent,
    chat::{chat, long_stream},
    document::Document,
    patience::within,
    provider::Provider,
};

/// The promise is one second; twice that tells it from every time limit in these
/// tests (the shortest is 10 s) and lets a busy machine be busy.
const CANCELLED_WITHIN: Duration = Duration::from_secs(2);

async fn two(first: Provider) -> (Provider, Provider, Agent) {
    let second = Provider::start("second").await;
    let document = Document::chain(&[&first, &second]).timeouts("first_token: 30s");
    let agent = Agent::alone(&document).await;
    (first, second, agent)
}

async fn cancelled_at_once(first: &Provider, second: &Provider, agent: &Agent) {
    let left = Instant::now();
    within("the provider to see the caller leave", first.live.wait_for(|counters| counters.cancelled == 1))
        .await;
    assert!(left.elapsed() < CANCELLED_WITHIN, "took {:?}", left.elapsed());
    // Whatever the agent still had to do for it came before this request's end.
    first.fail(None);
    assert_eq!(agent.chat(false).await.header("x-trunkline-attempts"), "first/m:ok");
    assert_eq!((first.requests(), second.requests()), (2, 0));
}

/// The caller leaves while the provider keeps it waiting for a first byte.
async fn leaves_while_waiting(fault: Fault, body: Value) {
    let (first, second, agent) = two(Provider::start("first").await).await;
    first.fail(fault);
    let request = tokio::spawn(agent.request("/v1/chat/completions", &body).send());
    within("the request to arrive", first.live.wait_for(|counters| counters.in_flight == 1)).await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    cancelled_at_once(&first, &second, &agent).await;
}

#[tokio::test]
async fn while_a_whole_answer_is_awaited() {
    leaves_while_waiting(Fault::Silent, chat(false)).await;
}

#[tokio::test]
async fn before_the_head_of_a_stream() {
    leaves_while_waiting(Fault::Silent, chat(true)).await;
}

#[tokio::test]
async fn before_the_first_token() {
    leaves_while_waiting(Fault::RoleThenSilent, chat(true)).await;
}

#[tokio::test]
async fn in_the_middle_of_a_stream() {
    let (first, second, agent) = two(Provider::slow("first", 3_000, 0.02).await).await;
    let response = agent.open(&long_stream(3_000)).await;
    let decision_id = response.headers()["x-trunkline-decision"].to_str().unwrap().to_owned();
    let mut chunks = response.bytes_stream();
    within("the first piece", chunks.next()).await.unwrap().unwrap();
    drop(chunks);
    let left = Instant::now();
    within("the provider to see the caller leave", first.live.wait_for(|counters| counters.cancelled == 1))
        .await;
    assert!(left.elapsed() < CANCELLED_WITHIN, "took {:?}", left.elapsed());
    assert_eq!((first.requests(), second.requests()), (1, 0));
    let decision = agent.sdk().await.explain_decision(decision_id).await.unwrap();
    assert_eq!(decision.attempts[0].outcome(), OutcomeClass::Cancelled, "{decision:?}");
}

#[tokio::test]
async fn over_grpc() {
    use trunkline_sdk::{CompleteRequestExt as _, types::CompleteRequest};

    let (first, second, agent) = two(Provider::slow("first", 3_000, 0.02).await).await;
    let sdk = agent.sdk().await;
    let request = CompleteRequest::user("chat", "hello").max_output_tokens(3_000);
    let mut events = sdk.stream_complete(request).await.unwrap();
    within("the first event", events.next()).await.unwrap().unwrap();
    drop(events);
    let left = Instant::now();
    within("the provider to see the caller leave", first.live.wait_for(|counters| counters.cancelled == 1))
        .await;
    assert!(left.elapsed() < CANCELLED_WITHIN, "took {:?}", left.elapsed());
    assert_eq!(second.requests(), 0);
}
