//! How long steps are kept, and what happens when there are too many: over the real
//! merger and a store in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::level::Level;
use super::merger::{self, Merger};
use super::query::{Page, QueryError};
use super::report::Report;
use super::stored::{self, Size};
use super::totals::Totals;
use super::{Key, Stats};
use crate::repository::{Repository, RepositoryOptions};

/// At the beginning of an hour.
const START: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
const HOUR: Duration = Duration::from_secs(3_600);

struct Bench {
    repository: Arc<Repository>,
    merger: Merger,
    stats: Arc<Stats>,
    seq: u64,
}

impl Bench {
    async fn new() -> Self {
        let repository = Repository::open(RepositoryOptions::default()).unwrap();
        let (mut merger, stats, _) = Merger::load(Arc::clone(&repository)).await.unwrap();
        merger.names.any = true;
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
            covered: std::time::Duration::ZERO,
            counts: (0..pairs).map(|pair| (key(pair), totals.clone())).collect(),
            end_secs: None,
            lost_before: false,
            refused: Vec::new(),
            samples: Vec::new(),
            running: HashMap::new(),
        };
        let (job, answer) = merger::of_report(report);
        self.merger.merge(now, vec![job]).await;
        answer.await.unwrap().unwrap();
    }

    async fn restart(&mut self) {
        (self.merger, self.stats, _) = Merger::load(Arc::clone(&self.repository)).await.unwrap();
        self.merger.names.any = true;
    }

    /// Attempts in the hour of `secs`, over all pairs.
    async fn attempts_in_hour(&self, secs: u64) -> u64 {
        let step = Level::Hour.step_at(secs);
        let page = Page { level: Level::Hour, from: (step, String::new()), last: step, limit: 100 };
        let (points, _) = self.stats.history(page, |_| true).await.unwrap();
        points.iter().map(|point| point.totals.attempts()).sum()
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

#[tokio::test(start_paused = true)]
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
        // After a long time without counts, nothing is removed at once.
        tokio::time::advance(HOUR).await;
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

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_far_ahead_for_a_while_removes_nothing() {
    let mut bench = Bench::new().await;
    bench.report(START, 3).await;
    let wrong = START + 500 * DAY;
    bench.report(wrong, 1).await;
    bench.restart().await;
    tokio::time::advance(Duration::from_secs(3_599)).await;
    bench.report(wrong + 3_599, 1).await;
    let finest = Level::TenSeconds;
    assert_eq!(bench.rows(finest).await[&finest.step_at(START)], 3);
    assert_eq!(bench.attempts_in_hour(START).await, 3);
    assert_eq!(bench.stats.counts.lock().rollups.open, START, "a restart would go on from here");
    assert_eq!(bench.attempts_in_hour(wrong).await, 2, "what came is counted all the same");

    // Set right: all goes on as if nothing had been.
    bench.report(START + 3_600, 2).await;
    assert_eq!(bench.stats.counts.lock().rollups.open, START + 3_600);
    assert_eq!(bench.attempts_in_hour(START).await, 3);
    bench.restart().await;
    assert_eq!(bench.attempts_in_hour(START).await, 3);
    assert_eq!(bench.attempts_in_hour(START + 3_600).await, 2);

    // It is right after all: then it stays so, and the past is removed.
    bench.report(wrong + 7_200, 1).await;
    tokio::time::advance(HOUR).await;
    bench.report(wrong + 7_200, 1).await;
    assert!(!bench.rows(Level::Hour).await.contains_key(&Level::Hour.step_at(START)));
    assert_eq!(bench.attempts_in_hour(wrong + 7_200).await, 2);
    bench.report(wrong + 10_800, 1).await;
    assert_eq!(bench.stats.counts.lock().rollups.open, wrong + 10_800);
}

#[tokio::test(start_paused = true)]
async fn an_hour_that_comes_twice_has_the_counts_of_both() {
    let mut bench = Bench::new().await;
    bench.report(START, 2).await;
    // The clock is ahead of the last counts by more than a day, and set right.
    let later = START + DAY + 3_600;
    bench.report(later, 2).await;
    bench.report(START + 7_200, 2).await;
    // Now it is that time.
    bench.report(later, 1).await;
    assert_eq!(bench.attempts_in_hour(later).await, 3);
    bench.restart().await;
    assert_eq!(bench.attempts_in_hour(later).await, 3);
    bench.report(later + 50, 1).await;
    bench.report(later + 7_200, 1).await;
    bench.report(later + 14_400, 1).await;
    for _ in 0..2 {
        assert_eq!(bench.attempts_in_hour(later).await, 4);
        assert_eq!(bench.attempts_in_hour(later + 7_200).await, 1);
        bench.restart().await;
    }
    let window = bench.stats.sum(later, later + 60, |_| true).await.unwrap();
    assert_eq!(window.iter().map(|(_, totals)| totals.attempts()).sum::<u64>(), 4);
}

#[tokio::test]
async fn too_many_questions_for_the_past_are_refused_and_nothing_else_waits() {
    let mut bench = Bench::new().await;
    bench.report(START, 3).await;
    let stats = Arc::clone(&bench.stats);
    let places = [stats.gate.enter().await.unwrap(), stats.gate.enter().await.unwrap()];
    let sums: FuturesUnordered<_> = (0..100).map(|_| stats.sum(START, START + 60, |_| true)).collect();
    let (refused, waiting): (Vec<_>, Vec<_>) =
        sums.map(|sum| sum.unwrap_err()).take(84).collect::<Vec<_>>().await.into_iter().partition(is_busy);
    assert_eq!((refused.len(), waiting.len()), (84, 0));
    bench.report(START + 10, 3).await;
    drop(places);
    let sums = stats.sum(START, START + 60, |_| true).await.unwrap();
    assert_eq!(sums.len(), 3);
}

fn is_busy(error: &QueryError) -> bool {
    matches!(error, QueryError::Busy(_))
}
