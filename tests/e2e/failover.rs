//! Two providers, one of them in turn faulty: the caller gets the whole answer every
//! time, streamed or not, and never waits for a provider that hangs.

use std::time::{Duration, Instant};

use serde_json::json;
use trunkline_simulator::live::{ErrorBody, Fault};
use trunkline_tests::{
    agent::Agent,
    document::Document,
    provider::{ANSWER, Provider},
};

/// Requests of each kind with each provider faulty: enough to meet the faulty one
/// while its breaker is closed, and to go on after it opened.
const REQUESTS: usize = 8;

/// A hanging provider would be waited for until the deadline of 60 s. With
/// `first_token` at 300 ms, 320 ms assumed for a whole answer of 16 tokens and the
/// other provider at once, this is generous for the slowest machine.
const HANGING_COSTS_AT_MOST: Duration = Duration::from_secs(8);

/// Every request is answered whole, whichever provider has the fault.
async fn check(fault: Fault) {
    for faulty in 0..2 {
        let providers = [Provider::start("alpha").await, Provider::start("beta").await];
        let document =
            Document::even(&[&providers[0], &providers[1]]).timeouts("first_token: 300ms, idle: 5s");
        let agent = Agent::alone(&document).await;
        providers[faulty].fail(fault.clone());
        for at in 0..REQUESTS {
            for stream in [false, true] {
                let began = Instant::now();
                let reply = agent.chat(stream).await;
                let took = began.elapsed();
                assert_eq!(reply.status, 200, "request {at}: {reply:?}");
                assert_eq!(reply.text(), ANSWER, "request {at}: {reply:?}");
                assert!(reply.ended_cleanly, "request {at}: {reply:?}");
                assert!(took < HANGING_COSTS_AT_MOST, "request {at} took {took:?}: {reply:?}");
                if stream {
                    assert!(reply.errors().is_empty(), "request {at}: {reply:?}");
                    assert!(reply.has_done() || fault == Fault::MissingDone, "request {at}: {reply:?}");
                }
            }
        }
        assert!(providers[faulty].requests() > 0, "the faulty provider was never tried");
    }
}

fn rate_limited(retry_after: Option<&str>) -> Fault {
    let retry_after = retry_after.map(str::to_owned);
    Fault::Status { code: 429, body: ErrorBody::usual(429), retry_after }
}

#[tokio::test]
async fn internal_errors() {
    check(Fault::status(500)).await;
}

#[tokio::test]
async fn unavailable() {
    check(Fault::status(503)).await;
}

#[tokio::test]
async fn rate_limit_with_retry_after() {
    check(rate_limited(Some("2"))).await;
}

#[tokio::test]
async fn rate_limit_without_retry_after() {
    check(rate_limited(None)).await;
}

#[tokio::test]
async fn key_refused() {
    check(Fault::status(401)).await;
}

#[tokio::test]
async fn connection_reset() {
    check(Fault::Reset).await;
}

#[tokio::test]
async fn page_instead_of_an_answer() {
    check(Fault::Html200).await;
}

#[tokio::test]
async fn error_as_the_first_event() {
    check(Fault::FirstEventError { code: json!("server_error") }).await;
    check(Fault::FirstEventError { code: json!(502) }).await;
}

#[tokio::test]
async fn silence() {
    check(Fault::Silent).await;
}

#[tokio::test]
async fn twenty_seconds_to_the_first_token() {
    check(Fault::SlowFirstToken(Duration::from_secs(20))).await;
}

#[tokio::test]
async fn silence_after_the_head() {
    check(Fault::HeadersThenSilent).await;
}

#[tokio::test]
async fn silence_after_the_role() {
    check(Fault::RoleThenSilent).await;
}

#[tokio::test]
async fn empty_answers() {
    check(Fault::Empty).await;
}

#[tokio::test]
async fn malformed_answers() {
    check(Fault::Malformed).await;
}

#[tokio::test]
async fn answers_without_done() {
    check(Fault::MissingDone).await;
}

#[tokio::test]
async fn reset_in_the_middle_of_a_whole_answer() {
    let providers = [Provider::start("alpha").await, Provider::start("beta").await];
    let agent = Agent::alone(&Document::even(&[&providers[0], &providers[1]])).await;
    providers[0].fail(Fault::ResetMidBody);
    for _ in 0..REQUESTS {
        let reply = agent.chat(false).await;
        assert_eq!(reply.text(), ANSWER, "{reply:?}");
    }
}

#[tokio::test]
async fn dripping_bytes_are_an_answer_all_the_same() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    provider.fail(Fault::DripBytes);
    for stream in [false, true] {
        let reply = agent.chat(stream).await;
        assert_eq!(reply.text(), ANSWER, "{reply:?}");
    }
    assert_eq!(provider.requests(), 2);
}

#[tokio::test]
async fn lower_tier_takes_over_when_the_upper_one_is_out() {
    let (upper, lower) = (Provider::start("upper").await, Provider::start("lower").await);
    let agent = Agent::alone(&Document::chain(&[&upper, &lower])).await;
    assert_eq!(agent.chat(false).await.header("x-trunkline-deployment"), "upper/m");
    upper.fail(Fault::status(502));
    for stream in [false, true] {
        let reply = agent.chat(stream).await;
        assert_eq!(reply.header("x-trunkline-attempts"), "upper/m:502,lower/m:ok");
        assert_eq!(reply.text(), ANSWER, "{reply:?}");
    }
}
