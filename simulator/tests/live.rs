//! The live provider on loopback: the dialect, every fault, and clients that leave.

use std::{io, sync::Arc, time::Duration};

use futures_util::StreamExt;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use trunkline_simulator::{
    OutputLength, ProviderModel, Tpot, Ttft,
    live::{ErrorBody, Fault, LiveProvider, serve},
};

/// Longest that anything here waits for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Words of every answer of the test model.
const TOKENS: u64 = 10;

struct Server {
    provider: Arc<LiveProvider>,
    address: std::net::SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// No latency, ten tokens, no failures.
fn model() -> ProviderModel {
    ProviderModel {
        name: "test".to_owned(),
        ttft: Ttft { base_s: 0.0, per_1k_input_s: 0.0, sigma: 0.0, head_share: 0.0 },
        tpot: Tpot { median_s: 0.0, sigma: 0.0 },
        output: OutputLength { median_tokens: TOKENS as f64, sigma: 0.0, max_tokens: 100 },
        ..ProviderModel::default()
    }
}

async fn start(provider: LiveProvider) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (provider, shutdown) = (Arc::new(provider), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(serve(listener, Arc::clone(&provider), shutdown.clone()));
    Server { provider, address, shutdown, task }
}

async fn start_with(fault: Fault) -> Server {
    let server = start(LiveProvider::new(model(), 1)).await;
    server.provider.set_fault(Some(fault));
    server
}

impl Server {
    async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Response> {
        let url = format!("http://{}{path}", self.address);
        reqwest::Client::builder().timeout(PATIENCE).build()?.post(url).json(body).send().await
    }

    async fn chat(&self, stream: bool) -> reqwest::Result<Response> {
        self.post("/v1/chat/completions", &chat(stream)).await
    }

    /// The text of a stream as far as it came, and whether it ended properly.
    async fn stream(&self) -> (String, bool) {
        let mut chunks = self.chat(true).await.unwrap().bytes_stream();
        let mut text = String::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => text.push_str(std::str::from_utf8(&chunk).unwrap()),
                Err(_) => return (text, false),
            }
        }
        (text, true)
    }

    /// A raw connection with a request on it.
    async fn raw(&self, stream: bool) -> TcpStream {
        let body = chat(stream).to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all((head + &body).as_bytes()).await.unwrap();
        connection
    }
}

fn chat(stream: bool) -> Value {
    json!({"model": "m-1", "stream": stream, "messages": [{"role": "user", "content": "12345678"}]})
}

fn events(text: &str) -> Vec<Value> {
    let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn contents(text: &str) -> usize {
    let has_text =
        |event: &Value| event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty());
    events(text).into_iter().filter(has_text).count()
}

/// Reads until `text` was seen.
async fn read_until(connection: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let count = within(connection.read(&mut buffer)).await.unwrap();
        assert!(count > 0, "closed before {text:?}: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(seen).unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}

#[tokio::test]
async fn a_stream_has_role_content_finish_usage_and_done() {
    let server = start(LiveProvider::new(model(), 1)).await;
    let mut body = chat(true);
    body["stream_options"] = json!({"include_usage": true});
    let response = server.post("/chat/completions", &body).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(response.headers()["x-request-id"], "req_test_0");
    let text = response.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"));
    let events = events(&text);
    assert_eq!(events.len() as u64, TOKENS + 3);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(events.iter().all(|event| event["model"] == "m-1" && event["object"] == "chat.completion.chunk"));
    assert_eq!(events[TOKENS as usize + 1]["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        events.last().unwrap()["usage"],
        json!({"prompt_tokens": 2, "completion_tokens": 10, "total_tokens": 12})
    );
    let counters = within(server.provider.wait_for(|counters| counters.in_flight == 0)).await;
    assert_eq!((counters.requests, counters.streams_completed, counters.cancelled), (1, 1, 0));
    assert_eq!((counters.input_tokens, counters.output_tokens), (2, TOKENS));
}

#[tokio::test]
async fn unary_answers_count_usage_and_honour_the_limit() {
    let server = start(LiveProvider::new(model(), 1)).await;
    let mut body = chat(false);
    body["max_tokens"] = json!(4);
    let answer: Value = server.post("/v1/chat/completions", &body).await.unwrap().json().await.unwrap();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["choices"][0]["message"]["content"], "This is a simulated");
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    let body = json!({"model": "m-1", "prompt": "1234"});
    let answer: Value = server.post("/completions", &body).await.unwrap().json().await.unwrap();
    assert_eq!(
        (&answer["object"], &answer["usage"]["completion_tokens"]),
        (&json!("text_completion"), &json!(TOKENS))
    );
    let counters = server.provider.counters();
    assert_eq!((counters.by_status[&200], counters.output_tokens, counters.in_flight), (2, 4 + TOKENS, 0));
}

#[tokio::test]
async fn completions_stream_and_embeddings_are_deterministic() {
    let server = start(LiveProvider::new(model(), 1)).await;
    let body = json!({"model": "m", "prompt": "x", "stream": true, "max_tokens": 3});
    let text = server.post("/v1/completions", &body).await.unwrap().text().await.unwrap();
    let joined: String =
        events(&text).iter().map(|event| event["choices"][0]["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(joined, "This is a");
    let body = json!({"model": "m", "input": ["a", "b", "a"], "dimensions": 8});
    let answer: Value = server.post("/v1/embeddings", &body).await.unwrap().json().await.unwrap();
    let vector = |index: usize| answer["data"][index]["embedding"].as_array().unwrap().clone();
    assert_eq!((vector(0).len(), vector(0) == vector(2), vector(0) == vector(1)), (8, true, false));
}

#[tokio::test]
async fn a_required_tool_is_called_in_two_argument_pieces() {
    let server = start(LiveProvider::new(model(), 1)).await;
    let mut body = chat(true);
    body["tools"] = json!([{"type": "function", "function": {"name": "find",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}]);
    body["tool_choice"] = json!("required");
    let text = server.post("/v1/chat/completions", &body).await.unwrap().text().await.unwrap();
    let events = events(&text);
    let calls: Vec<&Value> =
        events.iter().map(|event| &event["choices"][0]["delta"]["tool_calls"][0]).collect();
    assert_eq!(
        calls.iter().filter_map(|call| call["function"]["name"].as_str()).collect::<Vec<_>>(),
        ["find"]
    );
    let pieces: Vec<&str> = calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect();
    assert_eq!(pieces.iter().filter(|piece| !piece.is_empty()).count(), 2);
    let arguments: Value = serde_json::from_str(&pieces.concat()).unwrap();
    assert_eq!(arguments, json!({"city": "simulated", "days": 1}));
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    body["stream"] = json!(false);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "find"}});
    let answer: Value = server.post("/v1/chat/completions", &body).await.unwrap().json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "find");
    body["tool_choice"] = json!({"type": "function", "function": {"name": "other"}});
    assert_eq!(server.post("/v1/chat/completions", &body).await.unwrap().status(), 400);
}

#[tokio::test]
async fn bad_bodies_get_400_unknown_paths_404_and_a_wrong_key_401() {
    let server = start(LiveProvider::new(model(), 1).with_models(["m-1".to_owned()])).await;
    let refused = server.post("/v1/chat/completions", &json!({"model": "m"})).await.unwrap();
    assert_eq!(refused.status(), 400);
    let error: Value = refused.json().await.unwrap();
    assert_eq!(
        (&error["error"]["type"], &error["error"]["param"]),
        (&json!("invalid_request_error"), &json!("messages"))
    );
    assert_eq!(server.post("/v1/nothing", &json!({})).await.unwrap().status(), 404);
    let models = reqwest::get(format!("http://{}/v1/models", server.address)).await.unwrap();
    assert_eq!(models.json::<Value>().await.unwrap()["data"][0]["id"], "m-1");

    let server = start(LiveProvider::new(model(), 1).with_bearer_key("right")).await;
    assert_eq!(server.chat(false).await.unwrap().status(), 401);
    let url = format!("http://{}/chat/completions", server.address);
    let answer =
        reqwest::Client::new().post(url).bearer_auth("right").json(&chat(false)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let seen = server.provider.last_seen().unwrap();
    assert_eq!((seen.number, seen.header("authorization")), (1, Some("Bearer right")));
    assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap(), chat(false));
    assert!(!format!("{seen:?} {:?}", server.provider).contains("right"));
}

#[tokio::test]
async fn status_faults_have_their_body_and_retry_after() {
    let server = start_with(Fault::status(503)).await;
    assert_eq!(server.chat(true).await.unwrap().status(), 503);
    let body = ErrorBody::Custom("<oops>".into());
    server.provider.set_fault(Some(Fault::Status { code: 429, body, retry_after: Some("7".to_owned()) }));
    let answer = server.chat(false).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "7"));
    assert_eq!(answer.text().await.unwrap(), "<oops>");
    server.provider.set_fault(None);
    assert_eq!(server.chat(false).await.unwrap().status(), 200);
}

#[tokio::test]
async fn queued_faults_are_used_up_one_per_request() {
    let server = start(LiveProvider::new(model(), 1)).await;
    assert_eq!(server.provider.queue_faults([Some(Fault::status(500)), None, Some(Fault::status(502))]), 3);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(server.chat(false).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [500, 200, 502, 200]);
}

#[tokio::test]
async fn faults_of_the_content_keep_the_http_answer_whole() {
    let server = start_with(Fault::Html200).await;
    let answer = server.chat(true).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    for stream in [true, false] {
        server.provider.set_fault(Some(Fault::FirstEventError { code: json!(502) }));
        let answer = server.chat(stream).await.unwrap();
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.unwrap();
        let error = if stream { events(&text).remove(0) } else { serde_json::from_str(&text).unwrap() };
        assert_eq!(error["error"]["code"], 502);
        assert!(!text.contains("[DONE]"));
    }
    server.provider.set_fault(Some(Fault::Empty));
    let (text, ended) = server.stream().await;
    assert_eq!((contents(&text), ended, text.ends_with("data: [DONE]\n\n")), (0, true, true));
    let answer: Value = server.chat(false).await.unwrap().json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "");
    server.provider.set_fault(Some(Fault::MissingDone));
    let (text, ended) = server.stream().await;
    assert_eq!((contents(&text) as u64, ended, text.contains("[DONE]")), (TOKENS, true, false));
    server.provider.set_fault(Some(Fault::Malformed));
    let (text, ended) = server.stream().await;
    assert!(ended && serde_json::from_str::<Value>(text.rsplit("data: ").next().unwrap()).is_err());
    assert!(server.chat(false).await.unwrap().json::<Value>().await.is_err());
    server.provider.set_fault(Some(Fault::ErrorAfterTokens(3)));
    let (text, ended) = server.stream().await;
    assert_eq!((contents(&text), ended, text.contains("[DONE]")), (3, true, false));
    assert_eq!(events(&text).last().unwrap()["error"]["code"], "server_error");
}

#[tokio::test]
async fn a_reset_is_a_reset_and_comes_before_any_byte() {
    let server = start_with(Fault::Reset).await;
    let mut connection = server.raw(true).await;
    let error = within(connection.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let counters = server.provider.counters();
    assert_eq!((counters.broken, counters.cancelled, counters.in_flight), (1, 0, 0));
}

#[tokio::test]
async fn a_reset_in_the_middle_sends_half_and_then_rst() {
    let server = start_with(Fault::ResetMidBody).await;
    for stream in [true, false] {
        let mut connection = server.raw(stream).await;
        let mut text = Vec::new();
        let error = within(connection.read_to_end(&mut text)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(String::from_utf8(text).unwrap().contains("chatcmpl-test"));
    }
}

#[tokio::test]
async fn a_cut_ends_without_the_final_chunk() {
    let server = start_with(Fault::CutAfterTokens(4)).await;
    let (text, ended) = server.stream().await;
    assert_eq!((contents(&text), ended), (4, false));
    assert!(server.chat(false).await.unwrap().bytes().await.is_err());
    assert_eq!(server.provider.counters().broken, 2);
    assert_eq!(server.provider.counters().output_tokens, 4);
}

/// In each silent phase the client leaves, and that is noticed and counted.
#[tokio::test]
async fn a_client_that_leaves_is_noticed_in_every_phase() {
    let phases: [(Fault, bool, &str); 6] = [
        (Fault::Silent, true, ""),
        (Fault::Silent, false, ""),
        (Fault::HeadersThenSilent, true, "\r\n\r\n"),
        (Fault::RoleThenSilent, true, "assistant"),
        (Fault::StallAfterTokens(2), true, "\" is\""),
        (Fault::SlowFirstToken(Duration::from_hours(1)), true, "assistant"),
    ];
    for (fault, stream, sign) in phases {
        let server = start_with(fault.clone()).await;
        let mut connection = server.raw(stream).await;
        within(server.provider.wait_for(|counters| counters.in_flight == 1)).await;
        let text = read_until(&mut connection, sign).await;
        assert!(!text.contains("[DONE]"), "{fault:?}");
        assert_eq!(server.provider.counters().cancelled, 0, "{fault:?}");
        let left = std::time::Instant::now();
        drop(connection);
        let counters = within(server.provider.wait_for(|counters| counters.cancelled == 1)).await;
        assert_eq!((counters.in_flight, counters.broken, counters.streams_completed), (0, 0, 0), "{fault:?}");
        let noticed = server.provider.seen(0).unwrap().closed_early.unwrap() - left;
        assert!(noticed < Duration::from_millis(500), "{fault:?}: {noticed:?}");
    }
}

#[tokio::test]
async fn dripped_bytes_add_up_to_the_whole_answer() {
    let server = start_with(Fault::DripBytes).await;
    let (text, ended) = server.stream().await;
    assert_eq!((contents(&text) as u64, ended, text.ends_with("data: [DONE]\n\n")), (TOKENS, true, true));
    let answer: Value = server.chat(false).await.unwrap().json().await.unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], TOKENS);
    assert_eq!(server.provider.counters().output_tokens, 2 * TOKENS);
    let mut connection = server.raw(true).await;
    let raw = read_until(&mut connection, "0\r\n\r\n").await;
    assert!(raw.contains("1\r\nd\r\n1\r\na\r\n1\r\nt\r\n"), "one byte to a chunk");
}

#[tokio::test]
async fn close_idle_closes_without_announcing_it() {
    let server = start_with(Fault::CloseIdle).await;
    for stream in [true, false] {
        let mut text = String::new();
        within(server.raw(stream).await.read_to_string(&mut text)).await.unwrap();
        assert!(text.contains("chatcmpl-test") && !text.to_lowercase().contains("connection: close"));
    }
    assert_eq!(server.provider.counters().cancelled, 0);
}

#[tokio::test]
async fn a_slow_first_token_comes_late_and_whole() {
    let server = start_with(Fault::SlowFirstToken(Duration::from_millis(200))).await;
    for stream in [true, false] {
        let begun = std::time::Instant::now();
        assert!(server.chat(stream).await.unwrap().text().await.unwrap().contains("simulated"));
        assert!(begun.elapsed() >= Duration::from_millis(200));
    }
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_a_dropped_server_is_gone_at_once() {
    let server = start(LiveProvider::new(model(), 1)).await;
    let mut connection = server.raw(false).await;
    read_until(&mut connection, "usage").await;
    server.shutdown.cancel();
    within(server.task).await.unwrap();
    assert_eq!(within(connection.read(&mut [0; 1])).await.unwrap(), 0);

    let server = start_with(Fault::StallAfterTokens(1)).await;
    let mut connection = server.raw(true).await;
    read_until(&mut connection, "This").await;
    server.task.abort();
    let counters = within(server.provider.wait_for(|counters| counters.in_flight == 0)).await;
    assert_eq!((counters.cancelled, counters.broken), (0, 1));
    assert!(matches!(within(connection.read(&mut [0; 1])).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(server.address).await.is_err());
}
