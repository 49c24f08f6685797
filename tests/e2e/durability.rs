//! kill -9 of the control plane amid writes of several operators, and crashes at each
//! step of a commit: what was acknowledged is there, revisions have no gaps, and the
//! audit log holds every write once.
//!
//! Fifty kills, or as many as TRUNKLINE_TEST_KILLS says: `make kills` runs a thousand.

use std::{
    collections::HashMap,
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::task::JoinSet;
use trunkline_proto::{
    admin::v1::{AuditEntry, CreateProviderRequest, QueryAuditRequest, UpdateProviderRequest},
    types::v1::{Dialect, Provider},
};
use trunkline_tests::{admin::Admin, control_plane::ControlPlane, patience::until};

const KILLS: usize = 50;
const WRITERS: usize = 16;

/// Acknowledged writes before a kill; it differs by round, so that kills meet
/// different moments.
const fn writes_before_kill(round: usize) -> usize {
    1 + (round * 7) % 40
}

fn kills() -> usize {
    env::var("TRUNKLINE_TEST_KILLS").map_or(KILLS, |text| text.parse().unwrap())
}

fn provider(writer: usize, write: u64) -> Provider {
    Provider {
        name: format!("writer-{writer}"),
        // The number of the write, where it may be any text.
        region: write.to_string(),
        dialect: Dialect::Openai.into(),
        base_url: "https://api.example.com/v1".to_owned(),
        ..Provider::default()
    }
}

/// An acknowledged write.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    writer: usize,
    write: u64,
    revision: u64,
}

/// Writes until the control plane is gone: its own provider, again and again.
async fn write(admin: Admin, writer: usize, first: u64, count: Arc<AtomicUsize>) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    for write in first.. {
        let provider = Some(provider(writer, write));
        let request = UpdateProviderRequest { provider, ..UpdateProviderRequest::default() };
        let Ok(response) = admin.client.clone().update_provider(request).await else { break };
        let revision = response.into_inner().version.unwrap().revision;
        acknowledged.push(Acknowledged { writer, write, revision });
        count.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

/// The newest write of each writer that is stored.
async fn stored(admin: &Admin) -> (u64, HashMap<String, u64>) {
    let exported = admin.export().await;
    let providers = exported.config.unwrap().providers.into_iter();
    let writes = providers.map(|one| (one.name, one.region.parse().unwrap())).collect();
    (exported.version.unwrap().revision, writes)
}

/// Entries of the audit log that are newer than `sequence`, newest first.
async fn audit(admin: &Admin, sequence: u64) -> Vec<AuditEntry> {
    let mut all = Vec::new();
    let mut request = QueryAuditRequest { page_size: 100, ..QueryAuditRequest::default() };
    loop {
        let page = admin.client.clone().query_audit(request.clone()).await.unwrap().into_inner();
        let more = page.entries.iter().all(|entry| entry.sequence > sequence);
        all.extend(page.entries.into_iter().filter(|entry| entry.sequence > sequence));
        if !more || page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

/// Each commit is in the log once, in order, linked to the one before it, and says which
/// revision it led to.
fn check_audit(
    entries: &[AuditEntry],
    before: Option<&AuditEntry>,
    acknowledged: &[Acknowledged],
    revision: u64,
) {
    let mut last = before;
    for entry in entries.iter().rev() {
        let expected = last.map_or(1, |last| last.sequence + 1);
        assert_eq!(entry.sequence, expected, "a commit is missing from the audit log, or there twice");
        if let Some(last) = last {
            assert_eq!(entry.previous_sha256, last.sha256, "the chain is broken at {}", entry.sequence);
        }
        last = Some(entry);
    }
    let revisions: HashMap<u64, &AuditEntry> =
        entries.iter().map(|entry| (entry.version.as_ref().unwrap().revision, entry)).collect();
    assert_eq!(revisions.len(), entries.len(), "a revision was given twice");
    for one in acknowledged {
        let entry = revisions.get(&one.revision).unwrap_or_else(|| panic!("{one:?} is not in the audit log"));
        assert_eq!(entry.method, "UpdateProvider");
        let after = entry.changes.iter().map(|change| change.after.as_str());
        assert!(after.into_iter().any(|after| after.contains(&one.write.to_string())), "{one:?}: {entry:?}");
    }
    let newest =
        entries.iter().filter_map(|entry| entry.version.as_ref()).map(|version| version.revision).max();
    assert_eq!(newest.unwrap_or(revision), revision, "writes and audit log differ");
}

/// Operators that write one after the other, each its own provider, over all the lives of
/// a control plane.
struct Operators {
    /// Each one's next write.
    next: Vec<u64>,
    /// The newest entry of the audit log that was looked at.
    last: Option<AuditEntry>,
}

impl Operators {
    async fn start(admin: &Admin) -> Self {
        for writer in 0..WRITERS {
            let provider = Some(provider(writer, 0));
            let request = CreateProviderRequest { provider, ..CreateProviderRequest::default() };
            admin.client.clone().create_provider(request).await.unwrap();
        }
        Self { next: vec![1; WRITERS], last: audit(admin, 0).await.into_iter().next() }
    }

    /// All write at once, until the control plane is gone.
    async fn write(
        &self,
        control_plane: &ControlPlane,
        count: &Arc<AtomicUsize>,
    ) -> JoinSet<Vec<Acknowledged>> {
        let mut writers = JoinSet::new();
        for (writer, first) in self.next.iter().enumerate() {
            writers.spawn(write(control_plane.admin().await, writer, *first, Arc::clone(count)));
        }
        writers
    }

    /// What was acknowledged is there, and nothing but it and what a crash met.
    async fn check(&mut self, when: &str, admin: &Admin, writers: JoinSet<Vec<Acknowledged>>) {
        let acknowledged: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
        let (revision, stored) = stored(admin).await;
        for (writer, next) in self.next.iter_mut().enumerate() {
            let own = acknowledged.iter().filter(|one| one.writer == writer);
            let newest = own.map(|one| one.write).max().unwrap_or(*next - 1);
            let kept = stored[&format!("writer-{writer}")];
            // The write that the crash met may have become durable without an answer.
            assert!(
                kept == newest || kept == newest + 1,
                "{when}: {kept} of writer {writer} is kept, {newest} was acknowledged"
            );
            *next = kept + 1;
        }
        let entries = audit(admin, self.last.as_ref().map_or(0, |entry| entry.sequence)).await;
        check_audit(&entries, self.last.as_ref(), &acknowledged, revision);
        self.last = entries.into_iter().next().or(self.last.take());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kills() {
    let mut control_plane = ControlPlane::start();
    let mut operators = Operators::start(&control_plane.admin().await).await;
    for round in 0..kills() {
        let count = Arc::new(AtomicUsize::new(0));
        let writers = operators.write(&control_plane, &count).await;
        let written = async || count.load(Ordering::Relaxed);
        until("writes", written, |written| *written >= writes_before_kill(round)).await;
        control_plane = control_plane.restart();
        operators.check(&format!("round {round}"), &control_plane.admin().await, writers).await;
    }
}

/// Each step of a commit, as `store/failpoints.rs` of the control plane names them.
const STEPS: [&str; 6] =
    ["before_write", "half_written", "before_sync", "after_sync", "after_view", "after_publish"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_crash_at_each_step_of_a_commit() {
    let mut control_plane = ControlPlane::start();
    let mut operators = Operators::start(&control_plane.admin().await).await;
    for step in STEPS {
        for commits in [0, 1, 7] {
            let first = if commits == 0 { String::new() } else { format!("{commits}*off->") };
            let crash = format!("commit::{step}={first}return");
            control_plane = control_plane.stop().await.1.start_with(&[("FAILPOINTS", &crash)]);
            let writers = operators.write(&control_plane, &Arc::default()).await;
            control_plane = control_plane.ended().await.start_with(&[]);
            operators.check(&crash, &control_plane.admin().await, writers).await;
        }
    }
}

/// Steps of starting a new segment, which happens at 64 KiB here.
const ROTATION: [&str; 3] = ["half_segment", "after_rename", "before_removal"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_crash_while_the_journal_starts_a_new_segment() {
    let mut control_plane = ControlPlane::start();
    let mut operators = Operators::start(&control_plane.admin().await).await;
    for step in ROTATION {
        for rotations in ["", "2*off->"] {
            let crash = format!("rotate::early=return;rotate::{step}={rotations}return");
            control_plane = control_plane.stop().await.1.start_with(&[("FAILPOINTS", &crash)]);
            let writers = operators.write(&control_plane, &Arc::default()).await;
            control_plane = control_plane.ended().await.start_with(&[]);
            operators.check(&crash, &control_plane.admin().await, writers).await;
        }
    }
}
