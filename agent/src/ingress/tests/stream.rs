//! How streams end, and what a head without its body means.

use super::*;

const OK: &str = "trunkline_agent_attempts_total{deployment=\"p0/m\",outcome=\"ok\"} 1";

const CUT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n";

#[tokio::test]
async fn done_without_a_finish_reason_is_told_as_a_cut() {
    let provider = Provider::start(Play::Events(CUT)).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut stream = agent.connect().await;
    stream.write_all(post("/v1/chat/completions", "", STREAM).as_bytes()).await.unwrap();
    let answer = chunks(&mut stream).await;
    assert_eq!(answer.matches("upstream_broke_off").count(), 1, "{answer}");
    assert!(answer.contains("\"hi\"") && !answer.contains("[DONE]"), "{answer}");
    agent.counted("trunkline_agent_attempts_total{deployment=\"p0/m\",outcome=\"mid_stream\"} 1").await;
}

#[tokio::test]
async fn whole_answer_ends_though_its_provider_does_not() {
    let provider = Provider::start(Play::Events(WHOLE)).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut stream = agent.connect().await;
    stream.write_all(post("/v1/chat/completions", "", STREAM).as_bytes()).await.unwrap();
    let answer = chunks(&mut stream).await;
    assert!(answer.contains("[DONE]") && !answer.contains("error"), "{answer}");
    agent.counted(OK).await;
}

#[tokio::test]
async fn caller_that_closes_at_done_had_its_answer() {
    let provider = Provider::start(Play::Events(WHOLE)).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut stream = agent.connect().await;
    stream.write_all(post("/v1/chat/completions", "", STREAM).as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !read.windows(6).any(|end| end == b"[DONE]") {
        assert!(within(stream.read_buf(&mut read)).await.unwrap() > 0);
    }
    drop(stream);
    agent.counted(OK).await;
}

#[tokio::test]
async fn answer_whose_head_came_is_not_silent() {
    let first = Provider::start(Play::LateBody(Duration::from_millis(700))).await;
    let second = Provider::start(Play::Answer).await;
    let document =
        document(&[&first, &second], "").replace("weight: 1}]", "weight: 1}], timeouts: {first_token: 50ms}");
    let agent = Agent::start(&document, Limits::default()).await;
    let request = CHAT.replacen('{', "{\"max_tokens\":1,", 1);
    let answer = agent.ask(&post("/v1/chat/completions", "", &request)).await;
    assert!(answer.contains("x-trunkline-attempts: p0/m:ok\r\n"), "{answer}");
}
