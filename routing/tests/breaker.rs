//! The breaker under any sequence of events.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use rand::{SeedableRng, rngs::StdRng};
use trunkline_routing::{
    breaker::{Admission, Breaker, Entry, Sample, State, Trip},
    table::BreakerPolicy,
    tenant::Tenant,
    time::Timestamp,
};

/// As long as the breaker holds a probe's place.
const LEASE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Event {
    Pass(u64),
    Begin,
    /// The oldest, or newest, attempt under way ends.
    End {
        oldest: bool,
        sample: Sample,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let sample = prop_oneof![
        Just(Sample::Success),
        Just(Sample::Begun),
        Just(Sample::Ended),
        Just(Sample::BrokeOff),
        Just(Sample::Failure),
        Just(Sample::RatioFailure),
        Just(Sample::RateLimited),
        Just(Sample::Neutral),
    ];
    prop_oneof![
        (0_u64..8_000).prop_map(Event::Pass),
        Just(Event::Begin),
        Just(Event::Begin),
        (any::<bool>(), sample).prop_map(|(oldest, sample)| Event::End { oldest, sample }),
    ]
}

struct World {
    breaker: Breaker,
    now: Timestamp,
    rng: StdRng,
    under_way: Vec<(Entry, Timestamp)>,
}

impl World {
    fn new() -> Self {
        Self {
            breaker: Breaker::new(BreakerPolicy::default(), 1, Timestamp::ZERO),
            now: Timestamp::ZERO,
            rng: StdRng::seed_from_u64(3),
            under_way: Vec::new(),
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Pass(millis) => self.now = self.now + Duration::from_millis(millis),
            Event::Begin if matches!(self.breaker.admission(self.now), Admission::Rejected { .. }) => {}
            Event::Begin => {
                let entry = self.breaker.begin(self.now);
                self.under_way.push((entry, self.now));
            }
            Event::End { .. } if self.under_way.is_empty() => {}
            Event::End { oldest, sample } => {
                let at = if oldest { 0 } else { self.under_way.len() - 1 };
                let (entry, _) = self.under_way.remove(at);
                self.breaker.record(self.now, entry, sample, &mut self.rng);
            }
        }
    }

    fn result_of(&mut self, tenant: u64, sample: Sample) {
        let entry = self.breaker.begin(self.now).of_tenant(Tenant::from_hash(1 + tenant));
        self.breaker.record(self.now, entry, sample, &mut self.rng);
    }

    /// Probes that hold a place: those of an opening that is over hold none.
    fn probes(&self) -> usize {
        let leased = |since: Timestamp| self.now.since(since) < LEASE;
        self.under_way.iter().filter(|(entry, since)| entry.is_probe() && leased(*since)).count()
    }
}

proptest! {
    #[test]
    fn there_is_never_more_than_one_probe_at_a_time(events in vec(event(), 0..400)) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
            prop_assert!(world.probes() <= 1, "{:?}", world.under_way);
            if let State::HalfOpen { probe: Some(_), .. } = world.breaker.state(world.now) {
                let rejected = matches!(world.breaker.admission(world.now), Admission::Rejected { .. });
                prop_assert!(rejected);
            }
        }
    }

    #[test]
    fn it_closes_within_minutes_once_failures_stop(events in vec(event(), 0..400)) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
        }
        // What was under way is never heard of again; from now on all is well.
        let healed = world.now;
        while world.breaker.state(world.now) != State::Closed {
            world.apply(Event::Begin);
            world.apply(Event::End { oldest: false, sample: Sample::Success });
            world.apply(Event::Pass(100));
            // Longest open time with its spread, a lost probe's lease, and the ramp.
            prop_assert!(world.now.since(healed) < Duration::from_secs(72 + 30 + 30), "{:?}", world.breaker);
        }
    }

    #[test]
    fn one_bad_tenant_among_three_or_more_opens_nothing_while_others_succeed(
        bad in 0_u64..40,
        tenants in 3_u64..40,
        rounds in vec((0_usize..60, 0_u64..2_000), 1..60),
    ) {
        let mut world = World::new();
        let bad = bad % tenants;
        for (failures, millis) in rounds {
            for good in (0..tenants).filter(|tenant| *tenant != bad) {
                world.result_of(good, Sample::Success);
            }
            for _ in 0..failures {
                world.result_of(bad, Sample::RatioFailure);
            }
            prop_assert_eq!(world.breaker.state(world.now), State::Closed);
            world.apply(Event::Pass(millis));
        }
    }

    #[test]
    fn a_target_that_fails_for_all_opens_whatever_share_one_tenant_has(
        tenants in 3_u64..40,
        shares in vec(0_usize..20, 2..4),
    ) {
        let mut world = World::new();
        let mut results = 0;
        while world.breaker.state(world.now) == State::Closed {
            for tenant in 0..tenants {
                // Every tenant sees as many failures as answers, the first many more of both.
                let times = if tenant == 0 { 1 + shares[results % shares.len()] } else { 1 };
                for _ in 0..times {
                    world.result_of(tenant, Sample::RatioFailure);
                    world.result_of(tenant, Sample::Success);
                }
            }
            results += 1;
            prop_assert!(results < 20, "{:?}", world.breaker);
        }
        let by_ratio = matches!(world.breaker.state(world.now), State::Open { trip: Trip::Ratio, .. });
        prop_assert!(by_ratio);
    }

    #[test]
    fn without_tenants_the_ratio_is_that_of_all_results(samples in vec(any::<bool>(), 0..200)) {
        let mut world = World::new();
        let (mut failures, mut total) = (0, 0);
        for failed in samples {
            let sample = if failed { Sample::RatioFailure } else { Sample::Success };
            world.apply(Event::Begin);
            world.apply(Event::End { oldest: false, sample });
            (failures, total) = (failures + u32::from(failed), total + 1);
            let opens = failed && total >= 20 && failures * 2 >= total;
            prop_assert_eq!(matches!(world.breaker.state(world.now), State::Open { .. }), opens);
            if opens {
                break;
            }
        }
    }
}
