//! What a single result means to gate, quarantine and breaker: of an attempt of a
//! [`crate::request::Request`], or of a call that an app made itself and reports.

use rand_core::Rng;

use crate::{
    breaker::Sample,
    classify::{BreakerCount, Classified, OutcomeClass, QUARANTINE_DEFAULT, QuarantineScope},
    hold::QuarantineReason,
    registry::{Registry, Ticket},
    time::Timestamp,
};

/// Why a quarantine begins.
pub fn quarantine_reason(scope: QuarantineScope, class: OutcomeClass) -> QuarantineReason {
    match (scope, class) {
        (_, OutcomeClass::Misconfigured) => QuarantineReason::Misconfigured,
        (QuarantineScope::Account, _) => QuarantineReason::Account,
        (QuarantineScope::Credential, _) => QuarantineReason::Credential,
        (QuarantineScope::Deployment, _) => QuarantineReason::Model,
    }
}

/// What the breaker counts. A 500 or an empty answer counts in full: whether the same
/// prompt failed elsewhere too is not known here.
pub fn sample(classified: &Classified) -> Sample {
    match classified.breaker {
        BreakerCount::Poisonable | BreakerCount::Failure => Sample::Failure,
        BreakerCount::RatioOnly => Sample::RatioFailure,
        BreakerCount::Neutral if classified.class == OutcomeClass::RateLimited => Sample::RateLimited,
        BreakerCount::Neutral => Sample::Neutral,
        BreakerCount::Success => Sample::Success,
    }
}

/// Tells the registry. Returns whether the breaker opened.
pub fn learn(
    registry: &mut Registry,
    ticket: Ticket,
    now: Timestamp,
    classified: &Classified,
    rng: &mut impl Rng,
) -> bool {
    hold(registry, ticket, now, classified);
    registry.record(ticket, now, sample(classified), rng)
}

/// A whole answer came. Returns whether the breaker opened, which it never does here.
pub fn answered(registry: &mut Registry, ticket: Ticket, now: Timestamp, rng: &mut impl Rng) -> bool {
    registry.note_class(ticket, OutcomeClass::Ok);
    registry.record(ticket, now, Sample::Success, rng)
}

/// Tells gate and quarantine, not the breaker.
pub(crate) fn hold(registry: &mut Registry, ticket: Ticket, now: Timestamp, classified: &Classified) {
    registry.note_class(ticket, classified.class);
    if let Some(gate) = classified.gate {
        registry.gate(ticket, now, gate);
    }
    if let Some(scope) = classified.quarantine_scope {
        let reason = quarantine_reason(scope, classified.class);
        registry.quarantine(ticket, now, reason, scope, QUARANTINE_DEFAULT);
    }
}
