//! What a well-behaved provider answers.

use serde_json::{Value, json};
use trunkline_simulator::{ErrorRates, ProviderModel, RateLimits, live::LiveProvider};

use crate::harness::{TOKENS, chat, contents, events, model, start, within};

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
async fn limits_and_chance_of_the_model_show_on_the_wire() {
    let limits =
        RateLimits { requests_per_minute: Some(1), tokens_per_minute: None, ..RateLimits::default() };
    let server = start(LiveProvider::new(ProviderModel { limits, ..model() }, 1)).await;
    assert_eq!(server.chat(false).await.unwrap().status(), 200);
    let refused = server.chat(false).await.unwrap();
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));

    let errors = ErrorRates { mid_stream_break: 1.0, ..ErrorRates::default() };
    let server = start(LiveProvider::new(ProviderModel { errors, ..model() }, 1)).await;
    let (text, ended) = server.stream().await;
    assert!(!ended && (contents(&text) as u64) < TOKENS);
}
