//! What is said to who may not.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::roles::{Allowed, Role};

/// Why a call does not reach its service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing was presented.
    Missing { app: bool },
    /// Nobody holds what was presented.
    Unknown { app: bool },
    /// The header is there more than once: somebody before us may have read another.
    Twice,
    /// The role may not.
    Forbidden { role: Role, allowed: Allowed },
    /// No app may, before there are keys for apps.
    NoAppKeys,
    /// There is no such call.
    NoSuchCall,
}

impl Refusal {
    /// Its place in the metric.
    pub(super) const fn reason(&self) -> RefusalReason {
        match self {
            Self::Missing { .. } => RefusalReason::missing,
            Self::Unknown { .. } | Self::Twice => RefusalReason::unknown,
            Self::Forbidden { .. } => RefusalReason::forbidden,
            Self::NoAppKeys => RefusalReason::no_app_keys,
            Self::NoSuchCall => RefusalReason::no_such_call,
        }
    }

    /// Whether it may be somebody who tries tokens.
    pub(super) const fn is_guess(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Unknown { .. } | Self::Twice)
    }

    pub(super) fn status(&self, path: &str) -> Status {
        let call = path.trim_start_matches('/');
        match self {
            Self::Missing { app: true } => {
                unauthenticated("an API key is required, as `authorization: Bearer KEY` or `x-api-key: KEY`")
            }
            Self::Unknown { app: true } => unauthenticated(
                "nobody has this API key; keys are the `api_keys` of the configuration, by their SHA-256",
            ),
            Self::Missing { app: false } => {
                unauthenticated("a token is required, as `authorization: Bearer TOKEN`")
            }
            Self::Unknown { app: false } => unauthenticated(
                "nobody has this token; tokens are lines of the files that the control plane was started with",
            ),
            Self::Twice => unauthenticated("the token is there more than once; send it once"),
            Self::NoAppKeys => unauthenticated(
                "apps need keys on a listener beyond loopback, and none are configured: add `api_keys` to the configuration",
            ),
            Self::Forbidden { role, allowed } => {
                let message = format!("role {role} may not call {call}; roles that may: {allowed}");
                let metadata = HashMap::from([
                    ("role".to_owned(), role.to_string()),
                    ("allowed_roles".to_owned(), allowed.to_string()),
                ]);
                status(Code::PermissionDenied, "ROLE_NOT_ALLOWED", message, metadata)
            }
            Self::NoSuchCall => {
                let message = "there is no such call; reflection lists those that there are".to_owned();
                status(Code::Unimplemented, "NO_SUCH_CALL", message, HashMap::new())
            }
        }
    }
}

/// Label of the metric.
#[derive(Clone, Debug, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are label values")]
pub(crate) enum RefusalReason {
    missing,
    unknown,
    forbidden,
    no_app_keys,
    no_such_call,
}

/// The token of a stream was withdrawn while it ran.
pub(super) fn withdrawn() -> Status {
    unauthenticated("the token of this stream is not valid any more")
}

/// An agent with the token of another.
pub(super) fn other_agent(own: &str, said: &str) -> Status {
    let message = format!(
        "this token is for agent {own:?}, and the agent says it is {said:?}: give it --agent-id {own}, or a token of its own"
    );
    let metadata = HashMap::from([("agent_id".to_owned(), own.to_owned())]);
    status(Code::PermissionDenied, "OTHER_AGENT", message, metadata)
}

fn unauthenticated(message: &str) -> Status {
    // As HTTP's WWW-Authenticate says it.
    let metadata = HashMap::from([("www-authenticate".to_owned(), "Bearer".to_owned())]);
    status(Code::Unauthenticated, "UNAUTHENTICATED", message.to_owned(), metadata)
}

fn status(code: Code, reason: &str, message: String, metadata: HashMap<String, String>) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, "trunkline", metadata))
}
