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
        let tokens = Tokens {
            input: (self.input_bytes as u64).div_ceil(BYTES_PER_TOKEN),
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
        max_output_tokens: scanned.max_output_tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX)),
        stream: scanned.stream,
        min_quality: None,
        max_cost: None,
        at_unix_ms,
        ..Profile::default()
    }
}
