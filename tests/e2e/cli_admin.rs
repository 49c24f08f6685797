//! What operators type, against a real control plane: history, rollback, audit, drills,
//! drains, watching, the state in a file.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;
use trunkline_tests::{
    admin::Admin, agent::Agent, cli::trunkline, control_plane::ControlPlane, document::Document,
    patience::until, process::Process, provider::Provider,
};

/// A control plane with a configuration of one provider, and an agent that serves it.
struct World {
    provider: Provider,
    control_plane: ControlPlane,
    admin: Admin,
    agent: Agent,
    /// The agent's id.
    id: String,
}

impl World {
    async fn new() -> Self {
        let provider = Provider::start("alpha").await;
        let control_plane = ControlPlane::start();
        let admin = control_plane.admin().await;
        admin.apply(&Document::even(&[&provider])).await;
        let agent = Agent::following(&control_plane.url);
        agent.ready().await;
        let id = admin.agents_hold(1, 1).await.remove(0).agent_id;
        Self { provider, control_plane, admin, agent, id }
    }

    /// The results of a command that must have done what it was told.
    #[track_caller]
    fn done(&self, words: &[&str]) -> String {
        trunkline(&self.control_plane.url, words).done()
    }
}

/// How many attempts drills took hold of, in the JSON of `get stats`.
fn faulted_attempts(json: &str) -> u64 {
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let rows = json["rows"].as_array().into_iter().flatten();
    rows.map(|row| row["faultedAttempts"].as_str().map_or(0, |count| count.parse::<u64>().unwrap())).sum()
}

/// A control plane whose configuration had two revisions: with a deadline and without.
async fn two_revisions(provider: &Provider) -> (ControlPlane, Admin) {
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    admin.apply(&Document::even(&[provider])).await;
    admin.apply(&Document::even(&[provider]).chat("deadline: 5s")).await;
    (control_plane, admin)
}

#[tokio::test]
async fn rollback_brings_a_revision_back_as_a_new_one() {
    let provider = Provider::start("alpha").await;
    let (control_plane, admin) = two_revisions(&provider).await;
    let run = |words: &[&str]| trunkline(&control_plane.url, words);

    let revisions = run(&["get", "revisions"]).done();
    assert_eq!(revisions.matches("ApplyConfig").count(), 2, "{revisions}");
    let planned = run(&["rollback", "1", "--dry-run"]).done();
    assert!(
        planned.contains("deadline") && planned.ends_with("not applied (dry run); revision 2\n"),
        "{planned}"
    );
    assert_eq!(admin.export().await.version.unwrap().revision, 2);

    let stale = run(&["rollback", "1", "--base-revision", "1"]);
    assert_eq!(stale.code, 1, "{stale:?}");
    let done = run(&["rollback", "1"]).done();
    assert!(done.ends_with("1 change applied; revision 3\n"), "{done}");
    assert_eq!(admin.export().await.config.unwrap().virtual_models[0].deadline, None);

    let newest = run(&["get", "revisions", "--limit", "1"]).done();
    assert!(newest.contains("RollbackConfig") && newest.contains("--limit"), "{newest}");
    let unknown = run(&["rollback", "77"]);
    assert_ne!(unknown.code, 0);
    assert!(unknown.stderr.contains("77"), "{unknown:?}");
}

#[tokio::test]
async fn audit_says_what_was_changed_and_finds_by_method() {
    let provider = Provider::start("alpha").await;
    let (control_plane, _) = two_revisions(&provider).await;
    let run = |words: &[&str]| trunkline(&control_plane.url, words).done();
    run(&["rollback", "1"]);

    let all = run(&["get", "audit"]);
    assert_eq!(all.lines().count(), 4, "{all}");
    let one = run(&["get", "audit", "--method", "RollbackConfig", "--since", "1h", "--changes"]);
    assert!(one.contains("RollbackConfig revision 1, revision 3\n") && one.contains("deadline"), "{one}");
    let none = run(&["get", "audit", "--until", "2020-01-01T00:00:00Z"]);
    assert_eq!(none, "no entry\n");
    let json: serde_json::Value = serde_json::from_str(&run(&["get", "audit", "-o", "json"])).unwrap();
    assert_eq!(json["entries"][0]["method"], "RollbackConfig");
}

#[tokio::test]
async fn drill_is_made_by_the_agent_until_it_is_cleared() {
    let world = World::new().await;
    let planned = world.done(&[
        "fault",
        "inject",
        "game-day",
        "--error",
        "503",
        "--ttl",
        "10m",
        "--deployment",
        "alpha",
        "--dry-run",
    ]);
    assert!(planned.contains("error 503") && planned.ends_with("not begun (dry run)\n"), "{planned}");
    assert_eq!(world.done(&["get", "faults"]), "no drill is active\n");

    world.done(&[
        "fault",
        "inject",
        "game-day",
        "--error",
        "503",
        "--ttl",
        "10m",
        "--deployment",
        "alpha",
        "--reason",
        "try",
    ]);
    let made = async || world.done(&["get", "faults"]);
    let shown = until("the agent to make the drill", made, |table| table.contains(&world.id)).await;
    assert!(shown.contains("game-day") && shown.contains("of alpha") && shown.contains("try"), "{shown}");
    let requests = world.provider.requests();
    assert_eq!(world.agent.chat(false).await.status, 503);
    assert_eq!(world.provider.requests(), requests, "the provider was asked in spite of the drill");
    let counted = async || faulted_attempts(&world.done(&["get", "stats", "-o", "json"]));
    until("the attempts that the drill failed to be counted", counted, |count| *count > 0).await;

    world.done(&["fault", "clear", "game-day"]);
    assert_eq!(world.done(&["get", "faults"]), "no drill is active\n");
    let again = async || world.agent.chat(false).await.status;
    until("answers to come again", again, |status| *status == 200).await;

    let too_long = trunkline(&world.control_plane.url, &["fault", "inject", "d", "--stall", "--ttl", "25h"]);
    assert_eq!(too_long.code, 2, "{too_long:?}");
    assert!(too_long.stderr.contains("ttl"), "{too_long:?}");
    let unknown = trunkline(&world.control_plane.url, &["fault", "clear", "nothing"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("nothing"), "{unknown:?}");
}

#[tokio::test]
async fn drained_agent_says_so_and_comes_back() {
    let world = World::new().await;
    let said = world.done(&["drain", &world.id, "--reason", "new kernel", "--wait", "30s"]);
    assert!(said.ends_with("is out of service, with nothing in flight\n"), "{said}");
    assert_eq!(world.agent.readiness().await.0, 503);
    let agents = world.done(&["get", "agents"]);
    assert!(agents.contains("connected, drained"), "{agents}");

    world.done(&["drain", &world.id, "--resume"]);
    world.agent.ready().await;
    let unknown = trunkline(&world.control_plane.url, &["drain", "no-such-agent"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("no-such-agent"), "{unknown:?}");
}

#[tokio::test]
async fn watch_goes_on_over_a_restart_of_the_control_plane() {
    let provider = Provider::start("alpha").await;
    let (control_plane, _) = two_revisions(&provider).await;
    let words = ["watch", "--control-plane", &control_plane.url].map(str::to_owned);
    let mut watch = Process::start("tested-trunkline", &words, &[]);
    let line = async |text: &str| {
        let said = async || watch.log();
        until(text, said, |log| log.lines().any(|line| line == text)).await
    };
    line("2  has      provider       alpha").await;
    line("2  has      virtual-model  chat").await;

    let control_plane = control_plane.restart();
    let admin = control_plane.admin().await;
    admin.apply(&Document::even(&[&provider]).virtual_model("draft", "alpha/m")).await;
    line("3  sets     virtual-model  draft").await;
    admin.apply(&Document::even(&[&provider])).await;
    let log = line("4  removes  virtual-model  draft").await;
    let listed = log.lines().filter(|line| line.contains("  has  ")).count();
    assert_eq!(listed, 2, "it began anew:\n{log}");

    watch.terminate();
    assert_eq!(watch.ended().await.code(), Some(0));
}

#[tokio::test]
async fn watch_in_json_is_one_message_a_line() {
    let provider = Provider::start("alpha").await;
    let (control_plane, _) = two_revisions(&provider).await;
    let words = ["watch", "-o", "json", "--control-plane", &control_plane.url].map(str::to_owned);
    let watch = Process::start("tested-trunkline", &words, &[]);
    let first = async || watch.log().lines().next().map(str::to_owned);
    let first = until("the first line", first, Option::is_some).await.unwrap();
    let message: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(message["version"]["revision"], "2");
    assert_eq!(message["initial"], true);
}

#[tokio::test]
async fn state_is_kept_in_a_file_that_only_its_owner_reads() {
    let provider = Provider::start("alpha").await;
    let (control_plane, _) = two_revisions(&provider).await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state");
    let words = ["export", "--state", path.to_str().unwrap()];
    let said = trunkline(&control_plane.url, &words).done();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(said, format!("{}: {} bytes\n", path.display(), metadata.len()));
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let whole = fs::read(&path).unwrap();

    let url = control_plane.url.clone();
    let stopped = control_plane.kill();
    let failed = trunkline(&url, &words);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert_eq!(fs::read(&path).unwrap(), whole, "a failed export changed the one before");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something was left behind");
    drop(stopped);
}

#[tokio::test]
async fn history_shows_what_was_counted_in_that_time() {
    let world = World::new().await;
    assert_eq!(world.agent.chat(false).await.status, 200);
    world.admin.stats_count(1).await;
    let table = world.done(&["get", "history", "--since", "10m", "--resolution", "10s"]);
    assert!(table.contains("alpha/m") && table.ends_with("in steps of 10 s\n"), "{table}");
    let json = world.done(&["get", "history", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["points"][0]["row"]["attempts"], "1");
    let now = world.done(&["get", "stats", "--since", "1h", "-o", "json"]);
    assert!(now.contains(r#""attempts": "1""#), "{now}");
    let nothing = world.done(&["get", "history", "--since", "10m", "--deployment", "alpha/other"]);
    assert_eq!(nothing, "no attempts in that time\n");
}

#[tokio::test]
async fn probe_tells_good_from_bad() {
    let control_plane = ControlPlane::start();
    let good = trunkline(&control_plane.url, &["probe", &format!("{}/readyz", control_plane.ops_url)]);
    assert!(good.done().starts_with("200 OK"));
    let missing = trunkline(&control_plane.url, &["probe", &format!("{}/nothing", control_plane.ops_url)]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("404"), "{missing:?}");
}
