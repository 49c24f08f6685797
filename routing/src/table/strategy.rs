//! How a virtual model picks among its targets, and what its picks are told.

use core::time::Duration;

/// Share of requests that may be hedged unless the configuration says otherwise.
pub const HEDGE_BUDGET_PERCENT: u32 = 2;

/// How a target is picked inside a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Equal shares.
    RoundRobin,
    /// Shares by weight.
    Weighted,
    /// The least expected time.
    Latency,
    /// The least expected cost among those within the objectives.
    Cost,
    /// The least sum of cost, time and missing quality, at the operator's prices.
    Balanced,
}

impl Strategy {
    /// As shown in headers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Weighted => "weighted",
            Self::Latency => "latency",
            Self::Cost => "cost",
            Self::Balanced => "balanced",
        }
    }

    /// Whether it predicts each request at each target. Such a strategy may hedge and
    /// explore; the others keep exact shares.
    pub const fn predicts(self) -> bool {
        matches!(self, Self::Latency | Self::Cost | Self::Balanced)
    }
}

/// What answers should take at most. None: no objective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slo {
    /// Until the first token.
    pub ttft: Option<Duration>,
    /// Until the whole answer.
    pub total: Option<Duration>,
}

/// What BALANCED pays for time and quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Nano-dollars that a second of waiting is worth.
    pub nano_usd_per_second: u64,
    /// Nano-dollars that quality 1 instead of 0 is worth.
    pub nano_usd_per_quality_point: u64,
}

impl Default for Balance {
    fn default() -> Self {
        Self { nano_usd_per_second: 2_000_000, nano_usd_per_quality_point: 10_000_000 }
    }
}

/// What ties requests together that had better meet the same target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Nothing.
    #[default]
    None,
    /// The session that the caller names.
    Session,
}
