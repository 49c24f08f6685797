//! Verdicts on attempts that brought no status, or a body that is not an answer.

use super::{BreakerCount, Classified, OutcomeClass, QuarantineScope, Remedy};

/// What ended the exchange before an answer was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportFault {
    /// A pooled connection turned out closed before a byte of the request was written,
    /// or the peer refused the stream.
    Unwritten,
    /// DNS, TCP or TLS failed.
    Connect,
    /// DNS, TCP and TLS took longer than allowed.
    ConnectTimeout,
    /// The address the name led to is one we do not call.
    AddressRefused,
    /// Closed after the request was written, before content.
    Reset,
    /// The attempt's time limit.
    AttemptTimeout,
    /// Closed or reset after content was sent.
    ResetAfterContent,
    /// Nothing for too long after content was sent, or the stream's whole time is up.
    TimeoutAfterContent,
    /// The caller left, or its own deadline was too short.
    Cancelled,
}

/// What is wrong with the body of a 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyFault {
    /// A page for people: something stands in front of the provider.
    Html,
    /// A stream was asked for, and this is neither one nor a JSON error.
    NotEventStream,
    /// A JSON object was asked for, and this is none.
    NotJson,
    /// Longer than we hold.
    TooLarge,
    /// Whole, but with no content, tool call or refusal. Also a stream that ended so.
    Empty,
    /// Cut before content: shorter than announced, or broken JSON at the end.
    Truncated,
    /// A stream that ended after content without a finish reason.
    TruncatedAfterContent,
}

/// Which kind of answer an overtaken attempt was silent about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Silence {
    /// No content event within `first_token`.
    Stream,
    /// No response head within `first_token` and the expected generation time, which
    /// is a guess.
    Unary,
}

/// The verdict on an exchange without an answer.
pub const fn classify_transport(fault: TransportFault) -> Classified {
    use BreakerCount::{Failure, Neutral};
    match fault {
        TransportFault::Unwritten => Classified::new(OutcomeClass::Connect, Remedy::Replay, Neutral),
        TransportFault::Connect | TransportFault::ConnectTimeout => {
            Classified::new(OutcomeClass::Connect, Remedy::Other, Failure)
        }
        TransportFault::AddressRefused => {
            Classified::quarantine(OutcomeClass::Misconfigured, QuarantineScope::Account)
        }
        TransportFault::Reset => Classified::new(OutcomeClass::Reset, Remedy::Other, Failure),
        TransportFault::AttemptTimeout => Classified::new(OutcomeClass::Timeout, Remedy::Other, Failure),
        TransportFault::ResetAfterContent | TransportFault::TimeoutAfterContent => {
            Classified::new(OutcomeClass::MidStream, Remedy::EndInBand, Failure)
        }
        TransportFault::Cancelled => Classified::new(OutcomeClass::Cancelled, Remedy::Return, Neutral),
    }
}

/// The verdict on a 200 whose body is not an answer. If that body holds a JSON error,
/// [`super::classify`] judges it instead.
pub const fn classify_body(fault: BodyFault) -> Classified {
    use BreakerCount::{Failure, Poisonable, RatioOnly};
    match fault {
        BodyFault::Html => Classified::new(OutcomeClass::Malformed, Remedy::Other, Failure),
        BodyFault::NotEventStream | BodyFault::NotJson | BodyFault::TooLarge => {
            Classified::new(OutcomeClass::Malformed, Remedy::Other, RatioOnly)
        }
        BodyFault::Empty => Classified::new(OutcomeClass::Empty, Remedy::Other, Poisonable),
        BodyFault::Truncated => Classified::new(OutcomeClass::Reset, Remedy::Other, Failure),
        BodyFault::TruncatedAfterContent => {
            Classified::new(OutcomeClass::MidStream, Remedy::EndInBand, Failure)
        }
    }
}

/// The verdict on an attempt that said nothing for too long and was overtaken by
/// another one. Nothing is left to do for the request.
pub const fn classify_silence(silence: Silence) -> Classified {
    let breaker = match silence {
        Silence::Stream => BreakerCount::Failure,
        Silence::Unary => BreakerCount::RatioOnly,
    };
    Classified::new(OutcomeClass::Timeout, Remedy::Done, breaker)
}
