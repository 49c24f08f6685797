//! All that was measured, and the table made of it.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{closed::Closed, open::Open, streams::Streams, subject::Subject};

/// How one way to the mock is held against another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Against {
    Ratio,
    Difference,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    /// In the order of the table.
    place: u16,
    label: &'static str,
    against: Against,
}

const fn ratio(place: u16, label: &'static str) -> Row {
    Row { place, label, against: Against::Ratio }
}

const fn difference(place: u16, label: &'static str) -> Row {
    Row { place, label, against: Against::Difference }
}

const THROUGHPUT: Row = ratio(0, "closed loop, 64 connections: requests/s");
const CLOSED_CPU: Row = ratio(1, "closed loop: proxy CPU µs/request");
const CLOSED_USER: Row = ratio(2, "closed loop: of it user");
const CLOSED_SYSTEM: Row = ratio(3, "closed loop: of it system");
const CLOSED_ALL: Row = ratio(4, "closed loop: CPU µs/request of caller, proxy and mock");
const CHUNK_P50: Row = difference(30, "100 streams: chunk transit p50 µs");
const CHUNK_P99: Row = difference(31, "100 streams: chunk transit p99 µs");
const FIRST_P50: Row = difference(32, "100 streams: first chunk transit p50 µs");
const FIRST_P99: Row = difference(33, "100 streams: first chunk transit p99 µs");
const CHUNK_CPU: Row = ratio(34, "100 streams: proxy CPU µs/chunk");
const COMPLETED: Row = ratio(35, "100 streams: completed, of 100");
const IDLE: Row = ratio(40, "resident MiB, idle");
const LOADED: Row = ratio(41, "resident MiB, after all of the above");

/// The lines of one rate: p50, p99, CPU.
const fn open_rows(rate: u32) -> [Row; 3] {
    match rate {
        200 => [
            difference(10, "200 requests/s: p50 µs"),
            difference(11, "200 requests/s: p99 µs"),
            ratio(12, "200 requests/s: proxy CPU µs/request"),
        ],
        _ => [
            difference(20, "1000 requests/s: p50 µs"),
            difference(21, "1000 requests/s: p99 µs"),
            ratio(22, "1000 requests/s: proxy CPU µs/request"),
        ],
    }
}

/// Values by line and subject, one per round.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    rows: BTreeMap<Row, BTreeMap<&'static str, Vec<f64>>>,
    subjects: Vec<&'static str>,
}

impl Figures {
    fn add(&mut self, row: Row, subject: &Subject, value: f64) {
        self.rows.entry(row).or_default().entry(subject.name).or_default().push(value);
    }

    /// Before any load.
    pub(crate) fn idle(&mut self, subject: &Subject) -> anyhow::Result<()> {
        self.subjects.push(subject.name);
        if let Some(mib) = subject.resident_mib()? {
            self.add(IDLE, subject, mib);
        }
        Ok(())
    }

    /// After all of it.
    pub(crate) fn loaded(&mut self, subject: &Subject) -> anyhow::Result<()> {
        if let Some(mib) = subject.resident_mib()? {
            self.add(LOADED, subject, mib);
        }
        Ok(())
    }

    /// One round of closed loop.
    pub(crate) fn closed(&mut self, subject: &Subject, closed: &Closed) {
        let per_request = |cpu: Duration| micros(cpu) / closed.requests.max(1) as f64;
        self.add(THROUGHPUT, subject, closed.requests as f64 / closed.took.as_secs_f64());
        self.add(CLOSED_ALL, subject, per_request(closed.cpu_of_all));
        if subject.is_proxy() {
            self.add(CLOSED_CPU, subject, per_request(closed.cpu.total()));
            self.add(CLOSED_USER, subject, per_request(closed.cpu.user));
            self.add(CLOSED_SYSTEM, subject, per_request(closed.cpu.system));
        }
    }

    /// One round of open loop.
    pub(crate) fn open(&mut self, subject: &Subject, rate: u32, open: Open) {
        let Open { mut latencies, cpu } = open;
        let [p50, p99, cpu_row] = open_rows(rate);
        latencies.sort_unstable();
        self.add(p50, subject, micros(percentile(&latencies, 50)));
        self.add(p99, subject, micros(percentile(&latencies, 99)));
        if subject.is_proxy() {
            self.add(cpu_row, subject, micros(cpu.total()) / latencies.len().max(1) as f64);
        }
    }

    /// One round of streams.
    pub(crate) fn streams(&mut self, subject: &Subject, streams: Streams) {
        let Streams { started, completed, mut transits, mut first_transits, cpu } = streams;
        transits.sort_unstable();
        first_transits.sort_unstable();
        self.add(CHUNK_P50, subject, micros(percentile(&transits, 50)));
        self.add(CHUNK_P99, subject, micros(percentile(&transits, 99)));
        self.add(FIRST_P50, subject, micros(percentile(&first_transits, 50)));
        self.add(FIRST_P99, subject, micros(percentile(&first_transits, 99)));
        self.add(COMPLETED, subject, 100.0 * completed as f64 / started.max(1) as f64);
        if subject.is_proxy() {
            self.add(CHUNK_CPU, subject, micros(cpu.total()) / transits.len().max(1) as f64);
        }
    }

    /// Pairs of subjects whose comparison the table shows.
    fn pairs(&self) -> Vec<(&'static str, &'static str)> {
        let proxies: Vec<_> = self.subjects.iter().copied().filter(|name| *name != "direct").collect();
        let to_direct = proxies.iter().map(|proxy| (*proxy, "direct"));
        let to_each_other = proxies.iter().filter(|proxy| **proxy != "agent").map(|proxy| ("agent", *proxy));
        to_direct.chain(to_each_other).collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.pairs();
        write!(f, "| |")?;
        for subject in &self.subjects {
            write!(f, " {subject} |")?;
        }
        for (one, other) in &pairs {
            write!(f, " {one} against {other} |")?;
        }
        writeln!(f, "\n|---|{}", "---|".repeat(self.subjects.len() + pairs.len()))?;
        for (row, values) in &self.rows {
            write!(f, "| {} |", row.label)?;
            for subject in &self.subjects {
                write!(
                    f,
                    " {} |",
                    values.get(subject).map_or_else(|| "-".to_owned(), |all| spread(all, ""))
                )?;
            }
            for (one, other) in &pairs {
                let both = values.get(one).zip(values.get(other));
                write!(
                    f,
                    " {} |",
                    both.map_or_else(|| "-".to_owned(), |(one, other)| compare(row.against, one, other))
                )?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Both values of each round, held against each other.
fn compare(against: Against, one: &[f64], other: &[f64]) -> String {
    let rounds = one.iter().zip(other);
    match against {
        Against::Ratio => spread(&rounds.map(|(one, other)| one / other).collect::<Vec<_>>(), "×"),
        Against::Difference => spread(&rounds.map(|(one, other)| one - other).collect::<Vec<_>>(), "+"),
    }
}

/// `median (min..max)`.
fn spread(values: &[f64], sign: &str) -> String {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let (Some(min), Some(max)) = (values.first(), values.last()) else { return "-".to_owned() };
    let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
    let sign = if median < 0.0 { sign.trim_matches('+') } else { sign };
    let digits = if sign == "×" { 2 } else { usize::from(median.abs() < 100.0) };
    if values.len() == 1 {
        return format!("{sign}{median:.digits$}");
    }
    format!("{sign}{median:.digits$} ({min:.digits$}..{max:.digits$})")
}

/// The smallest value that `percent` of all do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
