//! The agent's table, verdicts and protections against a control plane that is played.

use trunkline_proto::{
    admin::v1::Config,
    agent::v1::{
        Ack, BreakerVerdict, Drain, Heartbeat, OutOfService, Publication, Update, Welcome, sync_response,
    },
    convert::sync,
    types::v1::{
        ActiveFault, BreakerState, ControlPlaneLossFault, Deployment, Dialect, Fault, Provider, StallFault,
        Version, fault::Effect,
    },
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
        resources_sha256: sync::State::of(config).sha256().to_vec().into(),
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
    world.kept_on_disk(2).await;
    drop(agent);

    let restarted = TableStore::new(Some(Cache::new(world.directory.path().join("cache"))));
    restarted.load_cache();
    assert_eq!(restarted.newest().unwrap().table.providers.len(), 3);
    assert_eq!(restarted.applied().map(|held| held.revision), Some(2));
}

/// A named pipe. Lets go of who waits in it, or the runtime would wait for them.
struct Pipe(std::path::PathBuf);

impl Drop for Pipe {
    fn drop(&mut self) {
        let reader = std::fs::File::options().read(true).write(true).open(&self.0);
        std::fs::remove_file(&self.0).ok();
        drop(reader);
    }
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_no_acknowledgement_and_no_heartbeat() {
    let mut world = World::new().await;
    // Whoever opens a pipe for writing waits for a reader.
    let cache = world.directory.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    let pipe = Pipe(cache.join("table.tmp"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe.0).status().unwrap().success());
    let agent = world.start_sync();
    let (mut stream, _) = world.accept_sync().await;
    stream.send(brisk_welcome()).await;
    let (one, two) = (config(&["a"]), config(&["a", "b"]));
    assert_eq!(stream.ack_of(snapshot(1, &one)).await.error_detail, None);
    heartbeat(&mut stream).await;
    assert_eq!(stream.ack_of(delta(2, &one, &two)).await.applied, Some(version(2)));
    heartbeat(&mut stream).await;
    assert!(!cache.join("table.bin").exists(), "the disk hung all the time");
    drop(agent);
}

#[tokio::test]
async fn a_cached_table_that_this_build_refuses_gives_way_to_the_one_before() {
    let world = World::new().await;
    let cache = Cache::new(world.directory.path().join("cache"));
    let held = |revision| trunkline_routing::table::Version { epoch: "e".to_owned(), revision };
    cache.store(&held(1), &sync::State::of(&config(&["a"]))).unwrap();
    let mut refused = config(&["a", "b"]);
    refused.providers[1].base_url = "ftp://example.com".to_owned();
    cache.store(&held(2), &sync::State::of(&refused)).unwrap();
    world.tables.load_cache();
    assert_eq!(world.tables.applied(), Some(held(1)));
}

#[tokio::test]
async fn the_last_table_is_on_disk_after_a_stop_in_order() {
    let mut world = World::new().await;
    let shutdown = CancellationToken::new();
    let agent = world.start_sync_until(&shutdown);
    let (mut stream, _) = world.accept_sync().await;
    assert_eq!(stream.ack_of(snapshot(1, &config(&["a"]))).await.error_detail, None);
    shutdown.cancel();
    timeout(LIMIT, agent).await.expect("ends").unwrap();
    let cache = Cache::new(world.directory.path().join("cache"));
    assert_eq!(cache.load().states[0].0.revision, 1);
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
        assert_eq!(world.tables.newest().unwrap().table.providers.len(), 3);
    };
    let mut bad = config(&["a", "b", "c", "d"]);
    bad.providers[3].base_url = "ftp://example.com".to_owned();
    check(delta(2, &good, &bad), "base_url").await;
    let more = config(&["a", "b", "c", "d"]);
    check(delta(7, &good, &more), "revision 6").await;
    let forged = Update { resources_sha256: vec![0; 32].into(), ..delta(2, &good, &more) };
    check(forged, "hash").await;
    let less = config(&["a"]);
    check(delta(2, &good, &less), "force").await;

    let confirmed = Update { force: true, ..delta(2, &good, &less) };
    assert_eq!(stream.ack_of(confirmed).await.error_detail, None);
    assert_eq!(world.tables.newest().unwrap().table.providers.len(), 1);
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
async fn as_many_verdicts_as_can_be_are_taken() {
    let mut world = World::new().await;
    let _agent = world.start_sync();
    let mut verdicts = world.verdicts.subscribe();
    let (stream, _) = world.accept_sync().await;
    stream.send(sync_response::Message::Welcome(Welcome::default())).await;
    let of = |number: usize| BreakerVerdict {
        deployment: format!("{}/d{number:062}", "p".repeat(63)),
        state: BreakerState::ForcedOpen as i32,
        reason: "r".repeat(256),
        ..BreakerVerdict::default()
    };
    let all: Vec<_> = (0..20_000).map(of).collect();
    let last = all.last().unwrap().deployment.clone();
    let publication = Publication { seq: 1, verdicts: all, ..Publication::default() };
    assert!(prost::Message::encoded_len(&publication) > 4 << 20, "longer than gRPC takes by itself");
    stream.send(sync_response::Message::Publication(publication)).await;
    timeout(LIMIT, verdicts.changed()).await.unwrap().unwrap();
    assert!(world.verdicts.borrow().get(&last, tokio::time::Instant::now()).unwrap().forced_open);
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

/// What the agent says of itself next.
async fn heartbeat(stream: &mut Sync) -> Heartbeat {
    loop {
        if let Some(sync_request::Message::Heartbeat(heartbeat)) = stream.next().await.message {
            return heartbeat;
        }
    }
}

fn brisk_welcome() -> sync_response::Message {
    let brisk = prost_types::Duration { seconds: 0, nanos: 20_000_000 };
    sync_response::Message::Welcome(Welcome {
        current: Some(version(1)),
        heartbeat_interval: Some(brisk),
        ..Welcome::default()
    })
}

fn drill(name: &str, effect: Effect, remaining: Duration) -> ActiveFault {
    let fault = Fault { name: name.to_owned(), effect: Some(effect), ..Fault::default() };
    ActiveFault { fault: Some(fault), remaining: Some(duration_to_wire(remaining)) }
}

#[tokio::test]
async fn orders_are_told_and_outlive_the_stream() {
    let mut world = World::new().await;
    let _agent = world.start_sync();
    let (mut stream, _) = world.accept_sync().await;
    stream.send(brisk_welcome()).await;
    assert!(!heartbeat(&mut stream).await.draining);
    let publication = Publication {
        faults: vec![drill("slow", Effect::Stall(StallFault {}), Duration::from_secs(3_600))],
        out_of_service: Some(OutOfService { reason: "repair".to_owned() }),
        ..Publication::default()
    };
    stream.send(sync_response::Message::Publication(publication)).await;
    let mut orders = world.orders.subscribe();
    let told = orders.wait_for(|orders| orders.out_of_service.is_some());
    assert_eq!(timeout(LIMIT, told).await.unwrap().unwrap().faults.len(), 1);

    // Another stream, on which the control plane has said nothing of it yet.
    drop(stream);
    let (mut stream, _) = world.accept_sync().await;
    stream.send(brisk_welcome()).await;
    let said = heartbeat(&mut stream).await;
    assert_eq!((said.draining, said.active_faults.as_slice()), (true, ["slow".to_owned()].as_slice()));
    stream.send(sync_response::Message::Publication(Publication::default())).await;
    let told = orders.wait_for(|orders| **orders == Orders::default());
    timeout(LIMIT, told).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drill_takes_the_control_plane_away_for_its_time() {
    let mut world = World::new().await;
    let shutdown = CancellationToken::new();
    let _agent = world.start_sync();
    let telemetry = world.start_telemetry(&shutdown);
    let (stream, _) = world.accept_sync().await;
    let mut reports = world.accept_reports().await;
    reports.next().await;
    let begin = tokio::time::Instant::now();
    let lasts = Duration::from_millis(400);
    let loss = Effect::ControlPlaneLoss(ControlPlaneLossFault {});
    let publication = Publication { faults: vec![drill("alone", loss, lasts)], ..Publication::default() };
    stream.send(sync_response::Message::Publication(publication)).await;
    // Both streams come back, neither before the drill is over.
    let (_sync, _) = world.accept_sync().await;
    assert!(begin.elapsed() >= lasts, "sync came back early");
    world.accept_reports().await;
    assert!(begin.elapsed() >= lasts, "telemetry came back early");
    assert_eq!(world.orders.borrow().faults, []);
    telemetry.abort();
}

#[tokio::test]
async fn a_drained_stream_is_left_at_once_and_opened_again() {
    let mut world = World::new().await;
    let _agent = world.start_sync();
    let (mut stream, hello) = world.accept_sync().await;
    assert_eq!(hello.seen_sequence, 0);
    stream.send(brisk_welcome()).await;
    assert_eq!(stream.ack_of(snapshot(1, &config(&["a"]))).await.error_detail, None);
    for sequence in [41, 42, 40] {
        let publication = Publication { sequence, ..Publication::default() };
        stream.send(sync_response::Message::Publication(publication)).await;
    }
    let instant = Some(prost_types::Duration::default());
    let drain = Drain { reconnect_after_min: instant, reconnect_after_max: instant, reason: String::new() };
    stream.send(sync_response::Message::Drain(drain)).await;
    // It ends from the agent's side, and the next one says what was seen.
    let ended = async { while let Ok(Some(_)) = stream.requests.message().await {} };
    timeout(LIMIT, ended).await.expect("the agent leaves");
    let (_stream, hello) = world.accept_sync().await;
    assert_eq!((hello.applied, hello.seen_sequence), (Some(version(1)), 42));
}

#[tokio::test]
async fn an_older_control_plane_gives_no_hashes_of_resources() {
    let mut world = World::new().await;
    let _agent = world.start_sync();
    let (mut stream, _) = world.accept_sync().await;
    let old = |mut update: Update, config: &Config| {
        for one in &mut update.upserts {
            (one.sha256, one.key) = (Vec::new(), String::new());
        }
        for one in &mut update.removals {
            one.key.clear();
        }
        let state_sha256 = sync::state_sha256(config).to_vec().into();
        Update { state_sha256, resources_sha256: Vec::new().into(), ..update }
    };
    let (one, two) = (config(&["a", "b", "c"]), config(&["b", "c", "d"]));
    assert_eq!(stream.ack_of(old(snapshot(1, &one), &one)).await.error_detail, None);
    assert_eq!(stream.ack_of(old(delta(2, &one, &two), &two)).await.error_detail, None);
    // It was upgraded; what the agent holds fits.
    assert_eq!(stream.ack_of(delta(3, &two, &one)).await.error_detail, None);
    let wrong = old(delta(4, &one, &two), &one);
    assert!(stream.ack_of(wrong).await.error_detail.unwrap().message.contains("hash"));
}

#[tokio::test]
async fn what_a_newer_control_plane_sends_is_applied_and_asked_for_again_after_a_restart() {
    let mut world = World::new().await;
    let agent = world.start_sync();
    let (mut stream, _) = world.accept_sync().await;
    // A message and an effect of a drill that this build does not know.
    stream.answer(SyncResponse { message: None }).await;
    let unknown = drill("new", Effect::Stall(StallFault {}), Duration::from_secs(9));
    let unknown = ActiveFault {
        fault: Some(Fault { effect: None, ..unknown.fault.unwrap() }),
        remaining: unknown.remaining,
    };
    let publication = Publication { faults: vec![unknown], ..Publication::default() };
    stream.send(sync_response::Message::Publication(publication)).await;

    // Resources with a field, and one of a kind, that decoding dropped.
    let state = config(&["a", "b", "c"]);
    let mut upserts = sync::snapshot(&state);
    upserts[0].sha256 = vec![7; 32];
    upserts.push(trunkline_proto::agent::v1::Resource {
        key: "budget/b".to_owned(),
        sha256: vec![8; 32],
        resource: None,
    });
    let held = sync::State::default().apply(upserts.clone(), &[]);
    let resources_sha256 = held.sha256().to_vec().into();
    let update = Update { upserts, resources_sha256, ..snapshot(1, &state) };
    let ack = stream.ack_of(update).await;
    assert_eq!((ack.applied, ack.error_detail), (Some(version(1)), None));
    // A delta goes on from there; the strategy of its virtual model is unknown here.
    let mut newer = state.clone();
    newer.virtual_models.push(trunkline_proto::types::v1::VirtualModel {
        name: "chat".to_owned(),
        strategy: 99,
        tiers: vec![trunkline_proto::types::v1::Tier {
            targets: vec![trunkline_proto::types::v1::Target { deployment: "a/d".to_owned(), weight: None }],
            ..Default::default()
        }],
        ..Default::default()
    });
    let update = delta(2, &state, &newer);
    let after = held.apply(update.upserts.clone(), &update.removals).sha256();
    let update = Update { resources_sha256: after.to_vec().into(), ..update };
    assert_eq!(stream.ack_of(update).await.error_detail, None);
    let loaded = world.tables.newest().unwrap();
    assert_eq!(loaded.assumed.iter().count(), 1);
    assert!(loaded.table.virtual_model("chat").is_some());
    assert_eq!(world.orders.borrow().faults, []);

    // The same process resumes. After a restart the build may be another.
    drop(stream);
    let (stream, hello) = world.accept_sync().await;
    assert_eq!(hello.applied, Some(version(2)));
    world.kept_on_disk(2).await;
    drop((agent, stream));
    world.tables = Arc::new(TableStore::new(Some(Cache::new(world.directory.path().join("cache")))));
    world.tables.load_cache();
    assert_eq!(world.tables.applied().map(|held| held.revision), Some(2));
    let _agent = world.start_sync();
    let (_stream, hello) = world.accept_sync().await;
    assert_eq!(hello.applied, None);
}
