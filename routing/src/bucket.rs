//! The retry bucket of an agent: what an outage may cost in extra attempts.
//!
//! Starts full, earns a share of a token per request and pays one per extra attempt
//! that is not free, so a full outage is amplified by that share at most. The idea
//! is the SRE book's retry budget, kept as a token bucket as in Finagle.

/// Tokens a full bucket holds: the burst that may be spent at once.
const BURST: u32 = 20;

/// Tokens are counted in hundredths, as shares are given in percent.
const ONE: u32 = 100;

/// The bucket.
#[derive(Clone, Debug)]
pub struct RetryBucket {
    hundredths: u32,
}

impl Default for RetryBucket {
    fn default() -> Self {
        Self { hundredths: BURST * ONE }
    }
}

impl RetryBucket {
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

    /// Whether one extra attempt can be paid.
    pub fn can_spend(&self) -> bool {
        self.hundredths >= ONE
    }
}

/// Hedges that may be spent at once.
const HEDGE_BURST: u32 = 10;

/// The same for attempts that race a slow one; starts full too.
#[derive(Clone, Debug)]
pub struct HedgeBucket {
    hundredths: u32,
}

impl Default for HedgeBucket {
    fn default() -> Self {
        Self { hundredths: HEDGE_BURST * ONE }
    }
}

impl HedgeBucket {
    /// A request came in; `percent` of a token is earned.
    pub fn earn(&mut self, percent: u32) {
        self.hundredths = self.hundredths.saturating_add(percent).min(HEDGE_BURST * ONE);
    }

    /// Pays for one hedge. False: there is nothing to pay with.
    pub fn spend(&mut self) -> bool {
        let rest = self.hundredths.checked_sub(ONE);
        self.hundredths = rest.unwrap_or(self.hundredths);
        rest.is_some()
    }

    /// Whether one hedge can be paid.
    pub const fn can_spend(&self) -> bool {
        self.hundredths >= ONE
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
