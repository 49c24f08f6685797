//! What one event of a chat or completion stream means for routing and accounting.
//!
//! Events go through as they came; this only looks. What it cannot read is forwarded
//! all the same.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    error_body::{self, ApiError},
    sse::Event,
    usage::{self, Usage},
};

/// What an event says. All false and empty: it is about the stream only (role, ping,
/// comment, Azure's prompt filter results).
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFacts {
    /// `[DONE]`. No proof of success: some send it after an error.
    pub done: bool,
    /// The event is or holds an error.
    pub error: Option<ApiError>,
    /// Something for the caller to read: text, reasoning, refusal, tool call, audio.
    pub has_content: bool,
    /// Of the first choice that has one.
    pub finish_reason: Option<String>,
    /// Set by the event that reports usage.
    pub usage: Option<Usage>,
    /// No choices, only usage: sent because usage was asked for.
    pub usage_only: bool,
    /// Length of the text in it, for estimates.
    pub output_bytes: usize,
    /// It is no chunk at all. It may be content, and it may be rubbish.
    pub unreadable: bool,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Message<'a>>,
    /// Instead of `delta` in answers that are no streams; some send both in both.
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
}

impl Choice<'_> {
    /// Bytes of what the caller can read in a whole answer; 0 if there is nothing.
    pub(super) fn whole_bytes(&self) -> usize {
        self.output_bytes(self.message.as_ref().or(self.delta.as_ref()))
    }

    /// The same in a chunk, whose `message`, if any, repeats what came before.
    fn chunk_bytes(&self) -> usize {
        self.output_bytes(self.delta.as_ref().or(self.message.as_ref()))
    }

    fn output_bytes(&self, said: Option<&Message<'_>>) -> usize {
        said.map_or(0, Message::output_bytes) + length(self.text)
    }

    /// An empty one is none: some send it with every chunk.
    pub(super) fn finish_reason(&self) -> Option<String> {
        let reason: String = serde_json::from_str(self.finish_reason?.get()).ok()?;
        (!reason.is_empty()).then_some(reason)
    }
}

impl Message<'_> {
    fn output_bytes(&self) -> usize {
        // Some send the same reasoning under both names.
        let reasoning = length(self.reasoning).max(length(self.reasoning_content));
        let rest = [self.content, self.refusal, self.tool_calls, self.function_call, self.audio];
        reasoning + rest.into_iter().map(length).sum::<usize>()
    }
}

/// Bytes of a value without its quotes or brackets: 0 if it holds nothing.
fn length(value: Option<&RawValue>) -> usize {
    match value.map_or("null", RawValue::get).as_bytes() {
        b"null" => 0,
        [b'"', text @ .., b'"'] => text.len(),
        [b'[' | b'{', inner @ .., b']' | b'}'] => inner.trim_ascii().len(),
        other => other.len(),
    }
}

/// Whether an answer that is complete has nothing in it. A finish reason other than
/// `stop` explains why: the limit was reached, or a filter acted.
pub fn is_empty_answer(has_content: bool, finish_reason: Option<&str>) -> bool {
    !has_content && finish_reason.is_none_or(|reason| reason == "stop")
}

/// Looks at one event.
pub fn inspect(event: &Event) -> EventFacts {
    let Some(data) = event.data.as_deref() else { return EventFacts::default() };
    if data.starts_with(b"[DONE]") {
        return EventFacts { done: true, ..EventFacts::default() };
    }
    let named_error = event.name.as_deref() == Some(b"error");
    let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
        return unread(data, named_error);
    };
    let is_error = |value: Option<&RawValue>| value.is_some_and(|value| value.get() == r#""error""#);
    let holds_error = length(chunk.error) > 0 && chunk.error.is_some_and(|error| error.get() != "false");
    let mut facts = EventFacts::default();
    if named_error {
        facts.error = Some(error_body::parse(data));
    } else if holds_error || is_error(chunk.object) || is_error(chunk.kind) {
        facts.error = Some(error_body::parse_in_success(data).unwrap_or_default());
    }
    if let Some(reported) = chunk.usage {
        facts.usage = usage::parse(reported.get());
    }
    let choices = chunk.choices.unwrap_or_default();
    facts.usage_only = choices.is_empty() && facts.usage.is_some();
    facts.output_bytes = choices.iter().map(Choice::chunk_bytes).sum();
    facts.has_content = facts.output_bytes > 0;
    facts.finish_reason = choices.iter().find_map(Choice::finish_reason);
    facts
}

/// An event that is not a chunk. An error in an unknown shape is still one. Anything
/// else may be content: it is passed on, but does not begin an answer, so that another
/// target can take over from one that sends nothing but rubbish.
fn unread(data: &[u8], named_error: bool) -> EventFacts {
    let error = if named_error { Some(error_body::parse(data)) } else { error_body::parse_in_success(data) };
    let unreadable = error.is_none() && !data.trim_ascii().is_empty();
    EventFacts { error, unreadable, ..EventFacts::default() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn facts(data: &'static str) -> EventFacts {
        inspect(&Event { data: Some(Bytes::from_static(data.as_bytes())), ..Event::default() })
    }

    #[test]
    fn lifecycle_is_not_content() {
        for data in [
            r#"{"choices":[{"delta":{"role":"assistant"},"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{"role":"assistant","content":"","refusal":null,"tool_calls":[]}}],"usage":null}"#,
            r#"{"choices":[],"prompt_filter_results":[{}]}"#,
            r#"{"choices":[{"text":""}],"error":null,"obfuscation":"xyz"}"#,
        ] {
            assert_eq!(facts(data), EventFacts::default(), "{data}");
        }
        assert_eq!(inspect(&Event::default()), EventFacts::default());
    }

    #[test]
    fn content_of_all_kinds() {
        for (data, bytes) in [
            (r#"{"choices":[{"delta":{"content":"hey"}}]}"#, 3),
            (r#"{"choices":[{"delta":{"content":"a\"b"}}]}"#, 4),
            (r#"{"choices":[{"delta":{"reasoning":"ab","reasoning_content":"ab"}}]}"#, 2),
            (r#"{"choices":[{"delta":{"refusal":"no"}}]}"#, 2),
            (r#"{"choices":[{"delta":{"tool_calls":[{"id":"x"}]}}]}"#, 10),
            (r#"{"choices":[{"text":"hey"}]}"#, 3),
            (r#"{"choices":[{"delta":{}},{"delta":{"content":"x"}}]}"#, 1),
            (r#"{"choices":[{"delta":{"content":"so"},"message":{"content":"say so"}}]}"#, 2),
            (r#"{"choices":[{"delta":null,"message":{"content":"say so"}}]}"#, 6),
        ] {
            let facts = facts(data);
            assert_eq!((facts.has_content, facts.output_bytes), (true, bytes), "{data}");
        }
    }

    #[test]
    fn empty_finish_reason_is_no_end() {
        let reason = |data| facts(data).finish_reason;
        assert_eq!(reason(r#"{"choices":[{"delta":{"content":"a"},"finish_reason":""}]}"#), None);
        let second = r#"{"choices":[{"delta":{},"finish_reason":""},{"delta":{},"finish_reason":"length"}]}"#;
        assert_eq!(reason(second).as_deref(), Some("length"));
    }

    #[test]
    fn end_and_usage() {
        assert!(facts("[DONE]").done && facts("[DONE] ").done);
        let finish = facts(r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}"#);
        assert_eq!((finish.finish_reason.as_deref(), finish.usage), (Some("stop"), None));
        let last = facts(
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":3}}}"#,
        );
        let usage = Usage { prompt_tokens: 9, completion_tokens: 4, cached_tokens: 3 };
        assert_eq!((last.usage, last.usage_only), (Some(usage), true));
        let odd = facts(r#"{"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":-1}}"#);
        assert!(odd.usage.is_none() && odd.has_content && !odd.usage_only);
    }

    #[test]
    fn errors() {
        let code = |data| facts(data).error.and_then(|error| error.code);
        assert_eq!(code(r#"{"error":{"message":"m","code":400}}"#).as_deref(), Some("400"));
        assert_eq!(code(r#"{"error":{"message":"m","code":"429"}}"#).as_deref(), Some("429"));
        assert_eq!(code(r#"{"object":"error","message":"m","code":404}"#).as_deref(), Some("404"));
        let tail =
            facts(r#"{"error":{"code":502},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#);
        assert_eq!(tail.finish_reason.as_deref(), Some("error"));
        assert!(tail.error.is_some());
        assert!(facts(r#"{"error":"text"}"#).error.is_some());
        let named = Event { name: Some("error".into()), data: Some("overloaded".into()), raw: Bytes::new() };
        assert!(inspect(&named).error.is_some());
    }

    #[test]
    fn malformed_is_flagged() {
        for data in ["{", "{\"choices\":7}", "plain", "\u{fffd}"] {
            let facts = facts(data);
            assert!(facts.unreadable && facts.error.is_none(), "{data}");
            assert!(!facts.has_content, "rubbish begins no answer: {data}");
        }
    }

    #[test]
    fn emptiness_may_be_explained() {
        assert!(is_empty_answer(false, None) && is_empty_answer(false, Some("stop")));
        assert!(!is_empty_answer(false, Some("length")) && !is_empty_answer(true, None));
    }
}
