//! An agent that operators took out of service: not ready, but nobody is turned away.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::*;
use crate::control::Orders;

impl Agent {
    fn order_out_of_service(&self, reason: Option<&str>) {
        let out_of_service = reason.map(str::to_owned);
        self.running.orders.send_replace(Arc::new(Orders { faults: Vec::new(), out_of_service }));
    }

    pub(super) async fn until_ready_says(&self, text: &str) {
        let said = async {
            while !self.ops("/readyz").await.ends_with(text) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        within(said).await;
    }
}

#[tokio::test]
async fn operators_and_checks_see_it_and_its_end() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut client = HealthClient::new(agent.grpc().await);
    let request = HealthCheckRequest { service: "trunkline.routing.v1.RoutingService".to_owned() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let mut next = async |wanted: ServingStatus| {
        // The start's own word may come twice.
        while within(watch.message()).await.unwrap().unwrap().status() != wanted {}
    };
    next(ServingStatus::Serving).await;
    agent.order_out_of_service(Some("kernel upgrade"));
    next(ServingStatus::NotServing).await;
    agent.until_ready_says("\r\n\r\nout of service: kernel upgrade\n").await;
    assert!(agent.ops("/readyz").await.starts_with("HTTP/1.1 503 "));
    assert!(agent.ops("/healthz").await.starts_with("HTTP/1.1 200 "));
    agent.order_out_of_service(None);
    next(ServingStatus::Serving).await;
    agent.until_ready_says("\r\n\r\nready\n").await;
}

#[tokio::test]
async fn http1_callers_are_served_and_sent_away() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut kept = agent.connect().await;
    let answer = exchange(&mut kept, &post("/v1/chat/completions", "", CHAT)).await;
    assert!(!answer.contains("connection: close"), "{answer}");
    agent.order_out_of_service(Some("x"));
    agent.until_ready_says("out of service: x\n").await;
    let answer = exchange(&mut kept, &post("/v1/chat/completions", "", CHAT)).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    closed(&mut kept).await;
    // Those who come all the same too.
    let answer = agent.ask(&post("/v1/chat/completions", "", CHAT)).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    agent.order_out_of_service(None);
    agent.until_ready_says("ready\n").await;
    let mut kept = agent.connect().await;
    for _ in 0..2 {
        let answer = exchange(&mut kept, &post("/v1/chat/completions", "", CHAT)).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn http2_connection_ends_after_its_running_streams() {
    let provider = Provider::start(Play::LateBody(Duration::from_millis(300))).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let io = TokioIo::new(agent.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = || {
        let uri = format!("http://{}/v1/chat/completions", agent.running.listen);
        ::http::Request::post(uri).body(Full::new(Bytes::from_static(CHAT.as_bytes()))).unwrap()
    };
    let running = sender.send_request(request());
    agent.counted("trunkline_agent_in_flight 1").await;
    agent.order_out_of_service(Some("x"));
    agent.until_ready_says("out of service: x\n").await;
    let last = sender.send_request(request());
    for answer in [within(running).await.unwrap(), within(last).await.unwrap()] {
        assert_eq!(answer.status(), 200);
        assert_eq!(within(answer.into_body().collect()).await.unwrap().to_bytes(), ANSWER);
    }
    // The agent said goodbye, so the client ends its connection.
    within(connection).await.unwrap().unwrap();
    let refused = sender.send_request(request()).await;
    assert!(refused.is_err(), "{refused:?}");
}
