//! The time that steps are aligned to: the wall clock, but never backwards, and not far
//! ahead for a short time only.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::time::Instant;

/// A time that is further ahead is not believed at once, in seconds: what is kept the
/// shortest time is kept some hours, so less does little harm.
const AHEAD_SECS: u64 = 86_400;

/// After so long it is believed. A clock that is wrong is mostly set right by then.
const STAYS: Duration = Duration::from_secs(3_600);

/// Whether a time that is far ahead can be believed: when it stayed so.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    since: Option<Instant>,
}

impl Doubt {
    /// Whether `time` can be true where `expected` or a little more would be. Both in
    /// seconds since 1970.
    pub(super) fn believes(&mut self, time: u64, expected: u64) -> bool {
        if time <= expected.saturating_add(AHEAD_SECS) {
            if self.since.take().is_some() {
                tracing::info!("the clock is near the time before again");
            }
            return true;
        }
        let since = *self.since.get_or_insert_with(|| {
            let ahead_secs = time - expected;
            tracing::warn!(
                ahead_secs,
                "the clock is more than a day ahead of the last counts; if it stays so for an hour it is \
                 believed, and until then nothing is removed for its age"
            );
            Instant::now()
        });
        since.elapsed() >= STAYS
    }
}

/// Seconds since 1970. When the wall clock is set back, it goes on from where it was;
/// when it is set forward, it follows: at once, or for more than a day if the wall clock
/// stays there.
pub(crate) struct Clock {
    wall: Box<dyn Fn() -> u64 + Send + Sync>,
    shown: Mutex<Shown>,
}

/// What the wall clock said last that was believed, and when that was.
struct Shown {
    secs: u64,
    at: Instant,
    doubt: Doubt,
}

impl Clock {
    /// Over the machine's wall clock.
    pub(crate) fn of_the_machine() -> Self {
        Self::over(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    fn over(wall: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let shown = Shown { secs: wall(), at: Instant::now(), doubt: Doubt::default() };
        Self { wall: Box::new(wall), shown: Mutex::new(shown) }
    }

    /// Seconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        let wall = (self.wall)();
        let mut shown = self.shown.lock();
        let expected = shown.secs.saturating_add(shown.at.elapsed().as_secs());
        let believed = shown.doubt.believes(wall, expected);
        if wall < shown.secs || !believed {
            return expected;
        }
        (shown.secs, shown.at) = (wall, Instant::now());
        wall
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("shown", &self.shown.lock().secs).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_set_back_does_not_turn_time_back() {
        let wall = Arc::new(AtomicU64::new(1_000));
        let read = Arc::clone(&wall);
        let clock = Clock::over(move || read.load(Ordering::Relaxed));
        assert_eq!(clock.now(), 1_000);
        wall.store(400, Ordering::Relaxed);
        assert_eq!(clock.now(), 1_000);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(clock.now(), 1_030);
        wall.store(5_000, Ordering::Relaxed);
        assert_eq!(clock.now(), 5_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_far_ahead_is_followed_when_it_stays_there() {
        let (right, wrong) = (1_800_000_000, 1_800_000_000 + 400 * 86_400);
        let wall = Arc::new(AtomicU64::new(right));
        let read = Arc::clone(&wall);
        let clock = Clock::over(move || read.load(Ordering::Relaxed));
        wall.store(wrong, Ordering::Relaxed);
        assert_eq!(clock.now(), right);
        tokio::time::advance(Duration::from_secs(3_000)).await;
        assert_eq!(clock.now(), right + 3_000);
        // Set right, and wrong again: the hour begins anew.
        wall.store(right + 3_000, Ordering::Relaxed);
        assert_eq!(clock.now(), right + 3_000);
        wall.store(wrong, Ordering::Relaxed);
        assert_eq!(clock.now(), right + 3_000);
        tokio::time::advance(Duration::from_secs(3_599)).await;
        assert_eq!(clock.now(), right + 6_599);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now(), wrong);
    }
}
