//! HTTP clients that are slow, leave, or ask for odd things.

use super::*;

const POST_HEAD: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n";

fn short() -> Limits {
    Limits {
        head: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        body: Duration::from_millis(300),
        ..Limits::default()
    }
}

#[tokio::test]
async fn body_that_stops_is_answered_and_closed() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), short()).await;
    let mut stream = agent.connect().await;
    let answer = exchange(&mut stream, &format!("{POST_HEAD}content-length: 1000\r\n\r\n{{")).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("connection: close") && answer.contains("request_timeout"), "{answer}");
    closed(&mut stream).await;
    agent.counted("trunkline_agent_requests_total{route=\"chat_completions\",status=\"408\"} 1").await;
}

#[tokio::test]
async fn head_that_stops_is_closed_and_so_is_an_idle_connection() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), short()).await;
    let mut stream = agent.connect().await;
    stream.write_all(POST_HEAD.as_bytes()).await.unwrap();
    closed(&mut stream).await;
    let mut stream = agent.connect().await;
    for _ in 0..2 {
        let answer = exchange(&mut stream, &post("/v1/chat/completions", "", CHAT)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    closed(&mut stream).await;
}

#[tokio::test]
async fn client_that_stops_reading_lets_go_of_the_target() {
    let mut provider = Provider::start(Play::Flood).await;
    let limits = Limits { write: Duration::from_millis(300), ..Limits::default() };
    let agent = Agent::start(&document(&[&provider], ""), limits).await;
    let mut stream = agent.connect().await;
    let body = CHAT.replace('{', "{\"stream\":true,").replacen("{\"stream\":true,\"role\"", "{\"role\"", 1);
    stream.write_all(post("/v1/chat/completions", "", &body).as_bytes()).await.unwrap();
    provider.until(|seen| seen.1 == 1).await;
    agent.stopped().await;
    drop(stream);
}

#[tokio::test]
async fn deadline_counts_from_the_head() {
    let mut provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut stream = agent.connect().await;
    let head = format!("{POST_HEAD}x-trunkline-timeout-ms: 100\r\ncontent-length: {}\r\n\r\n", CHAT.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // Longer than the caller would wait.
    sleep(Duration::from_millis(200)).await;
    let answer = exchange(&mut stream, CHAT).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(provider.seen.borrow_and_update().0, 0);
}

#[tokio::test]
async fn client_that_left_is_counted() {
    let mut provider = Provider::start(Play::Silence).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut stream = agent.connect().await;
    stream.write_all(post("/v1/chat/completions", "", CHAT).as_bytes()).await.unwrap();
    provider.until(|seen| seen.0 == 1).await;
    drop(stream);
    agent.counted("trunkline_agent_requests_total{route=\"chat_completions\",status=\"499\"} 1").await;
}

#[tokio::test]
async fn other_methods_are_told_which_are_right() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let delete = |path: &str| format!("DELETE {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = agent.ask(&delete("/v1/models")).await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    let answer = agent.ask(&delete("/v1/embeddings")).await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: POST\r\n"), "{answer}");
    let answer = agent.ask(&delete("/v1/else")).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn head_of_the_models_is_their_get_without_a_body() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let get = agent.ask("GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let (_, body) = get.split_once("\r\n\r\n").unwrap();
    let mut stream = agent.connect().await;
    stream.write_all(b"HEAD /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut head = String::new();
    within(stream.read_to_string(&mut head)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
}

#[tokio::test]
async fn pin_may_come_percent_encoded() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    for name in ["p0/m", "p0%2Fm", "p0%2fm"] {
        let answer = agent.ask(&format!("GET /v1/models/{name} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"id\":\"p0/m\""),
            "{name}: {answer}"
        );
    }
    let answer = agent.ask("GET /v1/models/p0%2 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn key_that_comes_twice_is_refused() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let twice = "authorization: Bearer a\r\nauthorization: Bearer b\r\n";
    let answer = agent.ask(&post("/v1/chat/completions", twice, CHAT)).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn provider_error_after_other_attempts_is_final_and_keeps_its_wait() {
    let down = Provider::start(Play::Status("503 No")).await;
    let refuses = Provider::start(Play::Status("400 Bad\r\nretry-after: 7")).await;
    let agent = Agent::start(&document(&[&down, &refuses], ""), Limits::default()).await;
    let answer = agent.ask(&post("/v1/chat/completions", "", CHAT)).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("retry-after: 7\r\n"), "{answer}");
    assert!(answer.contains("x-should-retry: false\r\n"), "{answer}");
    // The first attempt's answer is as the provider meant it.
    let answer = agent.ask(&post("/v1/chat/completions", "", &CHAT.replace("chat", "p1/m"))).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && !answer.contains("x-should-retry"), "{answer}");
}

#[tokio::test]
async fn http2_client_that_answers_no_ping_is_gone() {
    let provider = Provider::start(Play::Answer).await;
    let limits =
        Limits { ping: Duration::from_millis(100), pong: Duration::from_millis(100), ..Limits::default() };
    let agent = Agent::start(&document(&[&provider], ""), limits).await;
    let mut stream = agent.connect().await;
    // Empty settings follow the preface.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    closed(&mut stream).await;
}

#[tokio::test]
async fn compressed_answer_that_nobody_asked_for_is_none() {
    let coded = Provider::start(Play::Status("200 OK\r\ncontent-encoding: gzip")).await;
    let whole = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&coded, &whole], ""), Limits::default()).await;
    let answer = agent.ask(&post("/v1/chat/completions", "", CHAT)).await;
    assert!(answer.contains("x-trunkline-attempts: p0/m:malformed,p1/m:ok\r\n"), "{answer}");
    let events = Provider::start(Play::Events(WHOLE)).await;
    let agent = Agent::start(&document(&[&coded, &events], ""), Limits::default()).await;
    let mut stream = agent.connect().await;
    stream.write_all(post("/v1/chat/completions", "", STREAM).as_bytes()).await.unwrap();
    let answer = chunks(&mut stream).await;
    assert!(answer.contains("x-trunkline-attempts: p0/m:malformed,p1/m:ok\r\n"), "{answer}");
}

#[tokio::test]
async fn length_and_chunks_together_hide_no_second_request() {
    let mut provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let hidden = post("/v1/chat/completions", "", CHAT);
    for framing in [
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
    ] {
        let seen = provider.seen.borrow_and_update().0;
        let chunked = format!("{POST_HEAD}{framing}\r\n{:x}\r\n{CHAT}\r\n0\r\n\r\n{hidden}", CHAT.len());
        let mut stream = agent.connect().await;
        stream.write_all(chunked.as_bytes()).await.unwrap();
        let answer = within(read_message(&mut stream)).await.unwrap();
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        closed(&mut stream).await;
        assert_eq!(provider.seen.borrow_and_update().0, seen + 1, "{framing}");
    }
}
