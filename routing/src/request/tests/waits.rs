//! Waiting for gates, breakers and deadlines.

use std::{time::Duration, vec::Vec};

use super::world::{Act, End, World};
use crate::{breaker::State, request::Failure, table::DeploymentIndex};

#[test]
fn a_rate_limited_request_moves_within_the_tier_at_once_and_for_free() {
    let mut world = World::new(&[&[1, 1, 1]]);
    while world.registry.bucket().spend() {}
    world.model().retry_budget_percent = 0;
    world.script(0, &[Act::Hinted(429, 2_000, 10)]);
    world.script(1, &[Act::Hinted(429, 2_000, 10)]);
    let run = world.run();
    assert_eq!(run.calls, [(0, 0), (10, 1), (20, 2)]);
    assert_eq!(world.run().order(), [2], "the gates are shut");
}

#[test]
fn a_gate_of_three_seconds_is_waited_for_before_a_lower_tier() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(0, &[Act::Hinted(429, 3_000, 10), Act::Answer(10)]);
    assert_eq!(world.run().calls, [(0, 0), (3_010, 0)]);
}

#[test]
fn a_longer_gate_sends_the_request_to_the_lower_tier_at_once() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(0, &[Act::Hinted(429, 3_001, 10), Act::Answer(10)]);
    assert_eq!(world.run().calls, [(0, 0), (10, 1)]);
}

#[test]
fn gates_that_shut_again_do_not_keep_a_request_from_the_lower_tier() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(0, &[Act::Hinted(429, 2_000, 10)]);
    let run = world.run();
    assert_eq!(run.outcome(), End::Answer(1));
    assert!(run.ended_ms() <= 3_200, "{run:?}");
}

#[test]
fn twenty_seconds_are_waited_when_nothing_else_is_left() {
    let mut world = World::new(&[&[1]]);
    world.script(0, &[Act::Hinted(429, 20_000, 10), Act::Answer(10)]);
    assert_eq!(world.run().calls, [(0, 0), (20_010, 0)]);
}

#[test]
fn those_who_wait_for_a_gate_go_on_one_by_one_soon_after_it_opened() {
    let mut world = World::new(&[&[1]]);
    world.script(0, &[Act::Hinted(429, 2_000, 0), Act::Answer(10)]);
    let mut runs: Vec<_> = (0..20).map(|_| world.arrive()).collect();
    world.drive(&mut runs);
    let mut starts: Vec<u64> = runs.iter().map(|run| run.calls.last().unwrap().0).collect();
    starts.sort_unstable();
    assert!(starts[0] >= 2_000 && starts[19] <= 2_050, "{starts:?}");
    starts.dedup();
    assert!(starts.len() > 10, "{starts:?}");
}

#[test]
fn a_gate_beyond_twenty_seconds_ends_the_request_with_its_opening() {
    let mut world = World::new(&[&[1]]);
    world.script(0, &[Act::Hinted(429, 21_000, 10)]);
    let run = world.run();
    let retry_after = Some(Duration::from_secs(21));
    assert_eq!(run.outcome(), End::Fail(Failure::Exhausted { retry_after, rate_limited: true }));
    assert_eq!(run.ended_ms(), 10);
}

#[test]
fn no_wait_goes_past_the_deadline() {
    let mut world = World::new(&[&[1]]);
    world.caller_deadline = Some(Duration::from_secs(5));
    world.script(0, &[Act::Hinted(429, 10_000, 10)]);
    assert_eq!(world.run().ended_ms(), 10);
    let mut world = World::new(&[&[1], &[1]]);
    world.caller_deadline = Some(Duration::from_secs(2));
    world.script(0, &[Act::Hinted(429, 2_500, 10)]);
    assert_eq!(world.run().calls, [(0, 0), (10, 1)], "nor keeps from a lower tier");
}

#[test]
fn a_gate_without_a_hint_grows_from_refusal_to_refusal() {
    let mut world = World::new(&[&[1]]);
    world.model().deadline = Duration::from_secs(120);
    world.script(0, &[Act::Status(429, 0)]);
    let run = world.run();
    let starts: Vec<u64> = run.calls.iter().take(5).map(|(start, _)| start / 1_000).collect();
    assert_eq!(starts, [0, 1, 3, 7, 15]);
}

#[test]
fn the_deadline_covers_all_attempts() {
    let mut world = World::new(&[&[1, 1]]);
    world.script(0, &[Act::Silent]);
    world.script(1, &[Act::Silent]);
    let run = world.run();
    assert_eq!((run.ended_ms(), run.outcome()), (60_000, End::Fail(Failure::Deadline)));
    world.assert_idle();
}

#[test]
fn with_all_breakers_open_one_request_probes_and_the_others_wait_two_seconds_at_most() {
    let mut world = World::new(&[&[1]]);
    open(&mut world);
    world.script(0, &[Act::Answer(30_000)]);
    world.pass(5_000);
    let calls = world.calls;
    let mut runs: Vec<_> = (0..20).map(|_| world.arrive()).collect();
    let arrived = super::world::millis(world.now);
    world.drive(&mut runs);
    assert_eq!(world.calls - calls, 1, "one probe");
    for run in &runs[1..] {
        assert!(matches!(run.outcome(), End::Fail(Failure::NoTarget { retry_after: Some(_) })), "{run:?}");
        assert_eq!(run.ended_ms() - arrived, 2_000);
    }
    world.assert_idle();
}

#[test]
fn those_who_wait_for_a_probe_go_on_once_it_succeeded() {
    let mut world = World::new(&[&[1]]);
    open(&mut world);
    world.script(0, &[Act::Answer(100)]);
    world.pass(5_000);
    let mut runs: Vec<_> = (0..20).map(|_| world.arrive()).collect();
    world.drive(&mut runs);
    assert!(runs.iter().all(|run| run.outcome() == End::Answer(0)));
}

#[test]
fn a_short_deadline_with_all_breakers_open_still_says_when_to_come_back() {
    let mut world = World::new(&[&[1]]);
    open(&mut world);
    world.caller_deadline = Some(Duration::from_secs(1));
    let run = world.run();
    assert!(matches!(run.outcome(), End::Fail(Failure::NoTarget { retry_after: Some(_) })), "{run:?}");
}

#[test]
fn an_open_breaker_that_ends_first_is_not_overslept_behind_a_gate() {
    let mut world = World::new(&[&[1, 1]]);
    open(&mut world);
    world.script(0, &[Act::Answer(10)]);
    world.script(1, &[Act::Hinted(429, 19_000, 0)]);
    let run = world.run();
    assert_eq!(run.order(), [1, 0], "the breaker was open, then half-open");
    assert!(run.ended_ms() < 5_000, "{run:?}");
}

fn open(world: &mut World) {
    world.script(0, &[Act::Status(503, 0)]);
    world.model().max_attempts = 1;
    let is_open = |world: &World| {
        let shown = world.registry.breaker(&world.binding, DeploymentIndex(0), world.now);
        matches!(shown.state, State::Open { .. })
    };
    while !is_open(world) {
        world.run();
    }
    world.model().max_attempts = 10;
}
