//! The most that a request can cost.

use crate::{
    eligibility::{self, Profile},
    money::{NanoUsd, Tokens},
    table::{Capabilities, Deployment, RoutingTable, VirtualModel},
};

/// Longest answer that is reckoned with when neither the request nor the deployment
/// limits it, in tokens.
pub const OUTPUT_TOKENS_UNLIMITED: u32 = 4_096;

/// Input is estimated by the length of the body; it is reckoned with so much more, in
/// percent.
const INPUT_MARGIN_PERCENT: u64 = 10;

/// What the deployments that may serve a request charge at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worst {
    /// At the dearest of those with a known price. None: no deployment that may serve the
    /// request has one.
    pub dearest: Option<NanoUsd>,
    /// At the cheapest of them.
    pub cheapest: Option<NanoUsd>,
    /// Whether one that may serve it has no known price.
    pub unpriced: bool,
}

/// The most that one attempt at `profile` can cost under `model`, at the prices of the time
/// at which it came in.
pub fn worst(table: &RoutingTable, model: &VirtualModel, profile: &Profile) -> Worst {
    let mut worst = Worst::default();
    let targets = model.tiers.iter().flat_map(|tier| &tier.targets);
    for target in targets {
        let deployment = table.deployment(target.deployment);
        if eligibility::check(table, target.deployment, model, profile, None).is_err() {
            continue;
        }
        match deployment.prices.at(profile.at_unix_ms) {
            None => worst.unpriced = true,
            Some(price) => {
                let cost = price.cost(tokens(deployment, profile));
                worst.dearest = Some(worst.dearest.map_or(cost, |known| known.max(cost)));
                worst.cheapest = Some(worst.cheapest.map_or(cost, |known| known.min(cost)));
            }
        }
    }
    worst
}

/// Input with its margin, nothing of it cached, and the longest answers.
fn tokens(deployment: &Deployment, profile: &Profile) -> Tokens {
    let input = u64::from(profile.input_tokens);
    let input = input + (input * INPUT_MARGIN_PERCENT).div_ceil(100);
    Tokens { input, cached_input: 0, output: output_max(deployment, profile) }
}

/// The longest output that is reckoned with, in tokens: of all answers together.
pub fn output_max(deployment: &Deployment, profile: &Profile) -> u64 {
    if profile.needs.contains(Capabilities::EMBEDDINGS) {
        return 0;
    }
    let limits = [profile.max_output_tokens, deployment.max_output_tokens];
    let one = limits.into_iter().flatten().min().unwrap_or(OUTPUT_TOKENS_UNLIMITED);
    u64::from(one).saturating_mul(profile.answers())
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::{
        money::{Price, Rates},
        price::Schedule,
        table::{BreakerPolicy, Constraints, Limits, ProviderIndex, Target, Tier, Timeouts},
    };

    fn deployment(name: &str, output_price: Option<u64>, max_output_tokens: Option<u32>) -> Deployment {
        let rates = |output| Rates { input: 1_000_000, cached_input: 0, output: output * 1_000_000 };
        Deployment {
            name: name.into(),
            provider: ProviderIndex(0),
            upstream_model: name.into(),
            capabilities: Capabilities::ALL,
            context_window: None,
            max_output_tokens,
            quality: None,
            prices: output_price
                .map_or_else(Schedule::unknown, |output| Schedule::fixed(Price::flat(rates(output)))),
            breaker: BreakerPolicy::default(),
            limits: Limits::default(),
        }
    }

    fn of(deployments: vec::Vec<Deployment>, profile: &Profile) -> Worst {
        let table = RoutingTable { deployments, ..RoutingTable::default() };
        let targets = (0..table.deployments.len() as u32)
            .map(|at| Target { deployment: crate::table::DeploymentIndex(at), weight: 1 });
        let pin = VirtualModel::pin("chat", crate::table::DeploymentIndex(0));
        let tier = Tier { targets: targets.collect(), timeouts: Timeouts::default(), max_attempts: 1 };
        let model = VirtualModel { tiers: vec![tier], constraints: Constraints::default(), ..pin };
        worst(&table, &model, profile)
    }

    #[test]
    fn the_dearest_answer_that_is_possible_is_reckoned_with() {
        let all = || {
            vec![
                deployment("a", Some(2), Some(100)),
                deployment("b", Some(5), Some(50)),
                deployment("c", None, None),
            ]
        };
        let profile = Profile { input_tokens: 10, max_output_tokens: Some(80), ..Profile::default() };
        let worst = of(all(), &Profile { max_output_tokens: None, ..profile });
        // 11 tokens of input; 50 of output at 5, or 100 at 2.
        assert_eq!(
            (worst.dearest, worst.cheapest, worst.unpriced),
            (Some(NanoUsd(261)), Some(NanoUsd(211)), true)
        );
        let worst = of(all()[..1].to_vec(), &profile);
        assert_eq!((worst.dearest, worst.unpriced), (Some(NanoUsd(171)), false), "the caller's limit");
        let three = Profile { extra_answers: 2, ..profile };
        assert_eq!(of(all()[..1].to_vec(), &three).dearest, Some(NanoUsd(491)), "three answers to one input");
        let needs = Capabilities::EMBEDDINGS;
        let worst = of(all()[..1].to_vec(), &Profile { needs, input_tokens: 100, ..Profile::default() });
        assert_eq!(worst.dearest, Some(NanoUsd(110)), "vectors are no tokens");
        assert_eq!(of(vec![deployment("c", None, None)], &profile).dearest, None);
    }
}
