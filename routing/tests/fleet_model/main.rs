//! The fleet's breakers, checked whole: the control plane's verdicts and the agents'
//! registries are the real ones; the store, the network and the clocks between them are
//! models that fail at random. Thousands of orders of events, each from a seed.
//!
//! - I1: of a generation of a verdict, at most one agent can use a lease at a time, and
//!   no number is used twice.
//! - I2: who is connected sends nothing to what the store holds as open, but under a
//!   lease or as the last target of a virtual model.
//! - I3: when faults stop and providers heal, all is closed within a bound.
//! - I4: generations only grow, within an epoch.
//! - I5: what an operator forces holds until its time is over, whoever is away.
//! - I6: a verdict never takes the last target of a virtual model.

mod agent;
mod plane;
mod table;
mod world;

use world::World;

/// Seeds of one test. Each is some thousand events.
const SEEDS: u64 = 250;

/// The same for seeds from `first` on, side by side with others.
fn check(first: u64) {
    let mut sums = world::Counted::default();
    for seed in first..first + SEEDS {
        let mut world = World::new(seed);
        world.run();
        sums.add(&world.counted);
    }
    // Nothing is proved by runs in which nothing happens.
    assert!(sums.opened > SEEDS && sums.closed > SEEDS / 2 && sums.leases > SEEDS, "{sums:?}");
    assert!(sums.crashes > SEEDS && sums.rollbacks_seen > 10 && sums.providers > 10, "{sums:?}");
}

#[test]
fn no_order_of_events_breaks_the_invariants_and_all_recovers() {
    check(0);
}

#[test]
fn nor_does_another_order() {
    check(10_000);
}

#[test]
fn nor_does_a_third_one() {
    check(20_000);
}

#[test]
fn nor_does_a_fourth_one() {
    check(30_000);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.run();
        world.counted
    };
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
