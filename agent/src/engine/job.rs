//! What one request is to the engine: parsed at the border, immutable from there.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use trunkline_routing::{
    eligibility::Profile,
    money::Tokens,
    table::{Capabilities, DeploymentIndex},
};

use crate::{
    budgets::Reservation,
    control::UsageSource,
    openai::{scan::Scanned, usage::Usage},
    snapshot::{Goal, Snapshot},
};

/// Bytes per token, where nobody counted.
const BYTES_PER_TOKEN: u64 = 4;

/// Bytes of images are no tokens; a request with images is taken for at most so many.
pub(crate) const IMAGE_INPUT_TOKENS_MAX: u32 = 16_384;

/// Which call of the provider's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    ChatCompletions,
    Completions,
    Embeddings,
}

impl Endpoint {
    /// Behind the provider's base URL.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
        }
    }

    /// The limit that the request sets on one answer. Where it gives two the larger counts:
    /// which one the provider obeys is not known.
    fn output_limit(self, scanned: &Scanned) -> Option<u64> {
        let limits = &scanned.limits;
        match self {
            Self::ChatCompletions => limits.max_completion_tokens.max(limits.max_tokens),
            Self::Completions => limits.max_tokens,
            Self::Embeddings => None,
        }
    }

    /// Answers that it asks for, at least 1.
    fn answers(self, scanned: &Scanned) -> u64 {
        let each = scanned.answers.unwrap_or(1).max(1);
        match self {
            Self::ChatCompletions => each,
            Self::Completions => each.saturating_mul(scanned.prompts.max(1)),
            Self::Embeddings => 1,
        }
    }

    /// The top-level field without which a request makes no sense, and whether it is
    /// there.
    pub(crate) const fn required(self, scanned: &Scanned) -> (&'static str, bool) {
        match self {
            Self::ChatCompletions => ("messages", scanned.has_messages),
            Self::Completions => ("prompt", scanned.has_prompt),
            Self::Embeddings => ("input", scanned.has_input),
        }
    }
}

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Headers of the caller that travel on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forwarded {
    pub(crate) traceparent: Option<HeaderValue>,
    pub(crate) tracestate: Option<HeaderValue>,
}

impl Forwarded {
    /// Takes them from a request.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        Self {
            traceparent: headers.get(&TRACEPARENT).cloned(),
            tracestate: headers.get(&TRACESTATE).cloned(),
        }
    }

    /// Puts them into another.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        if let Some(parent) = &self.traceparent {
            headers.insert(&TRACEPARENT, parent.clone());
            if let Some(state) = &self.tracestate {
                headers.insert(&TRACESTATE, state.clone());
            }
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) goal: Goal,
    pub(crate) endpoint: Endpoint,
    /// Empty once an attempt won: a stream may live long after its request.
    pub(crate) body: Bytes,
    /// Length of the body as it came in.
    pub(crate) input_bytes: usize,
    pub(crate) scanned: Scanned,
    pub(crate) profile: Profile,
    /// As the caller set it.
    pub(crate) deadline: Option<Duration>,
    pub(crate) forwarded: Forwarded,
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) tags: Vec<(String, String)>,
    /// What it may spend. None: no budget counts it, or it was not admitted yet.
    pub(crate) budget: Option<Arc<Reservation>>,
}

impl Job {
    /// Whether the stream must carry usage though the caller did not ask for it.
    pub(crate) fn injects_usage(&self) -> bool {
        self.scanned.stream && self.endpoint != Endpoint::Embeddings && !self.scanned.includes_usage()
    }

    /// Tokens as the provider said, or by the bytes.
    pub(crate) fn tokens(&self, usage: Option<Usage>, output_bytes: usize) -> (Tokens, UsageSource) {
        if let Some(usage) = usage {
            let tokens = Tokens {
                input: usage.prompt_tokens,
                cached_input: usage.cached_tokens,
                output: usage.completion_tokens,
            };
            return (tokens, UsageSource::Provider);
        }
        let input = (self.input_bytes as u64).div_ceil(BYTES_PER_TOKEN);
        let images = self.scanned.has_images;
        let tokens = Tokens {
            input: if images { input.min(IMAGE_INPUT_TOKENS_MAX.into()) } else { input },
            cached_input: 0,
            output: (output_bytes as u64).div_ceil(BYTES_PER_TOKEN),
        };
        (tokens, UsageSource::Estimated)
    }

    /// The same without what only attempts need.
    pub(crate) fn without_body(&self) -> Self {
        Self { body: Bytes::new(), ..self.clone() }
    }

    /// The name sent to that deployment's provider.
    pub(crate) fn upstream_model(&self, deployment: DeploymentIndex) -> &str {
        &self.snapshot.table().deployment(deployment).upstream_model
    }
}

/// What a scanned body needs, how large it is and when it came in.
pub(crate) fn profile(endpoint: Endpoint, scanned: &Scanned, body_bytes: usize, at_unix_ms: u64) -> Profile {
    let implied = [
        (scanned.has_tools, Capabilities::TOOLS),
        (scanned.has_images, Capabilities::VISION),
        (scanned.wants_json_schema, Capabilities::JSON_SCHEMA),
        (scanned.stream, Capabilities::STREAMING),
        (endpoint == Endpoint::Embeddings, Capabilities::EMBEDDINGS),
    ];
    let needs = implied
        .iter()
        .filter(|(implied, _)| *implied)
        .fold(Capabilities::NONE, |all, (_, one)| all.with(*one));
    // Image bytes are no tokens: their size says nothing.
    let input_bytes = if scanned.has_images { 0 } else { body_bytes as u64 };
    Profile {
        needs,
        input_tokens: u32::try_from(input_bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u32::MAX),
        max_output_tokens: endpoint
            .output_limit(scanned)
            .map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX)),
        extra_answers: u32::try_from(endpoint.answers(scanned) - 1).unwrap_or(u32::MAX),
        stream: scanned.stream,
        min_quality: None,
        max_cost: None,
        at_unix_ms,
        ..Profile::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::scan::scan;

    fn seen(endpoint: Endpoint, body: &str) -> (Option<u32>, u32) {
        let profile = profile(endpoint, &scan(body.as_bytes()).unwrap(), body.len(), 0);
        (profile.max_output_tokens, profile.extra_answers)
    }

    #[test]
    fn only_limits_that_the_endpoint_knows_count_and_the_larger_of_two() {
        let all = r#"{"max_output_tokens":1,"max_completion_tokens":20,"max_tokens":300}"#;
        assert_eq!(seen(Endpoint::ChatCompletions, all), (Some(300), 0));
        assert_eq!(seen(Endpoint::ChatCompletions, r#"{"max_output_tokens":1}"#), (None, 0));
        assert_eq!(seen(Endpoint::Completions, r#"{"max_completion_tokens":1}"#), (None, 0));
        assert_eq!(seen(Endpoint::Completions, all), (Some(300), 0));
        assert_eq!(seen(Endpoint::Embeddings, all), (None, 0));
    }

    #[test]
    fn each_answer_that_is_asked_for_is_reckoned_with() {
        assert_eq!(seen(Endpoint::ChatCompletions, r#"{"n":128}"#), (None, 127));
        assert_eq!(seen(Endpoint::ChatCompletions, r#"{"n":0}"#), (None, 0));
        let body = r#"{"n":2,"best_of":3,"prompt":["a","b"],"max_tokens":10}"#;
        assert_eq!(seen(Endpoint::Completions, body), (Some(10), 5));
        assert_eq!(seen(Endpoint::Embeddings, r#"{"n":9,"input":["a","b"]}"#), (None, 0));
        let profile = profile(Endpoint::Completions, &scan(body.as_bytes()).unwrap(), 40, 0);
        assert_eq!(profile.expected_tokens(), Tokens { input: 10, cached_input: 0, output: 60 });
    }
}
