//! ReportOutcome: what a service says came of its own call.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;
use tonic::Status;
use trunkline_proto::{
    convert::{reported, wire_outcome},
    routing::v1::ReportOutcomeRequest,
    status,
    telemetry::v1::AttemptSample,
    types::v1::{Attempt, Decision, OutcomeClass as WireOutcome},
};
use trunkline_routing::{classify::Classified, table::RoutingTable};

use super::unix_ms;
use crate::{
    learning::Lesson,
    stats::{Key, totals::Totals},
};

/// A report that was checked.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) classified: Classified,
    pub(super) attempt: Attempt,
    key: Key,
}

impl Outcome {
    pub(super) fn parse(
        request: &ReportOutcomeRequest,
        decision: &Decision,
        table: &RoutingTable,
    ) -> Result<Self, Status> {
        if !decision.candidates.iter().any(|candidate| candidate.deployment == request.deployment) {
            return Err(status::invalid_field("deployment", "is not one of the decision's candidates"));
        }
        let said = reported(request).map_err(|(field, problem)| status::invalid_field(field, problem))?;
        // What was charged when the call began.
        let began = unix_ms(said.duration.unwrap_or_default());
        let price = table
            .deployment_by_name(&request.deployment)
            .and_then(|index| table.deployment(index).prices.at(began));
        let cost = said.tokens.and_then(|tokens| price.map(|price| price.cost(tokens).0));
        let attempt = Attempt {
            deployment: request.deployment.clone(),
            outcome: wire_outcome(said.class).into(),
            status: request.status,
            ttft: request.ttft,
            duration: request.duration,
            usage: request.usage,
            cost_nano_usd: cost,
            started_after: None,
            fault: String::new(),
            // The service made it.
            start: 0,
        };
        let key = Key { deployment: request.deployment.clone(), model: decision.model.clone() };
        Ok(Self { classified: said.classified, attempt, key })
    }

    /// What is learned from it: the service is one agent more, without a name.
    pub(super) fn lesson(&self) -> Lesson {
        let usage = self.attempt.usage.unwrap_or_default();
        let sample = AttemptSample {
            deployment: self.key.deployment.clone(),
            model: self.key.model.clone(),
            outcome: self.attempt.outcome,
            started_before_end: self.attempt.duration,
            duration: self.attempt.duration,
            ttft: self.attempt.ttft,
            input_tokens: usage.input_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            output_tokens: usage.output_tokens,
            ..AttemptSample::default()
        };
        Lesson {
            agent_id: String::new(),
            received: Instant::now(),
            samples: vec![sample],
            running: HashMap::new(),
        }
    }

    /// What statistics count.
    pub(super) fn counts(&self, opened: bool) -> HashMap<Key, Totals> {
        let mut totals = Totals { breaker_openings: u64::from(opened), ..Totals::default() };
        totals.count(self.attempt.outcome(), 1);
        if let Some(usage) = &self.attempt.usage {
            totals.input_tokens = usage.input_tokens;
            totals.cached_input_tokens = usage.cached_input_tokens;
            totals.output_tokens = usage.output_tokens;
            totals.usage_from_provider = 1;
            totals.cost_nano_usd = self.attempt.cost_nano_usd.unwrap_or(0);
            totals.unpriced = u64::from(self.attempt.cost_nano_usd.is_none());
        }
        if self.attempt.outcome() == WireOutcome::Ok {
            for (histogram, given) in
                [(&mut totals.ttft, self.attempt.ttft), (&mut totals.duration, self.attempt.duration)]
            {
                if let Some(Ok(duration)) = given.map(Duration::try_from) {
                    histogram.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
                }
            }
        }
        HashMap::from([(self.key.clone(), totals)])
    }
}
