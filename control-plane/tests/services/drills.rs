//! Drills and drains over real sockets.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use tonic_types::StatusExt;
use trunkline_proto::{
    admin::v1::{
        Agent as Listed, ClearFaultRequest, DrainAgentRequest, Drill, InjectFaultRequest, ListAgentsRequest,
        ListFaultsRequest,
    },
    agent::v1::{Heartbeat, sync_request},
    types::v1::{Fault, StallFault, fault::Effect},
};

use crate::{
    scripted::{Agent, hello},
    support::{PATIENCE, Plane},
};

fn drill(name: &str, agents: &[&str], seconds: i64) -> InjectFaultRequest {
    let fault = Fault {
        name: name.into(),
        agents: agents.iter().map(|id| (*id).to_owned()).collect(),
        deployments: vec!["one/small".into()],
        effect: Some(Effect::Stall(StallFault {})),
        ..Fault::default()
    };
    let ttl = Some(prost_types::Duration { seconds, nanos: 0 });
    InjectFaultRequest { fault: Some(fault), ttl, validate_only: false }
}

async fn drills(plane: &mut Plane) -> Vec<Drill> {
    plane.admin.list_faults(ListFaultsRequest {}).await.unwrap().into_inner().drills
}

/// The agent of that id, once `condition` holds for it.
async fn listed(plane: &mut Plane, id: &str, condition: impl Fn(&Listed) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let agents = plane.admin.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents;
        if agents.iter().any(|agent| agent.agent_id == id && condition(agent)) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{agents:?}");
        tokio::task::yield_now().await;
    }
}

/// The value of a metric without labels.
async fn metric(plane: &Plane, name: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(plane.running.ops_addr).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("trunkline_control_plane_{name} ")));
    line.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_drill_reaches_its_agents_only_and_is_seen_everywhere_until_it_is_cleared() {
    let mut plane = Plane::configured().await;
    let mut meant = Agent::open(&plane, hello("meant")).await;
    let mut other = Agent::open(&plane, hello("other")).await;
    let (first, second) = (meant.publication().await, other.publication().await);
    assert!(first.faults.is_empty() && second.faults.is_empty());
    let request = drill("stall", &["meant"], 600);
    let made = plane.admin.inject_fault(request).await.unwrap().into_inner().drill.unwrap();
    assert_eq!(made.fault.as_ref().unwrap().percent, 100);
    let told = meant.publication().await;
    let fault = told.faults[0].fault.as_ref().unwrap();
    assert_eq!((fault.name.as_str(), fault.agents.len(), told.seq), ("stall", 0, 2));
    assert!(told.faults[0].remaining.unwrap().seconds >= 590);
    assert!(told.sequence > first.sequence);

    let active_faults = vec!["stall".to_owned()];
    meant.say(sync_request::Message::Heartbeat(Heartbeat { active_faults, ..Default::default() })).await;
    listed(&mut plane, "meant", |agent| agent.active_faults == ["stall"]).await;
    let all = drills(&mut plane).await;
    assert_eq!((all.len(), all[0].active_at.as_slice()), (1, ["meant".to_owned()].as_slice()));
    assert_eq!(all[0].principal, made.principal);
    assert_eq!(metric(&plane, "faults_active").await, "1");

    // The next thing that the other agent hears of is a drill for all.
    plane.admin.inject_fault(drill("all", &[], 600)).await.unwrap();
    let told = other.publication().await;
    assert_eq!((told.seq, told.faults.len()), (2, 1));
    assert_eq!(meant.publication().await.faults.len(), 2);
    plane.admin.clear_fault(ClearFaultRequest { name: "stall".into() }).await.unwrap();
    assert_eq!(meant.publication().await.faults.len(), 1);
    let again = plane.admin.clear_fault(ClearFaultRequest { name: "stall".into() }).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    assert_eq!(metric(&plane, "faults_active").await, "1");
    drop((meant, other));
    plane.stop().await;
}

#[tokio::test]
async fn a_drill_ends_by_itself() {
    let mut plane = Plane::configured().await;
    let mut agent = Agent::open(&plane, hello("a")).await;
    assert!(agent.publication().await.faults.is_empty());
    plane.admin.inject_fault(drill("short", &[], 1)).await.unwrap();
    assert_eq!(agent.publication().await.faults.len(), 1);
    assert!(agent.publication().await.faults.is_empty());
    assert!(drills(&mut plane).await.is_empty());
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn a_wrong_drill_names_its_fields_and_one_that_is_only_checked_does_not_begin() {
    let mut plane = Plane::configured().await;
    let mut wrong = drill("Wrong", &[], 0);
    wrong.fault.as_mut().unwrap().deployments.push("three/small".into());
    let refused = plane.admin.inject_fault(wrong).await.unwrap_err();
    let fields = refused.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["ttl", "fault.name", "fault.deployments[1]"]);
    let check = InjectFaultRequest { validate_only: true, ..drill("checked", &[], 60) };
    let answer = plane.admin.inject_fault(check).await.unwrap().into_inner().drill.unwrap();
    assert_eq!(answer.fault.unwrap().name, "checked");
    assert!(drills(&mut plane).await.is_empty());
    plane.stop().await;
}

#[tokio::test]
async fn a_drain_is_told_again_after_a_restart_of_either_until_it_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut plane = Plane::on_disk(dir.path()).await;
    let order = |resume| DrainAgentRequest {
        agent_id: "a".into(),
        resume,
        reason: if resume { String::new() } else { "new kernel".into() },
    };
    assert_eq!(plane.admin.drain_agent(order(false)).await.unwrap_err().code(), Code::NotFound);
    let mut agent = Agent::open(&plane, hello("a")).await;
    let mut other = Agent::open(&plane, hello("b")).await;
    assert_eq!(agent.publication().await.out_of_service, None);
    assert_eq!(other.publication().await.out_of_service, None);
    let drained = plane.admin.drain_agent(order(false)).await.unwrap().into_inner().agent.unwrap();
    assert!(drained.drain_requested && !drained.draining);
    assert_eq!(agent.publication().await.out_of_service.unwrap().reason, "new kernel");
    agent.say(sync_request::Message::Heartbeat(Heartbeat { draining: true, ..Default::default() })).await;
    listed(&mut plane, "a", |agent| agent.draining && agent.drain_requested).await;
    drop((agent, other));
    plane.stop().await;

    let mut plane = Plane::on_disk(dir.path()).await;
    let mut agent = Agent::open(&plane, hello("a")).await;
    assert!(agent.publication().await.out_of_service.is_some());
    plane.admin.drain_agent(order(true)).await.unwrap();
    let resumed = agent.publication().await;
    assert_eq!((resumed.out_of_service, resumed.seq), (None, 2));
    listed(&mut plane, "a", |agent| !agent.drain_requested).await;
    drop(agent);
    plane.stop().await;
}
