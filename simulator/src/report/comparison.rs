//! Policies side by side: every figure as mean over seeds, with its interval and its ratio
//! to the reference.

use serde::Serialize;

use super::{Interval, Metric};
use crate::run::RunReport;

/// A figure of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Over seeds.
    #[serde(flatten)]
    pub interval: Interval,
    /// Mean divided by the reference's. None: the reference has none, or 0.
    pub ratio: Option<f64>,
}

/// All runs of one policy, one per seed.
#[derive(Clone, Debug)]
pub struct PolicyRuns {
    /// Its name.
    pub policy: String,
    /// By seed.
    pub runs: Vec<RunReport>,
}

impl PolicyRuns {
    /// Over the seeds that have the figure. None if none has.
    pub fn interval(&self, metric: Metric) -> Option<Interval> {
        let values: Vec<f64> = self.runs.iter().filter_map(|run| metric.of(run)).collect();
        Interval::of(&values)
    }

    /// As a cell, with its ratio to `reference`.
    pub fn cell(&self, metric: Metric, reference: Option<&Self>) -> Option<Cell> {
        let interval = self.interval(metric)?;
        let base = reference.and_then(|reference| reference.interval(metric)).map(|base| base.mean);
        let ratio = base.filter(|base| base.abs() > f64::EPSILON).map(|base| interval.mean / base);
        Some(Cell { interval, ratio })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::report::Span;

    fn runs(regrets: &[f64]) -> PolicyRuns {
        let run = |regret: &f64| RunReport {
            whole: Span { regret: *regret, ..Span::default() },
            ..RunReport::default()
        };
        PolicyRuns { policy: "p".to_owned(), runs: regrets.iter().map(run).collect() }
    }

    #[test]
    fn the_ratio_is_that_of_the_means() {
        let cell = runs(&[1.0, 3.0]).cell(Metric::Regret, Some(&runs(&[8.0]))).unwrap();
        assert_eq!(cell.ratio, Some(0.25));
        assert!((cell.interval.mean - 2.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        assert_eq!(runs(&[1.0]).cell(Metric::Regret, Some(&runs(&[0.0]))).unwrap().ratio, None);
        assert_eq!(runs(&[1.0]).cell(Metric::WindowSlo, None), None);
    }
}
