//! LiteLLM's router (1.109): shuffle, lowest latency, lowest cost, all with its
//! cooldown. Its state in Redis is seen by all agents at once.

use std::collections::VecDeque;

use rand::{RngExt, rngs::StdRng};

use super::{Ask, At, Ended, Picker, cooldown::Cooldown, smallest};

/// Latencies kept per deployment.
const LATENCIES: usize = 10;

/// Any deployment, as no weights are set.
pub(super) struct Shuffle {
    cooldown: Cooldown,
}

impl Shuffle {
    pub(super) fn new(count: usize) -> Self {
        Self { cooldown: Cooldown::new(count) }
    }
}

impl Picker for Shuffle {
    fn pick(&mut self, ask: &Ask<'_, '_>, chance: &mut StdRng) -> Option<usize> {
        let warm = self.cooldown.filter(ask.open, ask.now_s);
        Some(warm[chance.random_range(0..warm.len())])
    }

    fn ended(&mut self, at: At, ended: &Ended) {
        note(&mut self.cooldown, at, ended);
    }
}

/// The smallest mean of the last ten times to first token. A deployment without any
/// counts as 0; timeouts and errors of streams leave no trace in it.
pub(super) struct Latency {
    cooldown: Cooldown,
    ttft_s: Vec<VecDeque<f64>>,
}

impl Latency {
    pub(super) fn new(count: usize) -> Self {
        Self { cooldown: Cooldown::new(count), ttft_s: vec![VecDeque::new(); count] }
    }
}

impl Picker for Latency {
    fn pick(&mut self, ask: &Ask<'_, '_>, chance: &mut StdRng) -> Option<usize> {
        let warm = self.cooldown.filter(ask.open, ask.now_s);
        let mean = |at: usize| {
            let seen = &self.ttft_s[at];
            if seen.is_empty() { 0.0 } else { seen.iter().sum::<f64>() / seen.len() as f64 }
        };
        // Its list is shuffled before the sort: equals are taken at random.
        let best = warm.iter().map(|at| mean(*at)).fold(f64::INFINITY, f64::min);
        let equals: Vec<usize> = warm.into_iter().filter(|at| mean(*at) <= best).collect();
        Some(equals[chance.random_range(0..equals.len())])
    }

    fn ended(&mut self, at: At, ended: &Ended) {
        note(&mut self.cooldown, at, ended);
        if let Ended::Answered { ttft_s, .. } = ended {
            let seen = &mut self.ttft_s[at.deployment];
            seen.push_back(*ttft_s);
            if seen.len() > LATENCIES {
                seen.pop_front();
            }
        }
    }
}

/// The smallest sum of list prices for input and output. Quality is not its concern.
pub(super) struct LowestCost {
    cooldown: Cooldown,
}

impl LowestCost {
    pub(super) fn new(count: usize) -> Self {
        Self { cooldown: Cooldown::new(count) }
    }
}

impl Picker for LowestCost {
    fn pick(&mut self, ask: &Ask<'_, '_>, _chance: &mut StdRng) -> Option<usize> {
        let warm = self.cooldown.filter(ask.open, ask.now_s);
        smallest(&warm, |at| {
            let price = ask.world.providers[at].price(ask.world.now);
            price.input + price.output
        })
    }

    fn ended(&mut self, at: At, ended: &Ended) {
        note(&mut self.cooldown, at, ended);
    }
}

/// Tells a cooldown how an attempt ended.
pub(super) fn note(cooldown: &mut Cooldown, at: At, ended: &Ended) {
    match ended {
        // One that breaks off was counted as a success at its first token.
        Ended::Answered { .. } | Ended::Broke => cooldown.succeeded(at.deployment, at.now_s),
        Ended::Failed { status, .. } => cooldown.failed(at.deployment, at.now_s, *status),
        Ended::TimedOut { .. } => cooldown.failed(at.deployment, at.now_s, 408),
    }
}
