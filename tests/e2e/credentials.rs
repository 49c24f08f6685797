//! Providers' keys: resolved at the agent from a variable or a file, sent to that
//! provider alone, and missed in one place without harm elsewhere.

use std::fs;

use tempfile::TempDir;
use trunkline_proto::types::v1::protection::Kind;
use trunkline_simulator::live::LiveProvider;
use trunkline_tests::{
    agent::Agent,
    control_plane::ControlPlane,
    document::Document,
    patience::until,
    provider::{ANSWER, Provider, TOKENS, model},
};

async fn locked(name: &str, key: &str) -> Provider {
    Provider::serve(name, LiveProvider::new(model(name, TOKENS), 1).with_bearer_key(key)).await
}

#[tokio::test]
async fn key_from_a_variable_goes_to_its_provider_alone() {
    let (locked, open) = (locked("locked", "sk-from-variable").await, Provider::start("open").await);
    let document = Document::even(&[&locked, &open]).provider("locked", "credential: {env: LOCKED_KEY}");
    let agent = Agent::alone_on(document.yaml(), &[("LOCKED_KEY", "sk-from-variable")]).await;
    for at in 0..6 {
        let reply = agent.chat(at % 2 == 0).await;
        assert!(reply.header("x-trunkline-attempts").ends_with("/m:ok"), "{reply:?}");
        assert!(!reply.header("x-trunkline-attempts").contains(','), "{reply:?}");
    }
    assert_eq!((locked.requests(), open.requests()), (3, 3));
    assert_eq!(locked.last_seen().header("authorization"), Some("Bearer sk-from-variable"));
    assert_eq!(open.last_seen().header("authorization"), None);
    assert!(!agent.process.log().contains("sk-from-variable"), "the key is in the log");
}

#[tokio::test]
async fn key_from_a_file_is_read_again_when_it_changes() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, "sk-old\n").unwrap();
    let provider = Provider::start("alpha").await;
    let credential = format!("credential: {{file: {}}}", path.display());
    let agent = Agent::alone(&Document::even(&[&provider]).provider("alpha", &credential)).await;
    assert_eq!(agent.chat(false).await.text(), ANSWER);
    assert_eq!(provider.last_seen().header("authorization"), Some("Bearer sk-old"));

    fs::write(&path, "sk-brand-new\n").unwrap();
    let sent = async || {
        assert_eq!(agent.chat(false).await.text(), ANSWER);
        provider.last_seen().header("authorization").map(str::to_owned)
    };
    until("the new key to be sent", sent, |sent| sent.as_deref() == Some("Bearer sk-brand-new")).await;
}

#[tokio::test]
async fn missing_key_is_shown_and_leaves_out_its_provider_only() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("key");
    let (keyless, open) = (locked("keyless", "sk-late").await, Provider::start("open").await);
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    let credential = format!("credential: {{file: {}}}", path.display());
    admin.apply(&Document::even(&[&keyless, &open]).provider("keyless", &credential)).await;
    let agent = Agent::following(&control_plane.url);
    agent.ready().await;

    let missing = async || admin.agents().await.first().map(|agent| agent.missing_credentials.clone());
    until("the missing key to be listed", missing, |missing| *missing == Some(vec!["keyless".to_owned()]))
        .await;
    let quarantined = |subject: &str, kind: Option<&Kind>| {
        subject.starts_with("keyless") && matches!(kind, Some(Kind::Quarantine(_)))
    };
    let shown = async || {
        let protections = admin.breakers().await.protections.into_iter().filter_map(|one| one.protection);
        protections.filter(|one| quarantined(&one.subject, one.kind.as_ref())).count()
    };
    until("the quarantine to be shown", shown, |count| *count == 1).await;
    for _ in 0..6 {
        assert_eq!(agent.chat(false).await.header("x-trunkline-attempts"), "open/m:ok");
    }
    assert_eq!(keyless.requests(), 0, "nothing is sent without the key");
    assert_eq!(agent.readiness().await.0, 200);

    fs::write(&path, "sk-late").unwrap();
    let served = async || {
        agent.chat(false).await;
        keyless.requests()
    };
    until("the provider to be used once its key is there", served, |requests| *requests > 0).await;
    let none = async || admin.agents().await[0].missing_credentials.len();
    until("no key to be missing", none, |count| *count == 0).await;
}
