//! What is noted of each request, and how it becomes figures.

use trunkline_routing::time::Timestamp;

use super::{
    provider::Truth,
    report::{FAILED_S, Percentiles, Second, Span},
    world::Why,
};
use crate::{scenario::SloSpec, traffic::Arrival};

/// A cost within this of the cheapest is not overpaid.
const OVERPAID_FROM: f64 = 1.05;
/// A deployment that fails more often is not one that a cheaper price makes better.
const UNFIT_FAILURES: f64 = 0.3;
/// Quantiles of a span that are kept for plots.
const QUANTILES: usize = 100;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    at: Timestamp,
    input_tokens: u32,
    /// Counts moments asked for; only the newest counts.
    pub(crate) stamp: u32,
    /// Attempts started.
    pub(crate) started: u32,
    /// Attempts running.
    pub(crate) live: u32,
    /// Attempts refused for rate.
    pub(crate) refused: u32,
    hedges: u32,
    duplicate: bool,
    /// Attempts by deployment, for the luck of repeats.
    by_deployment: Vec<(usize, u64)>,
    pub(crate) below_floor: bool,
    pub(crate) verdict: Option<Verdict>,
    /// Expected time of the best first pick as the request came in, in seconds.
    pub(crate) best_s: f64,
    /// Nano-dollars.
    pub(crate) cost: u64,
    end: Option<End>,
}

/// How good a first pick was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    regret: f64,
    overpaid: bool,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Answer { ttft_s: f64, total_s: f64, output_tokens: u32, slo: bool },
    Failed { broke: bool },
}

/// What there is for a request at one moment.
pub(crate) struct Field {
    pub(crate) truths: Vec<Truth>,
    /// Which meet the request's floor.
    pub(crate) above: Vec<bool>,
}

impl Field {
    fn fitting(&self) -> impl Iterator<Item = usize> {
        (0..self.truths.len()).filter(|at| self.truths[*at].fits && self.above[*at])
    }

    /// The mean time to a whole answer of a request that is sent there first.
    fn expected_s(&self, first: usize) -> f64 {
        // The best other one is itself taken at its word: one failure is enough.
        let others = self.fitting().filter(|at| *at != first && self.truths[*at].fails < 0.5);
        self.truths[first].expected_s(others.map(|at| self.truths[at].total_s).fold(FAILED_S, f64::min))
    }

    /// The same of the best first pick. Infinite: there is none.
    pub(crate) fn best_s(&self) -> f64 {
        self.fitting().map(|at| self.expected_s(at)).fold(f64::INFINITY, f64::min)
    }

    /// Judges a first pick that was made `waited_s` after the request came in, when the
    /// best one was to take `best_s`. Waiting is the policy's own doing: it counts.
    pub(crate) fn judge(&self, pick: usize, best_s: f64, waited_s: f64, slo: SloSpec) -> Verdict {
        let meets = |at: &usize| {
            let truth = &self.truths[*at];
            truth.ttft_s <= slo.ttft_s && truth.total_s <= slo.total_s && truth.fails < UNFIT_FAILURES
        };
        let cost = |at: usize| self.truths[at].cost.0;
        let cheapest = self.fitting().filter(meets).map(cost).min();
        Verdict {
            regret: regret(waited_s + self.expected_s(pick), best_s),
            overpaid: cheapest.is_some_and(|cheapest| cost(pick) as f64 > OVERPAID_FROM * cheapest as f64),
        }
    }
}

impl Verdict {
    /// Of a request that was given up before its first attempt: a failure, which counts
    /// as long as it does everywhere else.
    pub(crate) fn never_started(best_s: f64) -> Self {
        Self { regret: regret(FAILED_S, best_s), overpaid: false }
    }
}

fn regret(expected_s: f64, best_s: f64) -> f64 {
    (expected_s / best_s - 1.0).max(0.0)
}

impl Record {
    pub(crate) fn new(arrival: &Arrival) -> Self {
        Self {
            at: arrival.at,
            input_tokens: arrival.input_tokens,
            stamp: 0,
            started: 0,
            live: 0,
            refused: 0,
            hedges: 0,
            duplicate: false,
            by_deployment: Vec::new(),
            below_floor: false,
            verdict: None,
            best_s: f64::INFINITY,
            cost: 0,
            end: None,
        }
    }

    /// An attempt starts. Returns how many there were at that deployment before.
    pub(crate) fn begin(&mut self, deployment: usize, why: Why) -> u64 {
        self.started += 1;
        self.live += 1;
        self.duplicate |= self.live > 1;
        self.hedges += u32::from(why == Why::Hedge);
        if let Some((_, count)) = self.by_deployment.iter_mut().find(|(at, _)| *at == deployment) {
            *count += 1;
            return *count;
        }
        self.by_deployment.push((deployment, 0));
        0
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.end.is_some()
    }

    pub(crate) fn answered(&mut self, first: Timestamp, now: Timestamp, output_tokens: u32, slo: SloSpec) {
        let ttft_s = first.since(self.at).as_secs_f64();
        let total_s = now.since(self.at).as_secs_f64();
        let slo = ttft_s <= slo.ttft_s && total_s <= slo.total_s;
        self.end = Some(End::Answer { ttft_s, total_s, output_tokens, slo });
    }

    pub(crate) fn failed(&mut self, _now: Timestamp, broke: bool) {
        self.end = Some(End::Failed { broke });
    }

    /// Attempts that brought nothing, refusals for rate left out.
    fn wasted(&self) -> u32 {
        let brought = u32::from(matches!(self.end, Some(End::Answer { .. })));
        self.started.saturating_sub(self.refused + brought)
    }

    fn at_s(&self) -> f64 {
        self.at.since(Timestamp::ZERO).as_secs_f64()
    }
}

/// The figures of the requests that arrived in a stretch of time.
pub(crate) fn span(records: &[Record], start_s: f64, end_s: f64) -> Span {
    let within: Vec<&Record> =
        records.iter().filter(|record| (start_s..end_s).contains(&record.at_s())).collect();
    let count = within.len().max(1) as f64;
    let mean =
        |value: &dyn Fn(&Record) -> f64| within.iter().map(|record| value(record)).sum::<f64>() / count;
    let share = |is: &dyn Fn(&Record) -> bool| mean(&|record| f64::from(u8::from(is(record))));
    let regrets: Vec<f64> = within.iter().filter_map(|record| Some(record.verdict?.regret)).collect();
    let sorted = |pick: &dyn Fn(f64, f64) -> f64| {
        let times = within.iter().map(|record| match record.end {
            Some(End::Answer { ttft_s, total_s, .. }) => pick(ttft_s, total_s),
            _ => FAILED_S,
        });
        let mut times: Vec<f64> = times.collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let (ttft, e2e) = (sorted(&|ttft, _| ttft), sorted(&|_, total| total));
    Span {
        start_s,
        end_s,
        requests: within.len() as u64,
        success: share(&|record| matches!(record.end, Some(End::Answer { .. }))),
        slo: share(&|record| matches!(record.end, Some(End::Answer { slo: true, .. }))),
        regret: regrets.iter().sum::<f64>() / regrets.len().max(1) as f64,
        ttft_s: percentiles(&ttft),
        e2e_s: percentiles(&e2e),
        e2e_quantiles_s: (1..=QUANTILES).map(|at| quantile(&e2e, at as f64 / QUANTILES as f64)).collect(),
        wasted: mean(&|record| f64::from(record.wasted())),
        hedges: mean(&|record| f64::from(record.hedges)),
        refused: mean(&|record| f64::from(record.refused)),
        duplicates: share(&|record| record.duplicate),
        broken: share(&|record| matches!(record.end, Some(End::Failed { broke: true }))),
        usd_per_1000: mean(&|record| record.cost as f64 / 1e6),
        floor_violations: share(&|record| record.below_floor),
        overpaid: share(&|record| record.verdict.is_some_and(|verdict| verdict.overpaid)),
        input_tokens: mean(&|record| f64::from(record.input_tokens)),
        output_tokens: mean(&|record| match record.end {
            Some(End::Answer { output_tokens, .. }) => f64::from(output_tokens),
            _ => 0.0,
        }),
    }
}

/// Arrivals and successes by second of arrival.
pub(crate) fn seconds(records: &[Record]) -> Vec<Second> {
    let last = records.last().map_or(0, |record| record.at_s() as usize + 1);
    let mut seconds = vec![Second::default(); last];
    for record in records {
        let second = &mut seconds[record.at_s() as usize];
        second.arrived += 1;
        second.succeeded += u32::from(matches!(record.end, Some(End::Answer { .. })));
    }
    seconds
}

/// The nearest rank.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

fn percentiles(sorted: &[f64]) -> Percentiles {
    Percentiles {
        mean: sorted.iter().sum::<f64>() / sorted.len().max(1) as f64,
        p50: quantile(sorted, 0.50),
        p95: quantile(sorted, 0.95),
        p99: quantile(sorted, 0.99),
    }
}
