//! How long steps are kept, and what happens when there are too many: over the real
//! merger and a store in memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::level::Level;
use super::merger::{self, Merger};
use super::report::Report;
use super::stored::{self, Size};
use super::totals::Totals;
use super::{Key, Stats};
use crate::repository::{Repository, RepositoryOptions};

/// At the beginning of an hour.
const START: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

struct Bench {
    repository: Arc<Repository>,
    merger: Merger,
    stats: Arc<Stats>,
    seq: u64,
}

impl Bench {
    async fn new() -> Self {
        let repository = Repository::open(RepositoryOptions::default()).unwrap();
        let (merger, stats, _) = Merger::load(Arc::clone(&repository)).await.unwrap();
        Self { repository, merger, stats, seq: 0 }
    }

    /// One attempt at each of so many pairs, at `now`.
    async fn report(&mut self, now: u64, pairs: usize) {
        self.seq += 1;
        let mut totals = Totals::default();
        totals.outcomes[1] = 1;
        let key = |pair| Key { deployment: format!("p/{pair}"), model: "chat".into() };
        let report = Report {
            agent_id: "a".into(),
            incarnation: "i".into(),
            seq: self.seq,
            counts: (0..pairs).map(|pair| (key(pair), totals.clone())).collect(),
            end_secs: None,
            lost_before: false,
            refused: Vec::new(),
        };
        let (job, answer) = merger::of_report(report);
        self.merger.merge(now, vec![job]).await;
        answer.await.unwrap().unwrap();
    }

    /// Rows on the disk, by step.
    async fn rows(&self, level: Level) -> HashMap<u32, u64> {
        let mut rows = HashMap::new();
        let blobs = self.repository.scan_blobs(b"stats/row/").await.unwrap();
        for (address, _) in stored::read_rows(blobs).filter(|(address, _)| address.level == level) {
            *rows.entry(address.step).or_default() += 1;
        }
        rows
    }

    fn sizes(&self) -> Vec<HashMap<u32, u64>> {
        let counts = self.stats.counts.lock();
        let levels = counts.rollups.levels.iter();
        levels.map(|steps| steps.sizes.iter().map(|(step, size)| (*step, size.rows)).collect()).collect()
    }
}

#[tokio::test]
async fn steps_are_kept_as_long_as_they_say_and_then_go_from_the_disk() {
    let mut bench = Bench::new().await;
    bench.report(START, 3).await;
    for (after, kept) in [
        (6 * 3_600, [true, true, true]),
        (6 * 3_600 + 200, [false, true, true]),
        (7 * DAY, [false, true, true]),
        (7 * DAY + 200, [false, false, true]),
        (400 * DAY, [false, false, true]),
        (400 * DAY + 3_800, [false, false, false]),
    ] {
        bench.report(START + after, 1).await;
        for level in Level::ALL {
            let rows = bench.rows(level).await;
            let there = rows.contains_key(&level.step_at(START));
            assert_eq!(there, kept[level.index()], "{level:?} after {after} s");
        }
    }
    for level in Level::ALL {
        let mut sizes = bench.sizes().swap_remove(level.index());
        sizes.retain(|_, rows| *rows > 0);
        assert_eq!(bench.rows(level).await, sizes, "{level:?}");
    }
}

#[tokio::test]
async fn too_many_rows_shorten_a_level_and_it_is_counted() {
    let mut bench = Bench::new().await;
    let size_max = Size { rows: 100, ..super::rollups::SIZE_MAX };
    bench.stats.counts.lock().rollups.size_max = size_max;
    for step in 0..40 {
        bench.report(START + 10 * step, 10).await;
    }
    let finest = bench.rows(Level::TenSeconds).await;
    // With what the last commit added.
    assert!(finest.values().sum::<u64>() <= 100 + 10, "{finest:?}");
    let newest = Level::TenSeconds.step_at(START + 390);
    assert!((newest - 9..=newest).all(|step| finest[&step] == 10), "{finest:?}");
    let dropped = bench.stats.occupied().dropped;
    assert_eq!(dropped, 400 - finest.values().sum::<u64>());
    // The minutes have room, and miss nothing.
    let minutes = bench.stats.counts.lock().rollups.open_rows(Level::Minute);
    assert!(minutes.values().all(|totals| totals.attempts() == 4), "{minutes:?}");
    assert_eq!(bench.rows(Level::Minute).await.len(), 7);

    let reach = |stats: &Stats| stats.counts.lock().rollups.mark().reach;
    let before = reach(&bench.stats);
    let (_, stats, _) = Merger::load(Arc::clone(&bench.repository)).await.unwrap();
    assert_eq!(reach(&stats), before);
    assert!(before[0] > Level::TenSeconds.step_at(START));
}

#[tokio::test]
async fn each_pair_has_one_row_in_each_step() {
    let mut bench = Bench::new().await;
    for minute in 0..60 {
        bench.report(START + 60 * minute, 20).await;
    }
    // 20 rows each: 60 steps of 10 s, 60 minutes of which one is open, and one hour.
    let occupied = bench.stats.occupied();
    assert_eq!(occupied.rows, 20 * (60 + 59 + 1));
    assert_eq!(occupied.dropped, 0);
}
