//! What a caller can ask for in headers, and what the response headers tell.

use serde_json::json;
use trunkline_sdk::types::ExclusionReason;
use trunkline_tests::{
    agent::Agent,
    chat::{chat, chat_for},
    document::Document,
    provider::Provider,
    reply::Reply,
};

async fn send(agent: &Agent, header: (&str, &str), stream: bool) -> Reply {
    let request = agent.request("/v1/chat/completions", &chat(stream)).header(header.0, header.1);
    Reply::read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn response_headers_tell_the_decision_and_the_exact_cost() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    let reply = send(&agent, ("x-request-id", "mine-1"), false).await;
    assert_eq!(reply.header("x-request-id"), "mine-1");
    assert_eq!(reply.header("x-trunkline-deployment"), "alpha/m");
    assert_eq!(reply.header("x-trunkline-attempts"), "alpha/m:ok");
    assert_eq!(reply.header("x-trunkline-strategy"), "weighted");
    assert_eq!(reply.header("x-trunkline-revision"), "1");
    assert!(reply.header("x-upstream-request-id").starts_with("req_alpha_"), "{reply:?}");
    // 3 tokens of prompt at 1 and 10 of answer at 4 dollars per million.
    let usage = &reply.json()["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(3), &json!(10)));
    assert_eq!(reply.header("x-trunkline-cost-usd"), "0.000043");
    // The body is the provider's own, its model included.
    assert_eq!(reply.json()["model"], "m");
    assert_eq!(agent.decision(&reply).await.chosen, "alpha/m");

    let stream = agent.chat(true).await;
    assert!(!stream.header("x-request-id").is_empty());
    assert_eq!(stream.header("x-trunkline-deployment"), "alpha/m");
    assert_eq!(stream.header("x-trunkline-cost-usd"), "", "it is not known before the end");
    assert_ne!(stream.header("x-trunkline-decision"), reply.header("x-trunkline-decision"));
}

#[tokio::test]
async fn trace_context_is_sent_on_and_other_headers_are_not() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = agent.request("/v1/chat/completions", &chat(false));
    let request = request.header("traceparent", parent).header("tracestate", "a=b").header("cookie", "c=d");
    assert_eq!(Reply::read(request.send().await.unwrap()).await.status, 200);
    let seen = provider.last_seen();
    assert_eq!(seen.header("traceparent"), Some(parent));
    assert_eq!(seen.header("tracestate"), Some("a=b"));
    assert_eq!(seen.header("cookie"), None);
}

#[tokio::test]
async fn usage_is_asked_for_and_hidden_unless_the_caller_asked_too() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    let reply = agent.chat(true).await;
    assert!(!reply.body.contains("prompt_tokens"), "{reply:?}");
    let tokens = agent.decision(&reply).await.attempts[0].usage.unwrap();
    assert_eq!((tokens.input_tokens, tokens.output_tokens), (3, 10));

    let mut body = chat(true);
    body["stream_options"] = json!({"include_usage": true});
    let reply = agent.post("/v1/chat/completions", &body).await;
    assert!(reply.body.contains("prompt_tokens"), "{reply:?}");
}

#[tokio::test]
async fn least_quality_leaves_out_what_is_worse() {
    let (good, bad) = (Provider::start("good").await, Provider::start("bad").await);
    let document =
        Document::even(&[&good, &bad]).deployment("good", "quality: 0.9").deployment("bad", "quality: 0.5");
    let agent = Agent::alone(&document).await;
    for _ in 0..6 {
        let reply = send(&agent, ("x-trunkline-min-quality", "0.8"), false).await;
        assert_eq!(reply.header("x-trunkline-deployment"), "good/m", "{reply:?}");
        let excluded = &agent.decision(&reply).await.excluded[0];
        assert_eq!((excluded.deployment.as_str(), excluded.reason()), ("bad/m", ExclusionReason::Quality));
    }
    assert_eq!(bad.requests(), 0);
}

#[tokio::test]
async fn highest_cost_leaves_out_what_is_dearer() {
    let (dear, cheap) = (Provider::start("dear").await, Provider::start("cheap").await);
    let price = |usd: u32| format!("price: {{input_usd_per_mtok: {usd}, output_usd_per_mtok: {usd}}}");
    let document =
        Document::even(&[&dear, &cheap]).deployment("dear", &price(1_000)).deployment("cheap", &price(1));
    let agent = Agent::alone(&document).await;
    for _ in 0..6 {
        let reply = send(&agent, ("x-trunkline-max-cost-usd", "0.001"), false).await;
        assert_eq!(reply.header("x-trunkline-deployment"), "cheap/m", "{reply:?}");
        let excluded = &agent.decision(&reply).await.excluded[0];
        assert_eq!((excluded.deployment.as_str(), excluded.reason()), ("dear/m", ExclusionReason::Cost));
    }
    let reply = send(&agent, ("x-trunkline-max-cost-usd", "0.000000001"), false).await;
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (503, "no_target"));
}

#[tokio::test]
async fn tags_are_kept_with_the_decision() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    let reply = send(&agent, ("x-trunkline-tags", "team=search, feature=answers"), true).await;
    let tags = agent.decision(&reply).await.tags;
    assert_eq!(tags.len(), 2);
    assert_eq!((tags["team"].as_str(), tags["feature"].as_str()), ("search", "answers"));
}

#[tokio::test]
async fn knobs_that_make_no_sense_are_refused() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    for knob in [
        ("x-trunkline-timeout-ms", "soon"),
        ("x-trunkline-timeout-ms", "0"),
        ("x-trunkline-max-cost-usd", "-1"),
        ("x-trunkline-min-quality", "2"),
        ("x-trunkline-tags", "team"),
    ] {
        let reply = send(&agent, knob, false).await;
        assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (400, "invalid_header"), "{knob:?}");
        assert_eq!(reply.json()["error"]["param"], knob.0);
    }
    assert_eq!(provider.requests(), 0);
}

#[tokio::test]
async fn a_pin_goes_to_its_deployment_only() {
    let (alpha, beta) = (Provider::start("alpha").await, Provider::start("beta").await);
    let agent = Agent::alone(&Document::even(&[&alpha, &beta])).await;
    for _ in 0..4 {
        let reply = agent.post("/v1/chat/completions", &chat_for("beta/m", false)).await;
        assert_eq!(reply.header("x-trunkline-attempts"), "beta/m:ok");
    }
    assert_eq!((alpha.requests(), beta.requests()), (0, 4));
}
