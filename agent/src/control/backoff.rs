//! How long to wait before a stream to the control plane is opened again.

use std::time::Duration;

/// A stream that never answered: the wait is random up to this, doubled each time.
const BASE: Duration = Duration::from_millis(500);
/// The doubling ends here.
const MAX: Duration = Duration::from_secs(30);
/// A stream that had answered: a restart or a lost connection, and all agents come back
/// at once. Also the wait of an agent that can serve before its first connect.
pub(super) const SPREAD: Duration = Duration::from_secs(2);

/// What a stream did before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The control plane had sent something.
    Answered,
    /// Nothing came.
    Silent,
}

/// Counts streams that never answered.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    silent: u32,
}

impl Backoff {
    /// The wait after a stream that ended so; `chance` is from 0 to 1.
    pub(super) fn after(&mut self, ended: Ended, chance: f64) -> Duration {
        match ended {
            Ended::Answered => {
                self.silent = 0;
                SPREAD.mul_f64(chance)
            }
            Ended::Silent => {
                let limit = BASE.saturating_mul(1 << self.silent.min(6)).min(MAX);
                self.silent = self.silent.saturating_add(1);
                limit.mul_f64(chance)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_start_again_after_an_answer() {
        let mut backoff = Backoff::default();
        let mut wait = |ended| backoff.after(ended, 1.0).as_millis();
        let silent: Vec<_> = (0..8).map(|_| wait(Ended::Silent)).collect();
        assert_eq!(silent, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(wait(Ended::Answered), 2_000);
        assert_eq!(wait(Ended::Silent), 500);
    }
}
