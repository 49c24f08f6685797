//! Complete requests as OpenAI chat bodies, and answers back.

use prost_types::{Struct, Value as WireValue, value::Kind};
use serde_json::{Map, Value, json};
use tonic::Status;
use trunkline_proto::{
    routing::v1::{CompleteRequest, ContentPart, Message, Tool, ToolCall, content_part::Part},
    status,
};

mod answer;

pub(super) use self::answer::{Unreadable, chunk, whole};

/// Fields of the body that have their own place in the request.
const OWN_FIELDS: [&str; 7] =
    ["model", "messages", "tools", "stream", "stream_options", "max_tokens", "temperature"];
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
/// `extra` nests no deeper than request bodies may.
const EXTRA_DEPTH_MAX: usize = 60;

/// The body that a provider gets.
pub(super) fn body(request: &CompleteRequest, stream: bool) -> Result<Value, Status> {
    if request.messages.is_empty() {
        return Err(status::invalid_field("messages", "at least one is needed"));
    }
    let mut body = Map::new();
    for (name, value) in request.extra.iter().flat_map(|extra| &extra.fields) {
        if OWN_FIELDS.contains(&name.as_str()) {
            let field = format!("extra.{name}");
            return Err(status::invalid_field(
                &field,
                "has its own field in the request; leave it out of extra",
            ));
        }
        let value = json_value(value, 0)?;
        if name == "n" && value != json!(1) {
            return Err(status::invalid_field("extra.n", "must be 1 or left out: an answer has one choice"));
        }
        body.insert(name.clone(), value);
    }
    body.insert("model".into(), json!(request.model));
    let messages: Result<Vec<Value>, Status> =
        request.messages.iter().enumerate().map(|(at, one)| message(at, one)).collect();
    body.insert("messages".into(), Value::Array(messages?));
    if !request.tools.is_empty() {
        let tools: Result<Vec<Value>, Status> =
            request.tools.iter().enumerate().map(|(at, one)| tool(at, one)).collect();
        body.insert("tools".into(), Value::Array(tools?));
    }
    if request.max_output_tokens > 0 {
        body.insert("max_tokens".into(), json!(request.max_output_tokens));
    }
    if let Some(temperature) = request.temperature {
        if !temperature.is_finite() {
            return Err(status::invalid_field("temperature", "must be a finite number"));
        }
        body.insert("temperature".into(), json!(temperature));
    }
    if stream {
        body.insert("stream".into(), json!(true));
    }
    Ok(Value::Object(body))
}

fn message(at: usize, message: &Message) -> Result<Value, Status> {
    let invalid =
        |field: &str, problem: &str| status::invalid_field(&format!("messages[{at}].{field}"), problem);
    if !ROLES.contains(&message.role.as_str()) {
        return Err(invalid("role", "must be system, developer, user, assistant or tool"));
    }
    if message.role == "tool" && message.tool_call_id.is_empty() {
        return Err(invalid("tool_call_id", "is required for role tool"));
    }
    if !message.parts.is_empty() && !message.content.is_empty() {
        return Err(invalid("parts", "give content or parts, not both"));
    }
    let mut value = Map::new();
    value.insert("role".into(), json!(message.role));
    let content = if message.parts.is_empty() {
        // An assistant that only called tools said nothing.
        if message.content.is_empty() && !message.tool_calls.is_empty() {
            Value::Null
        } else {
            json!(message.content)
        }
    } else {
        let parts: Option<Vec<Value>> = message.parts.iter().map(part).collect();
        Value::Array(parts.ok_or_else(|| invalid("parts", "each part needs text or image_url"))?)
    };
    value.insert("content".into(), content);
    if !message.tool_calls.is_empty() {
        let call = |call: &ToolCall| json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}});
        value.insert("tool_calls".into(), message.tool_calls.iter().map(call).collect());
    }
    if !message.tool_call_id.is_empty() {
        value.insert("tool_call_id".into(), json!(message.tool_call_id));
    }
    Ok(Value::Object(value))
}

fn part(part: &ContentPart) -> Option<Value> {
    match part.part.as_ref()? {
        Part::Text(text) => Some(json!({"type": "text", "text": text})),
        Part::ImageUrl(url) => Some(json!({"type": "image_url", "image_url": {"url": url}})),
    }
}

fn tool(at: usize, tool: &Tool) -> Result<Value, Status> {
    if tool.name.is_empty() {
        return Err(status::invalid_field(&format!("tools[{at}].name"), "is required"));
    }
    let mut function = Map::new();
    function.insert("name".into(), json!(tool.name));
    if !tool.description.is_empty() {
        function.insert("description".into(), json!(tool.description));
    }
    if let Some(parameters) = &tool.parameters {
        function.insert("parameters".into(), json_struct(parameters, 0)?);
    }
    Ok(json!({"type": "function", "function": function}))
}

fn json_struct(fields: &Struct, depth: usize) -> Result<Value, Status> {
    let fields = fields.fields.iter().map(|(name, value)| Ok((name.clone(), json_value(value, depth + 1)?)));
    Ok(Value::Object(fields.collect::<Result<_, Status>>()?))
}

fn json_value(value: &WireValue, depth: usize) -> Result<Value, Status> {
    if depth > EXTRA_DEPTH_MAX {
        return Err(status::invalid_field("extra", "nests deeper than 60 levels"));
    }
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => json!(flag),
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::NumberValue(number)) => number_value(*number)?,
        Some(Kind::ListValue(list)) => Value::Array(
            list.values.iter().map(|value| json_value(value, depth + 1)).collect::<Result<_, _>>()?,
        ),
        Some(Kind::StructValue(fields)) => json_struct(fields, depth)?,
    })
}

/// A Struct knows doubles only; providers want whole numbers without a point.
fn number_value(number: f64) -> Result<Value, Status> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if !number.is_finite() {
        return Err(status::invalid_field("extra", "numbers must be finite"));
    }
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Ok(json!(number as i64));
    }
    Ok(json!(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_numbers_stay_whole() {
        assert_eq!(number_value(3.0).unwrap().to_string(), "3");
        assert_eq!(number_value(0.5).unwrap().to_string(), "0.5");
        assert!(number_value(f64::NAN).is_err());
    }

    #[test]
    fn own_fields_are_refused_in_extra() {
        assert!(body(&with_extra("stream", 1.0), false).unwrap_err().message().contains("extra.stream"));
    }

    #[test]
    fn one_choice_only() {
        let refused = body(&with_extra("n", 2.0), false).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("extra.n"), "{refused}");
        assert_eq!(body(&with_extra("n", 1.0), false).unwrap()["n"], json!(1));
    }

    fn with_extra(name: &str, number: f64) -> CompleteRequest {
        let number = WireValue { kind: Some(Kind::NumberValue(number)) };
        let extra = Struct { fields: [(name.to_owned(), number)].into() };
        let message = Message { role: "user".into(), content: "hi".into(), ..Message::default() };
        CompleteRequest { messages: vec![message], extra: Some(extra), ..CompleteRequest::default() }
    }
}
