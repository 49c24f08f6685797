//! One rule, one test.

use std::time::Duration;

use trunkline_routing::{
    breaker::{Sample, State},
    registry::{Block, Health},
    table::DeploymentIndex,
};

use crate::world::World;

fn ready(world: &World, at: u32) -> bool {
    let health = world.registry.health(&world.binding, DeploymentIndex(at), world.now, 1);
    matches!(health, Health::Ready(_))
}

fn pass(world: &mut World, seconds: u64) {
    world.now = world.now + Duration::from_secs(seconds);
}

#[test]
fn a_lease_admits_one_attempt_at_a_time_and_reports_what_came_of_it() {
    let mut world = World::new();
    world.publish(&[(0, 1, 4, 1)], false);
    assert!(!ready(&world, 0) && ready(&world, 1));
    world.grant(0, 0, 10);
    assert!(ready(&world, 0));
    let ticket = world.registry.begin(&world.binding, DeploymentIndex(0), world.now, 1);
    assert!(!ready(&world, 0), "one in flight is all");
    pass(&mut world, 2);
    world.registry.record(ticket, world.now, Sample::Success, &mut world.rng);
    world.registry.release(ticket);
    let results = world.registry.take_probe_results();
    assert_eq!(results.len(), 1);
    assert_eq!((results[0].lease_id, results[0].generation, results[0].successes), (1, 4, 1));
    assert_eq!(results[0].took, Duration::from_secs(2));
    assert!(ready(&world, 0), "the next probe under the same lease");
    let ticket = world.registry.begin(&world.binding, DeploymentIndex(0), world.now, 1);
    world.registry.record(ticket, world.now, Sample::RateLimited, &mut world.rng);
    world.registry.release(ticket);
    let results = world.registry.take_probe_results();
    assert_eq!((results[0].attempts, results[0].successes, results[0].sample), (2, 1, Sample::RateLimited));
    assert!(!ready(&world, 0), "a failed probe ends the lease");
}

#[test]
fn a_lease_of_another_generation_or_past_its_end_admits_nothing() {
    let mut world = World::new();
    world.publish(&[(0, 0, 4, 60)], false);
    world.grant(0, 1, 10);
    assert!(!ready(&world, 0));
    world.grant(0, 0, 10);
    assert!(ready(&world, 0));
    pass(&mut world, 10);
    assert!(!ready(&world, 0));
}

#[test]
fn a_local_open_rejects_even_under_a_lease() {
    let mut world = World::new();
    for _ in 0..5 {
        let ticket = world.registry.begin(&world.binding, DeploymentIndex(0), world.now, 1);
        world.registry.record(ticket, world.now, Sample::Failure, &mut world.rng);
        world.registry.release(ticket);
    }
    world.publish(&[(0, 1, 4, 1)], false);
    world.grant(0, 0, 20);
    let health = world.registry.health(&world.binding, DeploymentIndex(0), world.now, 1);
    assert!(matches!(health, Health::Blocked(Block::Breaker(_))), "{health:?}");
    pass(&mut world, 4);
    assert!(ready(&world, 0));
}

#[test]
fn a_providers_verdict_and_lease_are_for_all_its_deployments() {
    let mut world = World::new();
    world.publish(&[(3, 0, 1, 10)], false);
    assert_eq!([0, 1, 2].map(|at| ready(&world, at)), [false, false, true]);
    world.grant(3, 0, 10);
    assert_eq!([0, 1].map(|at| ready(&world, at)), [true, true]);
    let ticket = world.registry.begin(&world.binding, DeploymentIndex(1), world.now, 1);
    assert_eq!([0, 1].map(|at| ready(&world, at)), [false, false]);
    world.registry.release(ticket);
    assert_eq!([0, 1].map(|at| ready(&world, at)), [true, true], "the caller left: the next may");
}

#[test]
fn a_silent_control_plane_leaves_open_for_and_then_one_probe_at_a_time() {
    let mut world = World::new();
    world.publish(&[(0, 0, 1, 10)], false);
    world.now = world.heard_until;
    let since = world.now;
    while !ready(&world, 0) {
        pass(&mut world, 1);
        assert!(world.now.since(since) <= Duration::from_secs(30), "never tried");
    }
    let ticket = world.registry.begin(&world.binding, DeploymentIndex(0), world.now, 1);
    assert!(!ready(&world, 0), "one probe");
    let failed_at = world.now;
    world.registry.record(ticket, world.now, Sample::Failure, &mut world.rng);
    world.registry.release(ticket);
    while !ready(&world, 0) {
        pass(&mut world, 1);
    }
    let waited = world.now.since(failed_at);
    assert!((Duration::from_secs(10)..=Duration::from_secs(31)).contains(&waited), "{waited:?}");
    for _ in 0..2 {
        let ticket = world.registry.begin(&world.binding, DeploymentIndex(0), world.now, 1);
        world.registry.record(ticket, world.now, Sample::Success, &mut world.rng);
        world.registry.release(ticket);
    }
    let state = world.registry.breaker(&world.binding, DeploymentIndex(0), world.now).state;
    assert!(matches!(state, State::Ramping { .. }), "{state:?}");
    world.publish(&[(0, 0, 1, 10)], false);
    assert!(!ready(&world, 0), "who leads is back, and its verdict with it");
}

#[test]
fn a_ramping_verdict_scales_the_local_share_and_ends_without_the_control_plane() {
    let mut world = World::new();
    world.publish(&[(0, 2, 3, 1), (3, 2, 1, 1)], false);
    let share = |world: &World| world.registry.health(&world.binding, DeploymentIndex(0), world.now, 1);
    assert_eq!(share(&world), Health::Ready(1), "a tenth of a tenth");
    world.publish(&[(0, 2, 3, 1)], false);
    assert_eq!(share(&world), Health::Ready(10));
    world.now = world.heard_until;
    assert_eq!(share(&world), Health::Ready(100));
}

#[test]
fn a_breaker_tells_the_generation_under_which_it_opened() {
    let mut world = World::new();
    let base =
        |world: &World| world.registry.breaker(&world.binding, DeploymentIndex(0), world.now).base_generation;
    assert_eq!(base(&world), 0);
    world.publish(&[(0, 2, 7, 1)], false);
    world.publish(&[], false);
    for _ in 0..5 {
        let ticket = world.registry.begin(&world.binding, DeploymentIndex(0), world.now, 1);
        world.registry.record(ticket, world.now, Sample::Failure, &mut world.rng);
        world.registry.release(ticket);
    }
    assert_eq!(base(&world), 7);
    world.publish(&[(0, 0, 8, 1)], false);
    assert_eq!(base(&world), 7);
}

#[test]
fn idle_leases_are_due_at_half_their_time_and_checks_at_once() {
    let mut world = World::new();
    world.publish(&[(0, 1, 1, 1)], false);
    world.grant(0, 0, 10);
    world.grant(2, 0, 10);
    let idle = world.registry.idle_leases(world.now);
    let told: Vec<_> = idle
        .iter()
        .map(|lease| (&*lease.subject, lease.is_check, lease.due.since(world.now).as_secs()))
        .collect();
    assert_eq!(told, [("p/a", false, 5), ("q/c", true, 0)]);
    let ticket = world.registry.begin_leased(&world.binding, DeploymentIndex(2), 2, world.now, 1).unwrap();
    assert!(world.registry.begin_leased(&world.binding, DeploymentIndex(2), 2, world.now, 1).is_none());
    world.registry.record(ticket, world.now, Sample::Success, &mut world.rng);
    world.registry.release(ticket);
    assert_eq!(world.registry.idle_leases(world.now).len(), 1, "one check per lease");
}
