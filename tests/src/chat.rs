//! Bodies of requests.

use serde_json::{Value, json};

/// A short chat request for `chat`. Its `max_tokens` keeps the time that is assumed for
/// a whole answer small.
pub fn chat(stream: bool) -> Value {
    json!({
        "model": "chat", "stream": stream, "max_tokens": 16,
        "messages": [{"role": "user", "content": "hello, world"}],
    })
}

/// The same for another model.
pub fn chat_for(model: &str, stream: bool) -> Value {
    let mut body = chat(stream);
    body["model"] = json!(model);
    body
}

/// A streamed chat request with room for so many tokens.
pub fn long_stream(max_tokens: u64) -> Value {
    let mut body = chat(true);
    body["max_tokens"] = json!(max_tokens);
    body
}
