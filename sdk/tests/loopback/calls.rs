//! Deadlines, cancelling, the ends of streams, and what calls carry.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;
use trunkline_sdk::{
    Client, Code, CompleteRequestExt as _, Error, RouteRequestExt as _,
    types::{CompleteRequest, Delta, Event, Finished, ReportOutcomeRequest, RouteRequest, Started},
};

use crate::fake::{Behaviour, Fake, PATIENCE};

const SHORT: Duration = Duration::from_millis(100);

fn hello() -> CompleteRequest {
    CompleteRequest::user("chat", "hello")
}

fn delta(content: &str) -> Event {
    Event::Delta(Delta { content: content.to_owned(), ..Delta::default() })
}

fn whole_answer() -> Vec<Event> {
    vec![
        Event::Started(Started::default()),
        delta("hel"),
        delta("lo"),
        Event::Finished(Finished { finish_reason: "stop".to_owned(), ..Finished::default() }),
    ]
}

#[tokio::test]
async fn calls_carry_key_deadline_and_user_agent() {
    let mut server = Fake::start(Behaviour::answer()).await;
    let client = Client::builder(&server.address)
        .api_key("sk-secret")
        .user_agent("billing/2")
        .deadline(Duration::from_secs(5))
        .connect()
        .await
        .unwrap();
    assert!(!format!("{client:?}").contains("sk-secret"));

    client.route(RouteRequest::model("chat")).await.unwrap();
    let headers = server.calls.recv().await.unwrap().headers;
    assert_eq!(headers["authorization"], "Bearer sk-secret");
    assert!(headers["user-agent"].starts_with("billing/2 trunkline-sdk/"), "{headers:?}");
    assert!(headers.contains_key("grpc-timeout"), "{headers:?}");

    client.report_outcome(ReportOutcomeRequest::default()).await.unwrap();
    assert_eq!(server.calls.recv().await.unwrap().headers["authorization"], "Bearer sk-secret");
}

#[tokio::test]
async fn silent_server_ends_in_the_deadline() {
    let server = Fake::start(Behaviour::Silent).await;
    let client = Client::connect(&server.address).await.unwrap().with_deadline(SHORT);

    let error = timeout(PATIENCE, client.complete(hello())).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded { deadline } if deadline == SHORT), "{error}");
    let error = timeout(PATIENCE, client.stream_complete(hello())).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn deadline_does_not_cut_a_stream_that_has_begun() {
    let server = Fake::start(Behaviour::Hang).await;
    let client = Client::connect(&server.address).await.unwrap().with_deadline(SHORT);

    let mut events = client.stream_complete(hello()).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(Event::Started(_)))));
    // Still open well after the deadline: nothing comes, and no end either.
    assert!(timeout(SHORT * 5, events.next()).await.is_err());
}

#[tokio::test]
async fn stream_ends_cleanly_after_finished() {
    let behaviour = Behaviour::Answer { events: whole_answer(), then: None };
    let server = Fake::start(behaviour).await;
    let client = Client::connect(&server.address).await.unwrap();

    let mut events = client.stream_complete(hello()).await.unwrap();
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event.unwrap());
    }
    assert_eq!(seen, whole_answer());
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn failure_after_deltas_is_the_last_item() {
    let then = Some(Status::unavailable("provider broke off"));
    let behaviour = Behaviour::Answer { events: vec![delta("hel")], then };
    let server = Fake::start(behaviour).await;
    let client = Client::connect(&server.address).await.unwrap();

    let mut events = client.stream_complete(hello()).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), delta("hel"));
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn stream_without_finished_is_an_error_not_an_answer() {
    let behaviour = Behaviour::Answer { events: vec![delta("hel")], then: None };
    let server = Fake::start(behaviour).await;
    let client = Client::connect(&server.address).await.unwrap();

    let mut events = client.stream_complete(hello()).await.unwrap();
    assert!(events.next().await.unwrap().is_ok());
    assert!(matches!(events.next().await, Some(Err(Error::Interrupted { .. }))));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn dropping_a_stream_cancels_it_at_the_server() {
    let mut server = Fake::start(Behaviour::Hang).await;
    let client = Client::connect(&server.address).await.unwrap();

    let events = client.stream_complete(hello()).await.unwrap();
    assert!(server.ended_streams.try_recv().is_err());
    drop(events);
    timeout(PATIENCE, server.ended_streams.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn watch_ends_when_the_server_ends_it() {
    let mut server = Fake::start(Behaviour::answer()).await;
    let client = Client::connect(&server.address).await.unwrap();

    let mut states = client.watch_routes(["chat"]).await.unwrap();
    // A server that applied it to the whole stream would end the watch.
    assert!(!server.calls.recv().await.unwrap().headers.contains_key("grpc-timeout"));
    assert!(states.next().await.unwrap().is_ok());
    assert!(states.next().await.unwrap().is_ok());
    assert!(states.next().await.is_none());
}

#[tokio::test]
async fn connecting_to_nothing_says_what_was_dialled() {
    let address = Fake::start(Behaviour::answer()).await.stop().await;
    let error = Client::connect(&address).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.is_retryable());
    assert!(error.to_string().contains(&address), "{error}");

    let client = Client::connect_lazy(&address).unwrap();
    let error = client.route(RouteRequest::model("chat")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}
