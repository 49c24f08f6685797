//! From runs to what plots show: means over seeds, window by window.

use trunkline_simulator::{
    report::{Metric, PolicyRuns},
    run::{Policy, RunReport},
    scenario::Scenario,
};

use super::{
    plot::{Figures, Series},
    result::Setup,
};

/// Seconds of a window of the time series: some thirty requests, so that one request is no
/// spike.
const WINDOW_S: usize = 5;

/// Most stretches that are drawn as incidents: one that comes back every second would be a
/// background.
const INCIDENTS_MAX: usize = 100;

/// The figures of a comparison.
pub(super) fn figures(setup: &Setup, scenario: &Scenario, all: &[PolicyRuns]) -> Figures {
    let deployments = all.first().and_then(|runs| runs.runs.first()).map(|run| &run.deployments);
    Figures {
        title: format!("{} {}: {}", setup.scenario, setup.name, setup.about),
        subtitle: setup.line(),
        deployments: deployments.into_iter().flatten().map(|series| series.name.clone()).collect(),
        incidents: incidents(scenario),
        window_s: WINDOW_S as f64,
        series: all.iter().map(|runs| series(runs, scenario.duration_s)).collect(),
    }
}

/// When something is wrong, from the scenario's own words.
fn incidents(scenario: &Scenario) -> Vec<[f64; 2]> {
    let mut stretches = Vec::new();
    for incident in &scenario.incidents {
        let lasts = incident.duration_s.unwrap_or(scenario.duration_s);
        let mut start = incident.start_s;
        while start < scenario.duration_s && stretches.len() < INCIDENTS_MAX {
            stretches.push([start, f64::min(start + lasts, scenario.duration_s)]);
            let Some(every) = incident.every_s else { break };
            start += every.max(1.0);
        }
    }
    stretches
}

fn series(runs: &PolicyRuns, duration_s: f64) -> Series {
    let mean = |metric| runs.interval(metric).map_or(0.0, |interval| interval.mean);
    let ends = |metric, most: f64| {
        let interval = runs.interval(metric);
        interval.map_or([0.0; 3], |i| [i.mean, i.low.max(0.0), i.high.min(most)])
    };
    let windows = (duration_s as usize).div_ceil(WINDOW_S);
    Series {
        name: runs.policy.clone(),
        is_own: runs.policy.parse().is_ok_and(Policy::is_core),
        ttft_s: [Metric::TtftP50, Metric::TtftP95, Metric::TtftP99].map(mean),
        e2e_s: [Metric::E2eP50, Metric::E2eP95, Metric::E2eP99].map(mean),
        e2e_quantiles_s: quantiles(&runs.runs),
        success: (0..windows).map(|window| success(&runs.runs, window * WINDOW_S)).collect(),
        shares: (0..windows).map(|window| shares(&runs.runs, window * WINDOW_S)).collect(),
        usd_per_1000: ends(Metric::UsdPer1000, f64::INFINITY),
        slo: ends(Metric::Slo, 1.0),
    }
}

/// Each quantile's mean over runs.
fn quantiles(runs: &[RunReport]) -> Vec<f64> {
    let count = runs.iter().map(|run| run.whole.e2e_quantiles_s.len()).min().unwrap_or(0);
    let mean = |at| runs.iter().map(|run| run.whole.e2e_quantiles_s[at]).sum::<f64>() / runs.len() as f64;
    (0..count).map(mean).collect()
}

/// Of the requests of all runs that arrived in the window that begins at `from`.
fn success(runs: &[RunReport], from: usize) -> Option<f64> {
    let mut sums = [0_u64; 2];
    for second in runs.iter().flat_map(|run| run.seconds.iter().skip(from).take(WINDOW_S)) {
        sums[0] += u64::from(second.arrived);
        sums[1] += u64::from(second.succeeded);
    }
    (sums[0] > 0).then(|| sums[1] as f64 / sums[0] as f64)
}

/// Of the attempts of all runs in that window.
fn shares(runs: &[RunReport], from: usize) -> Vec<f64> {
    let deployments = runs.first().map_or(0, |run| run.deployments.len());
    let count = |deployment: usize| -> u64 {
        let series = runs.iter().filter_map(|run| run.deployments.get(deployment));
        series
            .flat_map(|series| series.attempts.iter().skip(from).take(WINDOW_S))
            .map(|n| u64::from(*n))
            .sum()
    };
    let counts: Vec<u64> = (0..deployments).map(count).collect();
    let all: u64 = counts.iter().sum();
    counts.into_iter().map(|count| if all == 0 { 0.0 } else { count as f64 / all as f64 }).collect()
}
