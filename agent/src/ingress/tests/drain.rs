//! What is no request does not hold up a stop.

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use super::*;

const SERVICE: &str = "trunkline.routing.v1.RoutingService";

#[tokio::test]
async fn watch_of_health_learns_of_it_and_ends() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut client = HealthClient::new(agent.grpc().await);
    let mut watches = Vec::new();
    for service in ["", SERVICE] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut watch = client.watch(request).await.unwrap().into_inner();
        // The start's own word may come twice.
        assert_eq!(within(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
        watches.push(watch);
    }
    let stopped = tokio::spawn(agent.stopped());
    for mut watch in watches {
        let mut last = ServingStatus::Serving;
        while let Ok(Some(said)) = within(watch.message()).await {
            last = said.status();
        }
        assert_eq!(last, ServingStatus::NotServing);
    }
    stopped.await.unwrap();
}

#[tokio::test]
async fn reflection_ends() {
    let provider = Provider::start(Play::Answer).await;
    let agent = Agent::start(&document(&[&provider], ""), Limits::default()).await;
    let mut client = ServerReflectionClient::new(agent.grpc().await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    requests.send(list).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = client.server_reflection_info(stream).await.unwrap().into_inner();
    within(answers.message()).await.unwrap().unwrap();
    agent.stopped().await;
    drop(requests);
}

#[tokio::test]
async fn agent_without_a_table_does_not_say_that_it_serves() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let agent = Agent::with(options, directory, Limits::default()).await.unwrap();
    let mut client = HealthClient::new(agent.grpc().await);
    for service in ["", SERVICE] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let said = client.check(request).await.unwrap().into_inner();
        assert_eq!(said.status(), ServingStatus::NotServing, "{service:?}");
    }
}

#[tokio::test]
async fn silent_connections_do_not_hold_it_up() {
    let provider = Provider::start(Play::Answer).await;
    let limits = Limits { head: 2 * LIMIT, idle: 2 * LIMIT, ..Limits::default() };
    let agent = Agent::start(&document(&[&provider], ""), limits).await;
    let mut kept = agent.connect().await;
    exchange(&mut kept, &post("/v1/chat/completions", "", CHAT)).await;
    let fresh = agent.connect().await;
    // Served after it, so the agent has seen it.
    agent.ask(&post("/v1/chat/completions", "", CHAT)).await;
    agent.stopped().await;
    drop((kept, fresh));
}

#[tokio::test]
async fn health_and_reflection_take_callers_with_and_without_a_key() {
    let provider = Provider::start(Play::Answer).await;
    let keys = format!("api_keys:\n{}", api_key("some", "secret-of-some", "chat"));
    let agent = Agent::start(&document(&[&provider], &keys), Limits::default()).await;
    let channel = agent.grpc().await;
    for key in [None, Some("Bearer secret-of-some"), Some("Bearer of another kind")] {
        let with_key = |mut request: tonic::Request<()>| {
            if let Some(key) = key {
                request.metadata_mut().insert("authorization", key.parse().unwrap());
            }
            Ok(request)
        };
        let mut health = HealthClient::with_interceptor(channel.clone(), with_key);
        let said = health.check(HealthCheckRequest { service: SERVICE.to_owned() }).await.unwrap();
        assert_eq!(said.into_inner().status(), ServingStatus::Serving, "{key:?}");
        let mut reflection = ServerReflectionClient::with_interceptor(channel.clone(), with_key);
        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answers = reflection.server_reflection_info(tokio_stream::once(list)).await.unwrap();
        let answer = within(answers.into_inner().message()).await.unwrap().unwrap();
        assert!(format!("{answer:?}").contains(SERVICE), "{key:?}: {answer:?}");
    }
}
