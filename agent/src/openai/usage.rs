//! Token counts as the provider reports them.

use serde::Deserialize;

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All input tokens, cached ones included.
    pub prompt_tokens: u64,
    /// Output tokens.
    pub completion_tokens: u64,
    /// The part of the input that was cached.
    pub cached_tokens: u64,
}

#[derive(Deserialize)]
struct Wire {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    // The names of other endpoints. Some providers send the same counts under both.
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

/// The usage in this JSON; `None` if it has no count or one that cannot be.
pub(super) fn parse(json: &str) -> Option<Usage> {
    let wire: Wire = serde_json::from_str(json).ok()?;
    let prompt_tokens = wire.prompt_tokens.or(wire.input_tokens)?;
    let details = [wire.prompt_tokens_details, wire.input_tokens_details];
    let cached = details.into_iter().flatten().find_map(|details| details.cached_tokens).unwrap_or(0);
    Some(Usage {
        prompt_tokens,
        // Embeddings have none.
        completion_tokens: wire.completion_tokens.or(wire.output_tokens).unwrap_or(0),
        cached_tokens: cached.min(prompt_tokens),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_name_or_both() {
        let usage = Usage { prompt_tokens: 9, completion_tokens: 4, cached_tokens: 3 };
        for json in [
            r#"{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":3}}"#,
            r#"{"input_tokens":9,"output_tokens":4,"input_tokens_details":{"cached_tokens":3}}"#,
            r#"{"prompt_tokens":9,"input_tokens":8,"completion_tokens":4,"output_tokens":5,
                "prompt_tokens_details":{"cached_tokens":3},"input_tokens_details":{"cached_tokens":2}}"#,
            r#"{"prompt_tokens":9,"completion_tokens":null,"output_tokens":4,
                "prompt_tokens_details":null,"input_tokens_details":{"cached_tokens":3}}"#,
        ] {
            assert_eq!(parse(json), Some(usage), "{json}");
        }
        for json in ["{}", r#"{"prompt_tokens":-1}"#, r#"{"completion_tokens":4}"#, "7"] {
            assert_eq!(parse(json), None, "{json}");
        }
    }
}
