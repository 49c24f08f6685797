//! Records of the agent as wire messages.

use std::{collections::HashMap, time::Duration};

use trunkline_proto::{
    convert::{breaker_state, budget_exclusions, candidates, exclusions, wire_outcome, wire_strategy},
    types::v1::{Attempt, AttemptStart, CostSource, Decision, Usage, Version},
};
use trunkline_routing::{eligibility::strategy_of, money::Tokens, request::Start};

use crate::{
    control::UsageSource,
    decisions::{AttemptRecord, DecisionRecord},
    shared::Shared,
};

/// A decision with all that is known of it by now.
pub(super) fn decision(shared: &Shared, record: &DecisionRecord) -> Decision {
    let snapshot = &record.snapshot;
    let table = snapshot.table();
    let route = snapshot.route(record.goal);
    let now = shared.clock.now();
    let registry = shared.registry.lock();
    let state = |deployment| breaker_state(&registry.breaker(&snapshot.binding, deployment, now));
    let (candidates, excluded) = match &record.over_budget {
        None => {
            (candidates(table, route.model, &record.decision, state), exclusions(table, &record.decision))
        }
        Some(why) => (Vec::new(), budget_exclusions(table, &record.decision, why)),
    };
    Decision {
        decision_id: record.id.clone(),
        time: Some(shared.clock.wall(record.at).into()),
        model: snapshot.goal_name(record.goal).to_string(),
        strategy: wire_strategy(strategy_of(route.model, &record.profile)).into(),
        arm: String::new(),
        version: Some(Version { epoch: table.version.epoch.clone(), revision: table.version.revision }),
        candidates,
        excluded,
        attempts: record.attempts.iter().map(|attempt| self::attempt(record, attempt)).collect(),
        chosen: record.chosen.map(|chosen| snapshot.deployment_name(chosen).to_string()).unwrap_or_default(),
        tenant: record.tenant.as_deref().unwrap_or_default().to_owned(),
        tags: record.tags.iter().cloned().collect::<HashMap<_, _>>(),
    }
}

fn attempt(record: &DecisionRecord, attempt: &AttemptRecord) -> Attempt {
    Attempt {
        deployment: record.snapshot.deployment_name(attempt.deployment).to_string(),
        outcome: attempt.class.map_or(0, |class| wire_outcome(class).into()),
        status: attempt.status.into(),
        ttft: attempt.ttft.and_then(wire_duration),
        duration: attempt.duration.and_then(wire_duration),
        usage: attempt.tokens.map(|(tokens, source)| usage(tokens, source)),
        cost_nano_usd: attempt.cost.map(|cost| cost.0),
        started_after: wire_duration(attempt.started.since(record.at)),
        fault: attempt.fault.as_deref().unwrap_or_default().to_owned(),
        start: attempt.why.map_or(AttemptStart::Unspecified, start).into(),
    }
}

const fn start(why: Start) -> AttemptStart {
    match why {
        Start::First => AttemptStart::First,
        Start::Retry => AttemptStart::Retry,
        Start::Beside => AttemptStart::Beside,
        Start::Hedge => AttemptStart::Hedge,
    }
}

/// Tokens and where the numbers come from.
pub(super) fn usage(tokens: Tokens, source: UsageSource) -> Usage {
    let source = match source {
        UsageSource::Provider => CostSource::Provider,
        UsageSource::Estimated => CostSource::Estimated,
    };
    Usage {
        input_tokens: tokens.input,
        cached_input_tokens: tokens.cached_input,
        output_tokens: tokens.output,
        source: source.into(),
    }
}

/// None past what the wire can say: 10,000 years.
pub(super) fn wire_duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}
