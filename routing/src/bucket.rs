//! The buckets of an agent that bound extra attempts: what an outage may cost in retries,
//! and what slow answers may cost in hedges.
//!
//! A bucket starts full, earns a share of a token per request and pays one per extra attempt
//! that is not free, so a full outage is amplified by that share at most. The idea
//! is the SRE book's retry budget, kept as a token bucket as in Finagle.

/// Tokens are counted in hundredths, as shares are given in percent.
const ONE: u32 = 100;

/// A bucket that holds `BURST` tokens when full: so many may be spent at once.
#[derive(Clone, Debug)]
pub struct Bucket<const BURST: u32> {
    hundredths: u32,
}

/// Pays for retries.
pub type RetryBucket = Bucket<20>;

/// Pays for attempts that race a slow one.
pub type HedgeBucket = Bucket<10>;

impl<const BURST: u32> Default for Bucket<BURST> {
    fn default() -> Self {
        Self { hundredths: BURST * ONE }
    }
}

impl<const BURST: u32> Bucket<BURST> {
    /// A request came in; `percent` of a token is earned.
    pub fn earn(&mut self, percent: u32) {
        self.hundredths = self.hundredths.saturating_add(percent).min(BURST * ONE);
    }

    /// Pays for one extra attempt. False: there is nothing to pay with.
    pub fn spend(&mut self) -> bool {
        let rest = self.hundredths.checked_sub(ONE);
        self.hundredths = rest.unwrap_or(self.hundredths);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_failing_requests_get_a_burst_and_twenty_percent() {
        let mut bucket = RetryBucket::default();
        let mut extra = 0;
        for _ in 0..1_000 {
            bucket.earn(20);
            extra += u32::from(bucket.spend()) + u32::from(bucket.spend());
        }
        assert_eq!(extra, 219);
    }
}
