//! Static stability: with the control plane gone, killed or not there yet, an agent
//! serves from what it has.

use std::{
    env,
    time::{Duration, Instant},
};

use trunkline_tests::{
    agent::Agent,
    control_plane::ControlPlane,
    document::Document,
    patience::until,
    provider::{ANSWER, Provider},
};

#[tokio::test]
async fn agent_serves_without_its_control_plane_even_after_a_restart() {
    let provider = Provider::start("alpha").await;
    let control_plane = ControlPlane::start();
    control_plane.admin().await.apply(&Document::even(&[&provider])).await;
    let agent = Agent::following(&control_plane.url);
    agent.ready().await;

    let away = control_plane.kill();
    for stream in [false, true] {
        assert_eq!(agent.chat(stream).await.text(), ANSWER);
    }
    assert_eq!(agent.readiness().await.0, 200);

    agent.table_kept().await;
    let agent = agent.restart();
    agent.ready().await;
    for stream in [false, true] {
        let reply = agent.chat(stream).await;
        assert_eq!(reply.text(), ANSWER);
        assert_eq!(reply.header("x-trunkline-revision"), "1");
    }
    drop(away);
}

#[tokio::test]
async fn agent_comes_back_to_a_control_plane_that_comes_back() {
    let (alpha, beta) = (Provider::start("alpha").await, Provider::start("beta").await);
    let control_plane = ControlPlane::start();
    control_plane.admin().await.apply(&Document::even(&[&alpha])).await;
    let agent = Agent::following(&control_plane.url);
    agent.ready().await;

    let away = control_plane.kill();
    assert_eq!(agent.chat(false).await.text(), ANSWER);
    let control_plane = away.start();
    let admin = control_plane.admin().await;
    admin.agents_hold(1, 1).await;
    let applied = admin.apply(&Document::even(&[&alpha, &beta])).await.version.unwrap();
    assert_eq!(applied.revision, 2);
    admin.agents_hold(1, 2).await;
    let served = async || {
        agent.chat(false).await;
        beta.requests()
    };
    until("the new provider to be used", served, |requests| *requests > 0).await;
    // What was answered while it was away is counted all the same.
    admin.stats_count(alpha.requests() + beta.requests()).await;
}

#[tokio::test]
async fn agent_that_has_nothing_says_so_until_it_has_something() {
    let provider = Provider::start("alpha").await;
    let control_plane = ControlPlane::start();
    control_plane.admin().await.apply(&Document::even(&[&provider])).await;
    let url = control_plane.url.clone();
    let away = control_plane.kill();

    let agent = Agent::following(&url);
    let (status, reason) = agent.readiness().await;
    assert_eq!(status, 503);
    assert!(reason.contains("no routing table"), "{reason}");
    let refused = agent.chat(false).await;
    assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (503, "not_ready"));

    let _control_plane = away.start();
    agent.ready().await;
    assert_eq!(agent.chat(false).await.text(), ANSWER);
}

#[tokio::test]
async fn an_empty_document_is_a_table() {
    let agent = Agent::alone_on("{}".to_owned(), &[]).await;
    assert_eq!(agent.get("/v1/models").await.json()["data"].as_array().map(Vec::len), Some(0));
    assert_eq!(agent.chat(false).await.error_code(), "model_not_found");
}

#[tokio::test]
async fn control_plane_is_ready_once_it_listens() {
    let control_plane = ControlPlane::start();
    let response = reqwest::get(format!("{}/readyz", control_plane.ops_url)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(control_plane.stop().await.0, Some(0));
}

/// How long the control plane is away in the long test; `make away` makes it ten minutes.
fn away_for() -> Duration {
    let seconds = env::var("TRUNKLINE_TEST_AWAY_SECONDS").map_or(6, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn an_agent_serves_for_as_long_as_the_control_plane_is_away() {
    let (alpha, beta) = (Provider::start("alpha").await, Provider::start("beta").await);
    let control_plane = ControlPlane::start();
    control_plane.admin().await.apply(&Document::even(&[&alpha, &beta])).await;
    let mut agent = Agent::following(&control_plane.url);
    agent.ready().await;

    let away = control_plane.kill();
    let began = Instant::now();
    let mut restarts = 0;
    while began.elapsed() < away_for() {
        for stream in [false, true] {
            assert_eq!(agent.chat(stream).await.text(), ANSWER, "after {:?}", began.elapsed());
        }
        if began.elapsed() > away_for() * (restarts + 1) / 3 {
            restarts += 1;
            agent = agent.stop_and_start().await;
            agent.ready().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(restarts >= 1, "the agent was never restarted");

    let control_plane = away.start();
    let admin = control_plane.admin().await;
    admin.agents_hold(1, 1).await;
    let sent = alpha.requests() + beta.requests();
    let rows = admin.stats_count(sent).await;
    assert_eq!(rows.values().map(|row| row.successes).sum::<u64>(), sent);
}
