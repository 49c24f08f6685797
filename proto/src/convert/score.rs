//! What was predicted of a target and what it amounts to, for people.

use trunkline_routing::{
    score::{Basis, Estimate},
    table::{Deployment, Strategy, VirtualModel},
};

use crate::types::v1::{Score, ScoreBasis};

/// The terms of a prediction, and their sum as the virtual model's strategy weighs it.
pub(super) fn score(model: &VirtualModel, deployment: &Deployment, estimate: &Estimate) -> Score {
    let terms = &estimate.terms;
    let cost = estimate.cost.map_or(0.0, |cost| cost.0 as f64);
    let balanced = model.strategy == Strategy::Balanced;
    let time = model.balance.nano_usd_per_second as f64 * estimate.seconds;
    let quality = model.balance.nano_usd_per_quality_point as f64 * deployment.quality.unwrap_or(0.0);
    let (time, quality) = if balanced { (time, -quality) } else { (0.0, 0.0) };
    Score {
        value: match model.strategy {
            Strategy::Cost => cost,
            Strategy::Balanced => cost + time + quality,
            Strategy::Latency | Strategy::RoundRobin | Strategy::Weighted => estimate.seconds,
        },
        ttft_seconds: estimate.ttft_s,
        output_seconds: terms.output_s,
        error_seconds: terms.error_s,
        break_seconds: terms.break_s,
        cost_nano_usd: cost,
        time_nano_usd: time,
        quality_nano_usd: quality,
        base_ttft_seconds: terms.base_ttft_s,
        load_factor: terms.load_factor,
        moment_factor: terms.moment_factor,
        tpot_seconds: estimate.tpot_s,
        output_tokens: estimate.output_tokens,
        in_flight: estimate.in_flight,
        error_probability: estimate.p_error,
        break_probability: estimate.p_break,
        cached_input_tokens: terms.cached_tokens,
        basis: basis(estimate.basis).into(),
    }
}

const fn basis(basis: Basis) -> ScoreBasis {
    match basis {
        Basis::Fleet => ScoreBasis::Fleet,
        Basis::Own => ScoreBasis::Own,
        Basis::Mean => ScoreBasis::Mean,
        Basis::Unknown => ScoreBasis::Guess,
    }
}
