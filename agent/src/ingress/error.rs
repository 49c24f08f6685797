//! Errors as OpenAI's clients expect them: one file says which status, type and code.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE, header::RETRY_AFTER};
use http_body_util::Full;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use trunkline_proto::convert::Binding;

use super::answer::AgentBody;
use crate::{
    budgets::{OverBudget, Why},
    engine::{FailedAttempt, Refusal},
    openai::scan::ScanError,
};

/// Bytes of a name or path that an error repeats. Longer ones are no names here.
const NAME_SHOWN_MAX: usize = 256;

/// `text`, in at most `max` bytes.
pub(crate) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    const MARK: char = '…';
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max.saturating_sub(MARK.len_utf8()));
    Cow::Owned(format!("{}{MARK}", &text[..end]))
}

/// An error of our own, not a provider's.
#[derive(Debug)]
pub(crate) struct LocalError {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    about: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// Tells the official clients not to try again: we did.
    pub(crate) final_answer: bool,
    binding: Option<Binding>,
}

impl LocalError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            kind,
            code,
            message,
            param: None,
            about: None,
            retry_after: None,
            final_answer: false,
            binding: None,
        }
    }

    fn invalid(code: &'static str, message: impl Into<String>, param: &str) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message);
        Self { param: Some(param.to_owned()), ..error }
    }

    pub(crate) fn key(presented: bool) -> Self {
        let message = if presented {
            "the API key is not one of those configured in api_keys"
        } else {
            "an API key is needed: send it as 'Authorization: Bearer <key>' or 'x-api-key: <key>'"
        };
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key", message)
    }

    pub(crate) fn no_keys() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "authentication_error",
            "no_api_keys",
            "this agent listens beyond loopback, where callers need an API key, and none is configured: add api_keys to the configuration",
        )
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the request body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "request_too_large", message)
    }

    pub(crate) fn body_broke_off() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            "invalid_body",
            "the request body ended before it was complete",
        )
    }

    pub(crate) fn body_too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            "request_timeout",
            "the request body came too slowly, or stopped before it was complete",
        )
    }

    pub(crate) fn scan(error: &ScanError) -> Self {
        match error {
            ScanError::WrongType { field, .. } => Self::invalid("invalid_type", error.to_string(), field),
            ScanError::Repeated { field, .. } => {
                Self::invalid("repeated_parameter", error.to_string(), field)
            }
            ScanError::NotAnObject
            | ScanError::Syntax { .. }
            | ScanError::NotUtf8 { .. }
            | ScanError::TooDeep { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_json", error.to_string())
            }
        }
    }

    pub(crate) fn missing(field: &str) -> Self {
        Self::invalid("missing_required_parameter", format!("the field '{field}' is required"), field)
    }

    pub(crate) fn knob(header: &str, problem: &str) -> Self {
        Self::invalid("invalid_header", format!("header '{header}': {problem}"), header)
    }

    pub(crate) fn unknown_model(model: &str) -> Self {
        let model = cut(model, NAME_SHOWN_MAX);
        let error = Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            "model_not_found",
            format!(
                "the model '{model}' is neither a virtual model nor a 'provider/deployment'; GET /v1/models lists them"
            ),
        );
        Self { param: Some("model".to_owned()), about: Some(model.into_owned()), ..error }
    }

    pub(crate) fn forbidden_model(model: &str) -> Self {
        let model = cut(model, NAME_SHOWN_MAX);
        let error = Self::new(
            StatusCode::FORBIDDEN,
            "permission_error",
            "model_not_allowed",
            format!(
                "this API key may not use the model '{model}'; allowed_models of the key names what it may"
            ),
        );
        Self { param: Some("model".to_owned()), ..error }
    }

    pub(crate) fn not_ready() -> Self {
        let error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable_error",
            "not_ready",
            "no routing table was loaded yet: the control plane was not reached, and nothing is on disk",
        );
        Self { retry_after: Some(Duration::from_secs(1)), ..error }
    }

    pub(crate) fn unknown_path(path: &str) -> Self {
        let path = cut(path, NAME_SHOWN_MAX);
        let message = format!(
            "there is nothing at '{path}'; there are POST /v1/chat/completions, /v1/completions, /v1/embeddings and GET /v1/models"
        );
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "unknown_url", message)
    }

    pub(crate) fn method(allowed: &str) -> Self {
        let message = format!("this path takes {allowed}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", message)
    }

    /// Nothing may serve the request; it says what stands in the way, and where.
    fn no_target(retry_after: Option<Duration>, binding: Option<&Binding>) -> Self {
        let more = "ExplainDecision tells the rest for the id in x-trunkline-decision";
        let message = match binding {
            None => format!("no target can take this request now; {more}"),
            Some(Binding { constraint, deployment, detail, .. }) => format!(
                "no target can take this request: {constraint} leaves out '{deployment}', the nearest: {detail}; {more}"
            ),
        };
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_error", "no_target", message);
        Self { retry_after, final_answer: true, binding: binding.cloned(), ..error }
    }

    /// A refusal of the engine; None: the provider's own answer is to be passed on.
    pub(crate) fn refusal(refusal: &Refusal) -> Option<Self> {
        let (status, code, message, retry_after) = match refusal {
            Refusal::Upstream(_) => return None,
            Refusal::Budget(over) => return Some(Self::over_budget(over)),
            Refusal::Exhausted { retry_after, rate_limited: true } => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "every target asked for fewer requests; x-trunkline-attempts lists them",
                *retry_after,
            ),
            Refusal::Exhausted { retry_after, rate_limited: false } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream_exhausted",
                "every attempt that was allowed failed; x-trunkline-attempts lists them",
                *retry_after,
            ),
            Refusal::NoTarget { retry_after, binding } => {
                return Some(Self::no_target(*retry_after, binding.as_deref()));
            }
            Refusal::Deadline => (
                StatusCode::GATEWAY_TIMEOUT,
                "deadline_exceeded",
                "no answer came within the deadline of the virtual model or of x-trunkline-timeout-ms",
                None,
            ),
        };
        let error = Self::new(status, "upstream_error", code, message);
        Some(Self { retry_after, final_answer: true, ..error })
    }

    /// 402. What is only held by requests under way may be asked for again soon.
    fn over_budget(over: &OverBudget) -> Self {
        let (status, kind) = (StatusCode::PAYMENT_REQUIRED, "budget_error");
        let error = Self::new(status, kind, over.code(), over.message());
        let (retry_after, final_answer) = (over.retry_after(), over.why != Why::Reserved);
        Self { retry_after, final_answer, ..error }
    }

    /// The model that an error is about.
    pub(crate) fn model(&self) -> Option<&str> {
        self.about.as_deref()
    }

    /// As a response.
    pub(crate) fn response(&self) -> Response<AgentBody> {
        let mut body = json!({"error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        }});
        if let Some(Binding { constraint, deployment, detail, .. }) = &self.binding {
            body["error"]["constraint"] = json!({
                "reason": constraint, "deployment": deployment, "detail": detail,
            });
        }
        let mut response = json_response(self.status, &body);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after.map(|wait| wait.as_secs_f64().ceil().max(1.0) as u64) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.final_answer {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

/// What a provider said, as it said it if it is JSON of any shape: clients know their
/// providers. An error that hid in a 200 gets the status it stands for.
pub(crate) fn upstream_response(failed: &FailedAttempt) -> Response<AgentBody> {
    if failed.status >= 400 && serde_json::from_slice::<IgnoredAny>(&failed.body).is_ok() {
        let mut response = Response::new(AgentBody::Full(Full::new(failed.body.clone())));
        *response.status_mut() = StatusCode::from_u16(failed.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let json = HeaderValue::from_static("application/json");
        let kind = failed.headers.get(CONTENT_TYPE).cloned().unwrap_or(json);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        return response;
    }
    let fields = failed.error.fields();
    let stands_for = fields.numeric_code().or_else(|| (failed.status >= 400).then_some(failed.status));
    let status = StatusCode::from_u16(stands_for.unwrap_or(400)).unwrap_or(StatusCode::BAD_GATEWAY);
    let message = fields.message.unwrap_or("the provider refused the request without saying why");
    let body = json!({"error": {
        "message": message,
        "type": fields.kind.unwrap_or("upstream_error"),
        "param": fields.param,
        "code": fields.code.unwrap_or(failed.classified.class.name()),
    }});
    json_response(status, &body)
}

/// A response with a JSON body.
pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response<AgentBody> {
    let mut response = Response::new(AgentBody::Full(Full::new(Bytes::from(body.to_string()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http_body_util::BodyExt as _;
    use trunkline_routing::classify::classify;

    use super::*;
    use crate::openai::error_body;

    /// Status and body that the caller gets.
    async fn answered(status: u16, body: &'static str) -> (u16, String) {
        let error = error_body::parse(body.as_bytes());
        let classified = classify(status, &error.fields(), None);
        let body = Bytes::from_static(body.as_bytes());
        let response = upstream_response(&FailedAttempt {
            classified,
            status,
            headers: HeaderMap::new(),
            body,
            error,
            usage: None,
        });
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn provider_errors_in_json_pass_as_they_are() {
        for body in [
            r#"{"error":{"message":"m"}}"#,
            r#"{"detail":[{"loc":["body","messages"],"msg":"Field required"}]}"#,
            r#" {"errors":{"messages":["is too short"]}} "#,
        ] {
            assert_eq!(answered(422, body).await, (422, body.to_owned()));
        }
        for body in ["", " ", "<html>no</html>", "{\"detail\":"] {
            let (status, own) = answered(422, body).await;
            let own: Value = serde_json::from_str(&own).unwrap();
            assert_eq!((status, &own["error"]["type"]), (422, &json!("upstream_error")), "{body}");
        }
    }

    #[test]
    fn long_names_are_cut() {
        let name = "é".repeat(5_000);
        for error in [
            LocalError::unknown_model(&name),
            LocalError::forbidden_model(&name),
            LocalError::unknown_path(&name),
        ] {
            assert!(error.message.len() < 512 && error.message.contains("é…'"), "{}", error.message);
            assert!(error.model().is_none_or(|model| model.len() <= NAME_SHOWN_MAX));
        }
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "…");
    }

    #[test]
    fn repeated_field_is_named() {
        let error = crate::openai::scan::scan(br#"{"model":"a","model":"b"}"#).unwrap_err();
        let error = LocalError::scan(&error);
        let said = (error.status, error.code, error.param.as_deref());
        assert_eq!(said, (StatusCode::BAD_REQUEST, "repeated_parameter", Some("model")));
    }
}
