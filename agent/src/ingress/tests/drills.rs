//! Drills as apps and operators see them.

use std::sync::Arc;

use tokio::time::Instant;
use trunkline_proto::{
    routing::v1::{
        CompleteRequest, Message, StreamCompleteRequest, routing_service_client::RoutingServiceClient,
        stream_complete_response::Event,
    },
    types::v1::{CutFault, Fault, StallFault, fault::Effect},
};

use super::*;
use crate::control::{Drill, Orders};

const HOUR: Duration = Duration::from_secs(3_600);
const FAULT: &str = "x-trunkline-fault: game-day\r\n";

fn drill(effect: Effect) -> Fault {
    Fault {
        name: "game-day".to_owned(),
        deployments: vec!["p0".to_owned()],
        effect: Some(effect),
        ..Fault::default()
    }
}

const fn latency(seconds: i64, millis: i32) -> Effect {
    Effect::Latency(prost_types::Duration { seconds, nanos: millis * 1_000_000 })
}

const fn cut(after_bytes: u64) -> Effect {
    Effect::Cut(CutFault { after_bytes })
}

const fn stall() -> Effect {
    Effect::Stall(StallFault {})
}

/// Two providers that play this, where silence is overtaken soon, and a drill on the
/// first.
async fn drilled(play: Play, effect: Effect) -> (Provider, Provider, Agent) {
    let (first, second) = (Provider::start(play).await, Provider::start(play).await);
    let document =
        document(&[&first, &second], "").replace("weight: 1}]", "weight: 1}], timeouts: {first_token: 50ms}");
    let agent = Agent::start(&document, Limits::default()).await;
    agent.drill(drill(effect), HOUR).await;
    (first, second, agent)
}

impl Agent {
    /// Begins it, in place of any other.
    async fn drill(&self, fault: Fault, lasts: Duration) {
        let name = match fault.effect {
            Some(Effect::Latency(_)) => "latency",
            Some(Effect::ErrorStatus(_)) => "error_status",
            Some(Effect::Stall(_)) => "stall",
            _ => "cut",
        };
        let faults = vec![Drill { fault, ends: Instant::now() + lasts }];
        self.running.orders.send_replace(Arc::new(Orders { faults, out_of_service: None }));
        let line = format!("trunkline_agent_faults_active{{fault=\"game-day\",effect=\"{name}\"}} 1");
        self.counted(&line).await;
    }

    fn end_drills(&self) {
        self.running.orders.send_replace(Arc::new(Orders::default()));
    }
}

/// What the app asks where the wait for a whole answer is short.
fn chat() -> String {
    post("/v1/chat/completions", "", &CHAT.replacen('{', "{\"max_tokens\":1,", 1))
}

/// Each effect that ends an attempt before its answer, as the attempt's outcome, and
/// whether the provider hears of it.
const FATAL: [(Effect, &str, bool); 5] = [
    (Effect::ErrorStatus(503), "503", false),
    (stall(), "timeout", false),
    (latency(600, 0), "timeout", false),
    (cut(0), "reset", true),
    (cut(20), "reset", true),
];

#[tokio::test]
async fn apps_notice_nothing_of_a_drill_on_one_of_two() {
    for (effect, outcome, heard) in FATAL {
        let (first, _second, agent) = drilled(Play::Answer, effect).await;
        for at in 0..10 {
            let answer = agent.ask(&chat()).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(ANSWER), "{effect:?}: {answer}");
            assert!(answer.contains("x-trunkline-deployment: p1/m\r\n"), "{effect:?}: {answer}");
            if at == 0 {
                let attempts = format!("x-trunkline-attempts: p0/m:{outcome},p1/m:ok\r\n");
                assert!(answer.contains(&attempts) && answer.contains(FAULT), "{effect:?}: {answer}");
            }
        }
        assert_eq!(first.seen.borrow().0 > 0, heard, "{effect:?}");
        // Failures in a row open the breaker as those of the provider would; silence that
        // was overtaken does not.
        let faulted = if outcome == "timeout" { 10 } else { 5 };
        let labels = "{fault=\"game-day\",deployment=\"p0/m\"}";
        agent.counted(&format!("trunkline_agent_attempts_faulted_total{labels} {faulted}")).await;
    }
}

#[tokio::test]
async fn streams_move_on_before_content() {
    for (effect, outcome, heard) in FATAL {
        let (first, _second, agent) = drilled(Play::Events(WHOLE), effect).await;
        let mut stream = agent.connect().await;
        stream.write_all(post("/v1/chat/completions", "", STREAM).as_bytes()).await.unwrap();
        let answer = chunks(&mut stream).await;
        assert!(answer.contains("[DONE]") && !answer.contains("broke_off"), "{effect:?}: {answer}");
        assert!(answer.contains(FAULT), "{effect:?}: {answer}");
        let attempts = format!("x-trunkline-attempts: p0/m:{outcome},p1/m:ok\r\n");
        assert!(answer.contains(&attempts), "{effect:?}: {answer}");
        assert_eq!(first.seen.borrow().0 > 0, heard, "{effect:?}");
    }
}

const TWO: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"two\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
/// In the middle of the second event.
const IN_TWO: u64 = 90;

#[tokio::test]
async fn cut_after_content_is_told_in_the_stream() {
    let (_first, second, agent) = drilled(Play::Events(TWO), cut(IN_TWO)).await;
    let mut stream = agent.connect().await;
    stream.write_all(post("/v1/chat/completions", "", STREAM).as_bytes()).await.unwrap();
    let answer = chunks(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(FAULT), "{answer}");
    assert!(answer.contains("\"one\"") && !answer.contains("\"two\""), "{answer}");
    assert!(answer.contains("upstream_broke_off") && !answer.contains("[DONE]"), "{answer}");
    agent.counted("trunkline_agent_attempts_total{deployment=\"p0/m\",outcome=\"mid_stream\"} 1").await;
    assert_eq!(second.seen.borrow().0, 0);
}

#[tokio::test]
async fn answer_that_ends_where_the_cut_is_stays_whole() {
    let (_first, second, agent) = drilled(Play::Answer, cut(ANSWER.len() as u64)).await;
    for _ in 0..2 {
        let answer = agent.ask(&chat()).await;
        assert!(answer.ends_with(ANSWER) && answer.contains("x-trunkline-deployment: p0/m\r\n"), "{answer}");
    }
    assert_eq!(second.seen.borrow().0, 0);
}

#[tokio::test]
async fn latency_is_part_of_the_time_to_first_content() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    agent.drill(drill(latency(0, 300)), HOUR).await;
    let asked = Instant::now();
    let answer = agent.ask(&chat()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(FAULT), "{answer}");
    assert!(asked.elapsed() >= Duration::from_millis(300));
    // No answer took less.
    agent.counted("trunkline_agent_ttft_seconds_bucket{le=\"0.25\"} 0").await;
    agent.counted("trunkline_agent_ttft_seconds_count 1").await;
}

#[tokio::test]
async fn drill_on_all_is_told_with_the_error() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    agent.drill(drill(Effect::ErrorStatus(503)), HOUR).await;
    let answer = agent.ask(&chat()).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("upstream_exhausted"), "{answer}");
    assert!(answer.contains(FAULT), "{answer}");
    agent.drill(drill(Effect::ErrorStatus(400)), HOUR).await;
    // A pin, whose own breaker does not care.
    let answer = agent.ask(&chat().replacen("\"chat\"", "\"p0/m\"", 1)).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("the drill 'game-day' answers 400"),
        "{answer}"
    );
    assert_eq!(provider.seen.borrow().0, 0);
}

#[tokio::test]
async fn drill_that_ends_lets_go_of_what_it_holds() {
    for effect in [stall(), latency(600, 0)] {
        let mut provider = Provider::start(Play::Answer).await;
        let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
        agent.drill(drill(effect), HOUR).await;
        let mut stream = agent.connect().await;
        stream.write_all(chat().as_bytes()).await.unwrap();
        agent.counted("trunkline_agent_in_flight 1").await;
        assert_eq!(provider.seen.borrow_and_update().0, 0);
        agent.end_drills();
        let answer = within(read_message(&mut stream)).await.unwrap();
        assert!(answer.ends_with(ANSWER) && answer.contains(FAULT), "{answer}");
        // By itself too, and in time.
        // Seconds: it is seen in a scrape first, which may take a while.
        agent.drill(drill(effect), Duration::from_secs(4)).await;
        let answer = agent.ask(&chat()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let answer = agent.ask(&chat()).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("x-trunkline-fault"), "{answer}");
    }
}

#[tokio::test]
async fn app_that_leaves_ends_an_attempt_that_a_drill_holds() {
    let (first, second) = (Provider::start(Play::Answer).await, Provider::start(Play::Answer).await);
    let agent = Agent::start(&document(&[&first, &second], ""), Limits::default()).await;
    for effect in [stall(), latency(600, 0)] {
        agent.drill(drill(effect), HOUR).await;
        let mut stream = agent.connect().await;
        stream.write_all(post("/v1/chat/completions", "", CHAT).as_bytes()).await.unwrap();
        agent.counted("trunkline_agent_in_flight 1").await;
        drop(stream);
        agent.counted("trunkline_agent_in_flight 0").await;
    }
    agent.counted("trunkline_agent_requests_total{route=\"chat_completions\",status=\"499\"} 2").await;
    agent.counted("trunkline_agent_attempts_total{deployment=\"p0/m\",outcome=\"cancelled\"} 2").await;
    assert_eq!((first.seen.borrow().0, second.seen.borrow().0), (0, 0));
}

#[tokio::test]
async fn operators_see_drills_while_they_last() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    agent.drill(drill(latency(2, 0)), HOUR).await;
    let ready = agent.ops("/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 200 ") && ready.contains("\r\n\r\nready\ndrill game-day: latency 2s, 35"),
        "{ready}"
    );
    agent.end_drills();
    let ended = async {
        while agent.ops("/metrics").await.contains("game-day") {
            sleep(Duration::from_millis(10)).await;
        }
    };
    within(ended).await;
    assert!(agent.ops("/readyz").await.ends_with("\r\n\r\nready\n"));
}

fn complete() -> CompleteRequest {
    let message = Message { role: "user".to_owned(), content: "hi".to_owned(), ..Message::default() };
    CompleteRequest {
        model: "chat".to_owned(),
        messages: vec![message],
        max_output_tokens: 1,
        ..CompleteRequest::default()
    }
}

#[tokio::test]
async fn grpc_callers_find_the_drill_in_the_decision() {
    for (effect, ..) in FATAL {
        let (_first, _second, agent) = drilled(Play::Answer, effect).await;
        let mut client = RoutingServiceClient::new(agent.grpc().await);
        let answer = within(client.complete(complete())).await.unwrap();
        assert_eq!(answer.metadata().get("x-trunkline-fault").unwrap(), "game-day");
        let attempts = answer.into_inner().decision.unwrap().attempts;
        let faults: Vec<_> = attempts.iter().map(|attempt| attempt.fault.as_str()).collect();
        assert_eq!(faults, ["game-day", ""], "{effect:?}");
    }
}

#[tokio::test]
async fn grpc_streams_are_cut_too() {
    let (_first, _second, agent) = drilled(Play::Events(TWO), cut(IN_TWO)).await;
    let mut client = RoutingServiceClient::new(agent.grpc().await);
    let request = StreamCompleteRequest { request: Some(complete()) };
    let mut events = client.stream_complete(request.clone()).await.unwrap().into_inner();
    let started = within(events.message()).await.unwrap().unwrap().event.unwrap();
    let Event::Started(started) = started else { panic!("{started:?}") };
    assert_eq!(started.decision.unwrap().attempts[0].fault, "game-day");
    let delta = within(events.message()).await.unwrap().unwrap().event.unwrap();
    assert!(matches!(&delta, Event::Delta(delta) if delta.content == "one"), "{delta:?}");
    let broken = within(events.message()).await.unwrap_err();
    assert_eq!(broken.code(), tonic::Code::Unavailable, "{broken:?}");
    // Refusals say so as well.
    let everywhere = Fault { deployments: Vec::new(), ..drill(Effect::ErrorStatus(503)) };
    agent.drill(everywhere, HOUR).await;
    let refused = client.stream_complete(request).await.err().unwrap();
    assert_eq!(refused.metadata().get("x-trunkline-fault").unwrap(), "game-day");
}
