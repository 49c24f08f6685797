//! Reads a request in OpenAI dialect: what the answer depends on, and no more.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::faults::error_json;

/// Inputs per embeddings request and dimensions per vector, as OpenAI limits them.
const EMBEDDING_INPUTS_MAX: usize = 2048;
const DIMENSIONS_MAX: u64 = 4096;
const DIMENSIONS_DEFAULT: u64 = 64;

/// A user message with these words is answered with a tool call.
const TOOL_WORDS: &str = "call a tool";

/// Which of the three POST interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Completions,
    Embeddings,
}

/// A well-formed request.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) api: Api,
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) max_tokens: Option<u32>,
    pub(super) input_tokens: u64,
    pub(super) tool: Option<ToolCall>,
    /// Texts to embed.
    pub(super) inputs: Vec<String>,
    pub(super) dimensions: u64,
}

/// The tool call to answer with.
#[derive(Debug)]
pub(super) struct ToolCall {
    pub(super) name: String,
    pub(super) arguments: String,
}

/// Why a request gets 400.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct BadRequest {
    message: String,
    param: Option<&'static str>,
}

impl BadRequest {
    fn new(param: &'static str, must: &str) -> Self {
        Self { message: format!("Invalid '{param}': {must}."), param: Some(param) }
    }

    pub(super) fn into_json(self) -> Bytes {
        error_json(&self.message, "invalid_request_error", self.param, &Value::Null)
    }
}

/// Reads the body of a POST.
pub(super) fn read(api: Api, body: &[u8]) -> Result<Ask, BadRequest> {
    let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|error| BadRequest {
        message: format!("The body is not a JSON object: {error}."),
        param: None,
    })?;
    let model = match fields.get("model") {
        Some(Value::String(model)) if !model.is_empty() => model.clone(),
        _ => return Err(BadRequest::new("model", "must be a non-empty string")),
    };
    let inputs = texts(api, &fields)?;
    let bytes: usize = inputs.iter().map(String::len).sum();
    let options = fields.get("stream_options").unwrap_or(&Value::Null);
    Ok(Ask {
        api,
        model,
        stream: api != Api::Embeddings && boolean(&fields, "stream")?,
        include_usage: options.get("include_usage").and_then(Value::as_bool).unwrap_or(false),
        max_tokens: match count(&fields, "max_completion_tokens")? {
            None => count(&fields, "max_tokens")?,
            limit => limit,
        },
        input_tokens: bytes.div_ceil(4).max(1) as u64,
        tool: if api == Api::Chat { tool_call(&fields)? } else { None },
        dimensions: fields
            .get("dimensions")
            .and_then(Value::as_u64)
            .unwrap_or(DIMENSIONS_DEFAULT)
            .clamp(1, DIMENSIONS_MAX),
        inputs,
    })
}

/// The prompt's texts: message contents, prompts, or inputs to embed.
fn texts(api: Api, fields: &Map<String, Value>) -> Result<Vec<String>, BadRequest> {
    match api {
        Api::Chat => match fields.get("messages") {
            Some(Value::Array(messages)) if !messages.is_empty() => {
                messages.iter().map(message_text).collect()
            }
            _ => Err(BadRequest::new("messages", "must be a non-empty array")),
        },
        Api::Completions => one_or_many(fields, "prompt"),
        Api::Embeddings => one_or_many(fields, "input"),
    }
}

fn message_text(message: &Value) -> Result<String, BadRequest> {
    if !message.get("role").is_some_and(Value::is_string) {
        return Err(BadRequest::new("messages", "every message must be an object with a role"));
    }
    match message.get("content").unwrap_or(&Value::Null) {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => Ok(parts.iter().filter_map(|part| part.get("text")?.as_str()).collect()),
        _ => Err(BadRequest::new("messages", "content must be a string or an array of parts")),
    }
}

fn one_or_many(fields: &Map<String, Value>, param: &'static str) -> Result<Vec<String>, BadRequest> {
    let must = || BadRequest::new(param, "must be a string or a non-empty array of at most 2048");
    match fields.get(param) {
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        // One prompt given as token numbers, four bytes to the token.
        Some(Value::Array(tokens)) if !tokens.is_empty() && tokens.iter().all(Value::is_u64) => {
            Ok(vec!["    ".repeat(tokens.len())])
        }
        Some(Value::Array(texts)) if (1..=EMBEDDING_INPUTS_MAX).contains(&texts.len()) => {
            texts.iter().map(|text| text.as_str().map(str::to_owned).ok_or_else(must)).collect()
        }
        _ => Err(must()),
    }
}

fn boolean(fields: &Map<String, Value>, param: &'static str) -> Result<bool, BadRequest> {
    match fields.get(param) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(BadRequest::new(param, "must be a boolean")),
    }
}

fn count(fields: &Map<String, Value>, param: &'static str) -> Result<Option<u32>, BadRequest> {
    match fields.get(param) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(count @ 1..) => Ok(Some(u32::try_from(count).unwrap_or(u32::MAX))),
            _ => Err(BadRequest::new(param, "must be a positive integer")),
        },
    }
}

/// The tool call the request asks for, if it asks for one.
fn tool_call(fields: &Map<String, Value>) -> Result<Option<ToolCall>, BadRequest> {
    let Some(tools) = fields.get("tools").filter(|tools| !tools.is_null()) else { return Ok(None) };
    let tools = tools.as_array().ok_or_else(|| BadRequest::new("tools", "must be an array"))?;
    let functions: Vec<&Value> = tools.iter().filter_map(|tool| tool.get("function")).collect();
    let choice = fields.get("tool_choice").unwrap_or(&Value::Null);
    let chosen = match (choice.as_str(), choice.get("function").and_then(|function| function.get("name"))) {
        (_, Some(name)) => {
            let named = functions.iter().find(|function| function.get("name") == Some(name));
            Some(named.ok_or_else(|| BadRequest::new("tool_choice", "must name one of the tools"))?)
        }
        (Some("none"), None) => None,
        (Some("required"), None) => functions.first(),
        _ if asks_for_tool(fields) => functions.first(),
        _ => None,
    };
    let Some(function) = chosen else { return Ok(None) };
    match function.get("name").and_then(Value::as_str) {
        Some(name) => Ok(Some(ToolCall { name: name.to_owned(), arguments: arguments(function) })),
        None => Err(BadRequest::new("tools", "every function must have a name")),
    }
}

fn asks_for_tool(fields: &Map<String, Value>) -> bool {
    let messages = fields.get("messages").and_then(Value::as_array);
    let last = messages.and_then(|messages| messages.last());
    let from_user = last.filter(|message| message.get("role").and_then(Value::as_str) == Some("user"));
    from_user.and_then(|message| message_text(message).ok()).is_some_and(|text| text.contains(TOOL_WORDS))
}

/// Arguments that fit the function's schema in names and simple types.
fn arguments(function: &Value) -> String {
    let properties = function.pointer("/parameters/properties").and_then(Value::as_object);
    let value = |schema: &Value| match schema.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => Value::from(1),
        Some("boolean") => Value::from(true),
        Some("array") => Value::Array(Vec::new()),
        Some("object") => Value::Object(Map::new()),
        _ => schema.pointer("/enum/0").cloned().unwrap_or_else(|| Value::from("simulated")),
    };
    let arguments = properties.into_iter().flatten().map(|(name, schema)| (name.clone(), value(schema)));
    Value::Object(arguments.collect()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(api: Api, body: &str, param: Option<&'static str>) {
        assert_eq!(read(api, body.as_bytes()).map(|_| ()).map_err(|error| error.param), Err(param), "{body}");
    }

    #[test]
    fn malformed_requests_name_the_parameter() {
        check(Api::Chat, "{", None);
        check(Api::Chat, "[]", None);
        check(Api::Chat, r#"{"messages": []}"#, Some("model"));
        check(Api::Chat, r#"{"model": "m", "messages": []}"#, Some("messages"));
        check(Api::Chat, r#"{"model": "m", "messages": ["hi"]}"#, Some("messages"));
        check(Api::Completions, r#"{"model": "m", "prompt": 3}"#, Some("prompt"));
        check(Api::Completions, r#"{"model": "m", "prompt": "x", "stream": 1}"#, Some("stream"));
        check(Api::Completions, r#"{"model": "m", "prompt": "x", "max_tokens": 0}"#, Some("max_tokens"));
        check(Api::Embeddings, r#"{"model": "m", "input": []}"#, Some("input"));
    }

    #[test]
    fn input_tokens_are_a_quarter_of_the_text_bytes() {
        let body = br#"{"model": "m", "messages": [{"role": "system", "content": "1234"}, {"role": "user", "content": [{"type": "text", "text": "12345"}]}]}"#;
        assert_eq!(read(Api::Chat, body).unwrap().input_tokens, 3);
    }
}
