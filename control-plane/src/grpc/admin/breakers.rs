//! Breakers over the fleet: what agents report and what operators force.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tonic::Status;
use trunkline_proto::{
    admin::v1::{
        AgentBreaker, AgentProtection, Breaker, FleetBreaker, ListBreakersRequest, ListBreakersResponse,
        SetBreakerRequest, SetBreakerResponse,
    },
    convert::written_usd,
    status,
    types::v1::{BreakerState, LocalBreaker, Protection, protection::Kind},
};

use trunkline_routing::fleet::State;

use crate::{
    fleet::Shown,
    grpc::{Context, refuse, wire_duration},
    repository::{VerdictSet, VerdictState},
};

/// Shortest and longest time for which a breaker may be forced.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_hours(30 * 24);

/// A sentence.
const REASON_BYTES_MAX: usize = 256;

pub(super) fn list(context: &Context, request: ListBreakersRequest) -> ListBreakersResponse {
    let state = context.repository.state();
    let verdicts = context.repository.verdicts();
    let mut names: BTreeSet<String> =
        state.table.deployments.iter().map(|one| one.name.to_string()).collect();
    names.extend(verdicts.iter().map(|verdict| verdict.deployment));
    let open = verdicts.fleet().filter(|verdict| verdict.record.state != State::Closed);
    names.extend(open.map(|verdict| verdict.subject));
    let (mut by_deployment, protections) = sort_out(context.registry.protections(SystemTime::now()));
    names.extend(by_deployment.keys().cloned());
    let breakers = names.into_iter().map(|name| {
        let agents = by_deployment.remove(&name).unwrap_or_default();
        describe(context, name, agents, &verdicts)
    });
    let active = |breaker: &Breaker| breaker.state() != BreakerState::Closed || !breaker.agents.is_empty();
    let breakers = breakers.filter(|breaker| !request.active_only || active(breaker)).collect();
    ListBreakersResponse { breakers, protections }
}

pub(super) async fn set(
    context: &Context,
    principal: String,
    request: SetBreakerRequest,
) -> Result<SetBreakerResponse, Status> {
    let forced = match request.state() {
        BreakerState::ForcedOpen | BreakerState::Open => Some(VerdictState::ForcedOpen),
        BreakerState::ForcedClosed => Some(VerdictState::ForcedClosed),
        BreakerState::Closed => None,
        BreakerState::Unspecified | BreakerState::HalfOpen | BreakerState::Ramping => {
            let right = "must be BREAKER_STATE_FORCED_OPEN, BREAKER_STATE_FORCED_CLOSED, or BREAKER_STATE_CLOSED to end either";
            return Err(status::invalid_field("state", right));
        }
    };
    let ttl = request.ttl.map(time_to_live).transpose()?;
    if ttl.is_some() && forced.is_none() {
        return Err(status::invalid_field("ttl", "has no meaning with BREAKER_STATE_CLOSED; leave it out"));
    }
    if request.reason.len() > REASON_BYTES_MAX {
        return Err(status::invalid_field("reason", &format!("must have at most {REASON_BYTES_MAX} bytes")));
    }
    let name = request.deployment;
    let known = context.repository.state().table.deployment_by_name(&name).is_some();
    // A deployment that was removed can still be given back.
    if !known && (forced.is_some() || context.repository.verdicts().get(&name).is_none()) {
        return Err(status::not_found("deployment", &name));
    }
    let forced = forced.map(|state| (state, ttl));
    let outcome = context.repository.set_verdict(name.clone(), forced, request.reason, principal).await;
    outcome.map_err(|error| refuse::commit(&error))?;
    tracing::info!(deployment = name, ?forced, "breaker set by an operator");
    let (mut by_deployment, _) = sort_out(context.registry.protections(SystemTime::now()));
    let agents = by_deployment.remove(&name).unwrap_or_default();
    Ok(SetBreakerResponse { breaker: Some(describe(context, name, agents, &context.repository.verdicts())) })
}

fn time_to_live(ttl: prost_types::Duration) -> Result<Duration, Status> {
    let ttl = Duration::try_from(ttl).ok().filter(|ttl| (TTL_MIN..=TTL_MAX).contains(ttl));
    ttl.ok_or_else(|| status::invalid_field("ttl", "must be 1 s to 30 days; leave it out for no end"))
}

/// Breakers that are not closed, by deployment; gates and quarantines apart.
fn sort_out(all: Vec<(String, Protection)>) -> (BTreeMap<String, Vec<AgentBreaker>>, Vec<AgentProtection>) {
    let mut breakers: BTreeMap<String, Vec<AgentBreaker>> = BTreeMap::new();
    let mut others = Vec::new();
    for (agent_id, protection) in all {
        match protection.kind {
            Some(Kind::Breaker(breaker)) if breaker.state() != BreakerState::Closed => {
                let breaker = AgentBreaker { agent_id, breaker: Some(breaker) };
                breakers.entry(protection.subject).or_default().push(breaker);
            }
            Some(Kind::RateGate(_) | Kind::Quarantine(_)) => {
                others.push(AgentProtection { agent_id, protection: Some(protection) });
            }
            Some(Kind::Breaker(_)) | None => {}
        }
    }
    others.sort_by(|one, other| subject(one).cmp(subject(other)));
    (breakers, others)
}

fn subject(protection: &AgentProtection) -> &str {
    protection.protection.as_ref().map_or("", |protection| &protection.subject)
}

fn describe(
    context: &Context,
    deployment: String,
    agents: Vec<AgentBreaker>,
    verdicts: &VerdictSet,
) -> Breaker {
    let verdict = verdicts.get(&deployment);
    let fleet = context.fleet.shown(&deployment);
    let found = fleet_breaker(fleet);
    let reported = agents.iter().filter_map(|agent| agent.breaker.as_ref()).map(LocalBreaker::state);
    let reported = reported.chain([found.state()]);
    let worst = reported.max_by_key(|state| badness(*state)).unwrap_or(BreakerState::Closed);
    let state = verdict.as_ref().map_or(worst, |verdict| match verdict.state {
        VerdictState::ForcedOpen => BreakerState::ForcedOpen,
        VerdictState::ForcedClosed => BreakerState::ForcedClosed,
    });
    let generation = verdicts.generation(&deployment);
    let end = verdict.as_ref().and_then(|verdict| verdict.expires_unix_ms);
    let expire_time = end.map(|end| (UNIX_EPOCH + Duration::from_millis(end)).into());
    let why_open = || {
        let found = verdicts.fleet_of(&deployment)?;
        (found.record.state != State::Closed).then(|| found.record.reason.into())
    };
    let reason = verdict.map(|verdict| verdict.reason).or_else(why_open).unwrap_or_default();
    Breaker { deployment, state: state.into(), agents, expire_time, reason, generation, fleet: Some(found) }
}

fn fleet_breaker(shown: Shown) -> FleetBreaker {
    let Shown { status, remaining, prober, checks_cost } = shown;
    let (state, admit_percent) = match status.state {
        State::Closed => (BreakerState::Closed, 0),
        State::Open => (BreakerState::Open, 0),
        State::HalfOpen => (BreakerState::HalfOpen, 0),
        State::Ramping(percent) => (BreakerState::Ramping, percent.into()),
    };
    FleetBreaker {
        state: state.into(),
        openings: status.openings,
        remaining: remaining.map(wire_duration),
        admit_percent,
        prober: prober.unwrap_or_default(),
        evidence: status.evidence,
        health_checks_usd: if checks_cost.0 == 0 { String::new() } else { written_usd(checks_cost.0) },
    }
}

/// How much less than all traffic goes through.
fn badness(state: BreakerState) -> u8 {
    match state {
        BreakerState::ForcedOpen => 5,
        BreakerState::Open => 4,
        BreakerState::HalfOpen => 3,
        BreakerState::Ramping => 2,
        BreakerState::Closed => 1,
        BreakerState::ForcedClosed | BreakerState::Unspecified => 0,
    }
}
