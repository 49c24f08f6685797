//! The one place where refusals become gRPC statuses.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use trunkline_proto::{convert::Binding, status};

use crate::{
    budgets::OverBudget,
    engine::{FailedAttempt, Refusal, Trace},
    ingress::{LocalError, cut},
};

/// Bytes of a provider's message in a status. Statuses travel in trailers, of which
/// clients take 8 KiB, and what is not ASCII takes three times its bytes there.
const MESSAGE_MAX: usize = 1_024;
/// Bytes of a provider's error code in a status. Real ones are words.
const CODE_MAX: usize = 128;

/// How an answer ended whose first content was already told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The provider broke off.
    Off,
    /// There is content in it that cannot be told.
    Unreadable,
}

/// A stream that has no good end.
pub(super) fn broken(broken: Broken, decision: &str) -> Status {
    match broken {
        Broken::Off => status::unavailable(
            "UPSTREAM_BROKE_OFF",
            format!("the provider broke off the answer after its first content (decision {decision})"),
            None,
        ),
        Broken::Unreadable => unreadable(decision),
    }
}

/// An answer that came, and cannot be told.
pub(super) fn unreadable(decision: &str) -> Status {
    let metadata = HashMap::from([("decision_id".to_owned(), decision.to_owned())]);
    Status::with_error_details(
        Code::DataLoss,
        format!("the provider's answer has content in a form that cannot be read (decision {decision})"),
        ErrorDetails::with_error_info("UPSTREAM_UNREADABLE", "trunkline", metadata),
    )
}

/// A refusal of the engine.
pub(super) fn refusal(refusal: &Refusal, trace: &Trace) -> Status {
    let decision = &trace.id;
    match refusal {
        Refusal::Upstream(failed) => upstream(failed, decision),
        Refusal::Exhausted { retry_after, rate_limited: true } => status::resource_exhausted(
            "RATE_LIMITED",
            format!("every target asked for fewer requests (decision {decision})"),
            *retry_after,
        ),
        Refusal::Exhausted { retry_after, rate_limited: false } => status::unavailable(
            "UPSTREAM_EXHAUSTED",
            format!("every attempt that was allowed failed; ExplainDecision {decision} tells how"),
            *retry_after,
        ),
        Refusal::Budget(over) => over_budget(over, decision),
        Refusal::NoTarget { retry_after, binding } => no_target(*retry_after, binding.as_deref(), decision),
        Refusal::Deadline => {
            Status::deadline_exceeded(format!("no answer within the deadline (decision {decision})"))
        }
    }
}

/// There is no money for it.
pub(super) fn over_budget(over: &OverBudget, decision: &str) -> Status {
    let message = format!("{} (decision {decision})", over.message());
    status::resource_exhausted("BUDGET_EXCEEDED", message, over.retry_after())
}

/// Nothing may serve the request; it says what stands in the way, and where.
fn no_target(retry_after: Option<Duration>, binding: Option<&Binding>, decision: &str) -> Status {
    let mut metadata = HashMap::from([("decision_id".to_owned(), decision.to_owned())]);
    let mut message = format!("no target can take this request now; ExplainDecision {decision} tells why");
    if let Some(Binding { constraint, deployment, detail, .. }) = binding {
        message = format!(
            "no target can take this request: {constraint} leaves out {deployment:?}, the nearest: {detail} (decision {decision})"
        );
        let told = [("constraint", constraint), ("deployment", deployment), ("detail", detail)];
        metadata.extend(told.map(|(key, value)| (key.to_owned(), value.clone())));
    }
    let mut details = ErrorDetails::with_error_info("NO_ELIGIBLE_TARGET", "trunkline", metadata);
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Status::with_error_details(Code::Unavailable, message, details)
}

/// What a provider said of the request itself.
fn upstream(failed: &FailedAttempt, decision: &str) -> Status {
    let fields = failed.error.fields();
    let said = fields.message.map(|message| cut(message, MESSAGE_MAX));
    let said = said.unwrap_or(Cow::Borrowed("the provider refused the request without saying why"));
    let metadata = HashMap::from([
        ("decision_id".to_owned(), decision.to_owned()),
        ("http_status".to_owned(), failed.status.to_string()),
        ("code".to_owned(), cut(fields.code.unwrap_or_default(), CODE_MAX).into_owned()),
    ]);
    match failed.status {
        200 | 400 | 404 | 405 | 413 | 415 | 422 => status::upstream_invalid(said, metadata),
        _ => status::failed_precondition("UPSTREAM_REFUSED", said, metadata),
    }
}

/// A refusal before the engine, which HTTP shares.
pub(super) fn local(error: &LocalError) -> Status {
    match error.status.as_u16() {
        401 => Status::unauthenticated(error.message.clone()),
        403 => Status::permission_denied(error.message.clone()),
        404 => status::not_found("model", error.model().unwrap_or_default()),
        503 => status::unavailable("NOT_READY", error.message.clone(), error.retry_after),
        _ => status::invalid_field(error.param.as_deref().unwrap_or("request"), &error.message),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use trunkline_routing::classify::classify;

    use super::*;
    use crate::openai::error_body;

    #[test]
    fn long_texts_are_cut() {
        let body = format!(r#"{{"error":{{"message":"{}","code":"{0}"}}}}"#, "é".repeat(9_000));
        let error = error_body::parse(body.as_bytes());
        let classified = classify(400, &error.fields(), None);
        let failed = FailedAttempt {
            classified,
            status: 400,
            headers: HeaderMap::new(),
            body: Bytes::from(body),
            error,
            usage: None,
        };
        let status = upstream(&failed, "d");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().len() <= MESSAGE_MAX && status.message().ends_with('…'), "{status}");
        assert!(status.details().len() < 2 * MESSAGE_MAX, "{}", status.details().len());
        let status = local(&LocalError::unknown_model(&"m".repeat(9_000)));
        assert!(status.message().len() < 512 && status.details().len() < 1_024, "{status}");
    }

    #[test]
    fn answer_that_cannot_be_read_is_data_loss() {
        let status = broken(Broken::Unreadable, "d1");
        assert_eq!(status.code(), Code::DataLoss);
        assert_eq!(status.get_details_error_info().unwrap().reason, "UPSTREAM_UNREADABLE");
        assert_eq!(broken(Broken::Off, "d1").code(), Code::Unavailable);
    }
}
