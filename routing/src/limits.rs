//! What one agent sends to a deployment at most: a meter over the last minute.

use alloc::boxed::Box;

use crate::{table::Limits, time::Timestamp};

/// One slot per second, and one more since the oldest is only partly over: at most one
/// second late to give a share back, never early.
const SLOTS: u64 = 61;
const SLOT_NANOS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    second: u64,
    requests: u32,
    tokens: u64,
}

/// A configured limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Attempts at the same time.
    InFlight,
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
}

/// Attempts and tokens of the last 60 s.
#[derive(Clone, Debug)]
pub struct Meter {
    slots: Box<[Slot; SLOTS as usize]>,
}

impl Default for Meter {
    fn default() -> Self {
        Self { slots: Box::new([Slot::default(); SLOTS as usize]) }
    }
}

impl Meter {
    /// Counts an attempt.
    pub fn charge(&mut self, now: Timestamp, tokens: u64) {
        let second = now.as_nanos() / SLOT_NANOS;
        let slot = &mut self.slots[(second % SLOTS) as usize];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot.requests = slot.requests.saturating_add(1);
        slot.tokens = slot.tokens.saturating_add(tokens);
    }

    /// The limit that an attempt of `tokens` would break now. A single attempt larger
    /// than the whole limit fits when nothing else ran, else it could never be sent.
    pub fn exceeded(&self, limits: &Limits, now: Timestamp, tokens: u64) -> Option<LimitKind> {
        let second = now.as_nanos() / SLOT_NANOS;
        let oldest = second.saturating_sub(SLOTS - 1);
        let recent = self.slots.iter().filter(|slot| slot.requests > 0 && slot.second >= oldest);
        let (requests, used) = recent.fold((0, 0), |(requests, used), slot| {
            (requests + u64::from(slot.requests), slot.tokens.saturating_add(used))
        });
        let fits = |limit: Option<u32>, used: u64, more: u64| {
            limit.is_none_or(|limit| used == 0 || used.saturating_add(more) <= u64::from(limit))
        };
        if !fits(limits.requests_per_minute, requests, 1) {
            return Some(LimitKind::Requests);
        }
        (!fits(limits.tokens_per_minute, used, tokens)).then_some(LimitKind::Tokens)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn no_minute_holds_more_than_the_limit() {
        let limits = Limits { requests_per_minute: Some(3), ..Limits::default() };
        let mut meter = Meter::default();
        let start = Timestamp::from_nanos(7 * SLOT_NANOS);
        for second in [0, 1, 2] {
            let now = start + Duration::from_millis(1_000 * second + 999);
            assert_eq!(meter.exceeded(&limits, now, 0), None);
            meter.charge(now, 0);
        }
        assert_eq!(
            meter.exceeded(&limits, start + Duration::from_millis(60_998), 0),
            Some(LimitKind::Requests)
        );
        assert_eq!(meter.exceeded(&limits, start + Duration::from_secs(61), 0), None);
    }

    #[test]
    fn tokens_are_limited_but_one_giant_may_pass_alone() {
        let limits = Limits { tokens_per_minute: Some(100), ..Limits::default() };
        let mut meter = Meter::default();
        assert_eq!(meter.exceeded(&limits, Timestamp::ZERO, 500), None);
        meter.charge(Timestamp::ZERO, 60);
        assert_eq!(meter.exceeded(&limits, Timestamp::ZERO, 40), None);
        assert_eq!(meter.exceeded(&limits, Timestamp::ZERO, 41), Some(LimitKind::Tokens));
    }
}
