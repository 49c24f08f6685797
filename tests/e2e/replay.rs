//! What a live agent decided, decided again from its recording.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use trunkline_proto::agent::v1::{TraceEntry, trace_entry::Event, trace_note::Note};
use trunkline_simulator::{
    ProviderModel, Tpot, Ttft,
    live::{ErrorBody, Fault, LiveProvider},
};
use trunkline_tests::{
    agent::Agent,
    chat::chat,
    cli::trunkline,
    control_plane::ControlPlane,
    document::Document,
    patience::until,
    provider::{Provider, TOKENS, model},
    reply::Reply,
};

const CALLERS: usize = 16;
/// Requests answered, one way or the other, before the agent is killed.
const REQUESTS: u64 = 400;

/// One whose speed scatters.
async fn provider(name: &str, base_s: f64) -> Provider {
    let ttft = Ttft { base_s, per_1k_input_s: 0.0, sigma: 0.3, head_share: 0.3 };
    let tpot = Tpot { median_s: 0.000_5, sigma: 0.2 };
    let model = ProviderModel { ttft, tpot, ..model(name, TOKENS) };
    Provider::serve(name, LiveProvider::new(model, 1)).await
}

/// All of the kinds in turn, with pauses, until the callers are gone: slowness everywhere, so
/// that no choice avoids it, the others at one provider after the other.
async fn trouble(providers: [Provider; 3], mut answered: watch::Receiver<u64>) {
    let limited =
        Fault::Status { code: 429, body: ErrorBody::usual(429), retry_after: Some("0.2".to_owned()) };
    let slow = Fault::SlowFirstToken(Duration::from_millis(1_500));
    let faults = [slow.clone(), Fault::status(503), limited, Fault::CutAfterTokens(3), Fault::Reset];
    for (turn, fault) in faults.into_iter().cycle().enumerate() {
        for next in [Some(fault.clone()), None] {
            for (at, provider) in providers.iter().enumerate() {
                let hit = fault == slow || at == turn % providers.len();
                provider.fail(next.clone().filter(|_| hit));
            }
            // It lasts for some requests, not for a time.
            let enough = *answered.borrow_and_update() + 25;
            if answered.wait_for(|answers| *answers >= enough).await.is_err() {
                return;
            }
        }
    }
}

async fn call(agent: Arc<Agent>, answered: Arc<watch::Sender<u64>>, stop: Arc<AtomicBool>, caller: usize) {
    let mut turn = caller;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        // Under faults some requests fail, and the agent is killed below the last: what
        // callers see is not what is tested here.
        if let Ok(response) =
            agent.request("/v1/chat/completions", &chat(!turn.is_multiple_of(3))).send().await
        {
            response.bytes().await.ok();
        }
        answered.send_modify(|answers| *answers += 1);
    }
}

/// Attempts that the agent started for that reason.
async fn starts(agent: &Agent, why: &str) -> u64 {
    let text = reqwest::get(format!("{}/metrics", agent.ops_url)).await.unwrap().text().await.unwrap();
    let line = format!("trunkline_agent_attempt_starts_total{{start=\"{why}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
}

/// The exit code of `trunkline replay`, and what it found.
fn replayed(trace: &Path) -> (i32, Value) {
    let ran = trunkline("http://127.0.0.1:1", &["replay", "--json", trace.to_str().unwrap()]);
    let found = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:#?}"));
    (ran.code, found)
}

/// The file without its first message of some kind.
fn without(bytes: &[u8], left_out: impl Fn(&TraceEntry) -> bool) -> Vec<u8> {
    let (mut rest, mut kept, mut header, mut done) = (bytes, Vec::new(), true, false);
    while !rest.is_empty() {
        let before = rest;
        let Ok(length) = prost::decode_length_delimiter(&mut rest) else { break };
        let Some((message, after)) = rest.split_at_checked(length) else { break };
        let drop = !header && !done && left_out(&TraceEntry::decode(message).unwrap());
        if !drop {
            kept.extend_from_slice(&before[..before.len() - after.len()]);
        }
        (rest, header, done) = (after, false, done || drop);
    }
    assert!(done, "nothing of that kind was recorded");
    kept
}

/// A replay that could not fail would show nothing.
fn differs_when_something_is_left_out(trace: &Path) {
    type Kind = fn(&TraceEntry) -> bool;
    let observed: Kind = |entry| match &entry.event {
        Some(Event::Note(note)) => matches!(note.note, Some(Note::Observation(_))),
        _ => false,
    };
    let failed: Kind = |entry| matches!(&entry.event, Some(Event::Ask(ask)) if ask.call == "failed");
    let bytes = fs::read(trace).unwrap();
    for left_out in [observed, failed] {
        let other = trace.with_extension("other");
        fs::write(&other, without(&bytes, left_out)).unwrap();
        let (code, found) = replayed(&other);
        assert_eq!((code, &found["same"]), (1, &Value::Bool(false)), "{found:#}");
        assert!(found["first_difference"]["recorded"].is_string(), "{found:#}");
    }
}

#[tokio::test]
async fn a_trace_of_an_agent_under_faults_that_was_killed_replays_to_the_same_decisions() {
    let directory = TempDir::new().unwrap();
    let trace = directory.path().join("trace");
    let (one, two, three) =
        (provider("one", 0.01).await, provider("two", 0.012).await, provider("three", 0.02).await);
    let document = Document::even(&[&one, &two, &three])
        .chat("strategy: STRATEGY_LATENCY")
        .chat("hedge: {budget_percent: 20}")
        .providers("breaker: {open_base: 300ms, open_max: 1s}");
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    admin.apply(&document).await;
    let variables = [("TRUNKLINE_AGENT_RECORD", trace.to_str().unwrap())];
    let agent = Agent::following_with(&control_plane.url, &variables);
    agent.ready().await;
    let (agent, stop) = (Arc::new(agent), Arc::new(AtomicBool::new(false)));
    let (sender, answered) = watch::channel(0);
    let sender = Arc::new(sender);
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(call(Arc::clone(&agent), Arc::clone(&sender), Arc::clone(&stop), caller)))
        .collect();
    // With the callers the last sender goes.
    drop(sender);
    let healthy = async || *answered.borrow();
    until("answers without faults", healthy, |answers| *answers >= REQUESTS / 4).await;

    let trouble = tokio::spawn(trouble([one, two, three], answered.clone()));
    // Another table, with requests under way.
    admin.apply(&document.clone().chat("deadline: 50s")).await;
    let enough = async || {
        let answers = *answered.borrow();
        (answers, starts(&agent, "hedge").await, starts(&agent, "retry").await)
    };
    until("hedges and retries", enough, |(answers, hedges, retries)| {
        *answers >= REQUESTS + 100 && *hedges >= 3 && *retries >= 3
    })
    .await;

    // SIGKILL, in the middle of requests.
    let killed = std::process::Command::new("kill").args(["-9", &agent.process.id().to_string()]).status();
    assert!(killed.unwrap().success());
    stop.store(true, Ordering::Relaxed);
    for task in callers.into_iter().chain([trouble]) {
        task.await.unwrap();
    }

    let (code, found) = replayed(&trace);
    assert_eq!(found["first_difference"], Value::Null, "{found:#}");
    assert_eq!((code, &found["same"]), (0, &Value::Bool(true)), "{found:#}");
    let count = |name: &str| found[name].as_u64().unwrap();
    assert!(count("requests") >= REQUESTS && count("decisions") >= 2 * REQUESTS, "{found:#}");
    assert!(count("hedges") >= 3 && count("retries") >= 3 && count("tables") >= 2, "{found:#}");
    assert_eq!((count("decisions_same"), count("answers_same")), (count("decisions"), count("answers")));
    differs_when_something_is_left_out(&trace);
}

#[tokio::test]
async fn a_trace_of_an_agent_that_was_stopped_is_whole_and_holds_no_text_of_requests() {
    let directory = TempDir::new().unwrap();
    let trace = directory.path().join("trace");
    let (one, two) = (Provider::start("one").await, Provider::start("two").await);
    one.fail(Fault::status(503));
    let document = Document::even(&[&one, &two]);
    let variables = [("TRUNKLINE_AGENT_RECORD", trace.to_str().unwrap())];
    let mut agent = Agent::alone_on(document.yaml(), &variables).await;
    for turn in 0..20 {
        let mut body = chat(turn % 2 == 0);
        body["messages"][0]["content"] = Value::from("a secret of the caller");
        let reply: Reply = agent.post("/v1/chat/completions", &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    agent.process.terminate();
    agent.process.ended().await;
    let (code, found) = replayed(&trace);
    assert_eq!((code, &found["same"]), (0, &Value::Bool(true)), "{found:#}");
    assert_eq!((&found["requests"], &found["cut_bytes"]), (&Value::from(20), &Value::from(0)), "{found:#}");
    assert!(found["retries"].as_u64().unwrap() > 0, "{found:#}");
    let text = String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned();
    assert!(text.contains("one/m") || text.contains("chat"), "names of targets are in it");
    assert!(!text.contains("secret of the caller") && !text.contains("simulated answer"));

    let wrong = trunkline("http://127.0.0.1:1", &["replay", "/nonexistent/trace"]);
    assert_eq!(wrong.code, 2, "{wrong:#?}");
    let document = directory.path().join("config.yaml");
    fs::write(&document, "providers: []\n").unwrap();
    let wrong = trunkline("http://127.0.0.1:1", &["replay", document.to_str().unwrap()]);
    assert!(wrong.code == 2 && wrong.stderr.contains("no trace"), "{wrong:#?}");
}
