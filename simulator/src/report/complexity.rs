//! What a policy asks of those who run it: what they must set, and what it must remember.

use trunkline_routing::table::Strategy;

use crate::run::{Baseline, Policy};

/// Of one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complexity {
    /// In one line.
    pub about: &'static str,
    /// What somebody must set for it to work well. Defaults that nobody need touch are not
    /// counted.
    pub knobs: &'static [&'static str],
    /// What it remembers.
    pub state: &'static str,
}

const fn of(about: &'static str, knobs: &'static [&'static str], state: &'static str) -> Complexity {
    Complexity { about, knobs, state }
}

/// Of a policy.
pub fn complexity(policy: Policy) -> Complexity {
    match policy {
        Policy::Core(strategy, _) => of_strategy(strategy),
        Policy::Baseline(baseline) => of_baseline(baseline),
    }
}

fn of_strategy(strategy: Strategy) -> Complexity {
    const TURNS: &str = "a counter per target; breakers, rate gates";
    const MODEL: &str = "a model of time and load per target, learned by all agents; breakers, caps";
    // By name: a strategy that is new here is compared before it is described.
    match strategy.name() {
        "round_robin" => of("equal shares, exactly", &[], TURNS),
        "weighted" => of("shares by weight, exactly", &["weights"], TURNS),
        "latency" => of("the target that is expected to answer this request first", &[], MODEL),
        "cost" => of("the cheapest target that meets floor and objective", &["slo"], MODEL),
        "balanced" => of("money, time and quality at a rate of exchange", &["balance"], MODEL),
        _ => of("a strategy of the decision core", &[], MODEL),
    }
}

const fn of_baseline(baseline: Baseline) -> Complexity {
    const EWMA: &str = "a moving average per target";
    match baseline {
        Baseline::RandomWeighted => of("cumulative random by weight", &["weights"], "none"),
        Baseline::RoundRobin => of("one after the other, no memory of failures", &[], "a counter"),
        Baseline::SmoothWrr => {
            of("smooth weighted round robin, three failures and out", &["weights"], "two counters per target")
        }
        Baseline::LitellmShuffle => {
            of("LiteLLM's simple shuffle with its cooldown", &["weights"], "failures by the minute")
        }
        Baseline::LitellmLatency => {
            of("LiteLLM's lowest latency with its cooldown", &[], "ten latencies per target")
        }
        Baseline::NaiveEwma => of("the lowest moving average of latency", &[], EWMA),
        Baseline::PeakEwmaP2c => {
            of("better of two by Peak EWMA and requests pending, as in Finagle and tower", &[], EWMA)
        }
        Baseline::LeastRequestP2c => {
            of("better of two by requests running, as in Envoy", &[], "requests running per target")
        }
        Baseline::Prequal => {
            of("hot and cold by requests in flight, then latency (NSDI 2024)", &[], "a pool of 16 probes")
        }
        Baseline::CentralArgmin => {
            of("a control plane names the one best target", &["interval"], "a mean latency per target")
        }
        Baseline::CentralWeights => {
            of("a control plane sets weights by latency and errors", &["interval"], "means per target")
        }
        Baseline::InverseSquarePrice => {
            of("shares by the inverse square of the price, above the floor", &["floors"], "failures by time")
        }
        Baseline::LitellmLowestCost => {
            of("LiteLLM's lowest cost: smallest sum of both list prices", &[], "failures by the minute")
        }
        Baseline::CheapestExpected => {
            of("cheapest by expected tokens, above the floor", &["floors"], "failures by time")
        }
        Baseline::NaiveChain => of("tier after tier, ten seconds each", &["tiers"], "none"),
        Baseline::Oracle => of("knows every provider's state, takes the fastest", &[], "all there is"),
        Baseline::OracleCost => {
            of("knows every provider's state, takes the cheapest that will do", &[], "all there is")
        }
    }
}
