//! Agents that say they know more of the store than the store itself. One wrong agent
//! must not stop operators for ever, so what they say ends some time after they are gone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How long a claim counts after its agent has gone. Agents that really hold more come
/// back within a minute; an hour is also for those that are being moved or repaired.
pub(super) const CLAIM_KEPT: Duration = Duration::from_hours(1);

/// All claims of this process. A restart begins without.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Claimed>);

#[derive(Debug, Default)]
struct Claimed {
    /// Of connected agents.
    open: usize,
    /// When the last of the others ended.
    ended: Option<Instant>,
}

/// What one agent says, for as long as it is connected.
#[derive(Debug)]
pub struct Claim(Arc<Claims>);

impl Claims {
    pub(super) fn begin(self: &Arc<Self>) -> Claim {
        self.0.lock().open += 1;
        Claim(Arc::clone(self))
    }

    /// Whether there is one, or was one of late.
    pub(super) fn hold(&self, now: Instant) -> bool {
        let claimed = self.0.lock();
        let of_late = |ended: Instant| now.saturating_duration_since(ended) < CLAIM_KEPT;
        claimed.open > 0 || claimed.ended.is_some_and(of_late)
    }

    /// As if the last one had ended an hour ago.
    #[cfg(test)]
    pub(super) fn age(&self) {
        let mut claimed = self.0.lock();
        claimed.ended = claimed.ended.and_then(|ended| ended.checked_sub(CLAIM_KEPT));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = self.0.0.lock();
        claimed.open -= 1;
        claimed.ended = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_counts_while_its_agent_is_connected_and_an_hour_longer() {
        let claims = Arc::new(Claims::default());
        let later = Instant::now() + 10 * CLAIM_KEPT;
        assert!(!claims.hold(later), "nobody said anything");
        let (one, other) = (claims.begin(), claims.begin());
        drop(one);
        assert!(claims.hold(later), "the other one is connected");
        drop(other);
        let now = Instant::now();
        assert!(claims.hold(now + CLAIM_KEPT / 2));
        assert!(!claims.hold(now + CLAIM_KEPT));
    }
}
