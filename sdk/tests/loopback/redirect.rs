//! A client of the control plane is led to agents, and back when they are gone.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says so")]

use std::sync::{Arc, Mutex};

use tonic::Status;
use trunkline_sdk::{
    Client, CompleteRequestExt as _, CompleteResponseExt as _, Error, types::CompleteRequest,
};

use crate::fake::{Behaviour, Fake};

async fn control_plane(agents: &str) -> (Fake, Arc<Mutex<String>>) {
    let listed = Arc::new(Mutex::new(agents.to_owned()));
    (Fake::start(Behaviour::Redirect(Arc::clone(&listed))).await, listed)
}

/// An address at which nothing listens any more.
async fn closed_port() -> String {
    Fake::start(Behaviour::answer()).await.stop().await
}

async fn who_answers(client: &Client) -> String {
    client.complete(CompleteRequest::user("chat", "hello")).await.unwrap().text().to_owned()
}

#[tokio::test]
async fn agent_named_by_the_control_plane_is_used_and_remembered() {
    let agent = Fake::start(Behaviour::answer()).await;
    let (mut home, _) = control_plane(&agent.address).await;
    let client = Client::connect(&home.address).await.unwrap();

    assert_eq!(who_answers(&client).await, agent.address);
    assert_eq!(who_answers(&client).await, agent.address);
    assert_eq!(home.calls_so_far(), 1);
}

#[tokio::test]
async fn unreachable_agent_is_skipped_and_tried_last_from_then_on() {
    let gone = closed_port().await;
    let agent = Fake::start(Behaviour::answer()).await;
    let (mut home, _) = control_plane(&format!("{gone}, {}", agent.address)).await;
    let client = Client::connect(&home.address).await.unwrap();

    assert_eq!(who_answers(&client).await, agent.address);
    assert_eq!(who_answers(&client).await, agent.address);
    assert_eq!(home.calls_so_far(), 1);
}

#[tokio::test]
async fn control_plane_is_asked_again_when_no_known_agent_is_reachable() {
    let first = Fake::start(Behaviour::answer()).await;
    let (mut home, listed) = control_plane(&first.address).await;
    let client = Client::connect(&home.address).await.unwrap();
    assert_eq!(who_answers(&client).await, first.address);

    let second = Fake::start(Behaviour::answer()).await;
    listed.lock().unwrap().clone_from(&second.address);
    first.stop().await;

    // The connection may die under the first call, which must not be sent twice.
    let mut answer = client.complete(CompleteRequest::user("chat", "hello")).await;
    if matches!(&answer, Err(Error::Interrupted { .. })) {
        answer = client.complete(CompleteRequest::user("chat", "hello")).await;
    }
    assert_eq!(answer.unwrap().text(), second.address);
    assert_eq!(home.calls_so_far(), 2);
}

#[tokio::test]
async fn refusal_by_an_agent_is_the_answer_and_moves_nowhere() {
    let refusal = Behaviour::Refuse(Status::unavailable("no target"));
    let refusing = Fake::start(refusal).await;
    let mut other = Fake::start(Behaviour::answer()).await;
    let (home, _) = control_plane(&format!("{},{}", refusing.address, other.address)).await;
    let client = Client::connect(&home.address).await.unwrap();

    let error = client.complete(CompleteRequest::user("chat", "hello")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert_eq!(other.calls_so_far(), 0);
}

#[tokio::test]
async fn no_agent_at_all_is_said_plainly() {
    let (home, _) = control_plane("").await;
    let client = Client::connect(&home.address).await.unwrap();

    let error = client.complete(CompleteRequest::user("chat", "hello")).await.unwrap_err();
    assert!(matches!(error, Error::NoAgent { .. }), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn control_planes_that_name_each_other_end_in_an_error() {
    let (first, listed) = control_plane("").await;
    let (second, _) = control_plane(&first.address).await;
    listed.lock().unwrap().clone_from(&second.address);
    let client = Client::connect(&first.address).await.unwrap();

    let error = client.complete(CompleteRequest::user("chat", "hello")).await.unwrap_err();
    assert_eq!(error.reason(), Some("AGENT_REQUIRED"));
}

#[tokio::test]
async fn streams_are_led_to_agents_too() {
    let agent = Fake::start(Behaviour::Hang).await;
    let (home, _) = control_plane(&agent.address).await;
    let client = Client::connect(&home.address).await.unwrap();

    let mut events = client.stream_complete(CompleteRequest::user("chat", "hi")).await.unwrap();
    assert!(events.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn decision_made_at_an_agent_is_explained_there() {
    let agent = Fake::start(Behaviour::answer()).await;
    let (home, _) = control_plane(&agent.address).await;
    let client = Client::connect(&home.address).await.unwrap();
    assert!(matches!(client.explain_decision("d").await, Err(Error::NotFound(_))));

    who_answers(&client).await;
    assert_eq!(client.explain_decision("d").await.unwrap().chosen, agent.address);
}
