//! What one run measured: raw figures of one scenario, policy and seed.
//!
//! Figures leave out the warm-up. Durations are in seconds. A request that failed
//! enters every percentile at [`FAILED_S`], so that a policy gains nothing by failing
//! what would be slow.

use serde::{Deserialize, Serialize};

/// What a failed request counts as, in seconds.
pub const FAILED_S: f64 = 60.0;

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The scenario's id.
    pub scenario: String,
    /// Name of the traffic.
    pub traffic: String,
    /// Name of the policy.
    pub policy: String,
    /// The seed.
    pub seed: u64,
    /// The whole run after its warm-up.
    pub whole: Span,
    /// The incident's window, if the scenario has one.
    pub window: Option<Span>,
    /// One per deployment, in the order of the scenario.
    pub deployments: Vec<DeploymentSeries>,
    /// Arrivals and successes by second of arrival, from the run's beginning.
    pub seconds: Vec<Second>,
    /// Longest time after a change of price at which a first pick still went by the old
    /// one, in seconds. None: no price changes in the scenario.
    pub old_price_s: Option<f64>,
    /// What the budget did, if the scenario has one.
    pub budget: Option<BudgetFigures>,
    /// Virtual seconds that were simulated.
    pub simulated_s: f64,
    /// Events that were carried out: what the run cost.
    pub events: u64,
}

/// Figures of the requests that arrived in a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Its beginning.
    pub start_s: f64,
    /// Its end.
    pub end_s: f64,
    /// Requests that arrived in it.
    pub requests: u64,
    /// Share that got a whole answer, 0 to 1.
    pub success: f64,
    /// Share that got a whole answer within the scenario's SLO, 0 to 1.
    pub slo: f64,
    /// Mean over requests of: the time that the request waited for its first attempt and
    /// the true expected latency of that pick, divided by the latency of the best
    /// deployment available as the request came in, minus 1. A request that was given up
    /// before any attempt counts with [`FAILED_S`].
    pub regret: f64,
    /// Time to first token.
    pub ttft_s: Percentiles,
    /// Time to the last token.
    pub e2e_s: Percentiles,
    /// Time to the last token: the 1st, 2nd, ... 100th percentile.
    pub e2e_quantiles_s: Vec<f64>,
    /// Attempts per request that were started and brought no answer, refusals for rate
    /// (429) not counted.
    pub wasted: f64,
    /// Attempts per request that were started beside a running one before its soft
    /// timeout.
    pub hedges: f64,
    /// Refusals for rate (429) per request.
    pub refused: f64,
    /// Share of requests for which two attempts ran at the same time, 0 to 1.
    pub duplicates: f64,
    /// Share of requests whose answer broke off, 0 to 1.
    pub broken: f64,
    /// Cost per 1,000 requests in USD, lost attempts included.
    pub usd_per_1000: f64,
    /// Share of requests that were sent below their quality floor, 0 to 1.
    pub floor_violations: f64,
    /// Share of requests whose first pick cost at least 5 % more, at the prices of that
    /// moment, than the cheapest deployment that would have met floor and SLO, 0 to 1.
    pub overpaid: f64,
    /// Input tokens of answers, per request.
    pub input_tokens: f64,
    /// Output tokens of answers, per request.
    pub output_tokens: f64,
}

/// Of a duration in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95th.
    pub p95: f64,
    /// 99th.
    pub p99: f64,
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// Requests that arrived in it.
    pub arrived: u32,
    /// Those of them that got a whole answer, whenever it came.
    pub succeeded: u32,
}

/// What one deployment got over time, from the run's beginning, warm-up included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeploymentSeries {
    /// Its name.
    pub name: String,
    /// First picks in each second.
    pub first_picks: Vec<u32>,
    /// Attempts started in each second, first picks included.
    pub attempts: Vec<u32>,
    /// Attempts in each second that were refused, failed, broke off or were silent until
    /// they ended.
    pub failures: Vec<u32>,
    /// Cost of its answers in USD.
    pub usd: f64,
    /// Whether the scenario does something to it: its share is worth watching.
    pub watched: bool,
}

/// What a budget did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BudgetFigures {
    /// What may be spent.
    pub limit_usd: f64,
    /// What was spent.
    pub spent_usd: f64,
    /// Requests refused although money was left that no running request held.
    pub falsely_refused: u64,
    /// Value of the upgrades that were bought, relative to the best that could have
    /// been bought with the same money knowing the future, 0 to 1.
    pub value: f64,
}

impl RunReport {
    /// The share of all attempts that went to a deployment between two seconds (the
    /// second excluded), 0 to 1. None: nothing was started then, or there is no such
    /// deployment.
    pub fn share(&self, deployment: usize, from_s: usize, to_s: usize) -> Option<f64> {
        let sum = |series: &DeploymentSeries| -> u64 {
            let seconds = series.attempts.iter().skip(from_s).take(to_s.saturating_sub(from_s));
            seconds.map(|count| u64::from(*count)).sum()
        };
        let own = sum(self.deployments.get(deployment)?);
        let all: u64 = self.deployments.iter().map(sum).sum();
        (all > 0).then(|| own as f64 / all as f64)
    }

    /// The largest change of a deployment's share between two neighbouring windows of
    /// so many seconds, over all deployments, 0 to 1. Windows begin after the warm-up.
    pub fn largest_swing(&self, window_s: usize) -> f64 {
        let seconds = self.deployments.iter().map(|series| series.attempts.len()).max().unwrap_or(0);
        let starts: Vec<usize> = (self.whole.start_s as usize..seconds.saturating_sub(window_s))
            .step_by(window_s.max(1))
            .collect();
        let shares = |deployment: usize| -> Vec<f64> {
            let share = |start: &usize| self.share(deployment, *start, start + window_s);
            starts.iter().filter_map(share).collect()
        };
        let swings = (0..self.deployments.len()).flat_map(|deployment| {
            let shares = shares(deployment);
            shares.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect::<Vec<_>>()
        });
        swings.fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(attempts: &[u32]) -> DeploymentSeries {
        DeploymentSeries { attempts: attempts.to_vec(), ..DeploymentSeries::default() }
    }

    #[test]
    fn shares_and_swings_come_from_the_attempts_of_each_second() {
        let report = RunReport {
            deployments: vec![series(&[9, 9, 1, 1, 0, 0]), series(&[1, 1, 9, 9, 0, 0])],
            ..RunReport::default()
        };
        assert_eq!(report.share(0, 0, 2), Some(0.9));
        assert_eq!(report.share(1, 0, 4), Some(0.5));
        assert_eq!(report.share(0, 4, 6), None);
        assert_eq!(report.share(2, 0, 2), None);
        assert!((report.largest_swing(2) - 0.8).abs() < 1e-12);
    }
}
