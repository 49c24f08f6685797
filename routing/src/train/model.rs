//! What is published of a deployment: plain numbers.

use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

use super::{evidence::Sums, learner::TPOT_GUESS_S, outputs::OutputModel};
use crate::math;

/// The slow parts of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// Answers that it was learned from.
    pub samples: u64,
    /// Coefficients of ln(TTFT in seconds) without load, on 1, ln(1 + input/1,000) and
    /// ln(1 + input/10,000).
    pub ln_ttft: [f64; 3],
    /// Mean of ln(seconds per output token).
    pub ln_tpot: f64,
    /// Share of the unloaded speed to the first token that each request in flight takes,
    /// 0 to 1.
    pub beta: f64,
    /// The same for the tokens after it.
    pub tpot_beta: f64,
    /// Variance of ln(actual / predicted TTFT).
    pub sigma2: f64,
    /// Length of its answers over that of others.
    pub verbosity: f64,
}

impl Default for Coefficients {
    fn default() -> Self {
        Self {
            samples: 0,
            ln_ttft: [0.0; 3],
            ln_tpot: math::ln(TPOT_GUESS_S),
            beta: 0.0,
            tpot_beta: 0.0,
            sigma2: 0.09,
            verbosity: 1.0,
        }
    }
}

impl Coefficients {
    /// Whether each is a number that a model can have.
    pub fn is_sane(&self) -> bool {
        let slopes = self.ln_ttft.iter().all(|value| value.is_finite() && value.abs() < 50.0);
        slopes
            && self.ln_tpot.is_finite()
            && self.ln_tpot.abs() < 50.0
            && (0.0..=1.0).contains(&self.beta)
            && (0.0..=1.0).contains(&self.tpot_beta)
            && (0.0..=4.0).contains(&self.sigma2)
            && (0.01..=100.0).contains(&self.verbosity)
    }
}

/// All that is published of one deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeploymentModel {
    /// The slow parts.
    pub slow: Coefficients,
    /// How far ln(TTFT) was off lately, at the time of publication.
    pub ttft_now: Sums,
    /// How far ln(seconds per token) was off lately.
    pub tpot_now: Sums,
    /// Attempts lately: failures, and all.
    pub errors: Sums,
    /// Answers that began lately: those that broke off, and all.
    pub breaks: Sums,
    /// Attempts that run there, over all agents.
    pub in_flight: f64,
    /// How old the agents' counts of those were at the time of publication.
    pub in_flight_age: Duration,
    /// Age of the newest answer. None: there was none.
    pub newest_age: Option<Duration>,
}

/// What the control plane knows of all deployments, for its agents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetModels {
    /// Agents that reported lately.
    pub agents: u32,
    /// By name.
    pub models: Vec<(Box<str>, DeploymentModel)>,
    /// Lengths of answers.
    pub outputs: Vec<OutputModel>,
}
