//! Who is known, for how long, and what is kept of them.

use trunkline_proto::types::v1::{Quarantine, RateGate};

use super::*;

fn hello(agent_id: &str) -> Hello {
    Hello {
        agent_id: agent_id.into(),
        incarnation: "i".into(),
        advertise: format!("http://{agent_id}"),
        ..Hello::default()
    }
}

#[test]
fn the_newest_stream_of_an_agent_wins() {
    let registry = Arc::new(Registry::new());
    let now = SystemTime::now();
    let old = registry.connect(hello("a"), now).unwrap();
    let new = registry.connect(hello("a"), now).unwrap();
    assert!(old.superseded.is_cancelled());
    drop(old);
    assert_eq!(registry.connected(), 1);
    drop(new);
    assert_eq!(registry.connected(), 0);
}

#[test]
fn a_stream_that_lingers_does_not_speak_for_a_later_one() {
    let registry = Arc::new(Registry::new());
    let now = SystemTime::now();
    let lingering = registry.connect(hello("a"), now).unwrap();
    drop(registry.connect(hello("a"), now).unwrap());
    let newest = registry.connect(hello("a"), now).unwrap();
    lingering.acknowledged(None, Some("no".into()), now);
    assert_eq!(registry.list("", 1, now)[0].last_nack, "");
    drop(lingering);
    assert_eq!(registry.connected(), 1);
    drop(newest);
}

#[test]
fn a_disconnected_agent_is_listed_for_an_hour() {
    let registry = Arc::new(Registry::new());
    let now = SystemTime::now();
    drop(registry.connect(hello("a"), now).unwrap());
    let listed = registry.list("", 10, SystemTime::now());
    assert_eq!(listed[0].state(), admin::AgentState::Disconnected);
    assert_eq!(registry.advertised(10), Vec::<String>::new());
    let later = SystemTime::now() + DISCONNECTED_KEPT + Duration::from_secs(1);
    assert!(registry.list("", 10, later).is_empty());
}

#[test]
fn protections_leave_with_their_agent() {
    let registry = Arc::new(Registry::new());
    let connection = registry.connect(hello("a"), SystemTime::now()).unwrap();
    connection.protections(vec![Protection { subject: "p/d".into(), kind: None }], SystemTime::now());
    assert_eq!(registry.protections(SystemTime::now()).len(), 1);
    drop(connection);
    assert!(registry.protections(SystemTime::now()).is_empty());
}

#[test]
fn what_remains_of_a_protection_shrinks_with_time() {
    let registry = Arc::new(Registry::new());
    let now = SystemTime::now();
    let connection = registry.connect(hello("a"), now).unwrap();
    let remaining = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let kind = Some(Kind::RateGate(RateGate { remaining }));
    connection.protections(vec![Protection { subject: "p/d".into(), kind }], now);
    for (age, left) in [(0, 30), (10, 20), (90, 0)] {
        let all = registry.protections(now + Duration::from_secs(age));
        let Some(Kind::RateGate(gate)) = &all[0].1.kind else { panic!("{all:?}") };
        assert_eq!(gate.remaining.unwrap().seconds, left);
    }
}

#[test]
fn what_is_kept_of_one_agent_is_bounded() {
    let registry = Arc::new(Registry::new());
    let connection = registry.connect(hello("a"), SystemTime::now()).unwrap();
    let reason = "é".repeat(TEXT_BYTES_MAX);
    let kind = Some(Kind::Quarantine(Quarantine { reason, remaining: None }));
    let protection = Protection { subject: "p/d".into(), kind };
    connection.protections(vec![protection; PROTECTIONS_MAX + 1], SystemTime::now());
    let all = registry.protections(SystemTime::now());
    assert_eq!(all.len(), PROTECTIONS_MAX);
    let Some(Kind::Quarantine(quarantine)) = &all[0].1.kind else { panic!("{:?}", all[0]) };
    assert_eq!(quarantine.reason.len(), TEXT_BYTES_MAX);
}

#[test]
fn no_more_agents_than_the_bound() {
    let registry = Arc::new(Registry::new());
    let now = SystemTime::now();
    let held: Vec<_> =
        (0..CONNECTED_MAX).map(|number| registry.connect(hello(&number.to_string()), now).unwrap()).collect();
    assert!(registry.connect(hello("one-more"), now).is_err());
    // One that comes again takes its own place.
    let again = registry.connect(hello("7"), now).unwrap();
    assert_eq!(registry.connected(), CONNECTED_MAX);
    drop((held, again));
    assert_eq!(registry.connected(), 0);
}

#[test]
fn agents_that_went_first_make_room_and_none_that_is_connected() {
    let registry = Arc::new(Registry::new());
    let stays = registry.connect(hello("stays"), SystemTime::now()).unwrap();
    for number in 0..KNOWN_MAX {
        drop(registry.connect(hello(&number.to_string()), SystemTime::now()).unwrap());
    }
    let known = registry.list("", usize::MAX, SystemTime::now());
    assert!(known.len() <= KNOWN_MAX && known.len() >= KNOWN_MAX - ROOM, "{}", known.len());
    let now = SystemTime::now();
    assert!(registry.get("0", now).is_none());
    assert!(registry.get(&(KNOWN_MAX - 1).to_string(), now).is_some());
    assert_eq!(registry.get("stays", now).unwrap().state(), admin::AgentState::Connected);
    drop(stays);
}

#[test]
fn pages_are_by_id() {
    let registry = Arc::new(Registry::new());
    let now = SystemTime::now();
    let held: Vec<_> =
        ["d", "a", "c", "b"].map(|id| registry.connect(hello(id), now).unwrap()).into_iter().collect();
    let ids = |after: &str, limit| {
        let listed = registry.list(after, limit, now).into_iter();
        listed.map(|agent| agent.agent_id).collect::<String>()
    };
    assert_eq!((ids("", 2), ids("b", 9), ids("", 4)), ("ab".into(), "cd".into(), "abcd".into()));
    drop(held);
}

#[test]
fn what_an_agent_says_it_does_is_shown_until_it_goes() {
    let registry = Arc::new(Registry::new());
    let now = SystemTime::now();
    let connection = registry.connect(hello("a"), now).unwrap();
    registry.note_telemetry_gap("a");
    registry.note_telemetry_gap("later");
    let heartbeat = Heartbeat { active_faults: vec!["slow".into()], draining: true, ..Heartbeat::default() };
    connection.heartbeat(&heartbeat, now);
    connection.ahead();
    let agent = registry.get("a", now).unwrap();
    assert_eq!((agent.draining, agent.ahead, agent.telemetry_gaps), (true, true, 1));
    assert_eq!(registry.active_faults()["slow"], ["a"]);
    drop(connection);
    assert!(registry.active_faults().is_empty());
    assert!(!registry.get("a", now).unwrap().draining);
    let later = registry.connect(hello("later"), now).unwrap();
    assert_eq!(registry.get("later", now).unwrap().telemetry_gaps, 1);
    drop(later);
}
