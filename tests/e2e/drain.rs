//! SIGTERM at the agent: not ready, no new connections, running answers complete, the
//! last telemetry arrives, exit code 0.

use futures_util::StreamExt as _;
use tokio::net::TcpStream;
use trunkline_tests::{
    agent::Agent,
    chat::long_stream,
    control_plane::ControlPlane,
    document::Document,
    patience::{until, within},
    provider::Provider,
};

/// With 30 ms before each token, long enough to look around during the answer.
const TOKENS: u64 = 120;

#[tokio::test]
async fn running_stream_completes_and_is_counted() {
    let provider = Provider::slow("alpha", TOKENS, 0.03).await;
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    admin.apply(&Document::even(&[&provider])).await;
    let mut agent = Agent::following(&control_plane.url);
    agent.ready().await;

    let mut pieces = agent.open(&long_stream(TOKENS)).await.bytes_stream();
    let mut text = Vec::new();
    text.extend_from_slice(&within("the first piece", pieces.next()).await.unwrap().unwrap());
    agent.process.terminate();
    let (_, reason) =
        until("readiness to go", async || agent.readiness().await, |(status, _)| *status == 503).await;
    assert!(reason.contains("draining"), "{reason}");
    let address = agent.url.trim_start_matches("http://").to_owned();
    let connects = async || TcpStream::connect(&address).await.is_ok();
    until("new connections to be refused", connects, |connects| !connects).await;

    while let Some(piece) = within("a piece", pieces.next()).await {
        text.extend_from_slice(&piece.expect("the stream was cut off"));
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(agent.process.ended().await.code(), Some(0));

    let rows = admin.stats().await;
    let (row, counted) = (&rows["alpha/m"], provider.live.counters());
    assert_eq!((row.attempts, row.successes), (1, 1), "{row:?}");
    assert_eq!((row.input_tokens, row.output_tokens), (counted.input_tokens, TOKENS), "{row:?}");
}

#[tokio::test]
async fn signal_right_after_the_start_is_not_missed() {
    for _ in 0..5 {
        // Returns as soon as the listeners are announced; nothing listens at port 1.
        let mut agent = Agent::following("http://127.0.0.1:1");
        agent.process.terminate();
        assert_eq!(agent.process.ended().await.code(), Some(0), "{}", agent.process.log());
    }
}

#[tokio::test]
async fn idle_agent_ends_at_once() {
    let provider = Provider::start("alpha").await;
    let mut agent = Agent::alone(&Document::even(&[&provider])).await;
    // A kept connection must not hold it up.
    agent.chat(false).await;
    agent.process.terminate();
    assert_eq!(agent.process.ended().await.code(), Some(0));
}
