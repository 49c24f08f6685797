//! Who gets one of the places for pairs: over the real merger and a store in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use trunkline_proto::admin::v1::Config;
use trunkline_proto::types::v1 as types;

use super::level::Level;
use super::merger::{self, Merger};
use super::report::Report;
use super::simulation::Fate;
use super::totals::Totals;
use super::{Key, Stats};
use crate::repository::{ConfigWrite, Repository, RepositoryOptions};

const START: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

struct Bench {
    repository: Arc<Repository>,
    merger: Merger,
    stats: Arc<Stats>,
    seq: u64,
}

/// One provider `p` with these deployments, all of them targets of `chat`.
fn config(deployments: &[&str]) -> Config {
    let deployment = |name: &&str| types::Deployment { name: (*name).to_owned(), ..Default::default() };
    let provider = types::Provider {
        name: "p".to_owned(),
        dialect: types::Dialect::Openai.into(),
        base_url: "https://api.example.com/v1".to_owned(),
        deployments: deployments.iter().map(deployment).collect(),
        ..Default::default()
    };
    let target = |name: &&str| types::Target { deployment: format!("p/{name}"), ..Default::default() };
    let tier = types::Tier { targets: deployments.iter().map(target).collect(), ..Default::default() };
    let model = types::VirtualModel { name: "chat".to_owned(), tiers: vec![tier], ..Default::default() };
    Config { providers: vec![provider], virtual_models: vec![model], ..Default::default() }
}

impl Bench {
    async fn new(deployments: &[&str]) -> Self {
        let repository = Repository::open(RepositoryOptions::default()).unwrap();
        let (merger, stats, _) = Merger::load(Arc::clone(&repository)).await.unwrap();
        let bench = Self { repository, merger, stats, seq: 0 };
        if !deployments.is_empty() {
            bench.configure(deployments).await;
        }
        bench
    }

    async fn configure(&self, deployments: &[&str]) {
        let write = ConfigWrite {
            config: config(deployments),
            expected_revision: self.repository.state().version.revision,
            principal: "tester".to_owned(),
            method: "ApplyConfig",
            request_id: None,
            request_sha256: [0; 32],
            force: true,
        };
        self.repository.commit(write).await.unwrap();
    }

    /// One attempt of each pair; the answer is how many were left out.
    async fn report(&mut self, now: u64, pairs: &[(&str, &str)]) -> Option<u64> {
        self.seq += 1;
        let mut totals = Totals::default();
        totals.outcomes[1] = 1;
        let key = |(deployment, model): &(&str, &str)| Key {
            deployment: (*deployment).to_owned(),
            model: (*model).to_owned(),
        };
        let (job, answer) = merger::of_report(Report {
            agent_id: "a".into(),
            incarnation: "i".into(),
            seq: self.seq,
            covered: std::time::Duration::ZERO,
            counts: pairs.iter().map(|pair| (key(pair), totals.clone())).collect::<HashMap<_, _>>(),
            end_secs: None,
            lost_before: false,
            refused: Vec::new(),
            samples: Vec::new(),
            running: HashMap::new(),
        });
        self.merger.merge(now, vec![job]).await;
        let merged = answer.await.unwrap().ok();
        if merged.is_none() {
            // It has to come again.
            self.seq -= 1;
        }
        merged.map(|merged| merged.left_out)
    }

    fn counted(&self) -> Vec<String> {
        let all = self.stats.totals(|_| true).into_iter();
        let mut names: Vec<_> = all
            .map(|(key, totals)| format!("{} {}: {}", key.deployment, key.model, totals.attempts()))
            .collect();
        names.sort_unstable();
        names
    }

    fn set_room(&self, pairs: usize) {
        self.stats.counts.lock().keys_max = pairs;
    }

    async fn restart(&mut self, room: usize) {
        (self.merger, self.stats, _) = Merger::load(Arc::clone(&self.repository)).await.unwrap();
        self.set_room(room);
    }
}

#[tokio::test]
async fn names_that_no_recent_configuration_has_take_no_place() {
    let mut bench = Bench::new(&["one", "two"]).await;
    let made_up = [("p/one", "x"), ("p/x", "chat"), ("p/x", "p/x"), ("p/one", "p/two")];
    assert_eq!(bench.report(START, &made_up).await, Some(4));
    assert_eq!(bench.report(START, &[("p/one", "chat"), ("p/two", "p/two")]).await, Some(0));
    // An agent that is a little behind still reports what was removed.
    bench.configure(&["one"]).await;
    assert_eq!(bench.report(START, &[("p/two", "chat"), ("p/three", "chat")]).await, Some(1));
    bench.configure(&["one", "three"]).await;
    assert_eq!(bench.report(START, &[("p/three", "chat")]).await, Some(0));
    let counted = ["p/one chat: 1", "p/three chat: 1", "p/two chat: 1", "p/two p/two: 1"];
    assert_eq!(bench.counted(), counted);
}

#[tokio::test(start_paused = true)]
async fn pairs_that_are_gone_make_room_when_their_last_rows_are() {
    let mut bench = Bench::new(&["old", "kept"]).await;
    bench.set_room(2);
    assert_eq!(bench.report(START, &[("p/old", "chat"), ("p/kept", "chat")]).await, Some(0));
    // Further than what is called recent.
    for number in 0..300 {
        bench.configure(&["kept", "new", &format!("d{number}")]).await;
    }
    assert_eq!(bench.report(START + 10, &[("p/new", "chat")]).await, Some(1), "there are rows");
    bench.restart(2).await;

    let late = START + 401 * DAY;
    for _ in 0..3 {
        bench.report(late, &[]).await;
        tokio::time::advance(Duration::from_secs(3_600)).await;
    }
    // A write that failed takes nothing away, whether it was done or not.
    for fate in [Fate::Refused, Fate::WrittenUnknown] {
        bench.merger.fate = Some(fate);
        assert_eq!(bench.report(late, &[("p/new", "chat")]).await, None);
        assert_eq!(bench.report(late, &[]).await, Some(0));
        bench.restart(2).await;
        assert_eq!(bench.counted(), ["p/kept chat: 1", "p/old chat: 1"]);
    }
    assert_eq!(bench.report(late, &[("p/new", "chat")]).await, Some(0));
    assert_eq!(bench.report(late, &[("p/old", "chat")]).await, Some(1));
    for _ in 0..2 {
        assert_eq!(bench.counted(), ["p/kept chat: 1", "p/new chat: 1"]);
        bench.restart(2).await;
    }
    // The number that was given back is that of the new one, and of nobody else.
    assert_eq!(bench.report(late + 20, &[("p/new", "chat"), ("p/kept", "chat")]).await, Some(0));
    let live = bench.stats.counts.lock().rollups.open_rows(Level::Hour);
    assert_eq!(live.len(), 2, "{live:?}");
    let sums = bench.stats.sum(late, late + 60, |key| key.deployment == "p/new").await.unwrap();
    assert_eq!(sums.iter().map(|(_, totals)| totals.attempts()).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_store_without_a_configuration_keeps_counts_and_half_of_the_room() {
    let mut bench = Bench::new(&[]).await;
    bench.set_room(4);
    for (deployment, left_out) in [("p/a", 0), ("p/b", 0), ("p/c", 1), ("p/a", 0)] {
        assert_eq!(bench.report(START, &[(deployment, "chat")]).await, Some(left_out), "{deployment}");
    }
    bench.configure(&["one", "two"]).await;
    assert_eq!(bench.report(START, &[("p/c", "chat")]).await, Some(1));
    assert_eq!(bench.report(START, &[("p/one", "chat"), ("p/two", "chat")]).await, Some(0));
    assert_eq!(bench.counted(), ["p/a chat: 2", "p/b chat: 1", "p/one chat: 1", "p/two chat: 1"]);
}
