//! The words that providers of the OpenAI-compatible dialect use for their errors.
//!
//! `code` decides, then `type`; `message` is looked at only if neither is specific,
//! and only its beginning: further on, providers quote the prompt.

use super::ErrorFields;

/// Bytes of a message that are looked at. The longest prefix in use has about 100.
const MESSAGE_PREFIX_MAX: usize = 256;

/// Types and codes that only repeat that something is wrong.
const UNSPECIFIC: &[&str] = &[
    "invalid_request_error",
    "invalid_request",
    "bad_request",
    "badrequesterror",
    "error",
    "invalid_argument",
];

/// An account without money, or at a limit that it set itself.
const MONEY: &[&str] = &[
    "insufficient_quota",
    "insufficient_credits",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "enforced_spend_limit_reached",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "servicequotaexceededexception",
];
const MONEY_MESSAGES: &[&str] = &[
    "your credit balance is too low",
    "you exceeded your current quota",
    "you have reached your specified api usage limits",
];

const CONTENT_FILTER: &[&str] = &[
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "moderation_blocked",
    "content_filtered",
];
const CONTENT_FILTER_MESSAGES: &[&str] =
    &["the response was blocked", "response was filtered", "rejected as a result of our safety system"];

const CONTEXT_LENGTH: &[&str] = &[
    "context_length_exceeded",
    "exceed_context_size_error",
    "context_window_exceeded",
    "model_max_prompt_tokens_exceeded",
];
const CONTEXT_LENGTH_MESSAGES: &[&str] = &[
    "maximum context length",
    "model's maximum context limit",
    "longer than the model's context length",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "input length and `max_tokens` exceed",
    "exceed context limit",
    "exceeds the available context size",
    "exceeds the context window",
    "exceed context window",
    "exceeds the maximum number of tokens",
    "`inputs` tokens + `max_new_tokens` must be",
    "request payload size exceeds",
    "input tokens exceed the configured limit",
];

const TOKEN_LIMIT: &[&str] = &["tokens", "rate_limit_exceeded"];

const MODEL_NOT_FOUND: &[&str] = &[
    "model_not_found",
    "unknown_model",
    "invalid_model",
    "deploymentnotfound",
    "not_found_error",
    "notfounderror",
    "not_found",
];

const HALLUCINATION: &[&str] = &["model_hallucination"];

const OVERLOAD: &[&str] = &["server_is_overloaded", "overloaded_error", "overloaded", "slow_down"];

/// Statuses that codes and types stand for where no status says it: an error inside of
/// a 200.
const STATUS_OF: &[(u16, &[&str])] = &[
    (400, UNSPECIFIC),
    (400, CONTENT_FILTER),
    (400, CONTEXT_LENGTH),
    (400, &["tool_use_failed", "json_validate_failed", "validation_error", "failed_precondition"]),
    (401, &["authentication_error", "invalid_api_key", "unauthenticated", "authenticationerror"]),
    (402, MONEY),
    (403, &["permission_error", "permission_denied", "permissiondeniederror", "accessdeniedexception"]),
    (404, MODEL_NOT_FOUND),
    (413, &["request_too_large"]),
    (422, HALLUCINATION),
    (
        429,
        &[
            "rate_limit_exceeded",
            "rate_limit_error",
            "ratelimiterror",
            "resource_exhausted",
            "throttlingexception",
            "modelnotreadyexception",
            "too_many_requests",
            "requests",
            "tokens",
        ],
    ),
    (498, &["capacity_exceeded"]),
    (500, &["server_error", "internal_server_error", "internalservererror", "api_error", "internal"]),
    (503, &["service_unavailable", "service_unavailable_error", "unavailable"]),
    (504, &["timeout_error", "deadline_exceeded"]),
    (529, OVERLOAD),
];

/// The status to judge by: the answer's own, or what the error in a 200 stands for.
/// Some gateways wrap a 429 in a 5xx; there the code inside is right.
pub(super) fn effective_status(status: u16, error: &ErrorFields<'_>) -> u16 {
    match (status, error.numeric_code()) {
        (500..=599, Some(429)) => 429,
        (200..=299, Some(code)) => code,
        (200..=299, None) if !error.is_empty() => status_of_words(error),
        _ => status,
    }
}

/// An unknown error in a 200 is the server's.
fn status_of_words(error: &ErrorFields<'_>) -> u16 {
    let named = |word: Option<&str>| {
        let word = word?;
        STATUS_OF.iter().find(|(_, words)| is_one_of(words, word)).map(|(status, _)| *status)
    };
    named(error.code).or_else(|| named(error.kind)).unwrap_or(500)
}

pub(super) fn is_about_money(error: &ErrorFields<'_>) -> bool {
    says(error, MONEY, MONEY_MESSAGES)
}

pub(super) fn is_content_filter(error: &ErrorFields<'_>) -> bool {
    says(error, CONTENT_FILTER, CONTENT_FILTER_MESSAGES)
}

pub(super) fn is_context_length(error: &ErrorFields<'_>) -> bool {
    says(error, CONTEXT_LENGTH, CONTEXT_LENGTH_MESSAGES)
}

/// A single request above the tokens per minute.
pub(super) fn is_token_limit(error: &ErrorFields<'_>) -> bool {
    says(error, TOKEN_LIMIT, &[])
}

pub(super) fn is_hallucination(error: &ErrorFields<'_>) -> bool {
    says(error, HALLUCINATION, &["model hallucinat"])
}

pub(super) fn is_overload(error: &ErrorFields<'_>) -> bool {
    says(error, OVERLOAD, &["overloaded"])
}

pub(super) fn is_model_not_found(error: &ErrorFields<'_>) -> bool {
    if says(error, MODEL_NOT_FOUND, &["no endpoints found"]) {
        return true;
    }
    let about_model = error.param == Some("model") || says(error, &[], &["model"]);
    about_model && says(error, &[], &["not found", "does not exist", "unknown model"])
}

/// Whether code or type is one of `words`; or, if neither is specific, the message
/// contains one of `phrases` near its beginning.
fn says(error: &ErrorFields<'_>, words: &[&str], phrases: &[&str]) -> bool {
    let named = [error.code, error.kind].into_iter().flatten().any(|word| is_one_of(words, word));
    named || (is_unspecific(error) && error.message.is_some_and(|message| contains_one_of(phrases, message)))
}

fn is_unspecific(error: &ErrorFields<'_>) -> bool {
    let code = error.code.is_none_or(|code| error.numeric_code().is_some() || is_one_of(UNSPECIFIC, code));
    code && error.kind.is_none_or(|kind| is_one_of(UNSPECIFIC, kind))
}

fn is_one_of(words: &[&str], word: &str) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}

fn contains_one_of(phrases: &[&str], message: &str) -> bool {
    let bytes = message.as_bytes();
    let prefix = &bytes[..bytes.len().min(MESSAGE_PREFIX_MAX)];
    phrases.iter().any(|phrase| {
        prefix.windows(phrase.len()).any(|window| window.eq_ignore_ascii_case(phrase.as_bytes()))
    })
}
