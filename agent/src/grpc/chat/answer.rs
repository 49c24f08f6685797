//! The parts of an answer, or of a chunk of one, that Complete speaks of.
//!
//! Providers differ in what they leave out, send as null or send as parts, so this takes
//! what it can. Content that it cannot take is an error, never silence.

use serde_json::Value;
use trunkline_proto::routing::v1::{Delta, Message, ToolCall};

/// Kinds of content parts that Complete does not speak of.
const PARTS_LEFT_OUT: [&str; 4] = ["thinking", "redacted_thinking", "reasoning", "reference"];

/// There is content in it that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::grpc) struct Unreadable;

/// The message and the finish reason of a whole answer.
pub(in crate::grpc) fn whole(body: &[u8]) -> Result<(Message, String), Unreadable> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    let first = choices(&answer)?.iter().min_by_key(|choice| index(choice));
    let Some(choice) = first else {
        return Ok((Message { role: role(&Value::Null), ..Message::default() }, String::new()));
    };
    let said = said(choice, ["message", "delta"])?;
    let message = Message {
        role: role(said),
        content: content(choice, said)?,
        tool_calls: tool_calls(said)?,
        ..Message::default()
    };
    Ok((message, choice["finish_reason"].as_str().unwrap_or_default().to_owned()))
}

/// What a chunk of a stream adds. Only one choice was asked for.
pub(in crate::grpc) fn chunk(data: &[u8]) -> Result<Delta, Unreadable> {
    let chunk: Value = serde_json::from_slice(data).map_err(|_| Unreadable)?;
    let Some(choice) = choices(&chunk)?.iter().find(|choice| index(choice) == 0) else {
        return Ok(Delta::default());
    };
    let said = said(choice, ["delta", "message"])?;
    Ok(Delta { content: content(choice, said)?, tool_calls: tool_calls(said)? })
}

fn choices(answer: &Value) -> Result<&[Value], Unreadable> {
    list(&answer["choices"])
}

fn list(value: &Value) -> Result<&[Value], Unreadable> {
    match value {
        Value::Null => Ok(&[]),
        Value::Array(items) => Ok(items),
        _ => Err(Unreadable),
    }
}

/// Of a choice. Where there is only one, some leave it out.
fn index(choice: &Value) -> u64 {
    choice["index"].as_u64().unwrap_or(0)
}

/// The first of the two that is there; some send both.
fn said<'a>(choice: &'a Value, names: [&str; 2]) -> Result<&'a Value, Unreadable> {
    let said = names.map(|name| &choice[name]).into_iter().find(|said| !said.is_null());
    match said.unwrap_or(&Value::Null) {
        said @ (Value::Null | Value::Object(_)) if choice.is_object() => Ok(said),
        _ => Err(Unreadable),
    }
}

fn role(said: &Value) -> String {
    said["role"].as_str().filter(|role| !role.is_empty()).unwrap_or("assistant").to_owned()
}

fn content(choice: &Value, said: &Value) -> Result<String, Unreadable> {
    if said["audio"].as_object().is_some_and(|audio| !audio.is_empty()) {
        return Err(Unreadable);
    }
    for place in [&said["content"], &said["refusal"], &choice["text"]] {
        let text = text(place)?;
        if !text.is_empty() {
            return Ok(text);
        }
    }
    Ok(String::new())
}

/// A string, or parts one after the other.
fn text(value: &Value) -> Result<String, Unreadable> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => parts.iter().map(part).collect(),
        Value::Object(_) => part(value).map(str::to_owned),
        Value::Bool(_) | Value::Number(_) => Err(Unreadable),
    }
}

fn part(part: &Value) -> Result<&str, Unreadable> {
    if let Some(text) = part.as_str() {
        return Ok(text);
    }
    if part["type"].as_str().is_some_and(|kind| PARTS_LEFT_OUT.contains(&kind)) {
        return Ok("");
    }
    part["text"].as_str().or_else(|| part["refusal"].as_str()).ok_or(Unreadable)
}

fn tool_calls(said: &Value) -> Result<Vec<ToolCall>, Unreadable> {
    let calls = list(&said["tool_calls"])?.iter().enumerate();
    let mut calls: Vec<ToolCall> =
        calls.map(|(at, call)| tool_call(at, call, &call["function"])).collect::<Result<_, _>>()?;
    // The older form, of one call without an id.
    if !said["function_call"].is_null() {
        calls.push(tool_call(0, &Value::Null, &said["function_call"])?);
    }
    Ok(calls)
}

/// Without an index, `at`, its place in the list, tells calls apart.
fn tool_call(at: usize, call: &Value, function: &Value) -> Result<ToolCall, Unreadable> {
    let is_object = |value: &Value| matches!(value, Value::Null | Value::Object(_));
    if !is_object(call) || !is_object(function) {
        return Err(Unreadable);
    }
    let arguments = match &function["arguments"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        // Some give the JSON itself, not its text.
        other => other.to_string(),
    };
    Ok(ToolCall {
        id: call["id"].as_str().unwrap_or_default().to_owned(),
        name: function["name"].as_str().unwrap_or_default().to_owned(),
        arguments,
        index: u32::try_from(call["index"].as_u64().unwrap_or(at as u64)).map_err(|_| Unreadable)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content_of(json: &str) -> Result<String, Unreadable> {
        chunk(json.as_bytes()).map(|delta| delta.content)
    }

    fn call(index: u32, id: &str, name: &str, arguments: &str) -> ToolCall {
        ToolCall { id: id.into(), name: name.into(), arguments: arguments.into(), index }
    }

    #[test]
    fn content_in_all_its_forms() {
        for (json, expect) in [
            (r#"{"choices":[{"delta":{"content":"hey"}}]}"#, "hey"),
            (r#"{"choices":[{"index":null,"delta":{"content":[{"type":"text","text":"h"},"ey"]}}]}"#, "hey"),
            (
                r#"{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[]},{"text":"hey"}]}}]}"#,
                "hey",
            ),
            (r#"{"choices":[{"delta":{"content":"","refusal":"no"}}]}"#, "no"),
            (r#"{"choices":[{"text":"hey"}]}"#, "hey"),
            (r#"{"choices":[{"delta":{"content":"so"},"message":{"content":"say so"}}]}"#, "so"),
            (r#"{"choices":[{"index":1,"delta":{"content":"b"}},{"index":0,"delta":{"content":"a"}}]}"#, "a"),
            (r#"{"choices":[{"index":1,"delta":{"content":"b"}}]}"#, ""),
            (r#"{"choices":[{"delta":{"content":null,"tool_calls":null}}]}"#, ""),
            (r#"{"choices":null}"#, ""),
        ] {
            assert_eq!(content_of(json).as_deref(), Ok(expect), "{json}");
        }
    }

    #[test]
    fn content_that_cannot_be_read_is_told() {
        for json in [
            r#"{"choices":[{"delta":{"content":7}}]}"#,
            r#"{"choices":[{"delta":{"content":[{"type":"image_url","image_url":{}}]}}]}"#,
            r#"{"choices":[{"delta":"hey"}]}"#,
            r#"{"choices":["hey"]}"#,
            r#"{"choices":"hey"}"#,
            r#"{"choices":[{"delta":{"tool_calls":["x"]}}]}"#,
            r#"{"choices":[{"delta":{"audio":{"data":"x"}}}]}"#,
            "hey",
        ] {
            assert_eq!(content_of(json), Err(Unreadable), "{json}");
        }
        assert_eq!(whole(br#"{"choices":[{"message":{"content":7}}]}"#), Err(Unreadable));
    }

    #[test]
    fn tool_calls_may_leave_things_out() {
        for (calls, expect) in [
            (r#"[{"index":1,"function":{"arguments":"{"}}]"#, vec![call(1, "", "", "{")]),
            (r#"[{"index":null,"id":"x","function":null}]"#, vec![call(0, "x", "", "")]),
            (
                r#"[{"id":"x","function":{"name":"f","arguments":{"a":1}}},{"id":"y"}]"#,
                vec![call(0, "x", "f", r#"{"a":1}"#), call(1, "y", "", "")],
            ),
        ] {
            let json = format!(r#"{{"choices":[{{"delta":{{"tool_calls":{calls}}}}}]}}"#);
            assert_eq!(chunk(json.as_bytes()).unwrap().tool_calls, expect, "{json}");
        }
        let older = br#"{"choices":[{"delta":{"function_call":{"name":"f","arguments":"{}"}}}]}"#;
        assert_eq!(chunk(older).unwrap().tool_calls, [call(0, "", "f", "{}")]);
    }

    #[test]
    fn whole_answers() {
        let (message, reason) = whole(
            br#"{"choices":[{"index":1,"message":{"content":"b"}},
            {"index":0,"message":{"role":"assistant","content":"a"},"delta":{"content":""},"finish_reason":"stop"}]}"#,
        )
        .unwrap();
        assert_eq!(
            (message.role.as_str(), message.content.as_str(), reason.as_str()),
            ("assistant", "a", "stop")
        );
        let (message, reason) = whole(br#"{"choices":[{"message":null,"finish_reason":null}]}"#).unwrap();
        assert_eq!((message.role.as_str(), message.content.as_str(), reason.as_str()), ("assistant", "", ""));
    }
}
