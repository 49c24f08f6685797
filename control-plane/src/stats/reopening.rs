//! A view that does not open, or is opened again: over the real merger and store.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::level::Level;
use super::merger::{self, Answer, Job, Merger};
use super::query::Page;
use super::report::Report;
use super::totals::Totals;
use super::{Key, Stats};
use crate::repository::{CommitError, Repository, RepositoryOptions, StoreHealth};
use crate::store::sled::SledStore;

const NOW: u64 = 1_800_000_000;

struct Bench {
    repository: Arc<Repository>,
    merger: Merger,
    stats: Arc<Stats>,
}

impl Bench {
    async fn open(directory: &Path) -> Self {
        let data_dir = Some(directory.to_owned());
        let options = RepositoryOptions { data_dir, ..RepositoryOptions::default() };
        let repository = Repository::open(options).unwrap();
        let (mut merger, stats, _) = Merger::load(Arc::clone(&repository)).await.unwrap();
        merger.names.any = true;
        Self { repository, merger, stats }
    }

    /// One attempt by an agent, at a deployment of its own and at one of all.
    async fn report(&mut self, agent_id: &str, seq: u64) -> Result<u64, CommitError> {
        let (job, answer) = report(agent_id, seq);
        self.merger.merge(NOW, vec![job]).await;
        answer.await.unwrap().map(|merged| merged.acked)
    }

    fn totals(&self) -> Vec<(String, u64)> {
        let totals = self.stats.totals(|_| true).into_iter();
        let mut totals: Vec<_> = totals.map(|(key, totals)| (key.deployment, totals.attempts())).collect();
        totals.sort();
        totals
    }

    /// The same as steps say.
    async fn history(&self) -> Vec<(String, u64)> {
        let page =
            Page { level: Level::Hour, from: (0, String::new()), last: u32::MAX - 1, limit: usize::MAX };
        let (points, _) = self.stats.history(page, |_| true).await.unwrap();
        points.into_iter().map(|point| (point.deployment, point.totals.attempts())).collect()
    }
}

fn report(agent_id: &str, seq: u64) -> (Job, Answer) {
    let mut totals = Totals::default();
    totals.outcomes[1] = 1;
    let key = |deployment: &str| Key { deployment: deployment.into(), model: "chat".into() };
    merger::of_report(Report {
        agent_id: agent_id.into(),
        incarnation: "i".into(),
        seq,
        covered: std::time::Duration::ZERO,
        counts: HashMap::from([(key(agent_id), totals.clone()), (key("shared"), totals)]),
        end_secs: None,
        lost_before: false,
        refused: Vec::new(),
        samples: Vec::new(),
        running: HashMap::new(),
    })
}

fn counts(all: &[(&str, u64)]) -> Vec<(String, u64)> {
    all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn counts_are_exact_after_a_start_at_which_the_view_did_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(directory.path()).await;
    bench.report("a", 1).await.unwrap();
    bench.report("b", 1).await.unwrap();
    drop(bench);

    let held = SledStore::open(&directory.path().join("view")).unwrap();
    let mut bench = Bench::open(directory.path()).await;
    let unknown = bench.stats.check_loaded();
    let Err(CommitError::ReadOnly { reason }) = unknown else { panic!("{unknown:?}") };
    assert!(reason.contains("view"), "{reason}");
    assert!(bench.stats.has_traffic("chat"), "nobody knows");
    // A report that was merged before, and a new one of a new agent.
    for agent_id in ["b", "c"] {
        let refused = bench.report(agent_id, 1).await;
        assert!(matches!(refused, Err(CommitError::ReadOnly { .. })), "{refused:?}");
    }
    assert_eq!(bench.totals(), []);

    drop(held);
    bench.repository.pretend_full().await;
    assert_eq!(bench.report("c", 1).await.unwrap(), 1);
    assert_eq!(bench.report("b", 1).await.unwrap(), 1);
    let expect = counts(&[("a", 1), ("b", 1), ("c", 1), ("shared", 3)]);
    for _ in 0..2 {
        bench.stats.check_loaded().unwrap();
        assert_eq!(bench.totals(), expect);
        assert_eq!(bench.history().await, expect);
        drop(bench);
        bench = Bench::open(directory.path()).await;
    }
}

#[tokio::test]
async fn a_view_that_opens_while_a_report_is_merged_takes_it_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(directory.path()).await;
    bench.report("a", 1).await.unwrap();
    bench.repository.pretend_full().await;
    // The write itself finds that there is room, in another opening than was read.
    bench.report("a", 2).await.unwrap_err();
    assert_eq!(bench.report("a", 2).await.unwrap(), 2);
    assert_eq!(bench.totals(), counts(&[("a", 2), ("shared", 2)]));
    assert_eq!(bench.history().await, counts(&[("a", 2), ("shared", 2)]));
}

#[tokio::test]
async fn what_a_lost_view_held_is_counted_anew_and_the_loss_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(directory.path()).await;
    // A record that the new view will lack.
    bench.repository.set_drain("agent".into(), Some(String::new()), "tester".into()).await.unwrap();
    bench.report("a", 1).await.unwrap();
    bench.report("b", 1).await.unwrap();
    bench.repository.pretend_full().await;
    std::fs::rename(directory.path().join("view"), directory.path().join("view.away")).unwrap();
    bench.report("b", 2).await.unwrap_err();
    // A gap for who remembers nothing: it is asked for, then accepted.
    bench.report("b", 2).await.unwrap();
    bench.report("b", 2).await.unwrap();
    let health = bench.repository.health();
    assert!(matches!(&health, StoreHealth::Degraded { reason } if reason.contains("totals")), "{health:?}");
    let expect = counts(&[("b", 1), ("shared", 1)]);
    for _ in 0..2 {
        assert_eq!(bench.totals(), expect);
        assert_eq!(bench.history().await, expect);
        drop(bench);
        bench = Bench::open(directory.path()).await;
    }
}

#[tokio::test]
async fn the_merger_reads_by_itself_what_can_be_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(directory.path()).await;
    bench.report("a", 1).await.unwrap();
    drop(bench);
    let held = SledStore::open(&directory.path().join("view")).unwrap();
    let data_dir = Some(directory.path().to_owned());
    let options = RepositoryOptions { data_dir, ..RepositoryOptions::default() };
    let repository = Repository::open(options).unwrap();
    let (mut merger, stats, reports) = Merger::load(Arc::clone(&repository)).await.unwrap();
    merger.names.any = true;
    let task = tokio::spawn(merger.run());
    drop(held);
    repository.pretend_full().await;
    // Whoever has the repository look: no agent has to.
    repository.scan_blobs(b"").await.unwrap();
    let loaded = async {
        while stats.check_loaded().is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), loaded).await.unwrap();
    assert_eq!(stats.totals(|_| true).len(), 2);
    drop(reports);
    task.await.unwrap();
}
