//! The agent's monotonic clock, and what of the wall clock is shown to people.

use std::time::{Instant, SystemTime};

use trunkline_routing::time::Timestamp;

/// Counts from the agent's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    zero: Instant,
    zero_wall: SystemTime,
}

impl Clock {
    /// Its zero is now.
    pub(crate) fn start() -> Self {
        Self { zero: Instant::now(), zero_wall: SystemTime::now() }
    }

    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// An instant as a timestamp.
    pub(crate) fn at(&self, instant: Instant) -> Timestamp {
        Timestamp::from_nanos(
            u64::try_from(instant.saturating_duration_since(self.zero).as_nanos()).unwrap_or(u64::MAX),
        )
    }

    /// A timestamp as an instant, for timers.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        self.zero + at.since(Timestamp::ZERO)
    }

    /// A timestamp on the wall clock as it is now, in ms since 1970: what prices go by, so
    /// that a clock that was set right after the start is right for them too. At least 1.
    pub(crate) fn unix_ms(&self, at: Timestamp) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let then = now.saturating_sub(self.now().since(at));
        u64::try_from(then.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// A timestamp on the wall clock as it was at the start: never jumps.
    pub(crate) fn wall(&self, at: Timestamp) -> SystemTime {
        self.zero_wall + at.since(Timestamp::ZERO)
    }
}
