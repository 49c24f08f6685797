//! Error bodies of all shapes in use, as owned fields for the classifier.
//!
//! Nested `{"error":{}}`, flat `{"object":"error",...}`, `{"error":"text"}`, FastAPI's
//! `detail`, AWS's `__type`, and any of them in an array. Never shown to callers: they
//! get the provider's own bytes.

use serde_json::{Map, Value};
use trunkline_routing::classify::ErrorFields;

/// Bytes of an error body that are read; a longer one is no JSON error of any provider.
pub const ERROR_BODY_MAX: usize = 64 * 1024;

/// The error fields of an answer. Empty if it had none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiError {
    /// `code`; a number becomes its digits.
    pub code: Option<String>,
    /// `type`, or gRPC's `status`.
    pub kind: Option<String>,
    /// `param`.
    pub param: Option<String>,
    /// `message`.
    pub message: Option<String>,
}

impl ApiError {
    /// For [`trunkline_routing::classify::classify`].
    pub fn fields(&self) -> ErrorFields<'_> {
        ErrorFields {
            code: self.code.as_deref(),
            kind: self.kind.as_deref(),
            param: self.param.as_deref(),
            message: self.message.as_deref(),
        }
    }
}

/// The error in the body of an answer whose status says error. Empty fields if the
/// body is something else.
pub fn parse(body: &[u8]) -> ApiError {
    if body.len() > ERROR_BODY_MAX {
        return ApiError::default();
    }
    serde_json::from_slice::<Value>(body).map_or_else(|_| ApiError::default(), |value| from_value(&value))
}

/// The error in JSON that came with a 200, if it clearly is one: the same words may be
/// ordinary fields of an answer.
pub fn parse_in_success(body: &[u8]) -> Option<ApiError> {
    if body.len() > ERROR_BODY_MAX {
        return None;
    }
    // Every form of it holds this word. Most answers don't, and need no parsing for it.
    memchr::memmem::find(body, br#""error""#)?;
    let value: Value = serde_json::from_slice(body).ok()?;
    let object = first_object(&value)?;
    let has_error = match object.get("error") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Object(error)) => !error.is_empty(),
        Some(_) => true,
    };
    let says_error = |key| object.get(key).and_then(Value::as_str) == Some("error");
    (has_error || says_error("object") || says_error("type")).then(|| from_value(&value))
}

fn first_object(value: &Value) -> Option<&Map<String, Value>> {
    match value {
        Value::Array(items) => items.first()?.as_object(),
        other => other.as_object(),
    }
}

fn from_value(value: &Value) -> ApiError {
    let Some(object) = first_object(value) else { return ApiError::default() };
    match object.get("error") {
        Some(Value::Object(error)) => of_object(error),
        Some(Value::String(message)) => {
            let flat = of_object(object);
            ApiError { message: flat.message.or_else(|| Some(message.clone())), ..flat }
        }
        _ => of_object(object),
    }
}

fn of_object(error: &Map<String, Value>) -> ApiError {
    let details = error.get("details").and_then(|details| details.get("error_code"));
    // `type: "error"` names the envelope, not the error.
    let kind = ["type", "__type", "status"].into_iter().filter_map(|key| text(error.get(key)));
    ApiError {
        code: text(error.get("code")).or_else(|| text(details)),
        kind: kind.into_iter().find(|kind| kind != "error"),
        param: text(error.get("param")),
        message: ["message", "Message", "detail"]
            .into_iter()
            .find_map(|key| text(error.get(key)))
            .or_else(|| detail_message(error.get("detail")?)),
    }
}

/// What a `detail` that is no text says: FastAPI lists what it found wrong.
fn detail_message(detail: &Value) -> Option<String> {
    let detail = first_object(detail)?;
    ["msg", "message"].into_iter().find_map(|key| text(detail.get(key)))
}

/// A string that is not empty, or a number's digits.
fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `code|type|param|message` of what was parsed.
    fn shown(error: &ApiError) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        [part(&error.code), part(&error.kind), part(&error.param), part(&error.message)].join("|")
    }

    #[test]
    fn shapes_in_use() {
        for (body, expect) in [
            (r#"{"error":{"message":"m","type":"t","param":"p","code":"c"}}"#, "c|t|p|m"),
            (r#"{"error":{"message":"m","type":"t","param":null,"code":null}}"#, "|t||m"),
            (r#"{"error":{"message":"m","code":400}}"#, "400|||m"),
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, "|overloaded_error||m"),
            (
                r#"{"type":"error","error":{"type":"t","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
                "enforced_spend_limit_reached|t||",
            ),
            (
                r#"{"object":"error","message":"m","type":"BadRequestError","code":"404"}"#,
                "404|BadRequestError||m",
            ),
            (r#"{"error":"model 'x' not found"}"#, "|||model 'x' not found"),
            (
                r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"m"}}]"#,
                "429|RESOURCE_EXHAUSTED||m",
            ),
            (r#"{"__type":"ThrottlingException","message":"m"}"#, "|ThrottlingException||m"),
            (r#"{"detail":"Not Found"}"#, "|||Not Found"),
            (r#"{"detail":[{"loc":["body"]}]}"#, "|||"),
            (r#"{"detail":[{"type":"missing","loc":["body","model"],"msg":"m"},{"msg":"n"}]}"#, "|||m"),
            (r#"{"detail":{"message":"m"}}"#, "|||m"),
            ("<html>429</html>", "|||"),
            ("", "|||"),
            ("[]", "|||"),
            ("7", "|||"),
        ] {
            assert_eq!(shown(&parse(body.as_bytes())), expect, "{body}");
        }
    }

    #[test]
    fn too_long_is_not_read() {
        let body = format!(r#"{{"error":"{}"}}"#, "x".repeat(ERROR_BODY_MAX));
        assert_eq!(parse(body.as_bytes()), ApiError::default());
    }

    #[test]
    fn answers_are_not_errors() {
        let is_error = |body: &str| parse_in_success(body.as_bytes()).is_some();
        assert!(!is_error(r#"{"choices":[],"message":"hi","type":"x"}"#));
        assert!(!is_error(r#"{"choices":[],"error":null}"#));
        assert!(!is_error(r#"{"choices":[],"error":{}}"#));
        assert!(is_error(r#"{"error":{"message":"m"}}"#));
        assert!(is_error(r#"{"error":"m"}"#));
        assert!(is_error(r#"{"object":"error","message":"m","code":400}"#));
        assert!(is_error(r#"{"type":"error","message":"m"}"#));
    }
}
