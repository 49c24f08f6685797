//! What was taken over the last ten seconds.

use crate::time::Timestamp;

/// Seconds counted.
const SPAN: u64 = 10;
const NANOS: u64 = 1_000_000_000;
/// One more, since the oldest is only partly over.
const SLOTS: usize = SPAN as usize + 1;

/// Requests by the second in which they were sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    slots: [(u64, u32); SLOTS],
}

impl Window {
    /// One is sent.
    pub(super) fn count(&mut self, now: Timestamp) {
        let second = now.as_nanos() / NANOS;
        let slot = &mut self.slots[second as usize % SLOTS];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 = slot.1.saturating_add(1);
    }

    /// One that was sent then was refused.
    pub(super) fn uncount(&mut self, started: Timestamp) {
        let second = started.as_nanos() / NANOS;
        let slot = &mut self.slots[second as usize % SLOTS];
        if slot.0 == second {
            slot.1 = slot.1.saturating_sub(1);
        }
    }

    /// Sent and not refused over the span: how many, and how many per second since the
    /// first of them. None: nothing.
    pub(super) fn accepted(&self, now: Timestamp) -> Option<(u32, f64)> {
        let second = now.as_nanos() / NANOS;
        let recent =
            self.slots.iter().filter(|(at, count)| *count > 0 && at + SPAN > second && *at <= second);
        let (first, count) = recent
            .fold((second, 0_u32), |(first, sum), (at, count)| (first.min(*at), sum.saturating_add(*count)));
        // Traffic that just began is not spread over time before it.
        let span = now.since(Timestamp::from_nanos(first * NANOS)).as_secs_f64();
        (count > 0).then(|| (count, f64::from(count) / span.clamp(1.0, SPAN as f64)))
    }
}
