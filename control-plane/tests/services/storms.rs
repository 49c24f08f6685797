//! Many agents at once.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use trunkline_proto::{
    admin::v1::{Config, ExportConfigRequest, ListAgentsRequest, SetBreakerRequest},
    agent::v1::{Heartbeat, Update, sync_request, sync_response::Message},
    types::v1::{BreakerState, Deployment, Provider, Version},
};

use crate::{
    scripted::{Agent, hello},
    support::{DOCUMENT, PATIENCE, Plane, apply, config},
};

/// Snapshots that the control plane has under way at a time.
const UNDER_WAY_MAX: usize = 25;

/// Providers of a large configuration, beside the usual two.
const PROVIDERS: usize = 50;

/// About a MiB.
fn large() -> Config {
    let mut config = config(DOCUMENT);
    let deployment = |number| Deployment {
        name: format!("d{number}"),
        upstream_model: "m".repeat(256),
        ..Deployment::default()
    };
    let template = config.providers[0].clone();
    config.providers.extend((0..PROVIDERS).map(|number| Provider {
        name: format!("many-{number}"),
        deployments: (0..80).map(deployment).collect(),
        ..template.clone()
    }));
    config
}

/// The next part of an update, however long others come first: the agent says meanwhile
/// that it is there.
async fn part(agent: &mut Agent) -> Update {
    let mut beat = tokio::time::interval(Duration::from_secs(2));
    let next = async {
        loop {
            tokio::select! {
                biased; // What came is no reason for another heartbeat.
                message = agent.next() => if let Message::Update(update) = message.unwrap() {
                    return update;
                },
                _ = beat.tick() => {
                    agent.say(sync_request::Message::Heartbeat(Heartbeat::default())).await;
                }
            }
        }
    };
    tokio::time::timeout(6 * PATIENCE, next).await.unwrap()
}

#[tokio::test]
async fn a_fleet_that_comes_at_once_is_synced_in_turn_and_operators_are_answered() {
    const AGENTS: usize = 300;
    let mut plane = Plane::empty().await;
    let config = large();
    assert!(prost::Message::encoded_len(&config) > 900_000, "{}", prost::Message::encoded_len(&config));
    plane.admin.apply_config(apply(config)).await.unwrap();
    let under_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let mut agents = JoinSet::new();
    for number in 0..AGENTS {
        let (under_way, most) = (Arc::clone(&under_way), Arc::clone(&most));
        // Ten share a connection: the test is of streams, not of descriptors.
        let channel = match number % 10 {
            0 => {
                let url = format!("http://{}", plane.running.grpc_addr);
                plane.channel = tonic::transport::Channel::from_shared(url).unwrap().connect().await.unwrap();
                plane.channel.clone()
            }
            _ => plane.channel.clone(),
        };
        agents.spawn(async move {
            let mut agent = Agent::try_open(channel, hello(&number.to_string())).await.unwrap();
            let first = part(&mut agent).await;
            let now = under_way.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            let mut last = first;
            let mut resources = last.upserts.len();
            while last.more {
                last = part(&mut agent).await;
                resources += last.upserts.len();
            }
            assert_eq!(resources, PROVIDERS + 3);
            under_way.fetch_sub(1, Ordering::SeqCst);
            agent.ack(&last, None).await;
            agent
        });
    }
    // Meanwhile.
    let export = plane.admin.export_config(ExportConfigRequest {});
    let exported = tokio::time::timeout(PATIENCE, export).await.unwrap().unwrap().into_inner();
    assert_eq!(exported.version.unwrap().revision, 1);
    let synced = agents.join_all().await;
    assert_eq!(synced.len(), AGENTS);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=UNDER_WAY_MAX).contains(&most), "{most}");
    let request = ListAgentsRequest { page_size: 1_000, ..Default::default() };
    assert_eq!(plane.admin.list_agents(request).await.unwrap().into_inner().agents.len(), AGENTS);
    drop(synced);
    plane.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_snapshot_gets_verdicts_and_then_the_snapshot() {
    let mut plane = Plane::configured().await;
    let mut holding = Vec::new();
    for number in 0..UNDER_WAY_MAX {
        let mut agent = Agent::open(&plane, hello(&format!("holding-{number}"))).await;
        let update = agent.update().await;
        holding.push((agent, update));
    }
    let mut waiting = Agent::open(&plane, hello("waiting")).await;
    assert!(waiting.publication().await.verdicts.is_empty());
    let state = BreakerState::ForcedOpen.into();
    let request = SetBreakerRequest { deployment: "one/small".into(), state, ..Default::default() };
    plane.admin.set_breaker(request).await.unwrap();
    // Messages keep their order: a snapshot would have come first.
    let next = waiting.next().await.unwrap();
    let Message::Publication(told) = next else { panic!("{next:?}") };
    assert_eq!(told.verdicts.len(), 1);
    // It is not told of a version for which it would only come again.
    waiting.say(sync_request::Message::Heartbeat(Heartbeat { seq: 1, ..Heartbeat::default() })).await;
    let next = waiting.next().await.unwrap();
    let Message::HeartbeatAck(ack) = next else { panic!("{next:?}") };
    assert_eq!(ack.current, Some(Version::default()));
    let (agent, update) = &holding[0];
    agent.ack(update, None).await;
    assert!(waiting.update().await.full);
    drop((holding, waiting));
    plane.stop().await;
}
