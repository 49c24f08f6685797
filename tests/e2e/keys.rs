//! App keys: none are needed until one is configured; then HTTP and gRPC alike want
//! one, and it is never passed on.

use trunkline_sdk::{
    Client, CompleteRequestExt as _, Error, RouteRequestExt as _,
    types::{CompleteRequest, RouteRequest},
};
use trunkline_tests::{
    agent::Agent,
    chat::{chat, chat_for},
    control_plane::ControlPlane,
    document::{Document, api_keys},
    provider::Provider,
    reply::Reply,
};

const KEY: &str = "sk-app-key-of-team-a";
const PINNER: &str = "sk-app-key-of-pinner";

async fn guarded(provider: &Provider) -> Agent {
    let keys = api_keys(&[("team-a", KEY, &[]), ("pinner", PINNER, &["alpha/m"])]);
    Agent::alone(&Document::even(&[provider]).section(&keys)).await
}

async fn send(agent: &Agent, model: &str, header: (&str, &str)) -> Reply {
    let request = agent.request("/v1/chat/completions", &chat_for(model, false)).header(header.0, header.1);
    Reply::read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn without_configured_keys_any_key_will_do_and_none_is_forwarded() {
    let provider = Provider::start("alpha").await;
    let agent = Agent::alone(&Document::even(&[&provider])).await;
    let request = agent.request("/v1/chat/completions", &chat(false));
    let request = request.bearer_auth(KEY).header("x-api-key", KEY).header("cookie", format!("key={KEY}"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let seen = provider.last_seen();
    assert!(seen.headers.iter().all(|(_, value)| !value.contains(KEY)), "{seen:?}");
    assert_eq!(seen.header("authorization"), None);
}

#[tokio::test]
async fn configured_keys_are_wanted_over_http() {
    let provider = Provider::start("alpha").await;
    let agent = guarded(&provider).await;
    let bearer = format!("Bearer {KEY}");
    assert_eq!(agent.chat(false).await.status, 401);
    assert_eq!(agent.get("/v1/models").await.status, 401);
    assert_eq!(send(&agent, "chat", ("authorization", "Bearer sk-wrong")).await.status, 401);
    assert_eq!(send(&agent, "chat", ("authorization", &bearer)).await.status, 200);
    let reply = send(&agent, "chat", ("x-api-key", KEY)).await;
    assert_eq!(reply.status, 200);
    assert!(provider.last_seen().headers.iter().all(|(_, value)| !value.contains(KEY)));
    assert!(!agent.process.log().contains(KEY), "a key is in the log");

    let sdk = Client::builder(agent.url.as_str()).api_key(KEY).connect().await.unwrap();
    let decision = sdk.explain_decision(reply.header("x-trunkline-decision")).await.unwrap();
    assert_eq!(decision.tenant, "team-a");
}

#[tokio::test]
async fn configured_keys_are_wanted_over_grpc() {
    let provider = Provider::start("alpha").await;
    let agent = guarded(&provider).await;
    let request = || CompleteRequest::user("chat", "hello");
    let keyless = agent.sdk().await;
    assert!(matches!(keyless.complete(request()).await, Err(Error::Denied(_))));
    assert!(matches!(keyless.stream_complete(request()).await, Err(Error::Denied(_))));
    assert!(matches!(keyless.explain_decision("any").await, Err(Error::Denied(_))));
    assert!(matches!(keyless.watch_routes(["chat"]).await, Err(Error::Denied(_))));
    let wrong = Client::builder(agent.url.as_str()).api_key("sk-wrong").connect().await.unwrap();
    assert!(matches!(wrong.complete(request()).await, Err(Error::Denied(_))));
    assert_eq!(provider.requests(), 0);

    let team = Client::builder(agent.url.as_str()).api_key(KEY).connect().await.unwrap();
    let answer = team.complete(request()).await.unwrap();
    assert_eq!(answer.decision.unwrap().tenant, "team-a");
    let pin = CompleteRequest::user("alpha/m", "hello");
    assert!(matches!(team.complete(pin).await, Err(Error::Denied(_))));
}

#[tokio::test]
async fn configured_keys_are_wanted_by_the_control_plane_too() {
    let provider = Provider::start("alpha").await;
    let control_plane = ControlPlane::start();
    let keys = api_keys(&[("team-a", KEY, &[])]);
    control_plane.admin().await.apply(&Document::even(&[&provider]).section(&keys)).await;
    let route = || RouteRequest::model("chat");
    let keyless = Client::connect(control_plane.url.as_str()).await.unwrap();
    assert!(matches!(keyless.route(route()).await, Err(Error::Denied(_))));
    let team = Client::builder(control_plane.url.as_str()).api_key(KEY).connect().await.unwrap();
    let decision = team.route(route()).await.unwrap().decision.unwrap();
    assert_eq!(decision.tenant, "team-a");
    assert!(!control_plane.process.log().contains(KEY), "a key is in the log");
}

#[tokio::test]
async fn a_pin_needs_its_name_in_allowed_models() {
    let provider = Provider::start("alpha").await;
    let agent = guarded(&provider).await;
    assert_eq!(send(&agent, "alpha/m", ("x-api-key", KEY)).await.status, 403);
    assert_eq!(send(&agent, "alpha/m", ("x-api-key", PINNER)).await.status, 200);
    assert_eq!(send(&agent, "chat", ("x-api-key", PINNER)).await.status, 403);
}

#[tokio::test]
async fn others_decisions_are_not_shown() {
    let provider = Provider::start("alpha").await;
    let agent = guarded(&provider).await;
    let reply = send(&agent, "chat", ("x-api-key", KEY)).await;
    let other = Client::builder(agent.url.as_str()).api_key(PINNER).connect().await.unwrap();
    let explained = other.explain_decision(reply.header("x-trunkline-decision")).await;
    assert!(matches!(explained, Err(Error::NotFound(_))), "{explained:?}");
}
