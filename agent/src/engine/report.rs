//! An attempt that the app made itself, after Route: it counts like one of ours.

use std::sync::Arc;

use parking_lot::Mutex;
use trunkline_proto::convert::Reported;
use trunkline_routing::{
    classify::OutcomeClass, eligibility::Profile, table::DeploymentIndex, tenant::Tenant, trace::Beginning,
    train::route_id,
};

use super::observation;

use crate::{
    control::{AttemptSample, UsageSource},
    decisions::{AttemptRecord, DecisionRecord},
    shared::Shared,
};

/// Reports on one decision beyond this are not kept with it, only counted.
const ATTEMPTS_KEPT: usize = 32;

/// Feeds breaker, gate, quarantine and telemetry.
pub(crate) fn report(
    shared: &Shared,
    record: &Mutex<DecisionRecord>,
    deployment: DeploymentIndex,
    report: &Reported,
) {
    let mut record = record.lock();
    let snapshot = Arc::clone(&record.snapshot);
    let now = shared.clock.now();
    let name = snapshot.deployment_name(deployment);
    let duration = report.duration.unwrap_or_default();
    let usage = report.tokens.map(|tokens| (tokens, UsageSource::Provider));
    let model = snapshot.goal_name(record.goal);
    let beginning = Beginning {
        table: snapshot.binding.number(),
        deployment,
        lease: None,
        reported: true,
        tokens: 0,
        tenant: Tenant::of(record.tenant.as_deref()),
        route: route_id(model),
        session: record.profile.session,
    };
    let opened = {
        let mut registry = shared.registry.lock();
        registry.begin(&snapshot.binding, &beginning, now).is_some_and(|ticket| {
            let opened = registry.learn(ticket, now, &report.classified);
            // A time that was not told teaches nothing.
            if report.class == OutcomeClass::Ok
                && let Some((tokens, duration)) = report.tokens.zip(report.duration)
            {
                let ttft = report.ttft.unwrap_or(duration);
                let profile = Profile { stream: report.ttft.is_some(), ..record.profile };
                registry.observe(ticket, now, &observation(&profile, tokens, ttft, duration));
            }
            opened
        })
    };
    if opened {
        shared.opened(name, model);
    }
    shared.protections_changed.notify_one();
    let started = now - duration;
    let price = snapshot.table().deployment(deployment).prices.at(shared.clock.unix_ms(started));
    let cost = report.tokens.and_then(|tokens| price.map(|price| price.cost(tokens)));
    if let Some(cost) = cost {
        shared.budgets.charge(record.tenant.as_deref(), snapshot.virtual_model(record.goal), cost);
    }
    shared.recorder.record(AttemptSample {
        deployment: Arc::clone(name),
        model: Arc::clone(model),
        outcome: report.class,
        ttft: report.ttft,
        duration,
        tokens: usage,
        cost,
        faulted: false,
        was_running: false,
        own_pace: true,
        stream: report.ttft.is_some(),
        input_tokens: record.profile.input_tokens,
        max_output_tokens: record.profile.max_output_tokens,
        in_flight: 0,
        predicted_ttft: None,
    });
    if report.class == OutcomeClass::Ok {
        record.chosen = Some(deployment);
    }
    if record.attempts.len() < ATTEMPTS_KEPT {
        record.attempts.push(AttemptRecord {
            deployment,
            class: Some(report.class),
            status: report.status,
            started,
            ttft: report.ttft,
            duration: Some(duration),
            tokens: usage,
            cost,
            fault: None,
            why: None,
            in_flight: 0,
            predicted_ttft: None,
        });
    }
}
