//! An attempt that the app made itself, after Route: it counts like one of ours.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use trunkline_routing::{
    classify::{Classified, OutcomeClass},
    learn::learn,
    money::Tokens,
    table::DeploymentIndex,
};

use crate::{
    control::{AttemptSample, UsageSource},
    decisions::{AttemptRecord, DecisionRecord},
    shared::Shared,
};

/// Reports on one decision beyond this are not kept with it, only counted.
const ATTEMPTS_KEPT: usize = 32;

/// What the app says came of its attempt.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) deployment: DeploymentIndex,
    pub(crate) class: OutcomeClass,
    pub(crate) classified: Classified,
    pub(crate) status: u16,
    pub(crate) ttft: Option<Duration>,
    pub(crate) duration: Duration,
    pub(crate) usage: Option<(Tokens, UsageSource)>,
}

/// Feeds breaker, gate, quarantine and telemetry.
pub(crate) fn report(shared: &Shared, record: &Mutex<DecisionRecord>, report: &Report) {
    let mut record = record.lock();
    let snapshot = Arc::clone(&record.snapshot);
    let now = shared.clock.now();
    let name = snapshot.deployment_name(report.deployment);
    let model = snapshot.goal_name(record.goal);
    let opened = {
        let mut registry = shared.registry.lock();
        let ticket = registry.begin(&snapshot.binding, report.deployment, now, 0);
        let opened = learn(&mut registry, ticket, now, &report.classified, &mut rand::rng());
        registry.release(ticket);
        opened
    };
    if opened {
        shared.recorder.record_opening(Arc::clone(name), Arc::clone(model));
    }
    shared.protections_changed.notify_one();
    let price = snapshot.table().deployment(report.deployment).price;
    let cost = report.usage.and_then(|(tokens, _)| price.map(|price| price.cost(tokens)));
    shared.recorder.record(AttemptSample {
        deployment: Arc::clone(name),
        model: Arc::clone(model),
        outcome: report.class,
        ttft: report.ttft,
        duration: report.duration,
        tokens: report.usage,
        cost,
    });
    if report.class == OutcomeClass::Ok {
        record.chosen = Some(report.deployment);
    }
    if record.attempts.len() < ATTEMPTS_KEPT {
        record.attempts.push(AttemptRecord {
            deployment: report.deployment,
            class: Some(report.class),
            status: report.status,
            started: now - report.duration,
            ttft: report.ttft,
            duration: Some(report.duration),
            tokens: report.usage,
            cost,
        });
    }
}
