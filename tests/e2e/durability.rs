//! kill -9 of the control plane amid writes: what was acknowledged is there, and
//! revisions have no gaps.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::task::JoinSet;
use trunkline_proto::{
    admin::v1::{ApplyConfigRequest, Config, CreateProviderRequest},
    types::v1::{Dialect, Provider},
};
use trunkline_tests::{admin::Admin, control_plane::ControlPlane, patience::until};

const ROUNDS: usize = 10;
const WRITERS: usize = 4;

/// Acknowledged writes before a kill; it differs by round, so that kills meet
/// different moments.
const fn writes_before_kill(round: usize) -> usize {
    3 + 2 * round
}

fn provider(name: String, region: String) -> Provider {
    Provider {
        name,
        region,
        dialect: Dialect::Openai.into(),
        base_url: "https://api.example.com/v1".to_owned(),
        ..Provider::default()
    }
}

/// What was acknowledged: names and revisions.
type Acknowledged = Vec<(String, u64)>;

/// Creates providers until the control plane is gone.
async fn create(admin: Admin, prefix: String, count: Arc<AtomicUsize>) -> Acknowledged {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let name = format!("{prefix}-{number}");
        let provider = Some(provider(name.clone(), String::new()));
        let request = CreateProviderRequest { provider, ..CreateProviderRequest::default() };
        let Ok(response) = admin.client.clone().create_provider(request).await else { break };
        acknowledged.push((name, response.into_inner().version.unwrap().revision));
        count.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

#[tokio::test]
async fn acknowledged_creates_survive_kills() {
    let mut control_plane = ControlPlane::start();
    let mut acknowledged = Acknowledged::new();
    for round in 0..ROUNDS {
        let count = Arc::new(AtomicUsize::new(0));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let admin = control_plane.admin().await;
            writers.spawn(create(admin, format!("p-{round}-{writer}"), Arc::clone(&count)));
        }
        let written = async || count.load(Ordering::Relaxed);
        until("writes", written, |written| *written >= writes_before_kill(round)).await;
        let killed = control_plane.kill();
        acknowledged.extend(writers.join_all().await.into_iter().flatten());
        control_plane = killed.start();

        let exported = control_plane.admin().await.export().await;
        let config = exported.config.unwrap();
        for (name, _) in &acknowledged {
            assert!(config.providers.iter().any(|one| one.name == *name), "round {round}: {name} is lost");
        }
        // One revision per provider, none skipped, none used twice.
        assert_eq!(exported.version.unwrap().revision, config.providers.len() as u64, "round {round}");
        let mut revisions: Vec<u64> = acknowledged.iter().map(|(_, revision)| *revision).collect();
        revisions.sort_unstable();
        let before = revisions.len();
        revisions.dedup();
        assert_eq!(revisions.len(), before, "round {round}: a revision was given twice");
    }
}

/// Applies document after document, numbered by their region, until the control plane
/// is gone. The number of the last acknowledged one, and its revision.
async fn apply(admin: Admin, first: u64, count: Arc<AtomicUsize>) -> Option<(u64, u64)> {
    let mut last = None;
    for number in first.. {
        let config =
            Config { providers: vec![provider("p".to_owned(), number.to_string())], ..Config::default() };
        let request = ApplyConfigRequest { config: Some(config), ..ApplyConfigRequest::default() };
        let Ok(response) = admin.client.clone().apply_config(request).await else { break };
        last = Some((number, response.into_inner().version.unwrap().revision));
        count.fetch_add(1, Ordering::Relaxed);
    }
    last
}

#[tokio::test]
async fn last_acknowledged_document_survives_kills() {
    let mut control_plane = ControlPlane::start();
    let mut first = 1;
    for round in 0..ROUNDS {
        let count = Arc::new(AtomicUsize::new(0));
        let writer = tokio::spawn(apply(control_plane.admin().await, first, Arc::clone(&count)));
        let written = async || count.load(Ordering::Relaxed);
        until("writes", written, |written| *written >= writes_before_kill(round)).await;
        let killed = control_plane.kill();
        let (number, revision) = writer.await.unwrap().unwrap();
        assert_eq!(number, revision, "round {round}: each document is one revision");
        control_plane = killed.start();

        let exported = control_plane.admin().await.export().await;
        let kept: u64 = exported.config.unwrap().providers[0].region.parse().unwrap();
        // The write that the kill met may have become durable without an answer.
        assert!(
            kept == number || kept == number + 1,
            "round {round}: {kept} is kept, {number} was acknowledged"
        );
        assert_eq!(exported.version.unwrap().revision, kept, "round {round}");
        first = kept + 1;
    }
}
