//! One rule, one test.

use std::time::Duration;

use trunkline_routing::{
    breaker::{Sample, State},
    classify::{ErrorFields, OutcomeClass, classify},
    learn::learn,
    money::NanoUsd,
    registry::{Block, Health, ProbeLease, ProbeOutcome, ProbeResult, Ticket},
    table::DeploymentIndex,
};

use crate::world::World;

fn ready(world: &World, at: u32) -> bool {
    let health = world.registry.health(&world.binding, DeploymentIndex(at), world.now, 1);
    matches!(health, Health::Ready(_))
}

fn begin(world: &mut World, at: u32) -> Ticket {
    assert!(ready(world, at));
    world.registry.begin(&world.binding, DeploymentIndex(at), world.now, 1)
}

fn pass(world: &mut World, seconds: u64) {
    world.now = world.now + Duration::from_secs(seconds);
}

#[test]
fn a_lease_admits_one_request_and_reports_what_came_of_it() {
    let mut world = World::new();
    world.publish(&[(0, 1, 4, 1)], false);
    assert!(!ready(&world, 0) && ready(&world, 1));
    world.grant(0, false, 0, 10);
    let left = begin(&mut world, 0);
    assert!(!ready(&world, 0), "one in flight is all");
    world.registry.release(left);
    assert!(ready(&world, 0), "its caller left: the next request may");
    let ticket = begin(&mut world, 0);
    world.registry.record(left, world.now, Sample::Failure, &mut world.rng);
    assert_eq!(world.registry.take_probe_results(), [], "not the one that left");
    world.registry.record(ticket, world.now, Sample::Success, &mut world.rng);
    world.registry.release(ticket);
    let expected = ProbeResult {
        deployment: "p/a".into(),
        lease_id: 1,
        generation: 4,
        outcome: ProbeOutcome::Succeeded,
        class: Some(OutcomeClass::Ok),
        cost: None,
    };
    assert_eq!(world.registry.take_probe_results(), [expected]);
    assert!(!ready(&world, 0), "the result ends the lease");
}

#[test]
fn a_rate_limit_fails_a_probe_and_an_older_word_does_not_give_the_lease_again() {
    let mut world = World::new();
    world.publish(&[(0, 1, 4, 1)], false);
    world.grant(0, false, 0, 10);
    let ticket = begin(&mut world, 0);
    let refused = classify(429, &ErrorFields::default(), None);
    learn(&mut world.registry, ticket, world.now, &refused, &mut world.rng);
    world.registry.release(ticket);
    let results = world.registry.take_probe_results();
    assert_eq!(
        (results[0].outcome, results[0].class),
        (ProbeOutcome::Failed, Some(OutcomeClass::RateLimited))
    );
    pass(&mut world, 5);
    world.tell_leases();
    assert!(!ready(&world, 0), "its result is known here");
}

#[test]
fn a_lease_of_another_generation_or_past_its_end_admits_nothing() {
    let mut world = World::new();
    world.publish(&[(0, 0, 4, 60)], false);
    world.grant(0, false, 1, 10);
    assert!(!ready(&world, 0));
    world.grant(0, false, 0, 10);
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
    world.grant(0, false, 0, 20);
    let health = world.registry.health(&world.binding, DeploymentIndex(0), world.now, 1);
    assert!(matches!(health, Health::Blocked(Block::Breaker(_))), "{health:?}");
    pass(&mut world, 4);
    assert!(ready(&world, 0));
}

#[test]
fn a_providers_verdict_is_for_all_its_deployments_and_a_lease_for_one_of_them() {
    let mut world = World::new();
    world.publish(&[(3, 0, 1, 10), (1, 0, 9, 10)], false);
    assert_eq!([0, 1, 2].map(|at| ready(&world, at)), [false, false, true]);
    world.grant(1, true, 0, 10);
    assert_eq!([0, 1].map(|at| ready(&world, at)), [false, true], "through both verdicts");
    let ticket = begin(&mut world, 1);
    assert!(!ready(&world, 1));
    world.registry.release(ticket);
    world.grant(1, false, 0, 10);
    assert!(ready(&world, 1), "for its own verdict as well");
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
    world.publish(&[(0, 1, 4, 1)], false);
    let lease = |at: usize, id: u64, is_check: bool| ProbeLease {
        deployment: ["p/a", "p/b", "q/c"][at],
        lease_id: id,
        generation: if is_check { 0 } else { 4 },
        expires: world.now + Duration::from_secs(10),
        is_check,
    };
    let leases = [lease(0, 1, false), lease(2, 2, true), lease(1, 3, true)];
    world.registry.set_leases(leases, world.now);
    let idle = world.registry.idle_leases(world.now);
    let told: Vec<_> =
        idle.iter().map(|lease| (&*lease.deployment, lease.due.since(world.now).as_secs())).collect();
    assert_eq!(told, [("p/a", 5), ("q/c", 0), ("p/b", 0)]);
    let mut begin =
        |at: u32, id: u64| world.registry.begin_leased(&world.binding, DeploymentIndex(at), id, world.now, 1);
    assert!(begin(1, 2).is_none(), "the lease of another deployment");
    let ticket = begin(2, 2).unwrap();
    assert!(begin(2, 2).is_none(), "one call per lease");
    world.registry.note_cost(ticket, Some(NanoUsd(70)));
    world.registry.record(ticket, world.now, Sample::Success, &mut world.rng);
    world.registry.release(ticket);
    world.registry.give_back_lease(1, world.now);
    let told: Vec<_> = world
        .registry
        .take_probe_results()
        .into_iter()
        .map(|result| (result.lease_id, result.outcome, result.cost))
        .collect();
    let cost = Some(NanoUsd(70));
    assert_eq!(told, [(2, ProbeOutcome::Succeeded, cost), (1, ProbeOutcome::Unused, None)]);
    assert_eq!(world.registry.idle_leases(world.now).len(), 1);
}
