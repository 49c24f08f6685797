//! ReportOutcome: what a service says came of its own call.

use std::{collections::HashMap, time::Duration};

use tonic::Status;
use trunkline_proto::{
    convert::{classified, outcome, wire_outcome},
    routing::v1::ReportOutcomeRequest,
    status,
    types::v1::{Attempt, Decision, OutcomeClass as WireOutcome},
};
use trunkline_routing::{
    classify::{Classified, ErrorFields, OutcomeClass, classify},
    money::Tokens,
    table::RoutingTable,
};

use crate::stats::{Key, totals::Totals};

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
        let class = class(request)?;
        let duration = |field: &str, given: Option<prost_types::Duration>| match given.map(Duration::try_from)
        {
            None => Ok(None),
            Some(Ok(duration)) => Ok(Some(duration)),
            Some(Err(_)) => Err(status::invalid_field(field, "must not be negative")),
        };
        duration("ttft", request.ttft)?;
        duration("duration", request.duration)?;
        let retry_after = duration("retry_after", request.retry_after)?;
        let price =
            table.deployment_by_name(&request.deployment).and_then(|index| table.deployment(index).price);
        let tokens = request.usage.as_ref().map(|usage| Tokens {
            input: usage.input_tokens,
            cached_input: usage.cached_input_tokens,
            output: usage.output_tokens,
        });
        let cost = tokens.and_then(|tokens| price.map(|price| price.cost(tokens).0));
        let attempt = Attempt {
            deployment: request.deployment.clone(),
            outcome: wire_outcome(class).into(),
            status: request.status,
            ttft: request.ttft,
            duration: request.duration,
            usage: request.usage,
            cost_nano_usd: cost,
            started_after: None,
        };
        let key = Key { deployment: request.deployment.clone(), model: decision.model.clone() };
        Ok(Self { classified: classified(class, retry_after), attempt, key })
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

fn class(request: &ReportOutcomeRequest) -> Result<OutcomeClass, Status> {
    let given = WireOutcome::try_from(request.outcome)
        .map_err(|_| status::invalid_field("outcome", "is not a known OutcomeClass"))?;
    if let Some(class) = outcome(given) {
        return Ok(class);
    }
    let http = u16::try_from(request.status).ok().filter(|status| (100..600).contains(status));
    let right = "give an outcome, or a status from 100 to 599 to be classified";
    let http = http.ok_or_else(|| status::invalid_field("outcome", right))?;
    Ok(classify(http, &ErrorFields::default(), None).class)
}
