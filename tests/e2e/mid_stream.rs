//! After the first content no other target can take over: the caller gets what came,
//! exactly one error event, no `[DONE]`, and a body that ends as HTTP wants it.

use trunkline_sdk::types::OutcomeClass;
use trunkline_simulator::live::Fault;
use trunkline_tests::{
    agent::Agent, chat::long_stream, document::Document, provider::Provider, reply::Reply,
};

/// More than any fault here lets through.
const TOKENS: u64 = 100;

struct Broken {
    reply: Reply,
    agent: Agent,
    other: Provider,
}

/// One stream from a provider with this fault; another provider is at hand.
async fn broken(fault: Fault) -> Broken {
    let (faulty, other) = (Provider::talkative("faulty", TOKENS).await, Provider::start("other").await);
    let document = Document::chain(&[&faulty, &other]).timeouts("first_token: 10s, idle: 500ms");
    let agent = Agent::alone(&document).await;
    faulty.fail(fault);
    let reply = agent.post("/v1/chat/completions", &long_stream(TOKENS)).await;
    assert_eq!(faulty.requests(), 1);
    Broken { reply, agent, other }
}

impl Broken {
    fn tokens(&self) -> usize {
        let contents = self.reply.events().into_iter();
        contents
            .filter(|event| {
                event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty())
            })
            .count()
    }

    /// One error, at the end, and nothing that says the answer is whole.
    async fn is_told_once(&self) {
        let reply = &self.reply;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.ended_cleanly, "{reply:?}");
        assert!(!reply.has_done(), "{reply:?}");
        assert_eq!(reply.errors().len(), 1, "{reply:?}");
        let events = reply.events();
        let error = &events.last().unwrap()["error"];
        assert_eq!(error["type"], "upstream_error", "{reply:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{reply:?}");
        assert_eq!(self.other.requests(), 0, "nobody may continue another's sentence");
        let sdk = self.agent.sdk().await;
        let decision = sdk.explain_decision(reply.header("x-trunkline-decision")).await.unwrap();
        let outcomes: Vec<_> = decision.attempts.iter().map(trunkline_sdk::types::Attempt::outcome).collect();
        assert_eq!(outcomes, [OutcomeClass::MidStream], "{decision:?}");
    }
}

#[tokio::test]
async fn cut_after_forty_tokens() {
    let broken = broken(Fault::CutAfterTokens(40)).await;
    broken.is_told_once().await;
    assert_eq!(broken.tokens(), 40);
}

#[tokio::test]
async fn error_event_after_content() {
    let broken = broken(Fault::ErrorAfterTokens(5)).await;
    broken.is_told_once().await;
    assert_eq!(broken.tokens(), 5);
}

#[tokio::test]
async fn reset_in_the_middle() {
    let broken = broken(Fault::ResetMidBody).await;
    broken.is_told_once().await;
    assert!(broken.tokens() < TOKENS as usize);
}

#[tokio::test]
async fn stall_ends_after_the_idle_time() {
    let broken = broken(Fault::StallAfterTokens(7)).await;
    broken.is_told_once().await;
    assert_eq!(broken.tokens(), 7);
}
