//! What came of attempts, between the decision core and the wire, and what services
//! report of calls they made themselves.

use std::time::Duration;

use trunkline_routing::{
    classify::{
        BodyFault, Classified, ErrorFields, OutcomeClass, TransportFault, classify, classify_body,
        classify_mid_stream, classify_transport,
    },
    money::Tokens,
};

use crate::{routing::v1::ReportOutcomeRequest, types::v1};

/// A report on a call that a service made itself.
#[derive(Clone, Debug)]
pub struct Reported {
    /// What came of it.
    pub class: OutcomeClass,
    /// What that means.
    pub classified: Classified,
    /// HTTP status; 0: not told.
    pub status: u16,
    /// Until first content.
    pub ttft: Option<Duration>,
    /// Until its end.
    pub duration: Option<Duration>,
    /// What it used.
    pub tokens: Option<Tokens>,
}

/// Checks a report, but for its decision and deployment.
///
/// # Errors
/// The field and what is wrong with it.
pub fn reported(report: &ReportOutcomeRequest) -> Result<Reported, (&'static str, &'static str)> {
    let duration = |field, given: Option<prost_types::Duration>| {
        given.map(|given| Duration::try_from(given).map_err(|_| (field, "must not be negative"))).transpose()
    };
    let class = reported_class(report)?;
    let retry_after = duration("retry_after", report.retry_after)?;
    Ok(Reported {
        class,
        classified: classified(class, retry_after),
        status: u16::try_from(report.status).unwrap_or(0),
        ttft: duration("ttft", report.ttft)?,
        duration: duration("duration", report.duration)?,
        tokens: report.usage.as_ref().map(|usage| Tokens {
            input: usage.input_tokens,
            cached_input: usage.cached_input_tokens,
            output: usage.output_tokens,
        }),
    })
}

fn reported_class(report: &ReportOutcomeRequest) -> Result<OutcomeClass, (&'static str, &'static str)> {
    let given = v1::OutcomeClass::try_from(report.outcome);
    if let Some(class) = outcome(given.map_err(|_| ("outcome", "is not a known OutcomeClass"))?) {
        return Ok(class);
    }
    let status = u16::try_from(report.status).ok().filter(|status| (100..600).contains(status));
    let status =
        status.ok_or(("outcome", "give an outcome, or a status from 100 to 599 to be classified"))?;
    Ok(classify(status, &ErrorFields::default(), None).class)
}

/// The wire's outcome: the same variants.
pub const fn wire_outcome(class: OutcomeClass) -> v1::OutcomeClass {
    match class {
        OutcomeClass::Ok => v1::OutcomeClass::Ok,
        OutcomeClass::Connect => v1::OutcomeClass::Connect,
        OutcomeClass::Reset => v1::OutcomeClass::Reset,
        OutcomeClass::Timeout => v1::OutcomeClass::Timeout,
        OutcomeClass::ServerError => v1::OutcomeClass::ServerError,
        OutcomeClass::Unavailable => v1::OutcomeClass::Unavailable,
        OutcomeClass::Overloaded => v1::OutcomeClass::Overloaded,
        OutcomeClass::RateLimited => v1::OutcomeClass::RateLimited,
        OutcomeClass::Auth => v1::OutcomeClass::Auth,
        OutcomeClass::Quota => v1::OutcomeClass::Quota,
        OutcomeClass::ModelNotFound => v1::OutcomeClass::ModelNotFound,
        OutcomeClass::InvalidRequest => v1::OutcomeClass::InvalidRequest,
        OutcomeClass::ContextLength => v1::OutcomeClass::ContextLength,
        OutcomeClass::ContentFilter => v1::OutcomeClass::ContentFilter,
        OutcomeClass::Malformed => v1::OutcomeClass::Malformed,
        OutcomeClass::Empty => v1::OutcomeClass::Empty,
        OutcomeClass::MidStream => v1::OutcomeClass::MidStream,
        OutcomeClass::Cancelled => v1::OutcomeClass::Cancelled,
        OutcomeClass::Overtaken => v1::OutcomeClass::Overtaken,
        OutcomeClass::Transient => v1::OutcomeClass::Transient,
        OutcomeClass::Misconfigured => v1::OutcomeClass::Misconfigured,
    }
}

/// The core's outcome. None: unspecified.
pub fn outcome(class: v1::OutcomeClass) -> Option<OutcomeClass> {
    OutcomeClass::ALL.into_iter().find(|known| wire_outcome(*known) == class)
}

/// What a reported outcome means to breaker, gate and quarantine: as if an attempt had
/// ended with the status that stands for it.
fn classified(class: OutcomeClass, retry_after: Option<Duration>) -> Classified {
    let fields = |code| ErrorFields { code: Some(code), ..ErrorFields::default() };
    let status = |status| classify(status, &ErrorFields::default(), retry_after);
    match class {
        OutcomeClass::Ok => status(200),
        OutcomeClass::Connect => classify_transport(TransportFault::Connect),
        OutcomeClass::Reset => classify_transport(TransportFault::Reset),
        OutcomeClass::Timeout => classify_transport(TransportFault::AttemptTimeout),
        OutcomeClass::ServerError => status(500),
        OutcomeClass::Unavailable => status(502),
        OutcomeClass::Overloaded => status(529),
        OutcomeClass::RateLimited => status(429),
        OutcomeClass::Auth => status(401),
        OutcomeClass::Quota => status(402),
        OutcomeClass::ModelNotFound => classify(404, &fields("model_not_found"), retry_after),
        OutcomeClass::ContextLength => classify(400, &fields("context_length_exceeded"), retry_after),
        OutcomeClass::ContentFilter => classify(400, &fields("content_filter"), retry_after),
        OutcomeClass::InvalidRequest => status(400),
        OutcomeClass::Malformed => classify_body(BodyFault::NotJson),
        OutcomeClass::Empty => classify_body(BodyFault::Empty),
        OutcomeClass::MidStream => classify_mid_stream(&ErrorFields::default()),
        OutcomeClass::Cancelled | OutcomeClass::Overtaken => classify_transport(TransportFault::Cancelled),
        OutcomeClass::Transient => status(408),
        OutcomeClass::Misconfigured => status(525),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_wire_value_and_its_own_meaning() {
        for class in OutcomeClass::ALL {
            assert_eq!(outcome(wire_outcome(class)), Some(class));
            let means = classified(class, None).class;
            let expected = if class == OutcomeClass::Overtaken { OutcomeClass::Cancelled } else { class };
            assert_eq!(means, expected);
        }
        assert_eq!(outcome(v1::OutcomeClass::Unspecified), None);
    }
}
