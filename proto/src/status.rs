//! gRPC errors with google.rpc details. Each has an ErrorInfo whose reason programs
//! can match on, and at most one detail of a type, as clients expect.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::problems::{Problem, Problems};

/// Domain of all reasons.
const DOMAIN: &str = "trunkline";

/// Bytes of text in a status. It travels twice, in trailers, once as base64, and
/// clients take 8 to 16 KiB of those.
const TEXT_MAX_BYTES: usize = 3_072;

fn details(reason: &str, metadata: HashMap<String, String>) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

/// INVALID_ARGUMENT for a configuration, with a BadRequest that names each field; as
/// many as trailers hold.
pub fn invalid(problems: &Problems) -> Status {
    invalid_fields("INVALID_CONFIGURATION", problems)
}

/// INVALID_ARGUMENT for a request, with a BadRequest that names each field; as many as
/// trailers hold.
pub fn invalid_request(problems: &Problems) -> Status {
    invalid_fields("INVALID_ARGUMENT", problems)
}

fn invalid_fields(reason: &str, problems: &Problems) -> Status {
    let mut details = details(reason, HashMap::new());
    let mut message = String::new();
    let mut shown = 0;
    let total = problems.iter().count() + problems.dropped();
    for Problem { path, message: text } in problems.iter() {
        let line = format!("{path}: {text}");
        if shown > 0 && message.len() + line.len() > TEXT_MAX_BYTES {
            break;
        }
        details.add_bad_request_violation(path, text);
        message.push_str(if shown > 0 { "\n" } else { "" });
        message.push_str(&line);
        shown += 1;
    }
    if shown < total {
        message = format!("{message}\nand {} more", total - shown);
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// INVALID_ARGUMENT for one field.
pub fn invalid_field(field: &str, message: &str) -> Status {
    let mut details = details("INVALID_ARGUMENT", HashMap::new());
    details.add_bad_request_violation(field, message);
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {message}"), details)
}

/// NOT_FOUND. `kind` as in "virtual model".
pub fn not_found(kind: &str, name: &str) -> Status {
    let message = format!("there is no {kind} {name:?}");
    resource(Code::NotFound, "NOT_FOUND", kind, name, message)
}

/// ALREADY_EXISTS.
pub fn already_exists(kind: &str, name: &str) -> Status {
    let message = format!("there is a {kind} {name:?} already");
    resource(Code::AlreadyExists, "ALREADY_EXISTS", kind, name, message)
}

/// ABORTED: the etag is not the stored one. `current` is.
pub fn aborted_etag(kind: &str, name: &str, current: &str) -> Status {
    let mut details =
        details("ETAG_MISMATCH", HashMap::from([("current_etag".to_owned(), current.to_owned())]));
    let message = format!("{kind} {name:?} was changed by somebody else; read it again");
    details.set_resource_info(kind, name, "", &message);
    Status::with_error_details(Code::Aborted, message, details)
}

fn resource(code: Code, reason: &str, kind: &str, name: &str, message: String) -> Status {
    let mut details = details(reason, HashMap::new());
    details.set_resource_info(kind, name, "", &message);
    Status::with_error_details(code, message, details)
}

/// FAILED_PRECONDITION: will fail until somebody changes something else.
pub fn failed_precondition(
    reason: &str,
    message: impl Into<String>,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Status {
    Status::with_error_details(
        Code::FailedPrecondition,
        message,
        details(reason, metadata.into_iter().collect()),
    )
}

/// INVALID_ARGUMENT: a provider found fault with the request itself.
pub fn upstream_invalid(
    message: impl Into<String>,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Status {
    let details = details("UPSTREAM_INVALID_REQUEST", metadata.into_iter().collect());
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// ABORTED for another reason than an etag: read again and repeat.
pub fn aborted(
    reason: &str,
    message: impl Into<String>,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Status {
    Status::with_error_details(Code::Aborted, message, details(reason, metadata.into_iter().collect()))
}

/// OUT_OF_RANGE: what is asked for is not held any more; start anew.
pub fn out_of_range(
    reason: &str,
    message: impl Into<String>,
    metadata: impl IntoIterator<Item = (String, String)>,
) -> Status {
    Status::with_error_details(Code::OutOfRange, message, details(reason, metadata.into_iter().collect()))
}

/// UNAVAILABLE: the same may pass later, after `retry_after` if known.
pub fn unavailable(reason: &str, message: impl Into<String>, retry_after: Option<Duration>) -> Status {
    retryable(Code::Unavailable, reason, message.into(), retry_after)
}

/// RESOURCE_EXHAUSTED: a limit is reached, until `retry_after` if known.
pub fn resource_exhausted(reason: &str, message: impl Into<String>, retry_after: Option<Duration>) -> Status {
    retryable(Code::ResourceExhausted, reason, message.into(), retry_after)
}

fn retryable(code: Code, reason: &str, message: String, after: Option<Duration>) -> Status {
    let mut details = details(reason, HashMap::new());
    if after.is_some() {
        details.set_retry_info(after);
    }
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(status: &Status) -> String {
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.domain, "trunkline");
        info.reason
    }

    #[test]
    fn invalid_names_each_field() {
        let mut problems = Problems::one("providers[0].name", "is required");
        problems.push("providers[1].name", "is required too");
        let status = invalid(&problems);
        assert_eq!(status.code(), Code::InvalidArgument);
        let expect = "providers[0].name: is required\nproviders[1].name: is required too";
        assert_eq!(status.message(), expect);
        assert_eq!(reason(&status), "INVALID_CONFIGURATION");
        let fields = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(fields[1].field, "providers[1].name");
        assert_eq!(fields[1].description, "is required too");
    }

    #[test]
    fn many_problems_fit_into_trailers() {
        let mut problems = Problems::default();
        for _ in 0..1_000 {
            problems.push("providers[0].name", "x".repeat(80));
        }
        let status = invalid(&problems);
        assert!(status.message().len() + status.details().len() * 4 / 3 < 12_000);
        assert!(status.message().ends_with(" more"), "{}", status.message());
    }

    #[test]
    fn resources_are_named() {
        let status = not_found("virtual model", "chat");
        assert_eq!(status.message(), "there is no virtual model \"chat\"");
        assert_eq!(reason(&status), "NOT_FOUND");
        assert_eq!(status.get_details_resource_info().unwrap().resource_name, "chat");
        assert_eq!(reason(&already_exists("provider", "openai")), "ALREADY_EXISTS");
        let status = aborted_etag("provider", "openai", "abc");
        assert_eq!((status.code(), reason(&status)), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
        assert_eq!(status.get_details_error_info().unwrap().metadata["current_etag"], "abc");
    }

    #[test]
    fn when_to_retry_is_said_if_known() {
        let status = unavailable("NO_TARGET", "all breakers are open", Some(Duration::from_secs(2)));
        let delay = status.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(Duration::from_secs(2)));
        let status = resource_exhausted("TOO_MANY_STREAMS", "too many", None);
        assert_eq!(reason(&status), "TOO_MANY_STREAMS");
        assert!(status.get_details_retry_info().is_none());
    }
}
