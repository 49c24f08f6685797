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
mod world;

use world::World;

/// Orders of events of one run of the test.
const SEEDS: u64 = 1_500;

#[test]
fn no_order_of_events_breaks_the_invariants_and_all_recovers() {
    let mut sums = world::Counted::default();
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.run();
        sums.add(&world.counted);
    }
    // Nothing is proved by runs in which nothing happens.
    println!("{sums:?}");
    assert!(sums.opened > SEEDS && sums.closed > SEEDS / 2 && sums.leases > SEEDS, "{sums:?}");
    assert!(sums.crashes > SEEDS / 4 && sums.rollbacks_seen > 20 && sums.providers > 50, "{sums:?}");
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
