//! What distributes the requests of a run: a strategy of the decision core, or one of
//! the baselines that it is compared with.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use trunkline_routing::table::Strategy;

/// A policy. Written and read by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The decision core: the code that agents run.
    Core(Strategy, Ablation),
    /// Something it is compared with.
    Baseline(Baseline),
}

/// The decision core without one of its parts, to show what that part is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ablation {
    /// As it is.
    #[default]
    Whole,
    /// Never hedges.
    NoHedge,
}

/// Ways to distribute requests that are not ours. Unless said otherwise each is given
/// three attempts, each ended after ten seconds without a first token, and never
/// tries a deployment twice for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Baseline {
    /// Cumulative random by weight; a draw of a deployment that was tried gives up.
    RandomWeighted,
    /// One after the other.
    RoundRobin,
    /// Smooth weighted round robin; a deployment that failed is left out for ten
    /// seconds.
    SmoothWrr,
    /// LiteLLM's simple shuffle with its cooldown.
    LitellmShuffle,
    /// LiteLLM's lowest latency: mean of the last ten, with its cooldown.
    LitellmLatency,
    /// The smallest moving average of whole latencies.
    NaiveEwma,
    /// The better of two by Peak EWMA times requests pending, as in Finagle and tower.
    PeakEwmaP2c,
    /// The one of two with fewer requests running, as in Envoy.
    LeastRequestP2c,
    /// Hot and cold by requests in flight, then by latency, with ideal probes.
    Prequal,
    /// A control plane that tells all agents the one best deployment.
    CentralArgmin,
    /// A control plane that gives all agents weights by latency and errors.
    CentralWeights,
    /// Shares by the inverse square of the price, above the quality floor.
    InverseSquarePrice,
    /// LiteLLM's lowest cost: smallest sum of the input and the output price.
    LitellmLowestCost,
    /// Cheapest by the tokens expected, above the quality floor, with a cooldown.
    CheapestExpected,
    /// Tier after tier, ten seconds each, remembering nothing.
    NaiveChain,
    /// Knows every provider's state; takes the fastest expected answer.
    Oracle,
    /// Knows every provider's state; takes the cheapest that meets floor and SLO.
    OracleCost,
}

impl Baseline {
    /// Each with its name.
    pub const NAMES: [(&'static str, Self); 17] = [
        ("random-weighted", Self::RandomWeighted),
        ("naive-round-robin", Self::RoundRobin),
        ("smooth-wrr", Self::SmoothWrr),
        ("litellm-shuffle", Self::LitellmShuffle),
        ("litellm-latency", Self::LitellmLatency),
        ("naive-ewma", Self::NaiveEwma),
        ("peak-ewma-p2c", Self::PeakEwmaP2c),
        ("least-request-p2c", Self::LeastRequestP2c),
        ("prequal", Self::Prequal),
        ("central-argmin", Self::CentralArgmin),
        ("central-weights", Self::CentralWeights),
        ("inverse-square-price", Self::InverseSquarePrice),
        ("litellm-lowest-cost", Self::LitellmLowestCost),
        ("cheapest-expected", Self::CheapestExpected),
        ("naive-chain", Self::NaiveChain),
        ("oracle", Self::Oracle),
        ("oracle-cost", Self::OracleCost),
    ];

    /// What it does, in a line.
    pub const fn about(self) -> &'static str {
        match self {
            Self::RandomWeighted => "cumulative random by weight; gives up on a second draw of the same",
            Self::RoundRobin => "one after the other",
            Self::SmoothWrr => "nginx: smooth weighted turns; a failure puts out for 10 s",
            Self::LitellmShuffle => "LiteLLM: any, with cooldown",
            Self::LitellmLatency => "LiteLLM: smallest mean of the last ten TTFT, with cooldown",
            Self::NaiveEwma => "smallest moving average of whole latencies",
            Self::PeakEwmaP2c => "Finagle, tower: better of two by peak EWMA times pending",
            Self::LeastRequestP2c => "Envoy: the one of two with fewer requests running",
            Self::Prequal => "Prequal: cold ones by latency, else fewest in flight; ideal probes",
            Self::CentralArgmin => "a control plane tells all agents the one best",
            Self::CentralWeights => "a control plane gives weights by latency and errors",
            Self::InverseSquarePrice => "OpenRouter 2025: shares by price to the -2, above the floor",
            Self::LitellmLowestCost => "LiteLLM: smallest input plus output list price",
            Self::CheapestExpected => "cheapest by expected tokens, above the floor, with cooldown",
            Self::NaiveChain => "tier after tier, 10 s each, no memory",
            Self::Oracle => "knows all states; fastest, with the baselines' attempts",
            Self::OracleCost => "knows all states; cheapest that meets floor and SLO",
        }
    }
}

/// Strategies of the core that a run may use.
const STRATEGIES: [Strategy; 5] =
    [Strategy::RoundRobin, Strategy::Weighted, Strategy::Latency, Strategy::Cost, Strategy::Balanced];

/// What a name of an ablation ends with.
const NO_HEDGE: &str = "/no-hedge";

impl Policy {
    /// Every policy, the core's first.
    pub fn all() -> impl Iterator<Item = Self> {
        let core = STRATEGIES.into_iter().map(|strategy| Self::Core(strategy, Ablation::Whole));
        core.chain(Baseline::NAMES.into_iter().map(|(_, baseline)| Self::Baseline(baseline)))
    }

    /// What it does, in a line.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Core(Strategy::RoundRobin, _) => "equal shares, with the core's attempts and breakers",
            Self::Core(Strategy::Weighted, _) => "shares by weight, with the core's attempts and breakers",
            Self::Core(Strategy::Latency, _) => "the fastest answer to be expected",
            Self::Core(Strategy::Cost, _) => "the cheapest that meets floor and SLO",
            Self::Core(Strategy::Balanced, _) => "time, money and quality at their prices",
            Self::Baseline(baseline) => baseline.about(),
        }
    }

    /// Whether the decision core's own code runs.
    pub const fn is_core(self) -> bool {
        matches!(self, Self::Core(..))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(strategy, Ablation::Whole) => f.write_str(strategy.name()),
            Self::Core(strategy, Ablation::NoHedge) => write!(f, "{}{NO_HEDGE}", strategy.name()),
            Self::Baseline(baseline) => {
                let named = Baseline::NAMES.iter().find(|(_, known)| known == baseline);
                f.write_str(named.map_or("?", |(name, _)| name))
            }
        }
    }
}

/// No policy has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no policy '{name}'; there are: {known}")]
pub struct UnknownPolicy {
    /// What was asked for.
    pub name: String,
    /// All names.
    pub known: String,
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let core = |name: &str| STRATEGIES.into_iter().find(|strategy| strategy.name() == name);
        let no_hedge = || Some(Self::Core(core(name.strip_suffix(NO_HEDGE)?)?, Ablation::NoHedge));
        let baseline = || {
            let named = Baseline::NAMES.iter().find(|(known, _)| *known == name)?;
            Some(Self::Baseline(named.1))
        };
        let whole = core(name).map(|strategy| Self::Core(strategy, Ablation::Whole));
        whole.or_else(no_hedge).or_else(baseline).ok_or_else(|| UnknownPolicy {
            name: name.to_owned(),
            known: Self::all().map(|policy| policy.to_string()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_read_back_by_its_name_and_an_unknown_one_is_told_the_names() {
        let ablated = STRATEGIES.map(|strategy| Policy::Core(strategy, Ablation::NoHedge));
        for policy in Policy::all().chain(ablated) {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let error = "fastest".parse::<Policy>().unwrap_err();
        assert!(error.to_string().contains("peak-ewma-p2c"), "{error}");
    }
}
