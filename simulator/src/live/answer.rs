//! Writes a good answer in OpenAI dialect: the frames of a stream, or one whole body.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::openai::{Api, Ask, ToolCall};
use crate::Script;

/// Words of the simulated prose; one word is one token.
const WORDS: [&str; 12] =
    ["This", " is", " a", " simulated", " answer", ",", " one", " word", " for", " each", " token", "."];

/// One piece of a body, sent at once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) part: Part,
    /// Since the frame before, or since the head.
    pub(super) wait: Duration,
    pub(super) bytes: Bytes,
    /// Tokens in it.
    pub(super) tokens: u32,
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Role,
    Content,
    Finish,
    Usage,
    Done,
    /// A unary body.
    Whole,
}

/// An answer before anything goes wrong with it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) stream: bool,
    pub(super) head_delay: Duration,
    pub(super) input_tokens: u64,
    pub(super) frames: Vec<Frame>,
}

/// Identity of one answer.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    /// Unique per provider.
    pub(super) id: String,
    /// Unix seconds.
    pub(super) created: u64,
}

/// Writes the answer a script calls for.
pub(super) fn write(ask: &Ask, script: &Script, stamp: &Stamp) -> Answer {
    let writer = Writer { ask, script, stamp };
    if ask.api == Api::Embeddings {
        unary(&writer.embeddings(), script.ttft(), ask.input_tokens, 0)
    } else if ask.stream {
        let frames = writer.stream();
        Answer { stream: true, head_delay: script.head_delay, input_tokens: ask.input_tokens, frames }
    } else {
        unary(&writer.whole(), script.total(), ask.input_tokens, writer.output_tokens())
    }
}

/// The list of models.
pub(super) fn models(names: &[String]) -> Answer {
    let entry = |name: &String| json!({"id": name, "object": "model", "created": 0, "owned_by": "trunkline-simulator"});
    let data: Vec<Value> = names.iter().map(entry).collect();
    unary(&json!({"object": "list", "data": data}), Duration::ZERO, 0, 0)
}

fn unary(body: &Value, head_delay: Duration, input_tokens: u64, tokens: u32) -> Answer {
    let bytes = Bytes::from(body.to_string());
    let frame = Frame { part: Part::Whole, wait: Duration::ZERO, bytes, tokens };
    Answer { stream: false, head_delay, input_tokens, frames: vec![frame] }
}

/// A server-sent event with this data.
pub(super) fn event(data: &str) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

struct Writer<'a> {
    ask: &'a Ask,
    script: &'a Script,
    stamp: &'a Stamp,
}

impl Writer<'_> {
    fn stream(&self) -> Vec<Frame> {
        let frame = |part, bytes| Frame { part, wait: Duration::ZERO, bytes, tokens: 0 };
        let mut frames = Vec::with_capacity(self.script.tokens as usize + 4);
        if self.ask.api == Api::Chat {
            let content = if self.ask.tool.is_some() { Value::Null } else { json!("") };
            frames
                .push(frame(Part::Role, self.chunk(&json!({"role": "assistant", "content": content}), None)));
        }
        match &self.ask.tool {
            Some(tool) if self.script.tokens > 0 => frames.extend(self.tool_pieces(tool)),
            _ => frames.extend(self.words()),
        }
        frames.push(frame(Part::Finish, self.chunk(&json!({}), Some(self.finish_reason()))));
        if self.ask.include_usage {
            let usage = self.envelope(&[("choices", json!([])), ("usage", self.usage())]);
            frames.push(frame(Part::Usage, event(&usage.to_string())));
        }
        frames.push(frame(Part::Done, event("[DONE]")));
        frames
    }

    fn words(&self) -> impl Iterator<Item = Frame> {
        let waits = std::iter::once(self.script.first_token_delay).chain(self.script.gaps.iter().copied());
        waits.take(self.script.tokens as usize).enumerate().map(|(index, wait)| {
            let bytes = self.chunk(&json!({"content": word(index)}), None);
            Frame { part: Part::Content, wait, bytes, tokens: 1 }
        })
    }

    /// Name first, then the arguments in two pieces.
    fn tool_pieces(&self, tool: &ToolCall) -> Vec<Frame> {
        let (first, second) = tool.arguments.split_at(tool.arguments.len() / 2);
        let named = json!({"index": 0, "id": self.call_id(), "type": "function",
            "function": {"name": tool.name, "arguments": ""}});
        let piece = |text: &str| json!({"index": 0, "function": {"arguments": text}});
        let tokens = self.output_tokens();
        let gap = self.script.gaps.first().copied().unwrap_or_default();
        let frame = |call: Value, wait, tokens| Frame {
            part: Part::Content,
            wait,
            bytes: self.chunk(&json!({"tool_calls": [call]}), None),
            tokens,
        };
        vec![
            frame(named, self.script.first_token_delay, 1),
            frame(piece(first), gap, (tokens - 1) / 2),
            frame(piece(second), gap, tokens - 1 - (tokens - 1) / 2),
        ]
    }

    fn chunk(&self, delta: &Value, finish_reason: Option<&str>) -> Bytes {
        let choice = if self.ask.api == Api::Chat {
            json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason})
        } else {
            let text = delta.get("content").cloned().unwrap_or_else(|| json!(""));
            json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish_reason})
        };
        let chunk = if self.ask.include_usage {
            self.envelope(&[("choices", json!([choice])), ("usage", Value::Null)])
        } else {
            self.envelope(&[("choices", json!([choice]))])
        };
        event(&chunk.to_string())
    }

    fn whole(&self) -> Value {
        let text: String = (0..self.script.tokens as usize).map(word).collect();
        let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": self.finish_reason()});
        match (&self.ask.tool, self.ask.api) {
            (Some(tool), _) if self.script.tokens > 0 => {
                let call = json!({"id": self.call_id(), "type": "function",
                    "function": {"name": tool.name, "arguments": tool.arguments}});
                choice["message"] =
                    json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [call]});
            }
            (_, Api::Chat) => {
                choice["message"] = json!({"role": "assistant", "content": text, "refusal": null});
            }
            _ => choice["text"] = json!(text),
        }
        self.envelope(&[("choices", json!([choice])), ("usage", self.usage())])
    }

    fn embeddings(&self) -> Value {
        let vector = |(index, text): (usize, &String)| {
            let embedding = embedding(text, self.ask.dimensions);
            json!({"object": "embedding", "index": index, "embedding": embedding})
        };
        let data: Vec<Value> = self.ask.inputs.iter().enumerate().map(vector).collect();
        let usage = json!({"prompt_tokens": self.ask.input_tokens, "total_tokens": self.ask.input_tokens});
        json!({"object": "list", "data": data, "model": self.ask.model, "usage": usage})
    }

    fn envelope(&self, fields: &[(&str, Value)]) -> Value {
        let (prefix, object) = match (self.ask.api, self.ask.stream) {
            (Api::Chat, true) => ("chatcmpl", "chat.completion.chunk"),
            (Api::Chat, false) => ("chatcmpl", "chat.completion"),
            _ => ("cmpl", "text_completion"),
        };
        let mut envelope = json!({"id": format!("{prefix}-{}", self.stamp.id), "object": object,
            "created": self.stamp.created, "model": self.ask.model});
        for (name, value) in fields {
            envelope[*name] = value.clone();
        }
        envelope
    }

    fn usage(&self) -> Value {
        let (input, output) = (self.ask.input_tokens, u64::from(self.output_tokens()));
        json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
    }

    /// A tool call is as long as its arguments, not as the script.
    fn output_tokens(&self) -> u32 {
        match &self.ask.tool {
            Some(tool) if self.script.tokens > 0 => 1 + tool.arguments.len().div_ceil(4) as u32,
            _ => self.script.tokens,
        }
    }

    fn finish_reason(&self) -> &'static str {
        match &self.ask.tool {
            Some(_) if self.script.tokens > 0 => "tool_calls",
            _ if self.script.truncated => "length",
            _ => "stop",
        }
    }

    fn call_id(&self) -> String {
        format!("call_{}", self.stamp.id)
    }
}

fn word(index: usize) -> &'static str {
    WORDS[index % WORDS.len()]
}

/// A vector in -1..1 that depends on the text alone (FNV-1a, then xorshift).
fn embedding(text: &str, dimensions: u64) -> Vec<f64> {
    let mut state = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    (0..dimensions).map(|_| next()).collect()
}
