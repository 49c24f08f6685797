//! The rules of the breaker, one by one.

use rand::{SeedableRng, rngs::StdRng};

use super::*;

struct Bench {
    breaker: Breaker,
    now: Timestamp,
    rng: StdRng,
}

impl Bench {
    fn new() -> Self {
        let breaker = Breaker::new(BreakerPolicy::default(), 1, Timestamp::ZERO);
        Self { breaker, now: Timestamp::ZERO, rng: StdRng::seed_from_u64(1) }
    }

    fn run(&mut self, sample: Sample) -> bool {
        let entry = self.breaker.begin(self.now);
        self.breaker.record(self.now, entry, sample, &mut self.rng)
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    fn open(&mut self) {
        while !self.run(Sample::Failure) {}
    }

    fn wait_for_probe(&mut self) {
        while self.breaker.admission(self.now) != Admission::Probe {
            self.pass(10);
        }
    }
}

#[test]
fn five_failures_in_a_row_open_it() {
    let mut bench = Bench::new();
    let opened: Vec<bool> = (0..5).map(|_| bench.run(Sample::Failure)).collect();
    assert_eq!(opened, [false, false, false, false, true]);
    assert!(matches!(bench.breaker.admission(bench.now), Admission::Rejected { .. }));
}

#[test]
fn a_success_between_failures_keeps_it_closed_until_the_ratio_trips() {
    let mut bench = Bench::new();
    let mut results = 0;
    while matches!(bench.breaker.state(bench.now), State::Closed) {
        bench.run(if results % 2 == 0 { Sample::Success } else { Sample::Failure });
        results += 1;
    }
    assert_eq!(results, 20);
}

#[test]
fn rate_limits_and_cancels_never_open_it() {
    let mut bench = Bench::new();
    for _ in 0..1_000 {
        assert!(!bench.run(Sample::RateLimited));
        assert!(!bench.run(Sample::Neutral));
    }
}

#[test]
fn half_open_lets_one_probe_through_at_a_time() {
    let mut bench = Bench::new();
    bench.open();
    bench.wait_for_probe();
    let probe = bench.breaker.begin(bench.now);
    assert!(probe.is_probe());
    assert!(matches!(bench.breaker.admission(bench.now), Admission::Rejected { .. }));
    bench.breaker.record(bench.now, probe, Sample::Success, &mut bench.rng);
    assert_eq!(bench.breaker.admission(bench.now), Admission::Probe);
}

#[test]
fn a_probe_that_never_reports_frees_its_place() {
    let mut bench = Bench::new();
    bench.open();
    bench.wait_for_probe();
    bench.breaker.begin(bench.now);
    bench.pass(30_000);
    assert_eq!(bench.breaker.admission(bench.now), Admission::Probe);
}

#[test]
fn a_probe_that_outlives_its_lease_counts_but_keeps_its_hands_off_the_next_ones_place() {
    let mut bench = Bench::new();
    bench.open();
    bench.wait_for_probe();
    let slow = bench.breaker.begin(bench.now);
    bench.pass(30_000);
    let next = bench.breaker.begin(bench.now);
    assert!(next.is_probe());
    bench.breaker.record(bench.now, slow, Sample::Success, &mut bench.rng);
    let state = bench.breaker.state(bench.now);
    assert!(matches!(state, State::HalfOpen { probe: Some(_), successes: 1 }), "{state:?}");
    bench.breaker.record(bench.now, next, Sample::Success, &mut bench.rng);
    assert!(matches!(bench.breaker.state(bench.now), State::Ramping { .. }));
}

#[test]
fn a_rate_limited_probe_opens_it_again_for_longer() {
    let mut bench = Bench::new();
    bench.open();
    bench.wait_for_probe();
    let opened_at = bench.now;
    assert!(bench.run(Sample::RateLimited));
    bench.wait_for_probe();
    let open_for = bench.now.since(opened_at);
    assert!(open_for >= Duration::from_millis(3_200) && open_for <= Duration::from_millis(4_810));
}

#[test]
fn two_probes_close_it_and_the_share_returns_in_steps() {
    let mut bench = Bench::new();
    bench.open();
    bench.wait_for_probe();
    bench.run(Sample::Success);
    bench.run(Sample::Success);
    let mut shares = Vec::new();
    while shares.last() != Some(&100) {
        let Admission::Share(share) = bench.breaker.admission(bench.now) else { panic!("shut") };
        if shares.last() != Some(&share) {
            shares.push(share);
        }
        bench.run(Sample::Success);
        bench.pass(500);
    }
    assert_eq!(shares, [10, 25, 50, 100]);
}

#[test]
fn results_of_attempts_from_before_the_trip_are_dropped() {
    let mut bench = Bench::new();
    let old = bench.breaker.begin(bench.now);
    bench.open();
    bench.wait_for_probe();
    assert!(!bench.breaker.record(bench.now, old, Sample::Failure, &mut bench.rng));
    assert_eq!(bench.breaker.admission(bench.now), Admission::Probe);
}

#[test]
fn clean_minutes_forgive_openings() {
    let mut bench = Bench::new();
    bench.open();
    bench.wait_for_probe();
    bench.run(Sample::Failure);
    bench.wait_for_probe();
    bench.run(Sample::Success);
    bench.run(Sample::Success);
    assert_eq!(bench.breaker.openings(), 2);
    for _ in 0..600 {
        bench.pass(300);
        bench.run(Sample::Success);
    }
    assert_eq!(bench.breaker.openings(), 0);
}

#[test]
fn streams_that_break_off_after_their_first_content_open_it() {
    let mut bench = Bench::new();
    let mut streams = 0;
    while matches!(bench.breaker.state(bench.now), State::Closed) {
        let entry = bench.breaker.begin(bench.now);
        bench.breaker.record(bench.now, entry, Sample::Begun, &mut bench.rng);
        bench.breaker.record(bench.now, entry, Sample::BrokeOff, &mut bench.rng);
        streams += 1;
    }
    assert_eq!(streams, 5);
}

#[test]
fn a_stream_that_ends_well_breaks_the_row_of_broken_ones() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        for end in [Sample::BrokeOff, Sample::BrokeOff, Sample::BrokeOff, Sample::Ended] {
            let entry = bench.breaker.begin(bench.now);
            bench.breaker.record(bench.now, entry, Sample::Begun, &mut bench.rng);
            assert!(!bench.breaker.record(bench.now, entry, end, &mut bench.rng));
        }
    }
}

#[test]
fn broken_streams_count_once_in_the_ratio() {
    let mut bench = Bench::new();
    for number in 0..19 {
        let entry = bench.breaker.begin(bench.now);
        bench.breaker.record(bench.now, entry, Sample::Begun, &mut bench.rng);
        let end = if number % 2 == 0 { Sample::Ended } else { Sample::BrokeOff };
        assert!(!bench.breaker.record(bench.now, entry, end, &mut bench.rng), "{number}");
    }
    assert_eq!(bench.breaker.window.counts(bench.now), (9, 19));
}
