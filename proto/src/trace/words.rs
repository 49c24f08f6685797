//! The decision core's names for kinds, as they stand in traces.

use trunkline_routing::{
    breaker::Sample,
    classify::{BreakerCount, OutcomeClass, QuarantineScope, Remedy},
    registry::FleetState,
    request::Start,
};

/// A word for each variant, and back. A variant without a word does not compile.
macro_rules! words {
    ($kind:ident, $write:ident, $read:ident, { $($variant:ident => $word:literal,)+ }) => {
        pub(super) const fn $write(value: $kind) -> &'static str {
            match value {
                $($kind::$variant => $word,)+
            }
        }

        pub(super) fn $read(word: &str) -> Option<$kind> {
            match word {
                $($word => Some($kind::$variant),)+
                _ => None,
            }
        }
    };
}

words!(Remedy, remedy, to_remedy, {
    Done => "done",
    Replay => "replay",
    SameThenOther => "same_then_other",
    SameThenReturn => "same_then_return",
    Other => "other",
    OtherWithGate => "other_with_gate",
    Quarantine => "quarantine",
    LargerContext => "larger_context",
    ContentFilter => "content_filter",
    Return => "return",
    EndInBand => "end_in_band",
});

words!(BreakerCount, count, to_count, {
    Failure => "failure",
    RatioOnly => "ratio_only",
    Poisonable => "poisonable",
    Neutral => "neutral",
    Success => "success",
});

words!(QuarantineScope, scope, to_scope, {
    Account => "account",
    Credential => "credential",
    Deployment => "deployment",
});

words!(Sample, sample, to_sample, {
    Begun => "begun",
    Ended => "ended",
    BrokeOff => "broke_off",
    Success => "success",
    Failure => "failure",
    RatioFailure => "ratio_failure",
    RateLimited => "rate_limited",
    Neutral => "neutral",
});

words!(FleetState, state, to_state, {
    Closed => "closed",
    Open => "open",
    HalfOpen => "half_open",
    Ramping => "ramping",
});

words!(Start, start, to_start, {
    First => "first",
    Retry => "retry",
    Beside => "beside",
    Hedge => "hedge",
});

/// The class of that name.
pub(super) fn to_class(word: &str) -> Option<OutcomeClass> {
    OutcomeClass::ALL.into_iter().find(|class| class.name() == word)
}
