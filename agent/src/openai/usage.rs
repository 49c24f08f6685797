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
    #[serde(alias = "input_tokens")]
    prompt_tokens: Option<u64>,
    #[serde(alias = "output_tokens")]
    completion_tokens: Option<u64>,
    #[serde(alias = "input_tokens_details")]
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

/// The usage in this JSON; `None` if it has no count or one that cannot be.
pub(super) fn parse(json: &str) -> Option<Usage> {
    let wire: Wire = serde_json::from_str(json).ok()?;
    let prompt_tokens = wire.prompt_tokens?;
    let cached = wire.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0);
    Some(Usage {
        prompt_tokens,
        // Embeddings have none.
        completion_tokens: wire.completion_tokens.unwrap_or(0),
        cached_tokens: cached.min(prompt_tokens),
    })
}
