//! The one place where refusals become gRPC statuses.

use std::collections::HashMap;

use tonic::Status;
use trunkline_proto::status;

use crate::{
    engine::{FailedAttempt, Refusal, Trace},
    ingress::LocalError,
};

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
        Refusal::NoTarget { retry_after } => status::unavailable(
            "NO_ELIGIBLE_TARGET",
            format!("no target can take this request now; ExplainDecision {decision} tells why"),
            *retry_after,
        ),
        Refusal::Deadline => Status::deadline_exceeded(format!("no answer within the deadline (decision {decision})")),
    }
}

/// What a provider said of the request itself.
fn upstream(failed: &FailedAttempt, decision: &str) -> Status {
    let fields = failed.error.fields();
    let said = fields.message.unwrap_or("the provider refused the request without saying why");
    let metadata = HashMap::from([
        ("decision_id".to_owned(), decision.to_owned()),
        ("http_status".to_owned(), failed.status.to_string()),
        ("code".to_owned(), fields.code.unwrap_or_default().to_owned()),
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
