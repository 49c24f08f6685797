//! Sync over real sockets, with a scripted agent.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use tonic::Code;
use trunkline_proto::{
    admin::v1::{AgentState, Config, ListAgentsRequest, ListBreakersRequest, SetBreakerRequest},
    agent::v1::{Heartbeat, Hello, ProtectionStates, sync_request, sync_response::Message},
    convert::sync,
    types::v1::{BreakerState, LocalBreaker, Protection, Version, protection::Kind},
};

use crate::{
    scripted::{Agent, hello},
    support::{DOCUMENT, PATIENCE, Plane, apply, config},
};

/// The only agent, once `condition` holds for it.
async fn listed(plane: &mut Plane, condition: impl Fn(&trunkline_proto::admin::v1::Agent) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let agents = plane.admin.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents;
        if agents.len() == 1 && condition(&agents[0]) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{agents:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_agent_gets_a_snapshot_and_then_deltas() {
    let mut plane = Plane::configured().await;
    let mut agent = Agent::connect(&plane, None).await;
    let snapshot = agent.update().await;
    assert!(snapshot.full && !snapshot.more);
    let held = sync::apply(&Config::default(), snapshot.upserts.clone(), &[]);
    assert_eq!(held, plane.running.repository.state().config);
    agent.ack(&snapshot, None).await;

    let changed = config(&DOCUMENT.replace("weight: 70", "weight: 60"));
    plane.admin.apply_config(apply(changed)).await.unwrap();
    let delta = agent.update().await;
    assert_eq!((delta.full, delta.upserts.len(), &delta.base), (false, 1, &snapshot.version));
    let held = sync::apply(&held, delta.upserts.clone(), &delta.removals);
    assert_eq!(sync::state_sha256(&held).as_slice(), &delta.state_sha256[..]);
    agent.ack(&delta, None).await;
    listed(&mut plane, |agent| agent.applied == delta.version).await;
    drop(agent);
    listed(&mut plane, |agent| agent.state() == AgentState::Disconnected).await;
    plane.stop().await;
}

#[tokio::test]
async fn an_agent_that_returns_gets_only_what_it_missed() {
    let mut plane = Plane::configured().await;
    let version = plane.running.repository.state().version.clone();
    let held = Version { epoch: version.epoch, revision: version.revision };
    plane.admin.apply_config(apply(config(&DOCUMENT.replace("weight: 30", "weight: 40")))).await.unwrap();
    let mut agent = Agent::connect(&plane, Some(held.clone())).await;
    let delta = agent.update().await;
    assert_eq!((delta.full, delta.base), (false, Some(held)));
    drop(agent);
    let foreign = Version { epoch: "another".into(), revision: 1 };
    let mut agent = Agent::connect(&plane, Some(foreign)).await;
    assert!(agent.update().await.full);
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn a_refused_update_is_shown_and_the_next_revision_still_comes() {
    let mut plane = Plane::configured().await;
    let mut agent = Agent::connect(&plane, None).await;
    let refused = agent.update().await;
    agent.ack(&refused, Some("does not fit")).await;
    listed(&mut plane, |agent| agent.last_nack == "does not fit").await;
    plane.admin.apply_config(apply(config(&DOCUMENT.replace("weight: 70", "weight: 60")))).await.unwrap();
    let next = agent.update().await;
    assert!(next.full);
    assert_eq!(next.version.as_ref().unwrap().revision, refused.version.unwrap().revision + 1);
    agent.ack(&next, None).await;
    listed(&mut plane, |agent| agent.last_nack.is_empty()).await;
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn verdicts_reach_agents_at_once_and_whole() {
    let mut plane = Plane::configured().await;
    let mut agent = Agent::connect(&plane, None).await;
    assert!(agent.publication().await.verdicts.is_empty());
    let state = BreakerState::ForcedOpen.into();
    let request = SetBreakerRequest { deployment: "one/small".into(), state, ..Default::default() };
    plane.admin.set_breaker(request).await.unwrap();
    let publication = agent.publication().await;
    assert_eq!((publication.seq, publication.verdicts.len()), (2, 1));
    let verdict = &publication.verdicts[0];
    assert_eq!(
        (verdict.deployment.as_str(), verdict.state(), verdict.generation),
        ("one/small", BreakerState::ForcedOpen, 1)
    );
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn agents_hear_that_a_verdict_ended_by_itself() {
    let mut plane = Plane::configured().await;
    let mut agent = Agent::connect(&plane, None).await;
    let ttl = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let state = BreakerState::ForcedOpen.into();
    let request = SetBreakerRequest { deployment: "one/small".into(), state, ttl, ..Default::default() };
    assert!(agent.publication().await.verdicts.is_empty());
    plane.admin.set_breaker(request).await.unwrap();
    let remaining = agent.publication().await.verdicts[0].remaining.unwrap();
    assert!(remaining.seconds <= 1, "{remaining:?}");
    assert!(agent.publication().await.verdicts.is_empty());
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn after_a_restart_agents_go_on_from_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let mut plane = Plane::on_disk(dir.path()).await;
    plane.admin.apply_config(apply(config(DOCUMENT))).await.unwrap();
    let mut agent = Agent::connect(&plane, None).await;
    let held = agent.update().await.version;
    drop(agent);
    plane.stop().await;

    let mut plane = Plane::on_disk(dir.path()).await;
    let mut agent = Agent::connect(&plane, held.clone()).await;
    assert!(agent.publication().await.verdicts.is_empty());
    // Nothing is sent again; the first change comes as a delta on what is held.
    plane.admin.apply_config(apply(config(&DOCUMENT.replace("weight: 70", "weight: 60")))).await.unwrap();
    let delta = agent.update().await;
    assert_eq!((delta.full, &delta.base), (false, &held));
    drop(agent);
    plane.stop().await;

    // The journal still has the states between: one who missed a change gets just that.
    let plane = Plane::on_disk(dir.path()).await;
    let mut agent = Agent::connect(&plane, held.clone()).await;
    let again = agent.update().await;
    assert_eq!((again.full, &again.base, &again.version), (false, &held, &delta.version));
    assert_eq!(again.upserts, delta.upserts);
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn breakers_of_agents_are_listed() {
    let mut plane = Plane::configured().await;
    let agent = Agent::connect(&plane, None).await;
    let breaker = LocalBreaker { state: BreakerState::Open.into(), openings: 1, ..Default::default() };
    let protection = Protection { subject: "two/small".into(), kind: Some(Kind::Breaker(breaker)) };
    agent.say(sync_request::Message::Protections(ProtectionStates { protections: vec![protection] })).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let request = ListBreakersRequest { active_only: true };
        let breakers = plane.admin.list_breakers(request).await.unwrap().into_inner().breakers;
        if let [breaker] = breakers.as_slice() {
            assert_eq!((breaker.deployment.as_str(), breaker.state()), ("two/small", BreakerState::Open));
            assert_eq!(breaker.agents[0].agent_id, "a");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn heartbeats_are_answered_and_the_newest_stream_wins() {
    let mut plane = Plane::configured().await;
    let mut old = Agent::connect(&plane, None).await;
    old.say(sync_request::Message::Heartbeat(Heartbeat { seq: 7, in_flight: 3, ..Default::default() })).await;
    loop {
        if let Message::HeartbeatAck(ack) = old.next().await.unwrap() {
            assert_eq!((ack.seq, ack.current.unwrap().revision), (7, 1));
            break;
        }
    }
    listed(&mut plane, |agent| agent.in_flight == 3).await;
    let new = Agent::connect(&plane, None).await;
    let ended = loop {
        if let Err(status) = old.next().await {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::Aborted);
    listed(&mut plane, |agent| agent.state() == AgentState::Connected).await;
    drop((old, new));
    plane.stop().await;
}

#[tokio::test]
async fn an_agent_ahead_of_the_store_keeps_what_it_has_and_is_shown() {
    let mut plane = Plane::configured().await;
    let version = plane.running.repository.state().version.clone();
    let ahead = Version { epoch: version.epoch.clone(), revision: version.revision + 8 };
    let mut agent = Agent::connect(&plane, Some(ahead)).await;
    listed(&mut plane, |agent| agent.ahead).await;
    let state = BreakerState::ForcedOpen.into();
    let request = SetBreakerRequest { deployment: "one/small".into(), state, ..Default::default() };
    // What an operator would write now might be what was lost.
    let refused = plane.admin.set_breaker(request).await.unwrap_err();
    assert!(refused.message().contains("rolled back"), "{refused}");
    let ready = plane.page("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.contains("takes no writes"), "{ready}");
    // Neither an update nor a publication came before the answer to this.
    agent.say(sync_request::Message::Heartbeat(Heartbeat { seq: 1, ..Default::default() })).await;
    let next = agent.next().await.unwrap();
    assert!(matches!(next, Message::HeartbeatAck(_)), "{next:?}");
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn an_agent_that_saw_a_later_commit_shows_that_the_store_lost_it() {
    let mut plane = Plane::configured().await;
    let version = plane.running.repository.state().version.clone();
    let applied = Some(Version { epoch: version.epoch.clone(), revision: version.revision });
    let seen_sequence = plane.running.repository.sequence();
    let agent = Agent::open(&plane, Hello { applied: applied.clone(), seen_sequence, ..hello("a") }).await;
    listed(&mut plane, |agent| !agent.ahead).await;
    drop(agent);
    let later = Hello { applied, seen_sequence: seen_sequence + 1, ..hello("a") };
    let agent = Agent::open(&plane, later).await;
    listed(&mut plane, |agent| agent.ahead).await;
    drop(agent);
    // What it saw of another store says nothing.
    let applied = Some(Version { epoch: "another".into(), revision: 9 });
    let mut agent = Agent::open(&plane, Hello { applied, seen_sequence: 999, ..hello("a") }).await;
    assert!(agent.update().await.full);
    listed(&mut plane, |agent| !agent.ahead).await;
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn a_stop_tells_agents_when_to_come_back() {
    let plane = Plane::configured().await;
    let mut agent = Agent::connect(&plane, None).await;
    plane.shutdown.cancel();
    let drain = loop {
        if let Message::Drain(drain) = agent.next().await.unwrap() {
            break drain;
        }
    };
    assert_eq!(drain.reconnect_after_max.unwrap().seconds, 2);
    // Then the stream ends, without an error.
    assert_eq!(agent.inbound.message().await.unwrap(), None);
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn of_a_burst_of_changes_an_agent_gets_few_updates_and_the_last_state() {
    let mut plane = Plane::configured().await;
    let mut agent = Agent::connect(&plane, None).await;
    let first = agent.update().await;
    agent.ack(&first, None).await;
    for weight in 1..=40 {
        let changed = config(&DOCUMENT.replace("weight: 70", &format!("weight: {weight}")));
        plane.admin.apply_config(apply(changed)).await.unwrap();
    }
    let last = plane.running.repository.state().version.revision;
    let mut updates = 0;
    loop {
        let update = agent.update().await;
        agent.ack(&update, None).await;
        updates += 1;
        if update.version.unwrap().revision == last {
            break;
        }
    }
    // At most the first, one each second, and the last; forty came.
    assert!(updates < 20, "{updates}");
    drop(agent);
    plane.stop().await;
}
