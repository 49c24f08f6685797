//! What counts against a deployment, read from its breaker.

use std::time::Duration;

use super::world::{Act, World};
use crate::{
    breaker::{State, Trip},
    table::DeploymentIndex,
    tenant::Tenant,
};

fn trip(world: &World, deployment: u32) -> Option<Trip> {
    match world.registry.breaker(&world.binding, DeploymentIndex(deployment), world.now).state {
        State::Open { trip, .. } => Some(trip),
        _ => None,
    }
}

fn is_closed(world: &World, deployment: u32) -> bool {
    let view = world.registry.breaker(&world.binding, DeploymentIndex(deployment), world.now);
    view.state == State::Closed
}

/// Requests until the breaker of deployment 0 opens, at most 40.
fn requests_until_open(world: &mut World) -> Option<(usize, Trip)> {
    (1..=40).find_map(|count| {
        world.run();
        trip(world, 0).map(|trip| (count, trip))
    })
}

#[test]
fn hard_failures_in_a_row_open_the_breaker() {
    for status in [502, 503, 504] {
        let mut world = World::new(&[&[1], &[1]]);
        world.script(0, &[Act::Status(status, 1)]);
        assert_eq!(requests_until_open(&mut world), Some((5, Trip::Consecutive)), "{status}");
    }
}

#[test]
fn a_rate_limit_never_touches_the_breaker() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(0, &[Act::Hinted(429, 1, 0)]);
    assert_eq!(requests_until_open(&mut world), None);
}

#[test]
fn a_500_that_another_deployment_answered_counts_in_a_row() {
    let mut world = World::new(&[&[1], &[1]]);
    world.model().max_attempts = 2;
    world.script(0, &[Act::Status(500, 1)]);
    assert_eq!(requests_until_open(&mut world), Some((5, Trip::Consecutive)));
}

#[test]
fn a_poison_prompt_counts_in_the_ratio_only_at_both() {
    for act in [Act::Status(500, 1), Act::Empty(1)] {
        let mut world = World::new(&[&[1], &[1]]);
        world.model().max_attempts = 2;
        world.script(0, &[act]);
        world.script(1, &[act]);
        assert_eq!(requests_until_open(&mut world), Some((20, Trip::Ratio)), "{act:?}");
        assert_eq!(trip(&world, 1), Some(Trip::Ratio));
    }
}

#[test]
fn an_overtaken_silent_stream_counts_in_a_row() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(0, &[Act::Silent]);
    assert_eq!(requests_until_open(&mut world), Some((5, Trip::Consecutive)));
}

#[test]
fn an_overtaken_silent_unary_attempt_counts_in_the_ratio_only() {
    let mut world = World::new(&[&[1], &[1]]);
    world.profile.stream = false;
    world.profile.max_output_tokens = Some(1);
    world.model().tiers[0].timeouts.first_token = Duration::from_millis(100);
    world.script(0, &[Act::Silent]);
    assert_eq!(requests_until_open(&mut world), Some((20, Trip::Ratio)));
}

#[test]
fn a_deadline_that_allowed_first_token_counts_against_the_silent() {
    let mut world = World::new(&[&[1]]);
    world.model().deadline = Duration::from_secs(12);
    world.script(0, &[Act::Silent]);
    assert_eq!(requests_until_open(&mut world), Some((5, Trip::Consecutive)));
}

#[test]
fn an_impatient_callers_deadline_blames_nobody() {
    let mut world = World::new(&[&[1]]);
    world.caller_deadline = Some(Duration::from_millis(50));
    world.script(0, &[Act::Silent]);
    assert_eq!(requests_until_open(&mut world), None);
    world.assert_idle();
}

#[test]
fn an_impatient_deadline_blames_nobody_in_a_quicker_lower_tier_either() {
    let mut world = World::new(&[&[1], &[1]]);
    world.model().tiers[1].timeouts.first_token = Duration::from_millis(10);
    world.caller_deadline = Some(Duration::from_secs(1));
    world.script(0, &[Act::Status(401, 0)]);
    world.script(1, &[Act::Silent]);
    for _ in 0..40 {
        world.run();
    }
    assert!(is_closed(&world, 1));
}

#[test]
fn a_caller_who_leaves_blames_nobody_however_long_it_was_silent() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(0, &[Act::Silent]);
    world.script(1, &[Act::Silent]);
    for _ in 0..40 {
        let mut runs = [world.arrive().leaving_at(super::world::millis(world.now) + 30_000)];
        world.drive(&mut runs);
    }
    assert!(is_closed(&world, 0) && is_closed(&world, 1));
    world.assert_idle();
}

#[test]
fn free_moves_to_a_target_end_when_it_looks_bad_not_when_the_request_is_over() {
    let is_well = |world: &World, index| {
        world.registry.recently_clean(&world.binding, DeploymentIndex(index), world.now)
    };
    for (first, seen) in [(Act::Status(500, 10), 10), (Act::Empty(10), 10), (Act::Silent, 10_000)] {
        let mut world = World::new(&[&[1], &[1]]);
        world.script(0, &[first, Act::Silent]);
        world.script(1, &[Act::Silent]);
        let mut runs = [world.arrive()];
        world.drive_until(&mut runs, seen - 1);
        assert!(is_well(&world, 0), "{first:?}");
        world.drive_until(&mut runs, seen);
        assert!(runs[0].end.is_none() && !is_well(&world, 0), "{first:?}");
        assert!(is_well(&world, 1), "nothing bad is known of the other");
        world.drive(&mut runs);
    }
}

#[test]
fn prompts_of_one_tenant_that_fail_everywhere_take_no_target_from_the_others() {
    let opened = |tenants: u64| {
        let mut world = World::new(&[&[1, 1]]);
        world.model().max_attempts = 2;
        // Each is tried at both.
        world.model().retry_budget_percent = 100;
        for tenant in 1..=tenants {
            world.tenant = Tenant::from_hash(tenant);
            // A turn at each target.
            world.run();
            world.run();
        }
        world.script(0, &[Act::Empty(1)]);
        world.script(1, &[Act::Empty(1)]);
        requests_until_open(&mut world).map(|(_, trip)| trip)
    };
    assert_eq!(opened(2), Some(Trip::Ratio));
    assert_eq!(opened(4), None);
}
