//! Rate gates and quarantines: two protections that are not the breaker.
//!
//! A *rate gate* holds back a target that asked for less, until the time it named. A
//! *quarantine* holds back an account, key or model that is broken until somebody
//! acts; it is tried again after a quarter of an hour in case somebody did. Both
//! belong to one (provider or deployment, credential reference) and are forgotten
//! when that reference changes.

use core::time::Duration;

use crate::time::Timestamp;

/// Longest gate without a hint.
const GATE_MAX: Duration = Duration::from_secs(30);
/// Doublings that reach the longest gate.
const GATE_DOUBLINGS_MAX: u32 = 5;

/// Why something is in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineReason {
    /// The provider refused the key.
    Credential,
    /// The key can't be found at this agent.
    MissingCredential,
    /// The account has no money or quota left.
    Account,
    /// The provider does not know the model.
    Model,
    /// The provider's address or certificate is set up wrongly.
    Misconfigured,
}

impl QuarantineReason {
    /// For people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Credential => "the provider refused the credential",
            Self::MissingCredential => "the credential can't be resolved at this agent",
            Self::Account => "the account has no credit or quota left",
            Self::Model => "the provider does not know the model",
            Self::Misconfigured => "the provider's address or certificate is set up wrongly",
        }
    }
}

/// How long a gate is to be shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// As the provider said; else for the first time, and twice as long each further
    /// time.
    pub for_how_long: Duration,
    /// Whether the provider said so.
    pub hinted: bool,
}

/// The two protections of one subject.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hold {
    gate: Option<Timestamp>,
    gates_in_a_row: u32,
    quarantine: Option<(QuarantineReason, Timestamp)>,
}

impl Hold {
    /// The subject asked for less. A later hint may only extend a gate. While a gate is
    /// shut, refusals without a hint are of attempts from before and tell nothing new.
    pub fn gate(&mut self, now: Timestamp, gate: Gate) {
        let for_how_long = if gate.hinted {
            gate.for_how_long
        } else if self.gated_until(now).is_some() {
            return;
        } else {
            let doubled = gate.for_how_long.saturating_mul(1 << self.gates_in_a_row.min(GATE_DOUBLINGS_MAX));
            self.gates_in_a_row += u32::from(self.gates_in_a_row < GATE_DOUBLINGS_MAX);
            doubled.min(GATE_MAX)
        };
        self.gate = self.gate.max(Some(now + for_how_long));
    }

    /// The subject is broken.
    pub fn quarantine(&mut self, now: Timestamp, reason: QuarantineReason, for_how_long: Duration) {
        self.quarantine = Some((reason, now + for_how_long));
    }

    /// The subject answered well: the next gate without a hint is short again. An
    /// answer that was under way before does not open a gate.
    pub const fn answered(&mut self) {
        self.gates_in_a_row = 0;
    }

    /// Somebody acted: it is tried again now. A gate stays.
    pub const fn end_quarantine(&mut self) {
        self.quarantine = None;
    }

    /// Forgets both.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The end of the gate, if it is shut now.
    pub fn gated_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.gate.filter(|until| *until > now)
    }

    /// The reason and end of the quarantine, if it holds now.
    pub fn quarantined(&self, now: Timestamp) -> Option<(QuarantineReason, Timestamp)> {
        self.quarantine.filter(|(_, until)| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn hinted(seconds: u64) -> Gate {
        Gate { for_how_long: Duration::from_secs(seconds), hinted: true }
    }

    const fn unhinted(seconds: u64) -> Gate {
        Gate { for_how_long: Duration::from_secs(seconds), hinted: false }
    }

    const fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_later_shorter_hint_does_not_open_the_gate_earlier() {
        let mut hold = Hold::default();
        hold.gate(at(0), hinted(10));
        hold.gate(at(1), hinted(2));
        assert_eq!(hold.gated_until(at(2)), Some(at(10)));
        assert_eq!(hold.gated_until(at(10)), None);
    }

    #[test]
    fn gates_without_a_hint_grow_up_to_half_a_minute() {
        let lengths = |first| {
            let mut hold = Hold::default();
            let mut now = at(0);
            let mut lengths = alloc::vec::Vec::new();
            for _ in 0..7 {
                hold.gate(now, unhinted(first));
                let until = hold.gated_until(now).unwrap();
                lengths.push(until.since(now).as_secs());
                now = until;
            }
            lengths
        };
        assert_eq!(lengths(1), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(lengths(5), [5, 10, 20, 30, 30, 30, 30]);
    }

    #[test]
    fn refusals_under_way_when_the_gate_shut_do_not_lengthen_it() {
        let mut hold = Hold::default();
        for _ in 0..100 {
            hold.gate(at(0), unhinted(1));
        }
        assert_eq!(hold.gated_until(at(0)), Some(at(1)));
    }
}
