//! Hard filters: what a deployment must offer for this request, whatever its health.

use crate::{
    money::{NanoUsd, Price, Tokens},
    table::{Capabilities, Deployment, DeploymentIndex, RoutingTable, Strategy, VirtualModel},
};

/// Output that is expected when the request does not limit it.
pub const EXPECTED_OUTPUT_TOKENS: u32 = 256;

/// Input is only estimated; a deployment is left out for its window when even half
/// of the estimate is too long.
const CONTEXT_DOUBT: u32 = 2;

/// What the decision needs to know of a request. Never its text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Profile {
    /// What it needs.
    pub needs: Capabilities,
    /// Estimated input. 0: unknown.
    pub input_tokens: u32,
    /// The limit it sets on the answer.
    pub max_output_tokens: Option<u32>,
    /// Answers that it asks for beyond one (`n`, several prompts), each as long as that.
    pub extra_answers: u32,
    /// Answered piece by piece.
    pub stream: bool,
    /// Least quality the caller asks for.
    pub min_quality: Option<f64>,
    /// Most expected cost the caller accepts.
    pub max_cost: Option<NanoUsd>,
    /// Hash of the session that it belongs to.
    pub session: Option<u64>,
    /// Wall time at which it came in, in milliseconds since 1970: prices valid then
    /// count. 0: unknown, the newest known price counts.
    pub at_unix_ms: u64,
    /// A budget is used up and set to downgrade: the cheapest target that can serve it,
    /// whatever the strategy.
    pub cheapest: bool,
}

impl Profile {
    /// Input and expected output.
    pub fn expected_tokens(&self) -> Tokens {
        let output = self.max_output_tokens.unwrap_or(EXPECTED_OUTPUT_TOKENS);
        let output = u64::from(output).saturating_mul(self.answers());
        Tokens { input: self.input_tokens.into(), cached_input: 0, output }
    }

    /// Answers that it asks for, at least 1.
    pub fn answers(&self) -> u64 {
        u64::from(self.extra_answers) + 1
    }
}

/// Why a deployment can't serve the request at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unfit {
    /// These are missing.
    Capability(Capabilities),
    /// Its provider is in none of the wanted regions.
    Region,
    /// The window holds so many tokens.
    ContextWindow(u32),
    /// An answer has at most so many tokens.
    MaxOutputTokens(u32),
    /// Its quality, if known.
    Quality(Option<f64>),
    /// Its expected cost, if known.
    Cost(Option<NanoUsd>),
}

/// The price that rules for the request. None: unknown.
pub fn price_of<'a>(deployment: &'a Deployment, profile: &Profile) -> Option<&'a Price> {
    deployment.prices.at(profile.at_unix_ms)
}

/// How the request is to be routed: the strategy of the virtual model, or COST for one
/// whose budget is used up.
pub const fn strategy_of(model: &VirtualModel, profile: &Profile) -> Strategy {
    if profile.cheapest { Strategy::Cost } else { model.strategy }
}

/// Checks the deployment at `index` of `table`. `window_over`: only declared windows
/// larger than this.
///
/// # Errors
/// The first reason why it can't serve the request: capability, region, window,
/// longest answer, quality, cost.
pub fn check(
    table: &RoutingTable,
    index: DeploymentIndex,
    model: &VirtualModel,
    profile: &Profile,
    window_over: Option<u32>,
) -> Result<(), Unfit> {
    let deployment = table.deployment(index);
    let constraints = &model.constraints;
    let missing = deployment.capabilities.missing(constraints.require.with(profile.needs));
    if missing != Capabilities::NONE {
        return Err(Unfit::Capability(missing));
    }
    if !constraints.regions.is_empty() {
        let region = &table.provider(deployment.provider).region;
        if !region.as_ref().is_some_and(|region| constraints.regions.contains(region)) {
            return Err(Unfit::Region);
        }
    }
    if let Some(over) = window_over {
        let window = deployment.context_window.unwrap_or(0);
        if window <= over {
            return Err(Unfit::ContextWindow(window));
        }
    }
    if let Some(window) =
        deployment.context_window.filter(|window| profile.input_tokens / CONTEXT_DOUBT > *window)
    {
        return Err(Unfit::ContextWindow(window));
    }
    if let (Some(limit), Some(wanted)) = (deployment.max_output_tokens, profile.max_output_tokens)
        && wanted > limit
    {
        return Err(Unfit::MaxOutputTokens(limit));
    }
    let least = [constraints.min_quality, profile.min_quality].into_iter().flatten().reduce(f64::max);
    if least.is_some_and(|least| deployment.quality.is_none_or(|quality| quality < least)) {
        return Err(Unfit::Quality(deployment.quality));
    }
    let most = [constraints.max_cost, profile.max_cost].into_iter().flatten().min();
    let price = price_of(deployment, profile);
    // An unknown price is never taken for a low one.
    if price.is_none() && matches!(strategy_of(model, profile), Strategy::Cost | Strategy::Balanced) {
        return Err(Unfit::Cost(None));
    }
    if let Some(most) = most {
        let cost = price.map(|price| price.cost(profile.expected_tokens()));
        if cost.is_none_or(|cost| cost > most) {
            return Err(Unfit::Cost(cost));
        }
    }
    Ok(())
}
