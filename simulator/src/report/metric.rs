//! The figures that comparisons show and acceptance judges, each read from one run.

use serde::Serialize;

use crate::run::report::{RunReport, Span};

/// Seconds over which a share is looked at to tell when traffic left or came back:
/// long enough that a chance gap between requests is no departure.
const SHARE_WINDOW_S: usize = 3;
/// Seconds of one stretch in which a share of the sick is taken.
const SICK_WINDOW_S: usize = 10;
/// Seconds of one window when swings are looked for.
const SWING_WINDOW_S: usize = 5;
/// Traffic has left when the share is below this part of what it was.
const LEFT_BELOW: f64 = 0.25;
/// Traffic is back when the share is above this part of what it was.
const BACK_ABOVE: f64 = 0.5;

/// One figure of a run. "Window" is the incident's; all others are of the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Expected latency of the first pick above that of the best, as a share.
    Regret,
    /// Share of requests that were answered.
    Success,
    /// Share of requests within the objective.
    Slo,
    /// Median time to first token, seconds.
    TtftP50,
    /// 95th percentile of the time to first token, seconds.
    TtftP95,
    /// 99th percentile of the time to first token, seconds.
    TtftP99,
    /// Median time to the whole answer, seconds.
    E2eP50,
    /// 95th percentile of the time to the whole answer, seconds.
    E2eP95,
    /// 99th percentile of the time to the whole answer, seconds.
    E2eP99,
    /// Attempts per request that brought nothing.
    Wasted,
    /// Hedges per request.
    Hedges,
    /// Refusals for rate (429) per request.
    Refused,
    /// Share of requests with two attempts at a time.
    Duplicates,
    /// US dollars for 1,000 requests.
    UsdPer1000,
    /// Share of requests sent below their quality floor.
    FloorViolations,
    /// Share of answers for which a cheaper deployment would have done.
    Overpaid,
    /// Success in the window.
    WindowSuccess,
    /// Within the objective in the window.
    WindowSlo,
    /// 95th percentile of the time to first token in the window, seconds.
    WindowTtftP95,
    /// 99th percentile of the time to first token in the window, seconds.
    WindowTtftP99,
    /// Attempts in the window that brought nothing, per request.
    WindowWasted,
    /// Largest share of attempts that went to the deployments hit by the incident, of
    /// all stretches of 10 s that begin 3 s, 13 s, 23 s ... after the window's beginning.
    SickShareAfter3s,
    /// The same from 30 s, 40 s, 50 s ... after the window's beginning.
    SickShareAfter30s,
    /// Longest time after a change of price at which a decision went by the old one,
    /// seconds.
    OldPriceS,
    /// Largest change of a deployment's share between two windows of 5 s.
    Swing,
    /// Seconds until traffic left the deployment hit by the incident.
    DetectS,
    /// Seconds from the incident's end until traffic was back.
    RecoverS,
    /// Spent above the budget, US dollars.
    Overspend,
    /// Requests refused although the budget had room.
    FalselyRefused,
    /// Value of the upgrades bought, as a share of the best that the budget could buy.
    BudgetValue,
}

impl Metric {
    /// As texts name it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Regret => "regret",
            Self::Success => "success",
            Self::Slo => "SLO",
            Self::TtftP50 => "TTFT p50",
            Self::TtftP95 => "TTFT p95",
            Self::TtftP99 => "TTFT p99",
            Self::E2eP50 => "e2e p50",
            Self::E2eP95 => "e2e p95",
            Self::E2eP99 => "e2e p99",
            Self::Wasted => "waste",
            Self::Hedges => "hedges",
            Self::Refused => "429s",
            Self::Duplicates => "duplicates",
            Self::UsdPer1000 => "USD per 1,000",
            Self::FloorViolations => "floor violations",
            Self::Overpaid => "overpaid",
            Self::WindowSuccess => "window success",
            Self::WindowSlo => "window SLO",
            Self::WindowTtftP95 => "window TTFT p95",
            Self::WindowTtftP99 => "window TTFT p99",
            Self::WindowWasted => "window waste",
            Self::SickShareAfter3s => "largest share on the sick after 3 s",
            Self::SickShareAfter30s => "largest share on the sick after 30 s",
            Self::OldPriceS => "old price used s",
            Self::Swing => "largest swing of a share",
            Self::DetectS => "detect s",
            Self::RecoverS => "recover s",
            Self::Overspend => "overspend USD",
            Self::FalselyRefused => "falsely refused",
            Self::BudgetValue => "budget value",
        }
    }

    /// What it was in a run. None: the run has no such thing, say no incident.
    pub fn of(self, run: &RunReport) -> Option<f64> {
        let window = |figure: fn(&Span) -> f64| run.window.as_ref().map(figure);
        let whole = |figure: f64| Some(figure);
        match self {
            Self::Regret => whole(run.whole.regret),
            Self::Success => whole(run.whole.success),
            Self::Slo => whole(run.whole.slo),
            Self::TtftP50 => whole(run.whole.ttft_s.p50),
            Self::TtftP95 => whole(run.whole.ttft_s.p95),
            Self::TtftP99 => whole(run.whole.ttft_s.p99),
            Self::E2eP50 => whole(run.whole.e2e_s.p50),
            Self::E2eP95 => whole(run.whole.e2e_s.p95),
            Self::E2eP99 => whole(run.whole.e2e_s.p99),
            Self::Wasted => whole(run.whole.wasted),
            Self::Hedges => whole(run.whole.hedges),
            Self::Refused => whole(run.whole.refused),
            Self::Duplicates => whole(run.whole.duplicates),
            Self::UsdPer1000 => whole(run.whole.usd_per_1000),
            Self::FloorViolations => whole(run.whole.floor_violations),
            Self::Overpaid => whole(run.whole.overpaid),
            Self::WindowSuccess => window(|span| span.success),
            Self::WindowSlo => window(|span| span.slo),
            Self::WindowTtftP95 => window(|span| span.ttft_s.p95),
            Self::WindowTtftP99 => window(|span| span.ttft_s.p99),
            Self::WindowWasted => window(|span| span.wasted),
            Self::SickShareAfter3s => sick_share_after(run, 3),
            Self::SickShareAfter30s => sick_share_after(run, 30),
            Self::OldPriceS => run.old_price_s,
            Self::Swing => whole(run.largest_swing(SWING_WINDOW_S)),
            Self::DetectS => detect_s(run),
            Self::RecoverS => recover_s(run),
            Self::Overspend => run.budget.map(|budget| (budget.spent_usd - budget.limit_usd).max(0.0)),
            Self::FalselyRefused => run.budget.map(|budget| budget.falsely_refused as f64),
            Self::BudgetValue => run.budget.map(|budget| budget.value),
        }
    }
}

/// The window in whole seconds from the run's beginning.
fn window_of(run: &RunReport) -> Option<[usize; 2]> {
    let window = run.window.as_ref()?;
    Some([window.start_s as usize, window.end_s as usize])
}

/// The share of attempts that all deployments hit by the incident had together.
fn sick_share(run: &RunReport, from_s: usize, to_s: usize) -> Option<f64> {
    let sick = (0..run.deployments.len()).filter(|n| run.deployments[*n].watched);
    let shares: Vec<f64> = sick.filter_map(|n| run.share(n, from_s, to_s)).collect();
    if shares.is_empty() { None } else { Some(shares.iter().sum()) }
}

fn sick_share_after(run: &RunReport, seconds: usize) -> Option<f64> {
    let [start, end] = window_of(run)?;
    // A mean over the rest of the window would forgive what comes right after.
    let begin = start + seconds;
    let stretches = (begin..end).step_by(SICK_WINDOW_S).take_while(|at| at + SICK_WINDOW_S <= end);
    stretches.filter_map(|at| sick_share(run, at, at + SICK_WINDOW_S)).max_by(f64::total_cmp)
}

fn share_before(run: &RunReport) -> Option<f64> {
    let [start, _] = window_of(run)?;
    // Who sent it nothing before has nothing to take away.
    sick_share(run, run.whole.start_s as usize, start).filter(|share| *share > 0.0)
}

fn detect_s(run: &RunReport) -> Option<f64> {
    let ([start, end], before) = (window_of(run)?, share_before(run)?);
    let has_left =
        |t: &usize| sick_share(run, *t, t + SHARE_WINDOW_S).is_some_and(|share| share < LEFT_BELOW * before);
    (start..end).find(has_left).map(|t| (t - start) as f64)
}

fn recover_s(run: &RunReport) -> Option<f64> {
    let ([_, end], before) = (window_of(run)?, share_before(run)?);
    let last = run.deployments.iter().map(|series| series.attempts.len()).max()?;
    let is_back =
        |t: &usize| sick_share(run, *t, t + SHARE_WINDOW_S).is_some_and(|share| share > BACK_ABOVE * before);
    (end..last.saturating_sub(SHARE_WINDOW_S)).find(is_back).map(|t| (t - end) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::report::DeploymentSeries;

    fn run(sick: &[u32], well: &[u32]) -> RunReport {
        let series = |attempts: &[u32], watched| DeploymentSeries {
            attempts: attempts.to_vec(),
            watched,
            ..DeploymentSeries::default()
        };
        RunReport {
            window: Some(Span { start_s: 10.0, end_s: 20.0, ..Span::default() }),
            deployments: vec![series(sick, true), series(well, false)],
            ..RunReport::default()
        }
    }

    #[test]
    fn traffic_leaves_and_comes_back() {
        let mut sick = vec![5; 40];
        sick[14..25].fill(0);
        let run = run(&sick, &[5; 40]);
        assert_eq!(Metric::DetectS.of(&run), Some(4.0));
        // From 24 s on two of three seconds are as before.
        assert_eq!(Metric::RecoverS.of(&run), Some(4.0));
    }

    #[test]
    fn the_share_on_the_sick_is_that_of_the_worst_ten_seconds_after_the_moment() {
        let mut sick = vec![0; 80];
        sick[10..13].fill(5);
        let share = |sick: &[u32]| {
            let window = Some(Span { start_s: 10.0, end_s: 70.0, ..Span::default() });
            let run = RunReport { window, ..run(sick, &[5; 80]) };
            [Metric::SickShareAfter3s, Metric::SickShareAfter30s].map(|metric| metric.of(&run))
        };
        assert_eq!(share(&sick), [Some(0.0), Some(0.0)]);
        // Two seconds of everything there are much of ten, and little of the rest.
        sick[13..15].fill(5);
        assert_eq!(share(&sick), [Some(10.0 / 60.0), Some(0.0)]);
        sick[52] = 50;
        assert_eq!(share(&sick), [Some(0.5), Some(0.5)]);
    }

    #[test]
    fn who_never_leaves_has_no_time_of_detection() {
        let run = run(&[5; 40], &[5; 40]);
        assert_eq!(Metric::DetectS.of(&run), None);
        assert_eq!(Metric::RecoverS.of(&run), Some(0.0));
    }

    #[test]
    fn a_run_without_an_incident_has_no_figures_of_one() {
        let run = RunReport { window: None, ..run(&[5; 40], &[5; 40]) };
        for metric in [Metric::WindowSlo, Metric::DetectS, Metric::SickShareAfter30s, Metric::Overspend] {
            assert_eq!(metric.of(&run), None, "{metric:?}");
        }
        assert_eq!(Metric::Success.of(&run), Some(0.0));
    }
}
