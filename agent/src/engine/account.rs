//! The account of one request: decision, attempts, tokens, costs.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use trunkline_routing::{
    classify::OutcomeClass, decide::Decision, money::Tokens, request::AttemptId, time::Timestamp,
};

use super::Job;
use crate::{
    control::{AttemptSample, UsageSource},
    decisions::{AttemptRecord, DecisionRecord},
    metrics::AttemptLabels,
    shared::Shared,
};

/// Grows while the request runs; kept for ExplainDecision at its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) id: String,
    pub(crate) at: Timestamp,
    pub(crate) decision: Decision,
    pub(crate) over_budget: Option<String>,
    pub(crate) attempts: Vec<AttemptRecord>,
    pub(crate) chosen: Option<AttemptId>,
}

impl Trace {
    pub(super) fn new(shared: &Shared, decision: Decision, at: Timestamp) -> Self {
        Self { id: shared.next_decision_id(), at, decision, ..Self::default() }
    }

    /// An attempt is over.
    pub(super) fn close(
        &mut self,
        shared: &Shared,
        job: &Job,
        id: AttemptId,
        class: OutcomeClass,
        status: u16,
        used: Option<(Tokens, UsageSource)>,
    ) {
        let record = &mut self.attempts[id.0 as usize];
        close(shared, job, record, class, status, used, Some(Duration::ZERO));
    }

    /// Hands the decision to those who may ask for it.
    pub(super) fn keep(&mut self, shared: &Shared, job: &Job) -> Arc<Mutex<DecisionRecord>> {
        let chosen = self.chosen.map(|id| self.attempts[id.0 as usize].deployment);
        shared.decisions.keep(DecisionRecord {
            id: self.id.clone(),
            snapshot: Arc::clone(&job.snapshot),
            goal: job.goal,
            at: self.at,
            tenant: job.tenant.clone(),
            tags: job.tags.clone(),
            decision: self.decision.clone(),
            over_budget: self.over_budget.clone(),
            profile: job.profile,
            attempts: self.attempts.clone(),
            chosen,
            reports: None,
        })
    }

    /// `openai/gpt-4o-mini:503,anthropic/claude:ok`. An attempt that is not over says
    /// ok if it won.
    pub(crate) fn attempts_header(&self, job: &Job) -> String {
        let mut text = String::new();
        for (at, attempt) in self.attempts.iter().enumerate() {
            let separator = if at == 0 { "" } else { "," };
            let name = job.snapshot.deployment_name(attempt.deployment);
            let won = self.chosen == Some(AttemptId(at as u32));
            text.push_str(separator);
            text.push_str(name);
            text.push(':');
            match attempt.class {
                None | Some(OutcomeClass::Ok) if won => text.push_str("ok"),
                Some(_) if attempt.status >= 300 => text.push_str(&attempt.status.to_string()),
                Some(class) => text.push_str(class.name()),
                None => text.push_str("running"),
            }
        }
        text
    }

    /// The drills that took hold of attempts, each once; empty: none did.
    pub(crate) fn faults(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for name in self.attempts.iter().filter_map(|attempt| attempt.fault.as_deref()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(",")
    }

    /// The attempt whose answer the caller gets.
    pub(crate) fn winner(&self) -> Option<&AttemptRecord> {
        self.chosen.map(|id| &self.attempts[id.0 as usize])
    }
}

/// An attempt is over: its record, telemetry and metrics. Its last data came `waited` ago;
/// None: nobody knows, for it waited for a slow reader.
pub(super) fn close(
    shared: &Shared,
    job: &Job,
    record: &mut AttemptRecord,
    class: OutcomeClass,
    status: u16,
    used: Option<(Tokens, UsageSource)>,
    waited: Option<Duration>,
) {
    let duration = shared.clock.now().since(record.started).saturating_sub(waited.unwrap_or_default());
    // What was charged when it began, whatever the price is by now.
    let prices = &job.snapshot.table().deployment(record.deployment).prices;
    let price = prices.at(shared.clock.unix_ms(record.started));
    let cost = used.and_then(|(tokens, _)| price.map(|price| price.cost(tokens)));
    record.class = Some(class);
    record.status = status;
    record.duration = Some(duration);
    record.tokens = used;
    record.cost = cost;
    let deployment = job.snapshot.deployment_name(record.deployment);
    shared
        .metrics
        .attempts
        .get_or_create(&AttemptLabels { deployment: deployment.to_string(), outcome: class.name() })
        .inc();
    if let Some(fault) = &record.fault {
        shared.metrics.count_faulted(fault, deployment);
    }
    if let Some(ttft) = record.ttft {
        shared.metrics.ttft.observe(ttft.as_secs_f64());
    }
    shared.recorder.record(AttemptSample {
        deployment: Arc::clone(deployment),
        model: Arc::clone(job.snapshot.goal_name(job.goal)),
        outcome: class,
        ttft: record.ttft,
        duration,
        tokens: used,
        cost,
        faulted: record.fault.is_some(),
        was_running: true,
        own_pace: waited.is_some(),
        stream: job.profile.stream,
        input_tokens: job.profile.input_tokens,
        max_output_tokens: job.profile.max_output_tokens,
        in_flight: record.in_flight,
        predicted_ttft: record.predicted_ttft,
    });
}
