//! What those who have no token, or no token any more, can do to those who have one.

use tokio_util::task::AbortOnDropHandle;
use trunkline_proto::agent::v1::Ack;

use super::*;
use crate::access::limiter::DELAY;

const WATCH_HEALTH: &str = "/grpc.health.v1.Health/Watch";

#[tokio::test]
async fn a_connection_without_a_token_ends_and_one_with_a_token_stays() {
    let plane = Plane::start().await;
    let known = connect(&plane.running, &plane.trust).await;
    let list = "/trunkline.admin.v1.AdminService/ListAgents";
    Plane::call_on(known.clone(), list, Some(&token(Role::Viewer))).await.unwrap();
    let mut stays = Plane::call_on(known, WATCH_HEALTH, None).await.unwrap();
    let mut ends = plane.call(WATCH_HEALTH, None).await.unwrap();
    let until_end = async { while let Ok(Some(())) = ends.message().await {} };
    tokio::time::timeout(PATIENCE, until_end).await.expect("a stranger's connection ends");
    // It was there before the other one.
    while let Ok(said) = tokio::time::timeout(Duration::from_millis(50), stays.message()).await {
        said.unwrap().unwrap();
    }
}

#[tokio::test]
async fn one_connection_has_so_many_calls_and_no_more() {
    let plane = Plane::start().await;
    let mut open = Vec::new();
    for _ in 0..crate::grpc::STREAMS_MAX {
        open.push(plane.call(WATCH_HEALTH, None).await.unwrap());
    }
    let one_more = plane.call(WATCH_HEALTH, None);
    assert!(tokio::time::timeout(Duration::from_millis(200), one_more).await.is_err());
    let other = connect(&plane.running, &plane.trust).await;
    Plane::call_on(other, WATCH_HEALTH, None).await.expect("another connection has its own");
    open.truncate(100);
    plane.call(WATCH_HEALTH, None).await.expect("calls that end make room");
}

/// Agents that the control plane says are connected.
async fn connected(plane: &Plane) -> bool {
    let (_, metrics) = https_get(plane, "/metrics", None).await;
    metrics.contains("trunkline_control_plane_agents_connected 1")
}

#[tokio::test]
async fn a_withdrawn_agent_is_gone_whatever_it_goes_on_to_say() {
    let plane = Plane::start().await;
    let secret = token(Role::Agent).into();
    let channel = InterceptedService::new(plane.channel.clone(), Bearer::token(&secret).unwrap());
    let hello = Hello { agent_id: "a-1".to_owned(), incarnation: "1".to_owned(), ..Hello::default() };
    let (says, said) = tokio::sync::mpsc::channel(1);
    says.send(SyncRequest { message: Some(sync_request::Message::Hello(hello)) }).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(said);
    let mut answers = AgentServiceClient::new(channel).sync(requests).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    // Nobody answers an acknowledgement of nothing, and each is a sign of life.
    let ack = SyncRequest { message: Some(sync_request::Message::Ack(Ack::default())) };
    let talking = AbortOnDropHandle::new(tokio::spawn(async move {
        while says.send(ack.clone()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }));
    assert!(connected(&plane).await);
    std::fs::write(plane.file(Role::Agent), "a-2 other-0123456789abcdef\n").unwrap();
    let gone = async {
        while connected(&plane).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("its session ends with its token");
    drop(talking);
    let end = loop {
        if let Err(status) = answers.message().await {
            break status;
        }
    };
    assert_eq!(end.code(), Code::Unauthenticated, "{end}");
}

#[tokio::test(start_paused = true)]
async fn who_tries_tokens_on_the_ops_listener_waits_too() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = security(directory.path()).0.load().unwrap().tokens;
    let repository = Repository::open(RepositoryOptions::default()).unwrap();
    let access = Access::new(tokens, repository, false, Refused::default());
    let read = async |token: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let began = tokio::time::Instant::now();
        if let Err(delay) = access.may_read(&headers, [10, 0, 0, 1].into()) {
            delay.over().await;
        }
        began.elapsed()
    };
    // More than a slow machine refills meanwhile.
    let mut waited = Duration::ZERO;
    for _ in 0..50 {
        waited += read("wrong-0123456789abcdef").await;
    }
    assert!(waited >= DELAY, "{waited:?}");
    assert_eq!(read(&token(Role::Viewer)).await, Duration::ZERO);
}

#[tokio::test]
async fn refusals_of_the_ops_listener_are_counted() {
    let plane = Plane::with(open_ops, true).await;
    let wrong = Some("Bearer wrong-0123456789abcdef".to_owned());
    assert_eq!(https_get(&plane, "/metrics", wrong).await.0, 401);
    assert_eq!(https_get(&plane, "/metrics", None).await.0, 401);
    let viewer = Some(format!("Bearer {}", token(Role::Viewer)));
    let (status, metrics) = https_get(&plane, "/metrics", viewer).await;
    assert_eq!(status, 200);
    for reason in ["unknown", "missing"] {
        let line = format!("trunkline_control_plane_calls_refused_total{{reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[test]
fn each_token_that_lets_in_comes_with_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = security(directory.path()).0.load().unwrap().tokens;
    let repository = Repository::open(RepositoryOptions::default()).unwrap();
    let access = Access::new(tokens, repository, false, Refused::default());
    for (path, role) in [
        ("/trunkline.agent.v1.AgentService/Sync", Role::Agent),
        ("/trunkline.admin.v1.AdminService/WatchResources", Role::Viewer),
    ] {
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {}", token(role)).parse().unwrap());
        let admitted = access.admit(path, &headers).map_err(|refusal| format!("{refusal:?}")).unwrap();
        assert!(admitted.is_known && admitted.withdrawal.is_some(), "{path}");
    }
    let health = access.admit(WATCH_HEALTH, &http::HeaderMap::new());
    assert!(health.is_ok_and(|admitted| !admitted.is_known));
}
