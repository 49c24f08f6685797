//! What can go wrong, by what the caller can do about it.
//!
//! Built from gRPC statuses and their google.rpc details; no caller needs to look at
//! a status.

use std::{collections::HashMap, error::Error as StdError, time::Duration};

use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be used. Fix it.
    #[error("address '{address}': {problem}")]
    InvalidAddress {
        /// As it was given.
        address: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A setting of the builder can't be used. Fix it.
    #[error("{setting}: {problem}")]
    InvalidSetting {
        /// The builder's method.
        setting: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// No connection. Nothing was sent.
    #[error("can't reach {address}: {problem}")]
    Unreachable {
        /// What was dialled.
        address: String,
        /// What the system said.
        problem: String,
    },
    /// The control plane knows no agent that can serve completions.
    #[error("no agent is connected to the control plane at {address}; start one")]
    NoAgent {
        /// The control plane.
        address: String,
    },
    /// The time was over. The request may have been served.
    #[error("no answer within the deadline of {deadline:?}")]
    DeadlineExceeded {
        /// What was allowed.
        deadline: Duration,
    },
    /// The connection or the stream ended before the answer was whole. The request may
    /// have been served, and paid for.
    #[error("the answer of {address} broke off: {problem}")]
    Interrupted {
        /// Who was answering.
        address: String,
        /// What was seen.
        problem: String,
    },
    /// The request itself is wrong; the same one will fail again.
    #[error("invalid request: {0}")]
    InvalidRequest(Box<Rejection>),
    /// The model or decision does not exist.
    #[error("not found: {0}")]
    NotFound(Box<Rejection>),
    /// The key is missing, unknown, or not allowed to do this.
    #[error("denied: {0}")]
    Denied(Box<Rejection>),
    /// The state of the system forbids it for now.
    #[error("refused: {0}")]
    Refused(Box<Rejection>),
    /// A limit or budget is used up.
    #[error("exhausted: {0}")]
    Exhausted(Box<Rejection>),
    /// No target could answer. A later call may succeed.
    #[error("unavailable: {0}")]
    Unavailable(Box<Rejection>),
    /// Anything else.
    #[error("failed: {0}")]
    Failed(Box<Rejection>),
}

/// What the server said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}{}", self.suffix())]
#[non_exhaustive]
pub struct Rejection {
    /// The gRPC code.
    pub code: Code,
    /// For people.
    pub message: String,
    /// From ErrorInfo: `AGENT_REQUIRED`, `NO_ELIGIBLE_TARGET`, ….
    pub reason: Option<String>,
    /// From ErrorInfo.
    pub metadata: HashMap<String, String>,
    /// From RetryInfo.
    pub retry_after: Option<Duration>,
    /// From BadRequest.
    pub violations: Vec<FieldViolation>,
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// Path of the field, `messages[0].role`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Error {
    /// Whether the same call may succeed later. Wait for [`Error::retry_after`] if
    /// given, else back off. Agents have failed over already: hurry helps nobody.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::NoAgent { .. }
            | Self::Interrupted { .. }
            | Self::Unavailable(_) => true,
            Self::Exhausted(rejection) => rejection.retry_after.is_some(),
            Self::InvalidAddress { .. }
            | Self::InvalidSetting { .. }
            | Self::DeadlineExceeded { .. }
            | Self::InvalidRequest(_)
            | Self::NotFound(_)
            | Self::Denied(_)
            | Self::Refused(_)
            | Self::Failed(_) => false,
        }
    }

    /// How long to wait before the next try, when the server knows.
    pub fn retry_after(&self) -> Option<Duration> {
        self.rejection().and_then(|rejection| rejection.retry_after)
    }

    /// The stable, machine-readable reason, when the server gave one.
    pub fn reason(&self) -> Option<&str> {
        self.rejection().and_then(|rejection| rejection.reason.as_deref())
    }

    /// The gRPC code that names the failure best.
    pub fn code(&self) -> Code {
        match self {
            Self::InvalidAddress { .. } | Self::InvalidSetting { .. } => Code::InvalidArgument,
            Self::Unreachable { .. } | Self::Interrupted { .. } => Code::Unavailable,
            Self::NoAgent { .. } => Code::FailedPrecondition,
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            Self::InvalidRequest(rejection)
            | Self::NotFound(rejection)
            | Self::Denied(rejection)
            | Self::Refused(rejection)
            | Self::Exhausted(rejection)
            | Self::Unavailable(rejection)
            | Self::Failed(rejection) => rejection.code,
        }
    }

    /// What the server said, when it said anything.
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::InvalidRequest(rejection)
            | Self::NotFound(rejection)
            | Self::Denied(rejection)
            | Self::Refused(rejection)
            | Self::Exhausted(rejection)
            | Self::Unavailable(rejection)
            | Self::Failed(rejection) => Some(rejection),
            Self::InvalidAddress { .. }
            | Self::InvalidSetting { .. }
            | Self::Unreachable { .. }
            | Self::NoAgent { .. }
            | Self::DeadlineExceeded { .. }
            | Self::Interrupted { .. } => None,
        }
    }

    /// From a status that `address` gave, or that came up on the way there.
    pub(crate) fn from_status(status: &Status, address: &str, deadline: Duration) -> Self {
        if let Some(error) = find_source::<ConnectError>(status) {
            return Self::unreachable(address, error);
        }
        if find_source::<TimeoutExpired>(status).is_some() {
            return Self::DeadlineExceeded { deadline };
        }
        // What a server says has no source; what the transport says has one.
        if let Some(source) = status.source() {
            let problem = innermost(source).to_string();
            return Self::Interrupted { address: address.to_owned(), problem };
        }
        let rejection = Box::new(Rejection::from_status(status));
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidRequest(rejection),
            Code::NotFound => Self::NotFound(rejection),
            Code::Unauthenticated | Code::PermissionDenied => Self::Denied(rejection),
            Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => Self::Refused(rejection),
            Code::ResourceExhausted => Self::Exhausted(rejection),
            Code::Unavailable => Self::Unavailable(rejection),
            Code::DeadlineExceeded => Self::DeadlineExceeded { deadline },
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Self::Failed(rejection),
        }
    }

    /// With the innermost cause, which is what a person can act on.
    pub(crate) fn unreachable(address: &str, error: &(dyn StdError + 'static)) -> Self {
        let mut innermost = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Self::Unreachable { address: address.to_owned(), problem: innermost.to_string() }
    }
}

impl Rejection {
    fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let violations = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations
                .iter()
                .map(|violation| FieldViolation {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                })
                .collect()
        });
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason: info.map(|info| info.reason.clone()),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            violations,
        }
    }

    /// Fields at fault and the reason, behind the message.
    fn suffix(&self) -> String {
        let mut text = String::new();
        for violation in &self.violations {
            text.push_str("; ");
            text.push_str(&violation.field);
            text.push_str(": ");
            text.push_str(&violation.description);
        }
        if let Some(reason) = &self.reason {
            text.push_str(" (");
            text.push_str(reason);
            text.push(')');
        }
        text
    }
}

fn innermost<'a>(mut error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

fn find_source<T: StdError + 'static>(status: &Status) -> Option<&T> {
    let mut next = status.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn error(status: &Status) -> Error {
        Error::from_status(status, "http://127.0.0.1:7700", Duration::from_secs(1))
    }

    #[test]
    fn details_reach_the_caller() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("NO_ELIGIBLE_TARGET", "trunkline", HashMap::new())
            .set_retry_info(Some(Duration::from_secs(2)));
        let error = error(&Status::with_error_details(Code::Unavailable, "no target", details));
        assert!(matches!(error, Error::Unavailable(_)));
        assert!(error.is_retryable());
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        assert_eq!(error.reason(), Some("NO_ELIGIBLE_TARGET"));
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(error.to_string(), "unavailable: no target (NO_ELIGIBLE_TARGET)");
    }

    #[test]
    fn wrong_fields_are_named() {
        let details = ErrorDetails::with_bad_request_violation("messages", "at least one");
        let error = error(&Status::with_error_details(Code::InvalidArgument, "bad", details));
        assert_eq!(error.to_string(), "invalid request: bad; messages: at least one");
        assert!(!error.is_retryable());
    }

    #[test]
    fn only_what_may_pass_later_is_retryable() {
        let check = |code: Code, expected: bool| {
            assert_eq!(error(&Status::new(code, "x")).is_retryable(), expected, "{code:?}");
        };
        check(Code::Unavailable, true);
        for code in [
            Code::InvalidArgument,
            Code::NotFound,
            Code::Unauthenticated,
            Code::PermissionDenied,
            Code::FailedPrecondition,
            Code::ResourceExhausted,
            Code::DeadlineExceeded,
            Code::Internal,
            Code::Unknown,
            Code::Cancelled,
        ] {
            check(code, false);
        }
    }
}
