//! Slows down who tries tokens. Failures are counted by peer; whoever is let in is never
//! asked.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use trunkline_transport::places::network;

/// Failures of one peer that are answered at once, a second and in a burst. An operator
/// with an old token makes a few.
const RATE_PER_SECOND: f64 = 10.0;

/// Peers that failed of late. An entry has about 100 bytes and is of no use after a
/// second; peers beyond share one.
const PEERS_MAX: usize = 4_096;

/// What a failure beyond the rate waits before its answer.
pub(super) const DELAY: Duration = Duration::from_secs(1);

/// Failures, by peer.
#[derive(Debug, Default)]
pub(super) struct Limiter(Mutex<Peers>);

#[derive(Debug, Default)]
struct Peers {
    own: HashMap<IpAddr, Bucket>,
    shared: Option<Bucket>,
}

/// Refills steadily up to a second's worth.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    const fn full(now: Instant) -> Self {
        Self { left: RATE_PER_SECOND, at: now }
    }

    fn refilled(self, now: Instant) -> Self {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        Self { left: (self.left + since * RATE_PER_SECOND).min(RATE_PER_SECOND), at: now }
    }

    /// Whether there was one left.
    fn take(&mut self, now: Instant) -> bool {
        *self = self.refilled(now);
        let has = self.left >= 1.0;
        self.left -= if has { 1.0 } else { 0.0 };
        has
    }
}

impl Limiter {
    /// Counts a failure. False: it is one too many.
    pub(super) fn allows(&self, peer: Option<IpAddr>, now: Instant) -> bool {
        let mut peers = self.0.lock();
        let Some(peer) = peer.map(network) else {
            return peers.shared.get_or_insert(Bucket::full(now)).take(now);
        };
        if let Some(bucket) = peers.own.get_mut(&peer) {
            return bucket.take(now);
        }
        if peers.own.len() >= PEERS_MAX {
            peers.own.retain(|_, bucket| bucket.refilled(now).left < RATE_PER_SECOND);
        }
        if peers.own.len() >= PEERS_MAX {
            return peers.shared.get_or_insert(Bucket::full(now)).take(now);
        }
        peers.own.entry(peer).or_insert(Bucket::full(now)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(limiter: &Limiter, peer: &str, now: Instant) -> usize {
        (0..100).filter(|_| limiter.allows(Some(peer.parse().unwrap()), now)).count()
    }

    #[test]
    fn each_peer_has_ten_a_second() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        assert_eq!(allowed(&limiter, "10.0.0.1", now), 10);
        assert_eq!(allowed(&limiter, "10.0.0.2", now), 10);
        assert_eq!(allowed(&limiter, "10.0.0.1", now + Duration::from_millis(500)), 5);
        assert_eq!(allowed(&limiter, "10.0.0.1", now + Duration::from_secs(60)), 10);
        assert_eq!(allowed(&limiter, "2001:db8::1", now), 10);
        assert_eq!(allowed(&limiter, "2001:db8::ffff:2", now), 0, "the same network");
        assert_eq!(allowed(&limiter, "::ffff:10.0.0.2", now), 0, "the same address");
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_and_shares_what_is_left() {
        let (limiter, now) = (Limiter::default(), Instant::now());
        let peers = (0..10_000_u32).map(|number| IpAddr::from(number.to_be_bytes()));
        let allowed = peers.filter(|peer| limiter.allows(Some(*peer), now)).count();
        assert_eq!(allowed, PEERS_MAX + 10);
        assert_eq!(limiter.0.lock().own.len(), PEERS_MAX);
        // Later they are forgotten, and newcomers have their own again.
        let later = now + Duration::from_secs(2);
        assert!((0..10).all(|_| limiter.allows(Some([1, 2, 3, 4].into()), later)));
        assert_eq!(limiter.0.lock().own.len(), 1);
    }
}
