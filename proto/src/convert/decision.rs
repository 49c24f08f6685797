//! Decisions and outcomes between the decision core and the wire, for all who answer
//! Route and ExplainDecision.

use trunkline_routing::{
    breaker::State,
    decide::{Decision, Reason},
    eligibility::{Profile, Unfit},
    limits::LimitKind,
    money::NanoUsd,
    registry::{Block, BreakerView, Forced},
    table::{Capabilities, DeploymentIndex, RoutingTable, Strategy, VirtualModel},
    train::route_id,
};

use super::{field::nano_usd, refusal::dollars, score};
use crate::{
    routing::v1::{RouteRequest, RouteState, TargetState},
    types::v1::{self, BreakerState, Candidate, Exclusion, ExclusionReason},
};

/// Tags of a request, and the bytes of their keys and values.
const TAGS_MAX: usize = 16;
const TAG_KEY_BYTES_MAX: usize = 64;
const TAG_VALUE_BYTES_MAX: usize = 256;

/// Longest name of a session: two UUIDs and some words.
const SESSION_BYTES_MAX: usize = 256;

/// What a Route request says of the request to come, which came in at `at_unix_ms` of the
/// wall clock.
///
/// # Errors
/// The field and what is wrong with it.
pub fn route_profile(request: &RouteRequest, at_unix_ms: u64) -> Result<Profile, (String, String)> {
    let mut needs = Capabilities::NONE;
    for (at, name) in request.require.iter().enumerate() {
        let known = Capabilities::by_name(name).ok_or_else(|| {
            let all: Vec<&str> = Capabilities::ALL.names().collect();
            (format!("require[{at}]"), format!("{name:?} is not one of {}", all.join(", ")))
        })?;
        needs = needs.with(known);
    }
    if request.min_quality.is_some_and(|quality| !(0.0..=1.0).contains(&quality)) {
        return Err(("min_quality".into(), "must be a number from 0 to 1".into()));
    }
    let max_cost = match request.max_cost_usd.as_str() {
        "" => None,
        text => Some(usd(text).ok_or_else(|| {
            (
                "max_cost_usd".to_owned(),
                format!("{text:?} is not US dollars such as \"0.02\", at most 9 places"),
            )
        })?),
    };
    check_tags(request.tags.iter())?;
    let session = session(&request.affinity_key).map_err(|why| ("affinity_key".to_owned(), why))?;
    Ok(Profile {
        needs,
        input_tokens: request.prompt_tokens_estimate,
        max_output_tokens: Some(request.max_output_tokens).filter(|tokens| *tokens > 0),
        stream: needs.contains(Capabilities::STREAMING),
        min_quality: request.min_quality,
        max_cost,
        at_unix_ms,
        session,
        ..Profile::default()
    })
}

/// A session as the decision knows it: 64-bit FNV-1a of its key, the same at all agents.
/// None: there is none.
///
/// # Errors
/// What is wrong with it.
pub fn session(key: &str) -> Result<Option<u64>, String> {
    if key.len() > SESSION_BYTES_MAX {
        return Err(format!("has {} bytes, at most {SESSION_BYTES_MAX} are allowed", key.len()));
    }
    Ok((!key.is_empty()).then(|| route_id(key)))
}

/// The limits on tags.
///
/// # Errors
/// The field and what is wrong with it.
pub fn check_tags<'a>(
    tags: impl ExactSizeIterator<Item = (&'a String, &'a String)>,
) -> Result<(), (String, String)> {
    if tags.len() > TAGS_MAX {
        return Err(("tags".into(), format!("at most {TAGS_MAX}, got {}", tags.len())));
    }
    for (key, value) in tags {
        if key.is_empty() || key.len() > TAG_KEY_BYTES_MAX || value.len() > TAG_VALUE_BYTES_MAX {
            return Err(("tags".into(), "keys have 1 to 64 bytes and values at most 256".into()));
        }
    }
    Ok(())
}

/// US dollars as an exact decimal of at most nine places, up to a million.
pub fn usd(text: &str) -> Option<NanoUsd> {
    nano_usd(text).ok().map(NanoUsd)
}

/// Candidates in their order. `state` tells a deployment's breaker.
pub fn candidates(
    table: &RoutingTable,
    model: &VirtualModel,
    decision: &Decision,
    state: impl Fn(DeploymentIndex) -> BreakerState,
) -> Vec<Candidate> {
    let wire = |candidate: &trunkline_routing::decide::Candidate| {
        let deployment = table.deployment(candidate.deployment);
        Candidate {
            deployment: deployment.name.to_string(),
            upstream_model: deployment.upstream_model.to_string(),
            tier: candidate.tier as u32,
            probability: candidate.probability,
            breaker_state: state(candidate.deployment).into(),
            expected_cost_nano_usd: candidate.expected_cost.map(|cost| cost.0),
            score: candidate.estimate.as_ref().map(|estimate| score::score(model, deployment, estimate)),
        }
    };
    decision.candidates.iter().map(wire).collect()
}

/// Those left out, with the reason in words.
pub fn exclusions(table: &RoutingTable, decision: &Decision) -> Vec<Exclusion> {
    let wire = |exclusion: &trunkline_routing::decide::Exclusion| {
        let (reason, detail) = reason(exclusion.reason);
        Exclusion {
            deployment: table.deployment(exclusion.deployment).name.to_string(),
            tier: exclusion.tier as u32,
            reason: reason.into(),
            detail,
        }
    };
    decision.excluded.iter().map(wire).collect()
}

/// All targets of a decision that a budget refused: those that else may serve the request
/// are left out for it. `why` names the budget, for people.
pub fn budget_exclusions(table: &RoutingTable, decision: &Decision, why: &str) -> Vec<Exclusion> {
    let wire = |candidate: &trunkline_routing::decide::Candidate| Exclusion {
        deployment: table.deployment(candidate.deployment).name.to_string(),
        tier: candidate.tier as u32,
        reason: ExclusionReason::Budget.into(),
        detail: why.to_owned(),
    };
    decision.candidates.iter().map(wire).chain(exclusions(table, decision)).collect()
}

pub(super) fn reason(reason: Reason) -> (ExclusionReason, String) {
    match reason {
        Reason::Unfit(Unfit::Capability(missing)) => {
            let names: Vec<&str> = missing.names().collect();
            (ExclusionReason::Capability, format!("it lacks {}", names.join(", ")))
        }
        Reason::Unfit(Unfit::Region) => {
            (ExclusionReason::Region, "its provider is in none of the wanted regions".into())
        }
        Reason::Unfit(Unfit::ContextWindow(window)) => {
            (ExclusionReason::ContextWindow, format!("its context window of {window} tokens is too small"))
        }
        Reason::Unfit(Unfit::MaxOutputTokens(limit)) => {
            (ExclusionReason::MaxOutputTokens, format!("an answer has at most {limit} tokens"))
        }
        Reason::Unfit(Unfit::Quality(quality)) => {
            let quality = quality.map_or("unknown".to_owned(), |quality| quality.to_string());
            (ExclusionReason::Quality, format!("its quality is {quality}"))
        }
        Reason::Unfit(Unfit::Cost(cost)) => {
            let cost = cost.map_or("unknown".to_owned(), dollars);
            (ExclusionReason::Cost, format!("its expected cost is {cost}"))
        }
        Reason::Blocked(Block::Forced) => {
            (ExclusionReason::ForcedOpen, "an operator opened its breaker".into())
        }
        Reason::Blocked(Block::Quarantine(reason, _)) => {
            (ExclusionReason::Quarantine, reason.describe().into())
        }
        Reason::Blocked(Block::Gate(_)) => (ExclusionReason::RateGate, "it asked for fewer requests".into()),
        Reason::Blocked(Block::Breaker(_)) => {
            (ExclusionReason::BreakerOpen, "its breaker is open, or a probe is on its way".into())
        }
        Reason::Blocked(Block::Limit(limit)) => {
            let limit = match limit {
                LimitKind::InFlight => "max_in_flight",
                LimitKind::Requests => "requests_per_minute",
                LimitKind::Tokens => "tokens_per_minute",
            };
            (ExclusionReason::Limit, format!("its configured limit {limit} is used up"))
        }
        Reason::Blocked(Block::LearnedCap(_)) => (
            ExclusionReason::LearnedCap,
            "its refusals or rate-limit headers taught that it takes no more now".into(),
        ),
        Reason::Blocked(Block::Fleet(_)) => (
            ExclusionReason::FleetBreaker,
            "the fleet's breaker is open: other agents saw it fail, and at most one probes".into(),
        ),
        Reason::Slo => (ExclusionReason::Slo, "it is predicted to miss an objective".into()),
        Reason::ZeroWeight => (ExclusionReason::ZeroWeight, "its weight is 0 and others are there".into()),
    }
}

/// The breaker as shown; an operator's word rules.
pub const fn breaker_state(view: &BreakerView) -> BreakerState {
    match (view.forced, view.state) {
        (Some(Forced::Open), _) => BreakerState::ForcedOpen,
        (Some(Forced::Closed), _) => BreakerState::ForcedClosed,
        (None, State::Closed) => BreakerState::Closed,
        (None, State::Open { .. }) => BreakerState::Open,
        (None, State::HalfOpen { .. }) => BreakerState::HalfOpen,
        (None, State::Ramping { .. }) => BreakerState::Ramping,
    }
}

/// The distribution that a decision shows, target by target in the order of the
/// configuration: whose turn it is does not change it.
pub fn route_state(
    table: &RoutingTable,
    model: &VirtualModel,
    decision: &Decision,
    state: impl Fn(DeploymentIndex) -> BreakerState,
) -> RouteState {
    let share = |deployment: DeploymentIndex, tier: usize| {
        let found = decision.candidates.iter().find(|one| one.deployment == deployment && one.tier == tier);
        found.map_or(0.0, |candidate| candidate.probability)
    };
    let targets = model
        .tiers
        .iter()
        .enumerate()
        .flat_map(|(tier, places)| places.targets.iter().map(move |target| (tier, target.deployment)));
    let targets = targets.map(|(tier, deployment)| TargetState {
        deployment: table.deployment(deployment).name.to_string(),
        tier: tier as u32,
        share: share(deployment, tier),
        breaker_state: state(deployment).into(),
    });
    RouteState {
        model: model.name.to_string(),
        strategy: wire_strategy(model.strategy).into(),
        targets: targets.collect(),
    }
}

/// The wire's strategy.
pub const fn wire_strategy(strategy: Strategy) -> v1::Strategy {
    match strategy {
        Strategy::RoundRobin => v1::Strategy::RoundRobin,
        Strategy::Weighted => v1::Strategy::Weighted,
        Strategy::Latency => v1::Strategy::Latency,
        Strategy::Cost => v1::Strategy::Cost,
        Strategy::Balanced => v1::Strategy::Balanced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_exact_and_garbage_is_refused() {
        assert_eq!(usd("0.02"), Some(NanoUsd(20_000_000)));
        assert_eq!(usd("12"), Some(NanoUsd(12_000_000_000)));
        for garbage in ["", ".", "-1", "1e3", "NaN", "0.0000000001", "99999999999999999999"] {
            assert_eq!(usd(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn a_route_request_is_checked() {
        let request = RouteRequest { require: vec!["tols".into()], ..RouteRequest::default() };
        assert_eq!(route_profile(&request, 0).unwrap_err().0, "require[0]");
        let request = RouteRequest { min_quality: Some(f64::NAN), ..RouteRequest::default() };
        assert_eq!(route_profile(&request, 0).unwrap_err().0, "min_quality");
        let request = RouteRequest { max_cost_usd: "cheap".into(), ..RouteRequest::default() };
        assert_eq!(route_profile(&request, 0).unwrap_err().0, "max_cost_usd");
    }
}
