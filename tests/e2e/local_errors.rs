//! Errors of the agent itself come in the contract's order: of all that is wrong with a
//! request, the first is told.

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
use trunkline_simulator::live::Fault;
use trunkline_tests::{
    agent::Agent,
    chat::{chat, chat_for},
    document::{Document, api_keys},
    patience::within,
    provider::Provider,
    reply::Reply,
};

/// One byte more than the agent takes.
const TOO_LARGE: usize = 16 * 1024 * 1024 + 1;

async fn agent_with_a_key(provider: &Provider) -> Agent {
    let document = Document::even(&[provider])
        .virtual_model("other", &provider.deployment())
        .section(&api_keys(&[("team-a", "sk-team-a", &["chat"])]));
    Agent::alone(&document).await
}

async fn send(request: RequestBuilder) -> Reply {
    Reply::read(within("an answer", request.send()).await.unwrap()).await
}

fn is(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (status, code), "{reply:?}");
    let error = &reply.json()["error"];
    let has_text = |field: &str| error[field].as_str().is_some_and(|text| !text.is_empty());
    assert!(has_text("type") && has_text("message"), "{reply:?}");
    assert!(!reply.header("x-request-id").is_empty(), "{reply:?}");
}

#[tokio::test]
async fn first_mistake_is_told() {
    let provider = Provider::start("alpha").await;
    let agent = agent_with_a_key(&provider).await;
    let with_body = async |key: Option<&str>, body: String| {
        let request = agent.request("/v1/chat/completions", &Value::Null).body(body);
        send(match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        })
        .await
    };
    let key = Some("sk-team-a");

    is(&with_body(None, "not JSON".to_owned()).await, 401, "invalid_api_key");
    is(&with_body(Some("sk-wrong"), "not JSON".to_owned()).await, 401, "invalid_api_key");
    is(&with_body(key, "not JSON".to_owned()).await, 400, "invalid_json");
    is(&with_body(key, r#"["an", "array"]"#.to_owned()).await, 400, "invalid_json");
    let deep = format!(r#"{{"x": {}{}}}"#, "[".repeat(64), "]".repeat(64));
    is(&with_body(key, deep).await, 400, "invalid_json");
    let nameless = with_body(key, json!({"stream": true}).to_string()).await;
    is(&nameless, 400, "missing_required_parameter");
    assert_eq!(nameless.json()["error"]["param"], "model");
    is(&with_body(key, json!({"model": "nonesuch"}).to_string()).await, 404, "model_not_found");
    is(&with_body(key, json!({"model": "other"}).to_string()).await, 403, "model_not_allowed");
    is(&with_body(key, json!({"model": "alpha/m"}).to_string()).await, 403, "model_not_allowed");
    let empty = with_body(key, json!({"model": "chat"}).to_string()).await;
    is(&empty, 400, "missing_required_parameter");
    assert_eq!(empty.json()["error"]["param"], "messages");
    assert_eq!(provider.requests(), 0, "what is wrong here never reaches a provider");

    assert_eq!(with_body(key, chat(false).to_string()).await.status, 200);
}

#[tokio::test]
async fn body_that_is_too_large_is_refused_before_it_is_read() {
    let provider = Provider::start("alpha").await;
    let agent = agent_with_a_key(&provider).await;
    let answer = async |key: &str| {
        let address = agent.url.trim_start_matches("http://");
        let mut connection = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: agent\r\nauthorization: Bearer {key}\r\n\
             content-length: {TOO_LARGE}\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut line = String::new();
        let mut reader = BufReader::new(connection);
        within("the status line", reader.read_line(&mut line)).await.unwrap();
        line
    };
    assert_eq!(answer("sk-team-a").await.trim_end(), "HTTP/1.1 413 Payload Too Large");
    assert_eq!(answer("sk-wrong").await.trim_end(), "HTTP/1.1 401 Unauthorized");
}

#[tokio::test]
async fn caller_that_sends_all_of_a_body_that_is_too_large_still_gets_the_answer() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    let request = agent.request("/v1/chat/completions", &Value::Null).body("x".repeat(TOO_LARGE));
    is(&send(request).await, 413, "request_too_large");
}

#[tokio::test]
async fn depth_of_64_is_fine() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    let mut body = chat(false).to_string();
    // The object itself is the first level.
    body.insert_str(1, &format!(r#""metadata": {}{}, "#, "[".repeat(63), "]".repeat(63)));
    let reply = send(agent.request("/v1/chat/completions", &Value::Null).body(body)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn required_fields_differ_by_interface() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    for (path, field) in
        [("chat/completions", "messages"), ("completions", "prompt"), ("embeddings", "input")]
    {
        let reply = agent.post(&format!("/v1/{path}"), &json!({"model": "chat"})).await;
        is(&reply, 400, "missing_required_parameter");
        assert_eq!(reply.json()["error"]["param"], field);
    }
}

#[tokio::test]
async fn no_target_that_can_is_503_at_once() {
    let provider = Provider::start("alpha").await;
    let document = Document::even(&[&provider]).deployment("alpha", "capabilities: [streaming]");
    let agent = Agent::alone(&document).await;
    let mut body = chat(true);
    body["tools"] = json!([{"type": "function", "function": {"name": "look"}}]);
    let reply = agent.post("/v1/chat/completions", &body).await;
    is(&reply, 503, "no_target");
    assert_eq!(reply.header("x-should-retry"), "false");
    let decision = agent.decision(&reply).await;
    assert_eq!(decision.excluded[0].deployment, "alpha/m", "{decision:?}");
    assert_eq!(provider.requests(), 0);
}

#[tokio::test]
async fn passed_deadline_is_504() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    provider.fail(Fault::Silent);
    for stream in [false, true] {
        let request = agent.request("/v1/chat/completions", &chat(stream));
        let reply = send(request.header("x-trunkline-timeout-ms", "300")).await;
        is(&reply, 504, "deadline_exceeded");
    }
    let document = Document::even(&[&provider]).chat("deadline: 300ms");
    let agent = Agent::alone(&document).await;
    is(&agent.chat(false).await, 504, "deadline_exceeded");
}

#[tokio::test]
async fn exhausted_attempts_say_when_to_come_back() {
    let (alpha, beta) = (Provider::start("alpha").await, Provider::start("beta").await);
    let document = Document::even(&[&alpha, &beta]).chat("deadline: 2s");
    let agent = Agent::alone(&document).await;
    for provider in [&alpha, &beta] {
        let body = trunkline_simulator::live::ErrorBody::usual(429);
        provider.fail(Fault::Status { code: 429, body, retry_after: Some("30".to_owned()) });
    }
    let reply = agent.chat(false).await;
    is(&reply, 429, "rate_limited");
    assert_eq!(reply.header("x-should-retry"), "false");
    let seconds: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&seconds), "{reply:?}");
}

#[tokio::test]
async fn mistakes_that_only_the_provider_sees_come_back_as_it_said_them() {
    let (alpha, beta) = (Provider::start("alpha").await, Provider::start("beta").await);
    let agent = Agent::alone(&Document::chain(&[&alpha, &beta])).await;
    let mut body = chat(false);
    body["messages"] = json!("no array");
    let reply = agent.post("/v1/chat/completions", &body).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("messages"), "{reply:?}");
    assert_eq!((alpha.requests(), beta.requests()), (1, 0), "a wrong request is wrong everywhere");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    is(&agent.post("/v1/nonesuch", &chat_for("chat", false)).await, 404, "unknown_url");
    is(&agent.get("/v1/chat/completions").await, 405, "method_not_allowed");
}
