//! Exact counts of results over a sliding window of ten buckets.

use core::time::Duration;

use crate::time::Timestamp;

/// A tenth of the window is forgotten at a time.
const BUCKETS: usize = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    number: u64,
    failures: u32,
    total: u32,
}

/// The window.
#[derive(Clone, Debug)]
pub struct Window {
    bucket_nanos: u64,
    buckets: [Bucket; BUCKETS],
}

impl Window {
    /// An empty window of that length.
    pub fn new(length: Duration) -> Self {
        let bucket_nanos = (length.as_nanos() as u64 / BUCKETS as u64).max(1);
        Self { bucket_nanos, buckets: [Bucket::default(); BUCKETS] }
    }

    /// Counts a result.
    pub fn record(&mut self, now: Timestamp, failed: bool) {
        let number = now.as_nanos() / self.bucket_nanos;
        let bucket = &mut self.buckets[(number % BUCKETS as u64) as usize];
        if bucket.number != number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        bucket.total = bucket.total.saturating_add(1);
        bucket.failures = bucket.failures.saturating_add(u32::from(failed));
    }

    /// Failures and all results within the window.
    pub fn counts(&self, now: Timestamp) -> (u32, u32) {
        let newest = now.as_nanos() / self.bucket_nanos;
        let oldest = newest.saturating_sub(BUCKETS as u64 - 1);
        let live = self.buckets.iter().filter(|bucket| (oldest..=newest).contains(&bucket.number));
        live.fold((0, 0), |(failures, total), bucket| {
            (failures.saturating_add(bucket.failures), total.saturating_add(bucket.total))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_leave_the_window() {
        let mut window = Window::new(Duration::from_secs(30));
        window.record(Timestamp::ZERO, true);
        assert_eq!(window.counts(Timestamp::ZERO + Duration::from_secs(29)), (1, 1));
        assert_eq!(window.counts(Timestamp::ZERO + Duration::from_secs(30)), (0, 0));
    }
}
