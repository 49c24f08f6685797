//! What the whole body of a 200 means: an answer, an error in disguise, or neither.
//!
//! For chat, completions and embeddings. The body itself goes through as it came.

use serde::Deserialize;
use serde_json::value::RawValue;
use trunkline_routing::classify::BodyFault;

use super::{
    error_body::{self, ApiError},
    event::{Choice, is_empty_answer},
    usage::{self, Usage},
};

/// What a body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What was asked for.
    Good(AnswerFacts),
    /// An error, though the status says 200.
    Error(ApiError),
    /// Not an answer.
    Fault(BodyFault),
}

/// What routing and accounting need of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerFacts {
    /// `None`: not reported, or not readable.
    pub usage: Option<Usage>,
    /// Of the first choice that has one.
    pub finish_reason: Option<String>,
    /// Length of the text in it, for estimates.
    pub output_bytes: usize,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    /// Embeddings.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    /// Responses.
    #[serde(borrow)]
    output: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// Looks at the body of a 200 to a request that asked for no stream.
pub fn inspect(body: &[u8]) -> Answer {
    if let Some(error) = error_body::parse_in_success(body) {
        return Answer::Error(error);
    }
    let trimmed = body.trim_ascii();
    match trimmed.first() {
        None => return Answer::Fault(BodyFault::Empty),
        Some(b'<') => return Answer::Fault(BodyFault::Html),
        Some(_) => {}
    }
    let parsed = match serde_json::from_slice::<Body<'_>>(trimmed) {
        Ok(parsed) => parsed,
        Err(error) if error.is_eof() => return Answer::Fault(BodyFault::Truncated),
        Err(_) => return Answer::Fault(BodyFault::NotJson),
    };
    let choices = parsed.choices.unwrap_or_default();
    let output_bytes = choices.iter().map(Choice::whole_bytes).sum();
    let finish_reason = choices.iter().find_map(Choice::finish_reason);
    let has_items = |value: Option<&RawValue>| value.is_some_and(|value| holds_items(value.get()));
    let has_content = output_bytes > 0 || has_items(parsed.data) || has_items(parsed.output);
    if is_empty_answer(has_content, finish_reason.as_deref()) {
        return Answer::Fault(BodyFault::Empty);
    }
    let usage = parsed.usage.and_then(|reported| usage::parse(reported.get()));
    Answer::Good(AnswerFacts { usage, finish_reason, output_bytes })
}

fn holds_items(json: &str) -> bool {
    let inner = json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| !inner.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(body: &str) -> AnswerFacts {
        match inspect(body.as_bytes()) {
            Answer::Good(facts) => facts,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn answers() {
        let chat = good(
            r#"{"choices":[{"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],
            "usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
        );
        let usage = Usage { prompt_tokens: 3, completion_tokens: 2, cached_tokens: 0 };
        let expect = AnswerFacts { usage: Some(usage), finish_reason: Some("stop".into()), output_bytes: 5 };
        assert_eq!(chat, expect);
        assert_eq!(good(r#"{"choices":[{"text":"abc","finish_reason":"length"}]}"#).output_bytes, 3);
        let embedding =
            good(r#"{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":5,"total_tokens":5}}"#);
        assert_eq!(embedding.usage.map(|usage| (usage.prompt_tokens, usage.completion_tokens)), Some((5, 0)));
        good(
            r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"x"}]},"finish_reason":"tool_calls"}]}"#,
        );
        good(r#"{"choices":[{"message":{"content":null,"refusal":"no"}}]}"#);
        good(r#"{"choices":[{"message":{"content":""},"finish_reason":"content_filter"}]}"#);
        let both =
            r#"{"choices":[{"message":{"content":"hello"},"delta":{"content":""},"finish_reason":""}]}"#;
        assert_eq!(good(both), AnswerFacts { output_bytes: 5, ..AnswerFacts::default() });
    }

    #[test]
    fn what_is_no_answer() {
        for (body, expect) in [
            ("", BodyFault::Empty),
            (" \n", BodyFault::Empty),
            ("{}", BodyFault::Empty),
            (r#"{"choices":[]}"#, BodyFault::Empty),
            (r#"{"choices":[{"message":{"content":null},"finish_reason":"stop"}]}"#, BodyFault::Empty),
            (r#"{"choices":[{"message":{"content":null},"finish_reason":""}]}"#, BodyFault::Empty),
            (r#"{"data":[]}"#, BodyFault::Empty),
            (" <!DOCTYPE html>", BodyFault::Html),
            (r#"{"choices":[{"mess"#, BodyFault::Truncated),
            ("hello", BodyFault::NotJson),
            (r#"{"choices":3}"#, BodyFault::NotJson),
        ] {
            assert_eq!(inspect(body.as_bytes()), Answer::Fault(expect), "{body}");
        }
        assert!(
            matches!(inspect(br#"{"error":{"code":429}}"#), Answer::Error(error) if error.code.as_deref() == Some("429"))
        );
    }
}
