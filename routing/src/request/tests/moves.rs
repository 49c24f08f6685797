//! Who is called next.

use std::{time::Duration, vec::Vec};

use super::world::{Act, End, World};
use crate::{
    classify::TransportFault,
    request::{AttemptId, Failure},
    table::{DeploymentIndex, Target},
};

#[test]
fn seventy_thirty_is_exact_in_any_hundred() {
    let mut world = World::new(&[&[70, 30]]);
    let picks: Vec<usize> = (0..500).map(|_| world.run().order()[0]).collect();
    for window in picks.windows(100) {
        assert_eq!(window.iter().filter(|pick| **pick == 0).count(), 70);
    }
    world.assert_idle();
}

#[test]
fn a_lone_500_is_tried_again_at_the_same_deployment_within_a_quarter_second() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(0, &[Act::Status(500, 10), Act::Answer(10)]);
    let run = world.run();
    assert_eq!(run.order(), [0, 0]);
    assert!((10..=260).contains(&run.calls[1].0), "{:?}", run.calls);
    assert_eq!(run.outcome(), End::Answer(0));
}

#[test]
fn a_second_500_moves_to_another_deployment() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(0, &[Act::Status(500, 10)]);
    assert_eq!(world.run().order(), [0, 0, 1]);
}

#[test]
fn the_same_deployment_retry_comes_on_top_of_the_tiers_attempts() {
    let mut world = World::new(&[&[1, 1], &[1]]);
    world.model().tiers[0].max_attempts = 1;
    world.script(0, &[Act::Status(500, 10)]);
    world.script(1, &[Act::Status(500, 10)]);
    assert_eq!(world.run().order(), [0, 0, 2]);
}

#[test]
fn one_call_is_kept_for_a_deployment_that_was_not_tried() {
    let mut world = World::new(&[&[1], &[1]]);
    world.model().max_attempts = 2;
    world.script(0, &[Act::Status(500, 10), Act::Answer(10)]);
    assert_eq!(world.run().order(), [0, 1]);
    world.script(0, &[Act::Hinted(429, 1_000, 10), Act::Answer(10)]);
    let run = world.run();
    assert_eq!((run.order(), run.ended_ms() < 1_000), (vec![0, 1], true));
}

#[test]
fn without_another_deployment_the_last_call_goes_to_the_same() {
    let mut world = World::new(&[&[1]]);
    world.model().max_attempts = 2;
    world.script(0, &[Act::Status(500, 10), Act::Answer(10)]);
    assert_eq!(world.run().outcome(), End::Answer(0));
}

#[test]
fn a_tier_counts_distinct_deployments() {
    let mut world = World::new(&[&[1, 1, 1], &[1]]);
    world.model().tiers[0].max_attempts = 2;
    for index in 0..3 {
        world.script(index, &[Act::Status(503, 10)]);
    }
    assert_eq!(world.run().order(), [0, 1, 3]);
}

#[test]
fn a_tier_never_sees_more_distinct_deployments_than_allowed_in_later_rounds_either() {
    let mut world = World::new(&[&[1, 1, 1]]);
    world.model().tiers[0].max_attempts = 2;
    for index in 0..3 {
        world.script(index, &[Act::Status(503, 10)]);
    }
    let mut met = world.run().order();
    assert!(met.len() > 2, "a new round after all were tried: {met:?}");
    met.sort_unstable();
    met.dedup();
    assert_eq!(met.len(), 2);
}

#[test]
fn all_calls_of_a_request_are_capped() {
    let mut world = World::new(&[&[1, 1], &[1]]);
    world.model().max_attempts = 4;
    for index in 0..3 {
        world.script(index, &[Act::Status(503, 10)]);
    }
    let run = world.run();
    assert_eq!(run.order().len(), 4);
    assert!(matches!(run.outcome(), End::Fail(Failure::Exhausted { rate_limited: false, .. })), "{run:?}");
    world.assert_idle();
}

#[test]
fn a_lower_tier_serves_only_when_the_upper_is_out() {
    let mut world = World::new(&[&[1, 1], &[1]]);
    assert!((0..50).all(|_| world.run().order()[0] < 2));
    world.script(0, &[Act::Status(503, 1)]);
    world.script(1, &[Act::Status(503, 1)]);
    let ends: Vec<End> = (0..50).map(|_| world.run().outcome()).collect();
    assert!(ends.iter().all(|end| *end == End::Answer(2)));
    assert_eq!(world.run().order(), [2], "open breakers are passed over");
}

#[test]
fn weight_zero_serves_only_when_the_others_are_out() {
    let mut world = World::new(&[&[1, 0]]);
    assert!((0..20).all(|_| world.run().order() == [0]));
    world.script(0, &[Act::Status(503, 1)]);
    for _ in 0..5 {
        world.run();
    }
    assert_eq!(world.run().order(), [1]);
}

#[test]
fn a_refused_key_moves_on_at_once_and_is_not_called_again() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(0, &[Act::Status(401, 10)]);
    assert_eq!(world.run().order(), [0, 1]);
    assert!((0..20).all(|_| world.run().order() == [1]));
    world.pass(15 * 60 * 1_000);
    assert_eq!(world.run().order()[0], 0, "somebody may have mended it after a quarter of an hour");
}

#[test]
fn a_late_refusal_of_an_old_key_says_nothing_about_the_new_one() {
    let mut world = World::new(&[&[1]]);
    world.script(0, &[Act::Status(401, 100), Act::Answer(10)]);
    world.model().max_attempts = 1;
    let mut runs = [world.arrive().leaving_at(0)];
    world.drive(&mut runs);
    let old = world.binding.clone();
    let ticket = world.registry.begin(&old, DeploymentIndex(0), world.now, 0);
    world.table.providers[0].credential = None;
    world.rebind();
    let refused = crate::hold::QuarantineReason::Credential;
    let scope = crate::classify::QuarantineScope::Credential;
    world.registry.quarantine(ticket, world.now, refused, scope, Duration::from_secs(900));
    world.script(0, &[Act::Answer(10)]);
    assert_eq!(world.run().outcome(), End::Answer(0));
}

#[test]
fn a_request_that_is_too_long_moves_only_to_a_larger_declared_window() {
    let mut world = World::new(&[&[1], &[1, 1, 1]]);
    let windows = [Some(8_000), Some(8_000), None, Some(32_000)];
    for (deployment, window) in world.table.deployments.iter_mut().zip(windows) {
        deployment.context_window = window;
    }
    world.script(0, &[Act::Code("context_length_exceeded", 10)]);
    assert_eq!(world.run().order(), [0, 3]);
    world.script(3, &[Act::Code("context_length_exceeded", 10)]);
    assert_eq!(world.run().outcome(), End::Fail(Failure::Return(AttemptId(1))));
}

#[test]
fn a_request_that_is_too_long_is_returned_where_the_fallback_is_off() {
    let mut world = World::new(&[&[1], &[1]]);
    world.model().context_length_fallback = false;
    world.script(0, &[Act::Code("context_length_exceeded", 10)]);
    let run = world.run();
    assert_eq!((run.order(), run.outcome()), (vec![0], End::Fail(Failure::Return(AttemptId(0)))));
}

#[test]
fn a_content_filters_refusal_is_returned_unless_opted_in() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(0, &[Act::Code("content_filter", 10)]);
    assert_eq!(world.run().outcome(), End::Fail(Failure::Return(AttemptId(0))));
    world.model().content_filter_fallback = true;
    assert_eq!(world.run().outcome(), End::Answer(1));
    world.script(1, &[Act::Code("content_filter", 10)]);
    let run = world.run();
    assert_eq!(run.order(), [0, 1], "nobody is asked twice");
    assert_eq!(run.outcome(), End::Fail(Failure::Return(AttemptId(1))));
}

#[test]
fn the_callers_own_mistake_is_returned_at_once() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(0, &[Act::Status(400, 10)]);
    let run = world.run();
    assert_eq!((run.ended_ms(), run.outcome()), (10, End::Fail(Failure::Return(AttemptId(0)))));
}

#[test]
fn a_call_that_was_never_written_is_repeated_at_once_and_is_no_attempt() {
    let mut world = World::new(&[&[1]]);
    world.model().max_attempts = 1;
    world.script(0, &[Act::Transport(TransportFault::Unwritten, 5), Act::Answer(10)]);
    let run = world.run();
    assert_eq!((run.calls.clone(), run.outcome()), (vec![(0, 0), (5, 0)], End::Answer(0)));
    world.script(0, &[Act::Transport(TransportFault::Unwritten, 5)]);
    assert_eq!(world.run().order().len(), 3, "two repeats at most");
    let mut world = World::new(&[&[1], &[1]]);
    world.model().max_attempts = 2;
    world.script(0, &[Act::Transport(TransportFault::Unwritten, 5), Act::Status(503, 5)]);
    assert_eq!(world.run().order(), [0, 0, 1]);
}

#[test]
fn attempts_running_at_a_deployment_are_limited() {
    let mut world = World::new(&[&[1], &[1]]);
    world.table.deployments[0].limits.max_in_flight = Some(2);
    world.rebind();
    let mut runs: Vec<_> = (0..5).map(|_| world.arrive()).collect();
    world.drive(&mut runs);
    let first: Vec<usize> = runs.iter().map(|run| run.order()[0]).collect();
    assert_eq!(first, [0, 0, 1, 1, 1]);
    world.assert_idle();
}

#[test]
fn requests_of_a_minute_are_limited() {
    let mut world = World::new(&[&[1], &[1]]);
    world.table.deployments[0].limits.requests_per_minute = Some(3);
    world.rebind();
    let first: Vec<usize> = (0..5).map(|_| world.run().order()[0]).collect();
    assert_eq!(first, [0, 0, 0, 1, 1]);
}

#[test]
fn a_pin_calls_its_deployment_only() {
    let mut world = World::new(&[&[1, 1]]);
    let mut pin = world.model().clone();
    pin.tiers[0].targets = vec![Target { deployment: DeploymentIndex(1), weight: 1 }];
    pin.tiers[0].max_attempts = 1;
    world.pin = Some(pin);
    assert!((0..10).all(|_| world.run().order() == [1]));
}

#[test]
fn under_a_replaced_table_weights_still_hold_roughly() {
    let mut world = World::new(&[&[70, 30]]);
    let old = world.binding.clone();
    world.rebind();
    world.binding = old;
    let first = (0..1_000).filter(|_| world.run().order()[0] == 0).count();
    assert!((640..=760).contains(&first), "{first}");
}

#[test]
fn turns_taken_are_kept_by_an_unrelated_change_of_the_table() {
    let mut world = World::new(&[&[70, 30]]);
    let mut picks = Vec::new();
    for round in 0..300 {
        if round % 7 == 0 {
            world.rebind();
        }
        picks.push(world.run().order()[0]);
    }
    assert!(picks.windows(100).all(|window| window.iter().filter(|pick| **pick == 0).count() == 70));
}
