//! What an attempt's end means: its class, what to do next, what the breaker counts.
//!
//! Called by the agent and the simulator for answers of the OpenAI-compatible dialect.
//! It judges by status and parsed fields and never searches raw bodies: providers echo
//! prompts in them. Local refusals (no key, over budget, caller gone) never come here.

use core::time::Duration;

use crate::{hint::GATE_MAX, hold::Gate};

mod transport;
mod words;

pub use transport::{
    BodyFault, Silence, TransportFault, classify_body, classify_silence, classify_transport,
};

/// How long a quarantine lasts before one probe, unless the configuration changes.
pub const QUARANTINE_DEFAULT: Duration = Duration::from_mins(15);
/// Rate gate after a 429 that gave no hint.
pub const RATE_GATE_DEFAULT: Duration = Duration::from_secs(1);
/// Rate gate after an overload that gave no hint: the short end of what providers need.
pub const OVERLOAD_GATE_DEFAULT: Duration = Duration::from_secs(5);

/// What came of an attempt. The names are those of `types.v1.OutcomeClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutcomeClass {
    /// A whole, good answer.
    Ok,
    /// DNS, TCP or TLS.
    Connect,
    /// Reset or end of file before content.
    Reset,
    /// Ended by the attempt's time limit, or silent and overtaken.
    Timeout,
    /// 500 and unknown 5xx.
    ServerError,
    /// 502, 503, 504, 520 to 524.
    Unavailable,
    /// 529, and 503 that says overloaded.
    Overloaded,
    /// 429 for rate, 498.
    RateLimited,
    /// 401, 403.
    Auth,
    /// 402, and 429 for money.
    Quota,
    /// 404 for the model.
    ModelNotFound,
    /// The request itself is at fault.
    InvalidRequest,
    /// The request is longer than the model can take.
    ContextLength,
    /// The provider's filter refused it.
    ContentFilter,
    /// 200 with a body that is not what was asked for.
    Malformed,
    /// 200 with nothing in it.
    Empty,
    /// Broken off after first content.
    MidStream,
    /// The caller left, or its own deadline was too short.
    Cancelled,
    /// Another attempt of the same request was faster.
    Overtaken,
    /// 408, 409, 422, 424: may pass when tried again.
    Transient,
    /// 525, 526, 3xx: the provider's address or certificate is set up wrongly.
    Misconfigured,
}

impl OutcomeClass {
    /// Each class once, in wire order.
    pub const ALL: [Self; 21] = [
        Self::Ok,
        Self::Connect,
        Self::Reset,
        Self::Timeout,
        Self::ServerError,
        Self::Unavailable,
        Self::Overloaded,
        Self::RateLimited,
        Self::Auth,
        Self::Quota,
        Self::ModelNotFound,
        Self::InvalidRequest,
        Self::ContextLength,
        Self::ContentFilter,
        Self::Malformed,
        Self::Empty,
        Self::MidStream,
        Self::Cancelled,
        Self::Overtaken,
        Self::Transient,
        Self::Misconfigured,
    ];

    /// For headers, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::ServerError => "server_error",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::Auth => "auth",
            Self::Quota => "quota",
            Self::ModelNotFound => "model_not_found",
            Self::InvalidRequest => "invalid_request",
            Self::ContextLength => "context_length",
            Self::ContentFilter => "content_filter",
            Self::Malformed => "malformed",
            Self::Empty => "empty",
            Self::MidStream => "mid_stream",
            Self::Cancelled => "cancelled",
            Self::Overtaken => "overtaken",
            Self::Transient => "transient",
            Self::Misconfigured => "misconfigured",
        }
    }
}

/// What the request may do next. Limits (attempts, tokens, deadline) are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Nothing: the answer is good.
    Done,
    /// Nothing was sent: again, free of charge, same deployment first.
    Replay,
    /// Same deployment once more, then another one.
    SameThenOther,
    /// Same deployment once more, then the answer goes to the caller.
    SameThenReturn,
    /// Another deployment now.
    Other,
    /// Another deployment now; this one gets no requests until the gate opens.
    OtherWithGate,
    /// Another deployment now; nothing in the scope gets requests for a while.
    Quarantine,
    /// Only a deployment that declares a larger context window; else to the caller.
    LargerContext,
    /// To the caller, or elsewhere if the virtual model opted in.
    ContentFilter,
    /// To the caller, never retried.
    Return,
    /// Content was already sent: one error in the stream, then a normal end.
    EndInBand,
}

/// What the breaker of the deployment counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerCount {
    /// In the ratio and in a row.
    Failure,
    /// In the ratio only.
    RatioOnly,
    /// [`Self::Failure`], but [`Self::RatioOnly`] at each deployment if the same
    /// request ends so at a second one: then the prompt is the likely cause.
    Poisonable,
    /// Not at all.
    Neutral,
    /// As a success: the server is alive.
    Success,
}

/// What is broken until somebody mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuarantineScope {
    /// The provider with this credential: money or address.
    Account,
    /// The credential.
    Credential,
    /// This deployment: its model does not exist.
    Deployment,
}

/// The error fields of an answer, as parsed from its JSON. A number given as `code`
/// is passed as its digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// `code`, the most specific of them.
    pub code: Option<&'a str>,
    /// `type`.
    pub kind: Option<&'a str>,
    /// `param`.
    pub param: Option<&'a str>,
    /// `message`, for people.
    pub message: Option<&'a str>,
}

impl ErrorFields<'_> {
    /// Whether the answer held no error at all.
    pub const fn is_empty(&self) -> bool {
        self.code.is_none() && self.kind.is_none() && self.param.is_none() && self.message.is_none()
    }

    /// `code` if it is a number: providers repeat the status there.
    pub fn numeric_code(&self) -> Option<u16> {
        let code: u16 = self.code?.parse().ok()?;
        (400..=599).contains(&code).then_some(code)
    }
}

/// The verdict on one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// What came of it.
    pub class: OutcomeClass,
    /// What the request may do next.
    pub remedy: Remedy,
    /// What the breaker counts.
    pub breaker: BreakerCount,
    /// Set with [`Remedy::Quarantine`] only.
    pub quarantine_scope: Option<QuarantineScope>,
    /// No requests to this deployment with this credential for so long.
    pub gate: Option<Gate>,
}

impl Classified {
    const fn new(class: OutcomeClass, remedy: Remedy, breaker: BreakerCount) -> Self {
        Self { class, remedy, breaker, quarantine_scope: None, gate: None }
    }

    const fn quarantine(class: OutcomeClass, scope: QuarantineScope) -> Self {
        let mut verdict = Self::new(class, Remedy::Quarantine, BreakerCount::Neutral);
        verdict.quarantine_scope = Some(scope);
        verdict
    }

    /// Shuts the gate for as long as the provider said, or at first for `unhinted`.
    fn gated(mut self, hint: Option<Duration>, unhinted: Option<Duration>) -> Self {
        let hinted = hint.map(|hint| Gate { for_how_long: hint.min(GATE_MAX), hinted: true });
        self.gate = hinted.or_else(|| unhinted.map(|base| Gate { for_how_long: base, hinted: false }));
        self
    }

    /// Whether it fails a probe of a half-open breaker. A rate limit does, though it
    /// never counts otherwise.
    pub fn fails_probe(&self) -> bool {
        let counts = match self.breaker {
            BreakerCount::Failure | BreakerCount::RatioOnly | BreakerCount::Poisonable => true,
            BreakerCount::Neutral | BreakerCount::Success => false,
        };
        counts || self.class == OutcomeClass::RateLimited
    }
}

/// The verdict on an answer by its status and error fields. Statuses below 400 with
/// error fields (an error as first event of a stream, or in a 200 body) are judged by
/// the status that those fields stand for.
pub fn classify(status: u16, error: &ErrorFields<'_>, retry_hint: Option<Duration>) -> Classified {
    let status = words::effective_status(status, error);
    match status {
        200..=299 => Classified::new(OutcomeClass::Ok, Remedy::Done, BreakerCount::Success),
        400..=499 => client_error(status, error, retry_hint),
        500..=599 => server_error(status, error, retry_hint),
        300..=399 => Classified::quarantine(OutcomeClass::Misconfigured, QuarantineScope::Account),
        _ => Classified::new(OutcomeClass::Malformed, Remedy::Other, BreakerCount::Failure),
    }
}

/// The verdict on an error event after content was sent.
pub fn classify_mid_stream(error: &ErrorFields<'_>) -> Classified {
    let breaker = match words::effective_status(200, error) {
        400..=499 => BreakerCount::Neutral,
        _ => BreakerCount::Failure,
    };
    Classified::new(OutcomeClass::MidStream, Remedy::EndInBand, breaker)
}

fn client_error(status: u16, error: &ErrorFields<'_>, hint: Option<Duration>) -> Classified {
    use BreakerCount::{Neutral, RatioOnly, Success};
    if status == 402 || words::is_about_money(error) {
        return Classified::quarantine(OutcomeClass::Quota, QuarantineScope::Account);
    }
    if status == 429 || status == 498 {
        return Classified::new(OutcomeClass::RateLimited, Remedy::OtherWithGate, Neutral)
            .gated(hint, Some(RATE_GATE_DEFAULT));
    }
    if words::is_content_filter(error) {
        return Classified::new(OutcomeClass::ContentFilter, Remedy::ContentFilter, Neutral);
    }
    if words::is_context_length(error) || status == 413 && words::is_token_limit(error) {
        return Classified::new(OutcomeClass::ContextLength, Remedy::LargerContext, Neutral);
    }
    let invalid = Classified::new(OutcomeClass::InvalidRequest, Remedy::Return, Success);
    match status {
        401 | 403 => Classified::quarantine(OutcomeClass::Auth, QuarantineScope::Credential),
        404 if words::is_model_not_found(error) => {
            Classified::quarantine(OutcomeClass::ModelNotFound, QuarantineScope::Deployment)
        }
        // Not the API's own error: no such path, so the base URL is wrong.
        404 if error.is_empty() => {
            Classified::quarantine(OutcomeClass::Misconfigured, QuarantineScope::Deployment)
        }
        408 => Classified::new(OutcomeClass::Transient, Remedy::Other, RatioOnly),
        409 => Classified::new(OutcomeClass::Transient, Remedy::SameThenReturn, Neutral),
        422 if words::is_hallucination(error) => {
            Classified::new(OutcomeClass::Transient, Remedy::SameThenOther, RatioOnly)
        }
        424 => Classified::new(OutcomeClass::Transient, Remedy::SameThenOther, RatioOnly),
        413 => Classified { breaker: Neutral, ..invalid },
        _ => invalid,
    }
}

fn server_error(status: u16, error: &ErrorFields<'_>, hint: Option<Duration>) -> Classified {
    use BreakerCount::{Failure, Poisonable, RatioOnly};
    if status == 529 || status == 503 && words::is_overload(error) {
        return Classified::new(OutcomeClass::Overloaded, Remedy::OtherWithGate, RatioOnly)
            .gated(hint, Some(OVERLOAD_GATE_DEFAULT));
    }
    match status {
        500 => Classified::new(OutcomeClass::ServerError, Remedy::SameThenOther, Poisonable),
        502..=504 | 520..=524 => {
            let remedy = if hint.is_some() { Remedy::OtherWithGate } else { Remedy::Other };
            Classified::new(OutcomeClass::Unavailable, remedy, Failure).gated(hint, None)
        }
        525 | 526 => Classified::quarantine(OutcomeClass::Misconfigured, QuarantineScope::Account),
        _ => Classified::new(OutcomeClass::ServerError, Remedy::Other, Failure),
    }
}

#[cfg(test)]
mod tests;
