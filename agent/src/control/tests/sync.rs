//! The agent's table, verdicts and protections against a control plane that is played.

use trunkline_proto::{
    admin::v1::Config,
    agent::v1::{Ack, BreakerVerdict, Publication, Update, Welcome, sync_response},
    convert::sync,
    types::v1::{BreakerState, Deployment, Dialect, Provider, Version},
};

use super::*;

impl Sync {
    async fn send(&self, message: sync_response::Message) {
        self.answer(SyncResponse { message: Some(message) }).await;
    }

    async fn ack_of(&mut self, update: Update) -> Ack {
        self.send(sync_response::Message::Update(update)).await;
        loop {
            if let Some(sync_request::Message::Ack(ack)) = self.next().await.message {
                return ack;
            }
        }
    }
}

fn config(names: &[&str]) -> Config {
    let provider = |name: &&str| Provider {
        name: (*name).to_owned(),
        dialect: Dialect::Openai as i32,
        base_url: "https://api.example.com/v1".to_owned(),
        deployments: vec![Deployment { name: "d".to_owned(), ..Deployment::default() }],
        ..Provider::default()
    };
    Config { providers: names.iter().map(provider).collect(), ..Config::default() }
}

fn version(revision: u64) -> Version {
    Version { epoch: "e".to_owned(), revision }
}

fn snapshot(revision: u64, config: &Config) -> Update {
    Update {
        nonce: format!("n{revision}"),
        version: Some(version(revision)),
        full: true,
        upserts: sync::snapshot(config),
        state_sha256: sync::state_sha256(config).to_vec().into(),
        ..Update::default()
    }
}

fn delta(revision: u64, old: &Config, new: &Config) -> Update {
    let (upserts, removals) = sync::delta(old, new);
    let base = Some(version(revision - 1));
    Update { full: false, base, upserts, removals, ..snapshot(revision, new) }
}

#[tokio::test]
async fn snapshot_and_delta_are_applied_and_a_restart_resumes() {
    let mut world = World::new().await;
    let agent = world.start_sync();
    let (mut stream, hello) = world.accept_sync().await;
    assert_eq!((hello.agent_id, hello.applied), (world.identity.agent_id.clone(), None));
    stream.send(sync_response::Message::Welcome(Welcome::default())).await;

    // In two parts; nothing happens before the last.
    let (one, two) = (config(&["a", "b"]), config(&["a", "b", "c"]));
    let mut last = snapshot(1, &one);
    let first = Update { upserts: vec![last.upserts.remove(0)], more: true, ..last.clone() };
    stream.send(sync_response::Message::Update(first)).await;
    let ack = stream.ack_of(last).await;
    assert_eq!((ack.applied, ack.error_detail), (Some(version(1)), None));
    let ack = stream.ack_of(delta(2, &one, &two)).await;
    assert_eq!((ack.nonce.as_str(), ack.applied, ack.error_detail), ("n2", Some(version(2)), None));
    assert_eq!(world.tables.newest().unwrap().table.providers.len(), 3);

    // The stream breaks: the agent comes back with what it has.
    drop(stream);
    let (_stream, hello) = world.accept_sync().await;
    assert_eq!(hello.applied, Some(version(2)));
    drop(agent);

    let restarted = TableStore::new(Some(Cache::new(world.directory.path().join("cache"))));
    restarted.load_cache();
    assert_eq!(restarted.newest().unwrap().table.providers.len(), 3);
    assert_eq!(restarted.applied().map(|held| held.revision), Some(2));
}

#[tokio::test]
async fn a_refused_update_changes_nothing() {
    let mut world = World::new().await;
    let _agent = world.start_sync();
    let (mut stream, _) = world.accept_sync().await;
    let good = config(&["a", "b", "c"]);
    assert_eq!(stream.ack_of(snapshot(1, &good)).await.error_detail, None);

    let mut check = async |update: Update, expected: &str| {
        let ack = stream.ack_of(update).await;
        let refusal = ack.error_detail.expect(expected);
        assert!(refusal.message.contains(expected), "{refusal:?}");
        assert_eq!(ack.applied, Some(version(1)));
        assert_eq!(world.tables.newest().unwrap().config.providers.len(), 3);
    };
    let mut bad = config(&["a", "b", "c", "d"]);
    bad.providers[3].base_url = "ftp://example.com".to_owned();
    check(delta(2, &good, &bad), "base_url").await;
    let more = config(&["a", "b", "c", "d"]);
    check(delta(7, &good, &more), "revision 6").await;
    let forged = Update { state_sha256: vec![0; 32].into(), ..delta(2, &good, &more) };
    check(forged, "state_sha256").await;
    let less = config(&["a"]);
    check(delta(2, &good, &less), "force").await;

    let confirmed = Update { force: true, ..delta(2, &good, &less) };
    assert_eq!(stream.ack_of(confirmed).await.error_detail, None);
    assert_eq!(world.tables.newest().unwrap().config.providers.len(), 1);
}

#[tokio::test]
async fn verdicts_outlive_the_stream_and_protections_start_each() {
    let mut world = World::new().await;
    let gate = Protection { subject: "a/d".to_owned(), kind: None };
    world.protections.send_replace(Arc::new(vec![gate.clone()]));
    let _agent = world.start_sync();
    let mut verdicts = world.verdicts.subscribe();
    for _ in 0..2 {
        let (mut stream, _) = world.accept_sync().await;
        stream.send(sync_response::Message::Welcome(Welcome::default())).await;
        match stream.next().await.message {
            Some(sync_request::Message::Protections(states)) => {
                assert_eq!(states.protections, std::slice::from_ref(&gate));
            }
            other => panic!("no protections but {other:?}"),
        }
        let verdict = BreakerVerdict {
            deployment: "a/d".to_owned(),
            state: BreakerState::ForcedOpen as i32,
            ..BreakerVerdict::default()
        };
        let publication = Publication { seq: 1, verdicts: vec![verdict], ..Publication::default() };
        stream.send(sync_response::Message::Publication(publication)).await;
        timeout(LIMIT, verdicts.changed()).await.unwrap().unwrap();
    }
    let now = tokio::time::Instant::now();
    assert!(world.verdicts.borrow().get("a/d", now).unwrap().forced_open);
}

#[tokio::test]
async fn a_silent_control_plane_is_left() {
    let mut world = World::new().await;
    let _agent = world.start_sync();
    let (stream, _) = world.accept_sync().await;
    let short = prost_types::Duration { seconds: 0, nanos: 50_000_000 };
    let welcome = Welcome { liveness_timeout: Some(short), ..Welcome::default() };
    stream.send(sync_response::Message::Welcome(welcome)).await;
    // The stream is open all the time.
    let (_again, _) = world.accept_sync().await;
    drop(stream);
}
