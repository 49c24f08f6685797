//! Why nothing may serve a request: the constraint that binds, and where.

use trunkline_routing::{
    decide::{Decision, Reason},
    eligibility::{Profile, Unfit},
    money::NanoUsd,
    table::{RoutingTable, VirtualModel},
};

use super::decision::reason;

/// What stands between a request and the target that came nearest to serving it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The constraint, as in `COST`: an ExclusionReason without its prefix.
    pub constraint: String,
    /// Full name of the target.
    pub deployment: String,
    /// The target's value and what was asked for, in words.
    pub detail: String,
    /// Whether it will be the same until somebody changes the request or the
    /// configuration.
    pub lasts: bool,
}

/// The binding constraint. None: some target may serve the request.
pub fn binding(
    table: &RoutingTable,
    model: &VirtualModel,
    profile: &Profile,
    decision: &Decision,
) -> Option<Binding> {
    let nearest = decision.binding_constraint()?;
    let (kind, mut detail) = reason(nearest.reason);
    if let Reason::Unfit(unfit) = nearest.reason
        && let Some(wanted) = wanted(model, profile, unfit)
    {
        detail = format!("{detail}, {wanted}");
    }
    Some(Binding {
        constraint: kind.as_str_name().trim_start_matches("EXCLUSION_REASON_").to_owned(),
        deployment: table.deployment(nearest.deployment).name.to_string(),
        detail,
        lasts: matches!(nearest.reason, Reason::Unfit(_)),
    })
}

/// What the request or its virtual model asks for, where a number says it.
fn wanted(model: &VirtualModel, profile: &Profile, unfit: Unfit) -> Option<String> {
    let constraints = &model.constraints;
    match unfit {
        Unfit::Cost(_) => {
            let most = [constraints.max_cost, profile.max_cost].into_iter().flatten().min()?;
            Some(format!("and at most {} is allowed", dollars(most)))
        }
        Unfit::Quality(_) => {
            let least = [constraints.min_quality, profile.min_quality].into_iter().flatten();
            Some(format!("and at least {} is asked for", least.reduce(f64::max)?))
        }
        Unfit::MaxOutputTokens(_) => Some(format!("and {} are asked for", profile.max_output_tokens?)),
        Unfit::ContextWindow(_) => Some(format!("for about {} of input", profile.input_tokens)),
        Unfit::Region => Some(format!("which are {}", constraints.regions.join(", "))),
        Unfit::Capability(_) => None,
    }
}

/// Exact, as in `0.0015 USD`.
pub(super) fn dollars(cost: NanoUsd) -> String {
    let text = format!("{}.{:09}", cost.0 / 1_000_000_000, cost.0 % 1_000_000_000);
    format!("{} USD", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use trunkline_routing::table::{DeploymentIndex, Version};

    use super::*;
    use crate::{convert::routing_table, document};

    const DOCUMENT: &str = r#"
providers:
  - name: p
    dialect: DIALECT_OPENAI
    base_url: https://provider.test
    deployments:
      - {name: dear, quality: 0.9, price: {input_usd_per_mtok: "1", output_usd_per_mtok: "1"}}
      - {name: poor, quality: 0.2, price: {input_usd_per_mtok: "1", output_usd_per_mtok: "1"}}
virtual_models:
  - name: chat
    constraints: {min_quality: 0.5}
    tiers: [{targets: [{deployment: p/dear}, {deployment: p/poor}]}]
"#;

    #[test]
    fn the_constraint_that_binds_is_named_with_both_values() {
        let config = document::load_and_check(DOCUMENT).unwrap();
        let table = routing_table(Version::default(), &config).unwrap();
        let model = table.virtual_model("chat").unwrap();
        let profile = Profile { max_cost: Some(NanoUsd(1_000)), ..Profile::default() };
        let exclusion = |deployment, unfit| trunkline_routing::decide::Exclusion {
            deployment: DeploymentIndex(deployment),
            tier: 0,
            reason: Reason::Unfit(unfit),
        };
        let excluded =
            vec![exclusion(0, Unfit::Cost(Some(NanoUsd(256_000)))), exclusion(1, Unfit::Quality(Some(0.2)))];
        let decision = Decision { candidates: Vec::new(), excluded };
        let binding = binding(&table, model, &profile, &decision).unwrap();
        assert_eq!((binding.constraint.as_str(), binding.deployment.as_str()), ("COST", "p/dear"));
        assert_eq!(binding.detail, "its expected cost is 0.000256 USD, and at most 0.000001 USD is allowed");
        assert!(binding.lasts);
    }
}
