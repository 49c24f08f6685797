//! Exact counts of results over a sliding window of ten buckets, in all and by tenant.

use alloc::vec::Vec;
use core::{ops::RangeInclusive, time::Duration};

use crate::{tenant::Tenant, time::Timestamp};

/// A tenth of the window is forgotten at a time.
const BUCKETS: usize = 10;
/// Tenants counted apart in one window, at 160 bytes each; all others count as one more.
const TENANTS_MAX: usize = 16;
/// Fewer tenants can't outvote one of them.
const TENANTS_TO_CAP: usize = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    number: u64,
    failures: u32,
    total: u32,
}

#[derive(Clone, Debug, Default)]
struct Counts([Bucket; BUCKETS]);

impl Counts {
    fn record(&mut self, number: u64, failed: bool) {
        let bucket = &mut self.0[(number % BUCKETS as u64) as usize];
        if bucket.number != number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        bucket.total = bucket.total.saturating_add(1);
        bucket.failures = bucket.failures.saturating_add(u32::from(failed));
    }

    /// One more failure among the results that are counted already.
    fn spoil(&mut self, number: u64, live: &RangeInclusive<u64>) {
        let (failures, total) = self.sum(live);
        if failures >= total {
            return;
        }
        let bucket = &mut self.0[(number % BUCKETS as u64) as usize];
        if bucket.number != number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        bucket.failures = bucket.failures.saturating_add(1);
    }

    /// Failures and all results in these buckets.
    fn sum(&self, live: &RangeInclusive<u64>) -> (u32, u32) {
        let live = self.0.iter().filter(|bucket| live.contains(&bucket.number));
        live.fold((0, 0), |(failures, total), bucket| {
            (failures.saturating_add(bucket.failures), total.saturating_add(bucket.total))
        })
    }
}

/// The window.
#[derive(Clone, Debug)]
pub struct Window {
    bucket_nanos: u64,
    all: Counts,
    /// None: those for whom no place was left.
    tenants: Vec<(Option<Tenant>, Counts)>,
}

impl Window {
    /// An empty window of that length.
    pub fn new(length: Duration) -> Self {
        let bucket_nanos = (length.as_nanos() as u64 / BUCKETS as u64).max(1);
        Self { bucket_nanos, all: Counts::default(), tenants: Vec::new() }
    }

    /// Counts a result.
    pub fn record(&mut self, now: Timestamp, tenant: Tenant, failed: bool) {
        let number = now.as_nanos() / self.bucket_nanos;
        self.all.record(number, failed);
        if tenant != Tenant::NONE {
            let place = self.place(now, tenant);
            self.tenants[place].1.record(number, failed);
        }
    }

    /// A result that was counted as good was not.
    pub fn spoil(&mut self, now: Timestamp, tenant: Tenant) {
        let number = now.as_nanos() / self.bucket_nanos;
        let live = self.live(now);
        self.all.spoil(number, &live);
        if tenant != Tenant::NONE {
            let place = self.place(now, tenant);
            self.tenants[place].1.spoil(number, &live);
        }
    }

    /// Failures and all results within the window. Where three or more tenants sent
    /// traffic, none supplies more than half of the failures: the results of one who
    /// has more weigh so much less. Results of no tenant always count in full.
    pub fn counts(&self, now: Timestamp) -> (u32, u32) {
        let live = self.live(now);
        let (failures, total) = self.all.sum(&live);
        let mut tenants = 0;
        let mut most = (0, 0);
        for sum in self.tenants.iter().map(|(_, counts)| counts.sum(&live)).filter(|(_, total)| *total > 0) {
            tenants += 1;
            most = sum.max(most);
        }
        let others = failures.saturating_sub(most.0);
        if tenants < TENANTS_TO_CAP || most.0 <= others {
            return (failures, total);
        }
        let weighed = (u64::from(most.1) * u64::from(others)).div_ceil(most.0.into()) as u32;
        (others.saturating_mul(2), total.saturating_sub(most.1).saturating_add(weighed))
    }

    fn live(&self, now: Timestamp) -> RangeInclusive<u64> {
        let newest = now.as_nanos() / self.bucket_nanos;
        newest.saturating_sub(BUCKETS as u64 - 1)..=newest
    }

    /// Where the tenant is counted: at its own place, at a free one, at one whose
    /// tenant has gone quiet, or with all others.
    fn place(&mut self, now: Timestamp, tenant: Tenant) -> usize {
        let find = |whose: Option<Tenant>| self.tenants.iter().position(|(counted, _)| *counted == whose);
        if let Some(own) = find(Some(tenant)) {
            return own;
        }
        let live = self.live(now);
        let is_quiet =
            |(whose, counts): &(Option<Tenant>, Counts)| whose.is_some() && counts.sum(&live).1 == 0;
        if let Some(quiet) = self.tenants.iter().position(is_quiet) {
            self.tenants[quiet] = (Some(tenant), Counts::default());
            return quiet;
        }
        let whose = if self.tenants.len() < TENANTS_MAX { Some(tenant) } else { None };
        find(whose).unwrap_or_else(|| {
            self.tenants.push((whose, Counts::default()));
            self.tenants.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(window: &mut Window, tenant: u64, failed: bool, times: u32) {
        for _ in 0..times {
            window.record(Timestamp::ZERO, Tenant::from_hash(tenant), failed);
        }
    }

    fn window() -> Window {
        Window::new(Duration::from_secs(30))
    }

    #[test]
    fn results_leave_the_window() {
        let mut window = window();
        window.record(Timestamp::ZERO, Tenant::NONE, true);
        assert_eq!(window.counts(Timestamp::ZERO + Duration::from_secs(29)), (1, 1));
        assert_eq!(window.counts(Timestamp::ZERO + Duration::from_secs(30)), (0, 0));
    }

    #[test]
    fn one_of_three_tenants_supplies_half_of_the_failures_at_most() {
        let mut window = window();
        record(&mut window, 1, true, 100);
        record(&mut window, 2, false, 5);
        assert_eq!(window.counts(Timestamp::ZERO), (100, 105), "two can't tell who is wrong");
        record(&mut window, 3, false, 5);
        assert_eq!(window.counts(Timestamp::ZERO), (0, 10));
        record(&mut window, 3, true, 2);
        assert_eq!(window.counts(Timestamp::ZERO), (4, 14));
        record(&mut window, 2, true, 200);
        assert_eq!(window.counts(Timestamp::ZERO), (204, 212), "answers weigh less as failures do");
    }

    #[test]
    fn results_of_no_tenant_count_in_full() {
        let mut window = window();
        for tenant in 1..=3 {
            record(&mut window, tenant, false, 1);
        }
        for _ in 0..10 {
            window.record(Timestamp::ZERO, Tenant::NONE, true);
        }
        assert_eq!(window.counts(Timestamp::ZERO), (10, 13));
    }

    #[test]
    fn however_many_tenants_there_are_the_window_stays_small_and_exact() {
        let mut window = window();
        let mut now = Timestamp::ZERO;
        for tenant in 1..=1_000 {
            window.record(now, Tenant::from_hash(tenant), true);
        }
        assert_eq!(window.counts(now), (32, 32), "the lump counts as one tenant");
        for first in (2_000..2_100).step_by(3) {
            now = now + Duration::from_secs(31);
            for tenant in first..first + 3 {
                window.record(now, Tenant::from_hash(tenant), true);
            }
            assert_eq!(window.counts(now), (3, 3), "places of quiet tenants are used again");
            for tenant in 1..=100 {
                window.record(now, Tenant::from_hash(tenant), false);
            }
            assert!(window.tenants.len() <= TENANTS_MAX + 1);
        }
    }
}
