//! How a provider slows down under load.

use serde::{Deserialize, Serialize};

use crate::{
    math,
    model::{InvalidModel, in_range},
};

/// Latency multiplier by requests in flight: `1 + strength * (in_flight / capacity) ^ steepness`,
/// never above `max_multiplier`. TTFT and TPOT are both multiplied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Congestion {
    /// Requests in flight at which the slowdown reaches `1 + strength`. Default 64.
    pub capacity: u32,
    /// Extra latency at capacity, as a share of the idle latency. Default 1 (twice as slow).
    pub strength: f64,
    /// How sharply the curve bends; 1 is a straight line. Default 3.
    pub steepness: f64,
    /// Where the curve ends: a provider that is asked for more does not get slower
    /// for ever. Default 20.
    pub max_multiplier: f64,
}

impl Default for Congestion {
    fn default() -> Self {
        Self { capacity: 64, strength: 1.0, steepness: 3.0, max_multiplier: 20.0 }
    }
}

impl Congestion {
    /// The multiplier with so many requests in flight, the asking one included.
    /// At least 1, and never smaller for more requests.
    pub fn multiplier(&self, in_flight: u32) -> f64 {
        let load = f64::from(in_flight) / f64::from(self.capacity.max(1));
        (1.0 + self.strength * math::power(load, self.steepness)).clamp(1.0, self.max_multiplier.max(1.0))
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidModel> {
        in_range("congestion.capacity", f64::from(self.capacity), 1.0, f64::from(u32::MAX))?;
        in_range("congestion.strength", self.strength, 0.0, 1000.0)?;
        in_range("congestion.steepness", self.steepness, 0.1, 20.0)?;
        in_range("congestion.max_multiplier", self.max_multiplier, 1.0, 1000.0)
    }
}
