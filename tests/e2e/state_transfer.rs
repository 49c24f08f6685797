//! All state in one file: exported under writes, taken over by a new control plane, and
//! refused where it must be. And a store that was put back to an older copy.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tonic_types::StatusExt as _;
use trunkline_proto::{
    admin::v1::{AuditEntry, DrainAgentRequest, InjectFaultRequest, ListFaultsRequest, QueryAuditRequest},
    types::v1::{BreakerState, Fault, Version, fault::Effect},
};
use trunkline_tests::{
    admin::Admin,
    agent::Agent,
    cli::trunkline,
    control_plane::ControlPlane,
    document::Document,
    patience::until,
    process::Process,
    provider::{ANSWER, Provider},
};

/// Has the control plane make its store from this file.
const IMPORT: &str = "TRUNKLINE_CONTROL_PLANE_IMPORT_STATE";

/// Has it go on from a store that is older than it was.
const ACCEPT: &str = "TRUNKLINE_CONTROL_PLANE_ACCEPT_ROLLBACK";

/// A document that differs with the number.
fn numbered(provider: &Provider, number: u64) -> Document {
    Document::even(&[provider]).chat(&format!("deadline: {}ms", 10_000 + number))
}

/// The number of the document that is stored.
async fn number(admin: &Admin) -> (Version, u64) {
    let exported = admin.export().await;
    let deadline = exported.config.unwrap().virtual_models[0].deadline.unwrap();
    let millis = deadline.seconds as u64 * 1_000 + deadline.nanos as u64 / 1_000_000;
    (exported.version.unwrap(), millis - 10_000)
}

async fn audit(admin: &Admin) -> Vec<AuditEntry> {
    let request = QueryAuditRequest { page_size: 100, ..QueryAuditRequest::default() };
    admin.client.clone().query_audit(request).await.unwrap().into_inner().entries
}

/// Waits until the agents hold just this version.
async fn agents_follow(admin: &Admin, count: usize, version: &Version) {
    let follow = async || {
        let agents = admin.agents().await.into_iter();
        agents.filter(|agent| agent.applied.as_ref() == Some(version)).count()
    };
    until("the agents to follow the epoch", follow, |following| *following == count).await;
}

/// Writes until told to stop; which revision holds which document.
async fn keep_writing(admin: Admin, provider: Arc<Provider>, stop: Arc<AtomicBool>) -> HashMap<u64, u64> {
    let mut written = HashMap::new();
    for number in 1_000.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let applied = admin.apply(&numbered(&provider, number)).await.version.unwrap();
        written.insert(applied.revision, number);
    }
    written
}

/// Makes a verdict, a drill at the agent and a drain of it.
async fn give_orders(admin: &Admin, agent_id: &str) {
    admin.set_breaker("alpha/m", BreakerState::ForcedClosed, None).await;
    let fault = Fault {
        name: "slow".to_owned(),
        agents: vec![agent_id.to_owned()],
        effect: Some(Effect::ErrorStatus(503)),
        ..Fault::default()
    };
    let ttl = Some(Duration::from_secs(3_600).try_into().unwrap());
    let inject = InjectFaultRequest { fault: Some(fault), ttl, ..InjectFaultRequest::default() };
    admin.client.clone().inject_fault(inject).await.unwrap();
    let agent_id = agent_id.to_owned();
    let drain = DrainAgentRequest { agent_id, reason: "kernel".to_owned(), ..DrainAgentRequest::default() };
    admin.client.clone().drain_agent(drain).await.unwrap();
}

/// What these orders are now.
async fn orders(admin: &Admin) -> (BreakerState, Vec<String>, Vec<String>) {
    let faults = admin.client.clone().list_faults(ListFaultsRequest {}).await.unwrap().into_inner();
    let drills = faults.drills.into_iter().map(|drill| drill.fault.unwrap().name).collect();
    let drained = admin.agents().await.into_iter().filter(|agent| agent.drain_requested);
    let drained = drained.map(|agent| agent.agent_id).collect();
    (admin.breaker("alpha/m").await.state(), drills, drained)
}

/// The exit code and the log of a control plane that is told to import `file`.
async fn refused(file: &Path, data: &Path) -> (Option<i32>, String) {
    let (file, data) = (file.display().to_string(), data.display().to_string());
    let free = "127.0.0.1:0";
    let words = ["--listen", free, "--ops-listen", free, "--data-dir", &data, "--import-state", &file];
    let mut process = Process::start("tested-control-plane", &words.map(str::to_owned), &[]);
    let status = process.ended().await;
    let said = until("why it ended", async || process.log(), |log| log.contains("error: ")).await;
    (status.code(), said)
}

#[tokio::test]
async fn a_new_control_plane_takes_over_all_state_of_a_busy_one() {
    let provider = Arc::new(Provider::start("alpha").await);
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    admin.apply(&numbered(&provider, 0)).await;
    let (serving, other) = (Agent::following(&control_plane.url), Agent::following(&control_plane.url));
    serving.ready().await;
    other.ready().await;
    let drained = admin.agents_hold(2, 1).await.remove(0).agent_id;
    for _ in 0..5 {
        assert_eq!(serving.chat(false).await.text(), ANSWER);
    }
    let counted = admin.stats_count(5).await;
    give_orders(&admin, &drained).await;

    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(keep_writing(admin.clone(), Arc::clone(&provider), Arc::clone(&stop)));
    admin.agents_hold(2, 5).await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("state");
    let (url, path) = (control_plane.url.clone(), file.display().to_string());
    let export = move || trunkline(&url, &["export", "--state", &path]).done();
    tokio::task::spawn_blocking(export).await.unwrap();
    let (_, newest) = number(&admin).await;
    until("writes after the export", async || number(&admin).await.1, |now| *now > newest).await;
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    let then = number(&admin).await.0;
    let log = audit(&admin).await;

    let data = directory.path().join("data");
    let stopped = control_plane.kill().with_data(&data);
    let control_plane = stopped.start_with(&[(IMPORT, file.to_str().unwrap())]);
    let admin = control_plane.admin().await;
    let (version, held) = number(&admin).await;
    assert_ne!(version.epoch, then.epoch);
    assert!((5..then.revision).contains(&version.revision), "{version:?} of {then:?}");
    assert_eq!(written[&version.revision], held, "another configuration than that of its revision");
    agents_follow(&admin, 2, &version).await;
    let metrics = reqwest::get(format!("{}/metrics", control_plane.ops_url)).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let snapshots = metrics.lines().find(|line| line.contains("kind=\"snapshot\"")).unwrap();
    assert!(snapshots.ends_with(" 2"), "{snapshots}");
    let expected = (BreakerState::ForcedClosed, vec!["slow".to_owned()], vec![drained]);
    assert_eq!(orders(&admin).await, expected);
    assert_eq!(admin.stats().await["alpha/m"].attempts, counted["alpha/m"].attempts);

    // Everything goes on.
    let applied = admin.apply(&numbered(&provider, 7)).await.version.unwrap();
    assert_eq!((&applied.epoch, applied.revision), (&version.epoch, version.revision + 1));
    let entries = audit(&admin).await;
    let last = log.iter().find(|entry| entry.version.as_ref().unwrap().revision == version.revision);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0].sequence, last.unwrap().sequence + 1);
    agents_follow(&admin, 2, &applied).await;
    let serves = if serving.readiness().await.0 == 200 { &serving } else { &other };
    assert_eq!(serves.chat(false).await.text(), ANSWER);
    admin.stats_count(6).await;

    // Only once: the flag that was left in place is refused.
    let (code, said) = refused(&file, &control_plane.kill().data()).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is a store in") && said.contains("--import-state"), "{said}");
}

#[tokio::test]
async fn a_damaged_file_of_state_is_refused_and_leaves_no_store() {
    let provider = Provider::start("alpha").await;
    let control_plane = ControlPlane::start();
    control_plane.admin().await.apply(&numbered(&provider, 0)).await;
    let directory = TempDir::new().unwrap();
    let (file, data) = (directory.path().join("state"), directory.path().join("data"));
    trunkline(&control_plane.url, &["export", "--state", file.to_str().unwrap()]).done();
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() - 1], &whole[..whole.len() / 2], &flipped] {
        fs::write(&file, damaged).unwrap();
        let (code, said) = refused(&file, &data).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(file.to_str().unwrap()) && said.contains("damaged or was cut short"), "{said}");
        assert!(!data.join("journal").exists(), "a store was made");
    }
    let (code, said) = refused(&directory.path().join("nothing"), &data).await;
    assert_eq!(code, Some(2), "{said}");
    fs::write(&file, &whole).unwrap();
    let stopped = control_plane.kill().with_data(&data);
    let control_plane = stopped.start_with(&[(IMPORT, file.to_str().unwrap())]);
    assert_eq!(number(&control_plane.admin().await).await.1, 0);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_store_put_back_to_an_older_copy_takes_no_writes_until_that_is_accepted() {
    let provider = Provider::start("alpha").await;
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    for number in 1..=3 {
        admin.apply(&numbered(&provider, number)).await;
    }
    let agent = Agent::following(&control_plane.url);
    agent.ready().await;
    let id = admin.agents_hold(1, 3).await.remove(0).agent_id;
    let stopped = control_plane.kill();
    let (directory, data) = (TempDir::new().unwrap(), stopped.data());
    let backup = directory.path().join("backup");
    copy(&data, &backup);

    let control_plane = stopped.start();
    let admin = control_plane.admin().await;
    for number in 4..=5 {
        admin.apply(&numbered(&provider, number)).await;
    }
    admin.agents_hold(1, 5).await;
    let stopped = control_plane.kill();
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);

    let control_plane = stopped.start();
    let admin = control_plane.admin().await;
    let noticed = async || control_plane.process.said("the store takes no writes of operators");
    until("the rollback to be noticed", noticed, |noticed| *noticed).await;
    let refused = admin.try_apply(&numbered(&provider, 6)).await.unwrap_err();
    let reason = refused.get_details_error_info().unwrap().reason;
    assert_eq!(reason, "STORE_ROLLED_BACK", "{refused:?}");
    assert!(refused.message().contains(&id) && refused.message().contains("--accept-rollback"), "{refused}");
    assert_eq!(number(&admin).await.1, 3, "reads go on");
    let ahead = async || admin.agents().await.into_iter().any(|agent| agent.agent_id == id && agent.ahead);
    until("the agent to be shown as ahead", ahead, |ahead| *ahead).await;
    let reply = agent.chat(false).await;
    assert_eq!((reply.text().as_str(), reply.header("x-trunkline-revision")), (ANSWER, "5"));

    let control_plane = control_plane.kill().start_with(&[(ACCEPT, "true")]);
    let admin = control_plane.admin().await;
    let (accepted, held) = number(&admin).await;
    assert_eq!((accepted.revision, held), (3, 3));
    agents_follow(&admin, 1, &accepted).await;
    let applied = admin.apply(&numbered(&provider, 7)).await.version.unwrap();
    assert_eq!((&applied.epoch, applied.revision), (&accepted.epoch, 4));
    agents_follow(&admin, 1, &applied).await;
    let reply = agent.chat(false).await;
    assert_eq!((reply.text().as_str(), reply.header("x-trunkline-revision")), (ANSWER, "4"));
    let methods: Vec<_> = audit(&admin).await.into_iter().map(|entry| entry.method).collect();
    assert_eq!(methods[..2], ["ApplyConfig", "accept-rollback"], "{methods:?}");

    // From now on without the flag.
    let control_plane = control_plane.kill().start_with(&[]);
    let admin = control_plane.admin().await;
    let applied = admin.apply(&numbered(&provider, 8)).await.version.unwrap();
    assert_eq!((&applied.epoch, applied.revision), (&accepted.epoch, 5));
    agents_follow(&admin, 1, &applied).await;
}
