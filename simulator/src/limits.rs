//! Rate limits: requests and tokens per minute, each a bucket that refills steadily.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_routing::time::Timestamp;

use crate::math;

/// What an account may ask for. Buckets start full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// Requests per minute. Default: no limit.
    pub requests_per_minute: Option<u32>,
    /// Input and requested output tokens per minute. Default: no limit.
    pub tokens_per_minute: Option<u32>,
    /// A bucket holds what so many seconds allow. Default 60; providers that spread a
    /// minute's limit over its seconds have fewer.
    pub burst_s: Option<u32>,
}

/// How much of the limits is used up. One per simulated account.
#[derive(Clone, Debug, Default)]
pub struct RateGate {
    requests_used: Used,
    tokens_used: Used,
}

/// A bucket's size and what comes back each second.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    size: f64,
    per_second: f64,
}

impl RateLimits {
    fn bucket(&self, per_minute: Option<u32>) -> Option<Bucket> {
        let per_second = f64::from(per_minute?.max(1)) / 60.0;
        let size = (per_second * f64::from(self.burst_s.unwrap_or(60))).max(1.0);
        Some(Bucket { size, per_second })
    }
}

impl RateGate {
    /// Takes one request of so many tokens out of the buckets.
    ///
    /// # Errors
    /// The wait after which the same request would pass. A refused request takes
    /// nothing. One larger than a whole bucket passes when the bucket is full.
    pub fn admit(&mut self, limits: &RateLimits, now: Timestamp, tokens: u64) -> Result<(), Duration> {
        let tokens = tokens as f64;
        let (requests, token) =
            (limits.bucket(limits.requests_per_minute), limits.bucket(limits.tokens_per_minute));
        let wait =
            f64::max(self.requests_used.wait(requests, now, 1.0), self.tokens_used.wait(token, now, tokens));
        if wait > 0.0 {
            return Err(math::seconds(wait));
        }
        self.requests_used.take(requests, 1.0);
        self.tokens_used.take(token, tokens);
        Ok(())
    }
}

/// The empty part of one bucket, and when that was true.
#[derive(Clone, Debug, Default)]
struct Used {
    amount: f64,
    at: Timestamp,
}

impl Used {
    /// Refills up to `now`; then seconds until `amount` fits.
    fn wait(&mut self, bucket: Option<Bucket>, now: Timestamp, amount: f64) -> f64 {
        let Some(Bucket { size, per_second }) = bucket else { return 0.0 };
        self.amount = f64::max(0.0, self.amount - now.since(self.at).as_secs_f64() * per_second);
        self.at = self.at.max(now);
        let over = self.amount + amount.min(size) - size;
        // A wait below a microsecond is rounding, and would be refused for ever.
        let wait = over / per_second;
        if wait > 1e-6 { wait } else { 0.0 }
    }

    fn take(&mut self, bucket: Option<Bucket>, amount: f64) {
        if let Some(Bucket { size, .. }) = bucket {
            self.amount = f64::min(self.amount + amount, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_request_passes_after_its_retry_after() {
        let limits =
            RateLimits { requests_per_minute: Some(2), tokens_per_minute: None, ..RateLimits::default() };
        let mut gate = RateGate::default();
        assert_eq!(gate.admit(&limits, Timestamp::ZERO, 1), Ok(()));
        assert_eq!(gate.admit(&limits, Timestamp::ZERO, 1), Ok(()));
        let wait = gate.admit(&limits, Timestamp::ZERO, 1).unwrap_err();
        assert_eq!(wait, Duration::from_secs(30));
        assert!(gate.admit(&limits, Timestamp::ZERO + wait / 2, 1).is_err());
        assert_eq!(gate.admit(&limits, Timestamp::ZERO + wait, 1), Ok(()));
    }

    #[test]
    fn tokens_have_their_own_bucket_and_a_huge_request_waits_for_a_full_one() {
        let limits =
            RateLimits { requests_per_minute: None, tokens_per_minute: Some(600), ..RateLimits::default() };
        let mut gate = RateGate::default();
        assert_eq!(gate.admit(&limits, Timestamp::ZERO, 300), Ok(()));
        assert_eq!(gate.admit(&limits, Timestamp::ZERO, 9_000), Err(Duration::from_secs(30)));
        assert_eq!(gate.admit(&limits, Timestamp::ZERO + Duration::from_secs(30), 9_000), Ok(()));
    }
}
