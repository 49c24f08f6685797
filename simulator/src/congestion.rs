//! How a provider slows down under load.

use serde::{Deserialize, Serialize};

use crate::{
    math,
    model::{InvalidModel, in_range},
};

/// How latency grows with requests in flight: TTFT is multiplied, and TPOT by a part of
/// the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Congestion {
    /// The curve. Default: power.
    pub law: Law,
    /// Requests in flight at which the provider is full. Default 64.
    pub capacity: u32,
    /// Extra latency at capacity, as a share of the idle latency; not used by the law
    /// `queue`. Default 1 (twice as slow).
    pub strength: f64,
    /// How sharply the law `power` bends; 1 is a straight line. Default 3.
    pub steepness: f64,
    /// Where the curve ends, at least 1.1. From there latency grows in proportion to the
    /// load: a crowd waits in line, and is never served faster. Default 20.
    pub max_multiplier: f64,
    /// The part of the slowdown that tokens after the first feel, 0 to 1. Default 1.
    pub decode_share: f64,
}

/// The curve of the multiplier by `load`, which is requests in flight over capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Law {
    /// `1 + strength * load ^ steepness`: free for long, then a wall.
    #[default]
    Power,
    /// `1 / (1 - load)`: a queue before a server, as in M/M/1.
    Queue,
    /// `1 + strength * load`: processor sharing.
    Linear,
}

impl Law {
    /// Each with its name.
    pub const NAMES: [(&'static str, Self); 3] =
        [("power", Self::Power), ("queue", Self::Queue), ("linear", Self::Linear)];
}

impl Default for Congestion {
    fn default() -> Self {
        Self {
            law: Law::Power,
            capacity: 64,
            strength: 1.0,
            steepness: 3.0,
            max_multiplier: 20.0,
            decode_share: 1.0,
        }
    }
}

impl Congestion {
    /// TTFT's multiplier with so many requests in flight, the asking one included.
    /// At least 1, and never smaller for more requests.
    pub fn multiplier(&self, in_flight: u32) -> f64 {
        let load = f64::from(in_flight) / f64::from(self.capacity.max(1));
        // A curve that ends at 1 would have no beginning.
        let most = self.max_multiplier.max(1.1);
        let end = self.end(most);
        if load >= end {
            return most * load / end;
        }
        match self.law {
            Law::Power => 1.0 + self.strength * math::power(load, self.steepness),
            Law::Linear => 1.0 + self.strength * load,
            Law::Queue => 1.0 / (1.0 - load),
        }
    }

    /// The load at which the curve reaches `most`.
    fn end(&self, most: f64) -> f64 {
        match self.law {
            Law::Queue => 1.0 - 1.0 / most,
            Law::Power | Law::Linear if self.strength <= 0.0 => f64::INFINITY,
            Law::Power => math::power((most - 1.0) / self.strength, 1.0 / self.steepness.max(0.1)),
            Law::Linear => (most - 1.0) / self.strength,
        }
    }

    /// TPOT's multiplier where TTFT's is `multiplier`.
    pub fn decode(&self, multiplier: f64) -> f64 {
        1.0 + self.decode_share * (multiplier - 1.0)
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidModel> {
        in_range("congestion.capacity", f64::from(self.capacity), 1.0, f64::from(u32::MAX))?;
        in_range("congestion.strength", self.strength, 0.0, 1000.0)?;
        in_range("congestion.steepness", self.steepness, 0.1, 20.0)?;
        in_range("congestion.max_multiplier", self.max_multiplier, 1.0, 1000.0)?;
        in_range("congestion.decode_share", self.decode_share, 0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_law_is_one_when_idle_and_never_falls() {
        for (name, law) in Law::NAMES {
            for most in [1.0, 1.5, 20.0] {
                let congestion = Congestion { law, max_multiplier: most, ..Congestion::default() };
                let curve: Vec<f64> = (0..500).map(|n| congestion.multiplier(n)).collect();
                assert!((curve[0] - 1.0).abs() < 1e-9, "{name}");
                assert!(
                    curve.windows(2).all(|pair| pair[1] >= pair[0] && pair[1].is_finite()),
                    "{name} {most}"
                );
            }
        }
    }

    #[test]
    fn a_queue_is_twice_as_slow_at_half_its_capacity_and_serves_no_crowd_faster() {
        let queue = Congestion { law: Law::Queue, capacity: 100, ..Congestion::default() };
        assert!((queue.multiplier(50) - 2.0).abs() < 1e-9);
        assert!((queue.multiplier(90) - 10.0).abs() < 1e-9);
        let served = |n: u32| f64::from(n) / queue.multiplier(n);
        assert!((95..2_000).all(|n| served(n) <= served(94) + 1e-9));
    }
}
