//! Faults that can be switched on over a model, all at once or one per request.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

/// Something a provider can do wrong. Counts are of content chunks of a stream; a
/// unary answer has none, so there the "after tokens" faults strike after half the body.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// An error status.
    Status {
        /// The HTTP status; one that is not 200 to 999 is sent as 500.
        code: u16,
        /// The body.
        body: ErrorBody,
        /// Value of the Retry-After header, sent as it is.
        retry_after: Option<String>,
    },
    /// 200 with an HTML page, as a captive portal or a misled gateway sends.
    Html200,
    /// 200, and the first event (or the unary body) is an error object.
    FirstEventError {
        /// The error's `code`, which providers send as text or as a number.
        code: Value,
    },
    /// The connection is reset (RST) once the request was read.
    Reset,
    /// The connection is reset (RST) after half the answer.
    ResetMidBody,
    /// The request is read and never answered.
    Silent,
    /// A response head and nothing more.
    HeadersThenSilent,
    /// A stream's role chunk and nothing more.
    RoleThenSilent,
    /// The first token takes this long.
    SlowFirstToken(Duration),
    /// The connection is closed (FIN, no final chunk) after so many content chunks.
    CutAfterTokens(u32),
    /// An error event after so many content chunks, then a normal end.
    ErrorAfterTokens(u32),
    /// Nothing more after so many content chunks, with the connection open.
    StallAfterTokens(u32),
    /// 200, a normal end, no content.
    Empty,
    /// A whole stream that ends without `data: [DONE]`.
    MissingDone,
    /// 200 with broken JSON.
    Malformed,
    /// The whole answer in writes of one byte.
    DripBytes,
    /// The connection is closed after the answer without saying so in the head.
    CloseIdle,
}

impl Fault {
    /// An error status with the body and code that OpenAI would send, no Retry-After.
    pub fn status(code: u16) -> Self {
        Self::Status { code, body: ErrorBody::usual(code), retry_after: None }
    }
}

/// The body of an error answer.
#[derive(Clone, Debug, PartialEq)]
pub enum ErrorBody {
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi {
        /// `code`.
        code: Value,
        /// `type`.
        kind: String,
        /// `message`.
        message: String,
    },
    /// Anything else, sent as `application/json` whatever it is.
    Custom(Bytes),
}

impl ErrorBody {
    /// What OpenAI sends with a status.
    pub fn usual(status: u16) -> Self {
        let (code, kind, message) = match status {
            400 => (Value::Null, "invalid_request_error", "The request is not valid."),
            401 => (json!("invalid_api_key"), "invalid_request_error", "Incorrect API key provided."),
            403 => (json!("permission_denied"), "permission_error", "The key may not use this model."),
            404 => (json!("model_not_found"), "invalid_request_error", "The model or path does not exist."),
            413 => (json!("request_too_large"), "invalid_request_error", "The request body is too large."),
            429 => (json!("rate_limit_exceeded"), "requests", "Rate limit reached."),
            503 => (json!("overloaded"), "server_error", "The engine is currently overloaded."),
            _ => (Value::Null, "server_error", "The server had an error while processing the request."),
        };
        Self::OpenAi { code, kind: kind.to_owned(), message: message.to_owned() }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Custom(bytes) => bytes,
            Self::OpenAi { code, kind, message } => error_json(&message, &kind, None, &code),
        }
    }
}

/// An error object in OpenAI's form.
pub(super) fn error_json(message: &str, kind: &str, param: Option<&str>, code: &Value) -> Bytes {
    let error = json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
    Bytes::from(error.to_string())
}
