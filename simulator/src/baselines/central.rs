//! Baselines that decide by measured whole latencies: one that everybody computes, two
//! that a control plane computes and pushes.

use rand::{RngExt, rngs::StdRng};

use super::{Ask, At, Ended, Picker, smallest};

/// Weight of a new latency.
const EWMA_SHARE: f64 = 0.2;
/// What a failure counts as in a latency.
const FAILED_AS_S: f64 = 10.0;
/// A deployment with so many failures is not the best, whatever its latency.
const FAILED_SHARE: f64 = 0.5;
/// A control plane names the one best so often, unless reports are rarer.
const ARGMIN_EVERY_S: f64 = 10.0;
/// It gives weights so often, unless reports are rarer.
const WEIGHTS_EVERY_S: f64 = 5.0;
/// What was measured of a deployment is forgotten after so long without anything new.
const FORGOTTEN_S: f64 = 60.0;
/// No weight falls below this share of the largest: who gets nothing is never measured.
const WEIGHT_MIN: f64 = 0.02;

/// The smallest moving average of whole latencies; a failure counts as ten seconds.
pub(super) struct NaiveEwma {
    mean_s: Vec<f64>,
}

impl NaiveEwma {
    pub(super) fn new(count: usize) -> Self {
        Self { mean_s: vec![0.0; count] }
    }
}

impl Picker for NaiveEwma {
    fn pick(&mut self, ask: &Ask<'_, '_>, _chance: &mut StdRng) -> Option<usize> {
        smallest(ask.open, |at| self.mean_s[at])
    }

    fn ended(&mut self, at: At, ended: &Ended) {
        let seen = match ended {
            Ended::Answered { total_s, .. } => *total_s,
            Ended::Failed { .. } | Ended::TimedOut { .. } | Ended::Broke => FAILED_AS_S,
        };
        let mean = &mut self.mean_s[at.deployment];
        *mean = if *mean == 0.0 { seen } else { *mean + EWMA_SHARE * (seen - *mean) };
    }
}

/// What a control plane measured of a deployment since its last word.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    answers: u32,
    seconds: f64,
    failures: u32,
}

/// A control plane that gathers reports and tells all agents what to do until its
/// next word.
pub(super) struct Central {
    every_s: f64,
    /// The one best gets everything; else weights by speed.
    argmin: bool,
    measured: Vec<Measured>,
    mean_s: Vec<f64>,
    errors: Vec<f64>,
    /// Seconds without anything new.
    quiet_s: Vec<f64>,
    weights: Vec<f64>,
    /// Whether it said anything yet; before that its agents draw.
    spoken: bool,
}

impl Central {
    pub(super) fn argmin(count: usize, every_s: f64) -> Self {
        Self::new(count, every_s.max(ARGMIN_EVERY_S), true)
    }

    pub(super) fn weights(count: usize, every_s: f64) -> Self {
        Self::new(count, every_s.max(WEIGHTS_EVERY_S), false)
    }

    fn new(count: usize, every_s: f64, argmin: bool) -> Self {
        Self {
            every_s,
            argmin,
            measured: vec![Measured::default(); count],
            mean_s: vec![0.0; count],
            errors: vec![0.0; count],
            quiet_s: vec![0.0; count],
            weights: vec![1.0; count],
            spoken: false,
        }
    }
}

impl Picker for Central {
    fn pick(&mut self, ask: &Ask<'_, '_>, chance: &mut StdRng) -> Option<usize> {
        if self.argmin && self.spoken {
            return smallest(ask.open, |at| -self.weights[at]);
        }
        let total: f64 = ask.open.iter().map(|at| self.weights[*at]).sum();
        let mut point = chance.random::<f64>() * total;
        let drawn = ask.open.iter().copied().find(|at| {
            point -= self.weights[*at];
            point < 0.0
        });
        drawn.or_else(|| ask.open.last().copied())
    }

    fn ended(&mut self, at: At, ended: &Ended) {
        let measured = &mut self.measured[at.deployment];
        match ended {
            Ended::Answered { total_s, .. } => {
                measured.answers += 1;
                measured.seconds += total_s;
            }
            Ended::Failed { .. } | Ended::TimedOut { .. } | Ended::Broke => measured.failures += 1,
        }
    }

    fn tick_every_s(&self) -> Option<f64> {
        Some(self.every_s)
    }

    fn tick(&mut self, _now_s: f64) {
        for (at, measured) in self.measured.iter_mut().enumerate() {
            let all = measured.answers + measured.failures;
            if measured.answers > 0 {
                self.mean_s[at] = measured.seconds / f64::from(measured.answers);
            }
            if all > 0 {
                self.errors[at] = f64::from(measured.failures) / f64::from(all);
                self.quiet_s[at] = 0.0;
            } else {
                self.quiet_s[at] += self.every_s;
            }
            if self.quiet_s[at] >= FORGOTTEN_S {
                (self.mean_s[at], self.errors[at]) = (0.0, 0.0);
            }
            *measured = Measured::default();
        }
        // Unmeasured ones are as good as the best: else they would never be measured.
        let best = self.mean_s.iter().copied().filter(|mean| *mean > 0.0).fold(f64::INFINITY, f64::min);
        let best = if best.is_finite() { best } else { 1.0 };
        let mean = |at: usize| if self.mean_s[at] > 0.0 { self.mean_s[at] } else { best };
        for at in 0..self.weights.len() {
            let errors = if self.argmin && self.errors[at] >= FAILED_SHARE { 0.999 } else { self.errors[at] };
            self.weights[at] = (1.0 - errors) / mean(at).max(1e-3);
        }
        let largest = self.weights.iter().copied().fold(0.0, f64::max);
        if !self.argmin {
            for weight in &mut self.weights {
                *weight = weight.max(WEIGHT_MIN * largest);
            }
        }
        self.spoken = true;
    }
}
