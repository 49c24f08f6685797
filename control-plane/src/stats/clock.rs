//! The time that steps are aligned to: the wall clock, but never backwards.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Seconds since 1970. When the wall clock is set back, it goes on from where it was;
/// when it is set forward, it follows.
pub(crate) struct Clock {
    wall: Box<dyn Fn() -> u64 + Send + Sync>,
    shown: Mutex<(u64, Instant)>,
}

impl Clock {
    /// Over the machine's wall clock.
    pub(crate) fn of_the_machine() -> Self {
        Self::over(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    fn over(wall: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let shown = Mutex::new((wall(), Instant::now()));
        Self { wall: Box::new(wall), shown }
    }

    /// Seconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        let wall = (self.wall)();
        let mut shown = self.shown.lock();
        let (last, at) = *shown;
        if wall >= last {
            *shown = (wall, Instant::now());
            return wall;
        }
        last.saturating_add(at.elapsed().as_secs())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("shown", &self.shown.lock().0).finish_non_exhaustive()
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
}
