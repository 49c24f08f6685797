//! Reads steps: sums over a window, and the steps one by one. What is open is in memory,
//! the rest is read from the store in pieces, so that nobody waits long for the writer.

use std::collections::{BTreeMap, HashMap};

use super::gate::Full;
use super::level::Level;
use super::pairs::PairId;
use super::stored::{self, Address};
use super::totals::Totals;
use super::{Key, Stats};
use crate::repository::CommitError;

/// Rows read at one go, but for a step that alone has more: some milliseconds.
const PIECE_ROWS: u64 = 4_096;

/// Rows read for one page. A page that would take more ends early.
const PAGE_ROWS: u64 = 50_000;

/// Which steps to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) level: Level,
    /// The first step, and the name of a deployment in it after which to go on; empty:
    /// from its beginning.
    pub(crate) from: (u32, String),
    /// The last step.
    pub(crate) last: u32,
    /// Points.
    pub(crate) limit: usize,
}

/// One deployment in one step.
#[derive(Debug)]
pub(crate) struct Point {
    /// When the step begins, in seconds since 1970.
    pub(crate) start_secs: u64,
    pub(crate) deployment: String,
    pub(crate) totals: Totals,
}

/// Steps to read, and their rows where these are in memory.
#[derive(Debug)]
struct Wanted {
    level: Level,
    step: u32,
    /// How many there are.
    rows: u64,
    open: Option<HashMap<PairId, Totals>>,
}

/// Why the past was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// Too many ask at the same time.
    #[error(transparent)]
    Busy(#[from] Full),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// Steps from one to another, that one not included.
type Span = (Level, u32, u32);

impl Stats {
    /// Now, in seconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Whether a level still has the step that holds `secs`.
    pub(crate) fn keeps(&self, level: Level, secs: u64) -> bool {
        level.step_at(secs) >= self.counts.lock().rollups.kept_from(level, self.now())
    }

    /// The sum of the whole steps from the one that holds `from` until `to`, in seconds
    /// since 1970, of the finest level that has them all, for each pair that `wanted`
    /// accepts.
    ///
    /// # Errors
    /// If the store cannot be read, or too many ask at the same time.
    pub(crate) async fn sum(
        &self,
        from: u64,
        to: u64,
        wanted: impl Fn(&Key) -> bool,
    ) -> Result<Vec<(Key, Totals)>, QueryError> {
        let _place = self.gate.enter().await?;
        let finest = Level::ALL.into_iter().find(|level| self.keeps(*level, from)).unwrap_or(Level::Hour);
        let spans = spans(finest, from, to, &|level, secs| self.keeps(level, secs));
        let (pairs, steps) = self.snapshot(&spans, wanted);
        let mut sums: HashMap<PairId, Totals> = HashMap::new();
        let mut rest = steps;
        while !rest.is_empty() {
            for (address, totals) in self.piece(&mut rest).await? {
                if pairs.contains_key(&address.pair) {
                    sums.entry(address.pair).or_default().merge(&totals);
                }
            }
        }
        Ok(sums.into_iter().filter_map(|(pair, totals)| Some((pairs.get(&pair)?.clone(), totals))).collect())
    }

    /// A page of points, by time and then by deployment, over the pairs that `wanted`
    /// accepts, and where the next page begins.
    ///
    /// # Errors
    /// If the store cannot be read, or too many ask at the same time.
    pub(crate) async fn history(
        &self,
        page: Page,
        wanted: impl Fn(&Key) -> bool,
    ) -> Result<(Vec<Point>, Option<(u32, String)>), QueryError> {
        let _place = self.gate.enter().await?;
        let span = (page.level, page.from.0, page.last.saturating_add(1));
        let (pairs, mut rest) = self.snapshot(&[span], wanted);
        let (mut points, mut rows) = (Vec::new(), 0);
        while let Some(first) = rest.first() {
            if rows >= PAGE_ROWS {
                return Ok((points, Some((first.step, String::new()))));
            }
            let piece = self.piece(&mut rest).await?;
            rows += piece.len() as u64;
            let mut found: BTreeMap<(u32, &str), Totals> = BTreeMap::new();
            for (address, totals) in &piece {
                if let Some(key) = pairs.get(&address.pair) {
                    found.entry((address.step, &key.deployment)).or_default().merge(totals);
                }
            }
            found.retain(|(step, deployment), _| (*step, *deployment) > (page.from.0, page.from.1.as_str()));
            let room = page.limit - points.len();
            let more = found.len() > room || (found.len() == room && !rest.is_empty());
            let last = found.keys().take(room).next_back().map(|(step, name)| (*step, (*name).to_owned()));
            points.extend(found.into_iter().take(room).map(|((step, deployment), totals)| Point {
                start_secs: page.level.start_of(step),
                deployment: deployment.to_owned(),
                totals,
            }));
            if more {
                return Ok((points, last));
            }
        }
        Ok((points, None))
    }

    /// The steps of `spans` that have rows, as of one moment: a step that is open is
    /// complete with what was not folded into it, and all others are complete on disk.
    fn snapshot(&self, spans: &[Span], wanted: impl Fn(&Key) -> bool) -> (HashMap<PairId, Key>, Vec<Wanted>) {
        let counts = self.counts.lock();
        let rollups = &counts.rollups;
        let mut steps = Vec::new();
        for (level, first, end) in spans.iter().copied().filter(|(_, first, end)| first < end) {
            let open = rollups.open_step(level);
            let closed = |steps: &mut Vec<_>, first: u32, end: u32| {
                if first < end {
                    let sizes = rollups.steps(level).sizes.range(first..end);
                    steps.extend(sizes.map(|(step, size)| Wanted {
                        level,
                        step: *step,
                        rows: size.rows,
                        open: None,
                    }));
                }
            };
            closed(&mut steps, first, end.min(open));
            if (first..end).contains(&open) {
                let live = rollups.open_rows(level);
                steps.push(Wanted { level, step: open, rows: live.len() as u64, open: Some(live) });
            }
            closed(&mut steps, first.max(open.saturating_add(1)), end);
        }
        (rollups.pairs.select(wanted), steps)
    }

    /// Takes the first steps off `rest` and reads their rows.
    async fn piece(&self, rest: &mut Vec<Wanted>) -> Result<Vec<(Address, Totals)>, CommitError> {
        let mut rows = 0;
        let count = rest.iter().take_while(|wanted| {
            let fits = rows == 0 || rows + wanted.rows <= PIECE_ROWS;
            rows += wanted.rows.max(1);
            fits
        });
        let count = count.count();
        let (mut prefixes, mut found) = (Vec::new(), Vec::new());
        for Wanted { level, step, open, .. } in rest.drain(..count) {
            match open {
                None => prefixes.push(stored::rows_of(level, step)),
                Some(live) => found
                    .extend(live.into_iter().map(|(pair, totals)| (Address { level, step, pair }, totals))),
            }
        }
        if !prefixes.is_empty() {
            let blobs = self.repository.scan_blobs_of(prefixes).await?;
            found.extend(stored::read_rows(blobs).map(|(address, (totals, _))| (address, totals)));
        }
        Ok(found)
    }
}

/// Covers the steps of `level` that touch `from` to `to`, with longer ones inside where
/// these are kept: sums are equal, and a week is 300 steps instead of 10,000.
fn spans(level: Level, from: u64, to: u64, kept: &impl Fn(Level, u64) -> bool) -> Vec<Span> {
    let length = level.step_secs();
    let (from, to) = (from / length * length, to.div_ceil(length) * length);
    let span = |from: u64, to: u64| (level, level.step_at(from), level.step_at(to));
    let coarser = Level::ALL.into_iter().find(|coarser| *coarser > level);
    let inner = coarser.map(|coarser| {
        let length = coarser.step_secs();
        (coarser, from.div_ceil(length) * length, to / length * length)
    });
    match inner {
        Some((coarser, start, end)) if start < end && kept(coarser, start) => {
            let mut all = vec![span(from, start)];
            all.extend(spans(coarser, start, end, kept));
            all.push(span(end, to));
            all
        }
        _ => vec![span(from, to)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(level: Level, from: u64, to: u64, expect: &[Span]) {
        let mut spans = spans(level, from, to, &|_, _| true);
        spans.retain(|(_, first, end)| first < end);
        assert_eq!(spans, expect);
        let seconds: u64 = spans.iter().map(|(level, first, end)| level.start_of(end - first)).sum();
        let length = level.step_secs();
        assert_eq!(seconds, to.div_ceil(length) * length - from / length * length);
    }

    #[test]
    fn a_window_is_covered_by_the_longest_steps_inside_of_it() {
        check(Level::TenSeconds, 15, 35, &[(Level::TenSeconds, 1, 4)]);
        check(
            Level::TenSeconds,
            3_535,
            7_325,
            &[
                (Level::TenSeconds, 353, 354),
                (Level::Minute, 59, 60),
                (Level::Hour, 1, 2),
                (Level::Minute, 120, 122),
                (Level::TenSeconds, 732, 733),
            ],
        );
        check(Level::Minute, 3_600, 7_200, &[(Level::Hour, 1, 2)]);
        check(Level::Hour, 1, 3_601, &[(Level::Hour, 0, 2)]);
    }

    #[test]
    fn longer_steps_that_are_gone_are_not_used() {
        let kept = |level, _| level != Level::Hour;
        assert_eq!(spans(Level::Minute, 0, 7_200, &kept), [(Level::Minute, 0, 120)]);
    }
}
