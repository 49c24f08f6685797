//! The better of two at random: by Peak EWMA (Finagle, linkerd, tower), by requests
//! running (Envoy). Each agent knows its own requests only.

use rand::{RngExt, rngs::StdRng};

use super::{Ask, At, Ended, Picker};
use crate::math;

/// tower's default: the average forgets in ten seconds ...
const DECAY_S: f64 = 10.0;
/// ... and begins at one second.
const DEFAULT_RTT_S: f64 = 1.0;

#[derive(Clone, Copy, Debug)]
struct Peak {
    mean_s: f64,
    at_s: f64,
    pending: u32,
}

/// Peak EWMA of the time to first token, times requests pending.
pub(super) struct PeakEwma {
    agents: Vec<Vec<Peak>>,
}

impl PeakEwma {
    pub(super) fn new(count: usize, agents: usize) -> Self {
        let peak = Peak { mean_s: DEFAULT_RTT_S, at_s: 0.0, pending: 0 };
        Self { agents: vec![vec![peak; count]; agents] }
    }

    fn seen(&mut self, at: At, rtt_s: f64) {
        let peak = &mut self.agents[at.agent][at.deployment];
        if rtt_s > peak.mean_s {
            peak.mean_s = rtt_s;
        } else {
            let keep = math::exp(-(at.now_s - peak.at_s) / DECAY_S);
            peak.mean_s = peak.mean_s * keep + rtt_s * (1.0 - keep);
        }
        peak.at_s = at.now_s;
    }
}

impl Picker for PeakEwma {
    fn pick(&mut self, ask: &Ask<'_, '_>, chance: &mut StdRng) -> Option<usize> {
        let peaks = &self.agents[ask.agent];
        better_of_two(ask.open, chance, |at| {
            // Without news the average falls towards nothing.
            let keep = math::exp(-(ask.now_s - peaks[at].at_s) / DECAY_S);
            peaks[at].mean_s * keep * f64::from(peaks[at].pending + 1)
        })
    }

    fn started(&mut self, agent: usize, deployment: usize) {
        self.agents[agent][deployment].pending += 1;
    }

    fn begun(&mut self, at: At, ttft_s: f64) {
        self.seen(at, ttft_s);
    }

    fn ended(&mut self, at: At, ended: &Ended) {
        let peak = &mut self.agents[at.agent][at.deployment];
        peak.pending = peak.pending.saturating_sub(1);
        // A fast error looks fast, as in tower.
        if let Ended::Failed { after_s, .. } | Ended::TimedOut { after_s } = ended {
            self.seen(at, *after_s);
        }
    }
}

/// Fewer requests running.
pub(super) struct LeastRequest {
    running: Vec<Vec<u32>>,
}

impl LeastRequest {
    pub(super) fn new(count: usize, agents: usize) -> Self {
        Self { running: vec![vec![0; count]; agents] }
    }
}

impl Picker for LeastRequest {
    fn pick(&mut self, ask: &Ask<'_, '_>, chance: &mut StdRng) -> Option<usize> {
        let running = &self.running[ask.agent];
        better_of_two(ask.open, chance, |at| f64::from(running[at]))
    }

    fn started(&mut self, agent: usize, deployment: usize) {
        self.running[agent][deployment] += 1;
    }

    fn ended(&mut self, at: At, _ended: &Ended) {
        let running = &mut self.running[at.agent][at.deployment];
        *running = running.saturating_sub(1);
    }
}

/// Draws two and takes the one with the smaller cost.
fn better_of_two(open: &[usize], chance: &mut StdRng, cost: impl Fn(usize) -> f64) -> Option<usize> {
    let first = chance.random_range(0..open.len());
    if open.len() == 1 {
        return open.first().copied();
    }
    let second = (first + chance.random_range(1..open.len())) % open.len();
    let (first, second) = (open[first], open[second]);
    Some(if cost(second) < cost(first) { second } else { first })
}
