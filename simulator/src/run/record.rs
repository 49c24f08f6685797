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

/// Judges a first pick. `above`: whether a deployment meets the request's floor.
pub(crate) fn judge(truths: &[Truth], pick: usize, above: impl Fn(usize) -> bool, slo: SloSpec) -> Verdict {
    let best_but = |left_out: usize| {
        let others =
            truths.iter().enumerate().filter(|(at, truth)| *at != left_out && truth.fits && above(*at));
        // The best other one is itself taken at its word: one failure is enough.
        others.filter(|(_, truth)| truth.fails < 0.5).map(|(_, truth)| truth.total_s).fold(FAILED_S, f64::min)
    };
    let expected = |at: usize| truths[at].expected_s(best_but(at));
    let fitting = |at: &usize| truths[*at].fits && above(*at);
    let best = (0..truths.len()).filter(fitting).map(expected).fold(f64::INFINITY, f64::min);
    let meets = |truth: &Truth| {
        truth.ttft_s <= slo.ttft_s && truth.total_s <= slo.total_s && truth.fails < UNFIT_FAILURES
    };
    let feasible = (0..truths.len()).filter(fitting).filter(|at| meets(&truths[*at]));
    let cheapest = feasible.map(|at| truths[at].cost.0).min();
    Verdict {
        regret: (expected(pick) / best - 1.0).max(0.0),
        overpaid: cheapest
            .is_some_and(|cheapest| truths[pick].cost.0 as f64 > OVERPAID_FROM * cheapest as f64),
    }
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
