//! Baselines that take turns, and know little or nothing.

use rand::rngs::StdRng;
use trunkline_routing::{baseline::random_weighted, swrr::Rotation};

use super::{Ask, At, Ended, Picker};
use crate::scenario::Scenario;

/// nginx: a failure takes a server out (`max_fails=1`) ...
const OUT_FOR_S: f64 = 10.0;

/// What most gateways' tutorials do: `routing::baseline`.
pub(super) struct RandomWeighted {
    weights: Vec<u32>,
    /// What the request that is asked about drew before.
    tried: Vec<usize>,
}

impl RandomWeighted {
    pub(super) const fn new(weights: Vec<u32>) -> Self {
        Self { weights, tried: Vec::new() }
    }
}

impl Picker for RandomWeighted {
    fn pick(&mut self, ask: &Ask<'_, '_>, chance: &mut StdRng) -> Option<usize> {
        // What the request can't use is left out; what it tried stays in the draw.
        let fits = |at: usize| ask.world.providers[at].fits(ask.request, ask.world.now);
        let weight = |at: usize| if fits(at) { self.weights[at] } else { 0 };
        let weights: Vec<u32> = (0..self.weights.len()).map(weight).collect();
        self.tried = (0..weights.len()).filter(|at| weights[*at] > 0 && !ask.open.contains(at)).collect();
        random_weighted(&weights, &mut self.tried, chance)
    }
}

/// One after the other, each agent for itself.
pub(super) struct RoundRobin {
    next: Vec<usize>,
    count: usize,
}

impl RoundRobin {
    pub(super) fn new(count: usize, agents: usize) -> Self {
        Self { next: (0..agents).map(|agent| agent % count).collect(), count }
    }
}

impl Picker for RoundRobin {
    fn pick(&mut self, ask: &Ask<'_, '_>, _chance: &mut StdRng) -> Option<usize> {
        let next = &mut self.next[ask.agent];
        let order = (0..self.count).map(|step| (*next + step) % self.count);
        let pick = order.into_iter().find(|at| ask.open.contains(at))?;
        *next = (pick + 1) % self.count;
        Some(pick)
    }
}

/// nginx: smooth weighted round robin with passive health: one failure and a server is
/// out for ten seconds; with all out, all are in. A 429 is no failure there.
pub(super) struct SmoothWrr {
    rotation: Rotation,
    weights: Vec<u32>,
    out_until_s: Vec<f64>,
}

impl SmoothWrr {
    pub(super) fn new(weights: Vec<u32>) -> Self {
        let count = weights.len();
        Self { rotation: Rotation::new(count), weights, out_until_s: vec![0.0; count] }
    }
}

impl Picker for SmoothWrr {
    fn pick(&mut self, ask: &Ask<'_, '_>, _chance: &mut StdRng) -> Option<usize> {
        let open = |at: &usize| ask.open.contains(at);
        let well = |at: usize| self.out_until_s[at] <= ask.now_s;
        let any_well = ask.open.iter().any(|at| well(*at));
        let weight =
            |at: usize| if open(&at) && (well(at) || !any_well) { self.weights[at].max(1) } else { 0 };
        let weights: Vec<u32> = (0..self.weights.len()).map(weight).collect();
        self.rotation.pick(&weights)
    }

    fn ended(&mut self, at: At, ended: &Ended) {
        let failed = match ended {
            Ended::Failed { status, .. } => *status != 429,
            Ended::TimedOut { .. } => true,
            Ended::Answered { .. } | Ended::Broke => false,
        };
        if failed {
            self.out_until_s[at.deployment] = at.now_s + OUT_FOR_S;
        }
    }
}

/// Tier after tier in the order written, remembering nothing.
pub(super) struct Chain {
    order: Vec<usize>,
}

impl Chain {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let order: Vec<usize> = scenario.tiers.iter().flatten().map(|place| place - 1).collect();
        let all = || (0..scenario.providers().len()).collect();
        Self { order: if order.is_empty() { all() } else { order } }
    }
}

impl Picker for Chain {
    fn pick(&mut self, ask: &Ask<'_, '_>, _chance: &mut StdRng) -> Option<usize> {
        self.order.iter().copied().find(|at| ask.open.contains(at))
    }
}
