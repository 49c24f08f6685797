//! Prequal (Wydrowski et al., NSDI 2024): a pool of probe answers; the hot ones, by
//! requests in flight, are left out, of the others the one with the lowest latency is
//! taken. Providers have no such probes; here they have, and answers cost nothing and
//! come at once.

use std::collections::VecDeque;

use rand::{RngExt, rngs::StdRng};

use super::{Ask, At, Ended, Picker};

/// Probes per query.
const PROBES: usize = 3;
/// Answers kept ...
const POOL: usize = 16;
/// ... for so long.
const AGE_MAX_S: f64 = 1.0;
/// The quantile of requests in flight from which a deployment is hot.
const HOT: f64 = 0.84;
/// Requests in flight remembered for that quantile.
const SEEN: usize = 100;
/// Latencies that a deployment's own estimate is the median of.
const LATENCIES: usize = 11;

#[derive(Clone, Copy, Debug)]
struct Probe {
    deployment: usize,
    in_flight: u32,
    latency_s: f64,
    at_s: f64,
}

/// Prequal.
pub(super) struct Prequal {
    pool: VecDeque<Probe>,
    seen: VecDeque<u32>,
    latencies: Vec<VecDeque<f64>>,
}

impl Prequal {
    pub(super) fn new(count: usize) -> Self {
        Self { pool: VecDeque::new(), seen: VecDeque::new(), latencies: vec![VecDeque::new(); count] }
    }

    fn probe(&mut self, ask: &Ask<'_, '_>, chance: &mut StdRng) {
        self.pool.retain(|probe| ask.now_s - probe.at_s <= AGE_MAX_S);
        for _ in 0..PROBES {
            let deployment = ask.open[chance.random_range(0..ask.open.len())];
            let in_flight = ask.world.providers[deployment].in_flight;
            let mut latencies: Vec<f64> = self.latencies[deployment].iter().copied().collect();
            latencies.sort_by(f64::total_cmp);
            let latency_s = latencies.get(latencies.len() / 2).copied().unwrap_or(0.0);
            self.pool.push_back(Probe { deployment, in_flight, latency_s, at_s: ask.now_s });
            self.seen.push_back(in_flight);
        }
        while self.pool.len() > POOL {
            self.pool.pop_front();
        }
        while self.seen.len() > SEEN {
            self.seen.pop_front();
        }
    }

    fn hot_from(&self) -> u32 {
        let mut seen: Vec<u32> = self.seen.iter().copied().collect();
        seen.sort_unstable();
        seen.get((seen.len() as f64 * HOT) as usize).copied().unwrap_or(u32::MAX)
    }
}

impl Picker for Prequal {
    fn pick(&mut self, ask: &Ask<'_, '_>, chance: &mut StdRng) -> Option<usize> {
        self.probe(ask, chance);
        let hot_from = self.hot_from();
        let usable = || {
            let probes = self.pool.iter().enumerate();
            probes.filter(|(_, probe)| ask.open.contains(&probe.deployment))
        };
        let cold = usable().filter(|(_, probe)| probe.in_flight < hot_from);
        let best = cold.min_by(|(_, a), (_, b)| a.latency_s.total_cmp(&b.latency_s));
        let best = best.or_else(|| usable().min_by_key(|(_, probe)| probe.in_flight));
        let (at, best) = best.map(|(at, probe)| (at, *probe))?;
        // A probe is used once.
        self.pool.remove(at);
        Some(best.deployment)
    }

    fn ended(&mut self, at: At, ended: &Ended) {
        if let Ended::Answered { ttft_s, .. } = ended {
            let latencies = &mut self.latencies[at.deployment];
            latencies.push_back(*ttft_s);
            if latencies.len() > LATENCIES {
                latencies.pop_front();
            }
        }
    }
}
