//! Silent attempts: what starts beside them, and who wins.

use std::time::Duration;

use super::world::{Act, End, World};
use crate::{classify::OutcomeClass, request::Failure, table::DeploymentIndex};

#[test]
fn a_silent_attempt_gets_the_next_target_beside_it_and_the_first_content_wins() {
    let mut world = World::new(&[&[1, 1]]);
    world.script(0, &[Act::Silent]);
    let run = world.run();
    assert_eq!(run.calls, [(0, 0), (10_000, 1)]);
    assert_eq!((run.ended_ms(), run.outcome()), (10_100, End::Answer(1)));
    assert_eq!(run.losers[0].class, OutcomeClass::Timeout);
    world.assert_idle();
}

#[test]
fn first_token_by_itself_kills_nothing() {
    let mut world = World::new(&[&[1, 1]]);
    world.script(0, &[Act::Answer(10_500)]);
    world.script(1, &[Act::Answer(5_000)]);
    let run = world.run();
    assert_eq!((run.ended_ms(), run.outcome()), (10_500, End::Answer(0)));
    assert_eq!(run.losers[0].class, OutcomeClass::Overtaken, "the other had no time to speak");
}

#[test]
fn a_lower_tier_starts_beside_with_its_own_patience() {
    let mut world = World::new(&[&[1], &[1], &[1]]);
    world.model().tiers[1].timeouts.first_token = Duration::from_secs(15);
    world.script(0, &[Act::Silent]);
    world.script(1, &[Act::Silent]);
    assert_eq!(world.run().calls, [(0, 0), (10_000, 1), (25_000, 2)]);
}

#[test]
fn nothing_starts_beside_without_an_attempt_left() {
    let mut world = World::new(&[&[1, 1]]);
    world.model().max_attempts = 1;
    world.script(0, &[Act::Silent]);
    let run = world.run();
    assert_eq!((run.order(), run.outcome()), (vec![0], End::Fail(Failure::Deadline)));
}

#[test]
fn nothing_starts_beside_without_a_retry_token() {
    let mut world = World::new(&[&[1], &[1]]);
    world.script(1, &[Act::Status(503, 0)]);
    world.script(0, &[Act::Status(503, 0), Act::Silent]);
    world.model().max_attempts = 2;
    world.run();
    while world.registry.bucket().spend() {}
    assert_eq!(world.run().order(), [0]);
}

#[test]
fn a_failure_beside_a_silent_attempt_moves_on_and_may_come_round_again() {
    let mut world = World::new(&[&[1, 1]]);
    world.script(0, &[Act::Silent]);
    world.script(1, &[Act::Status(503, 10), Act::Answer(10)]);
    let run = world.run();
    assert_eq!(run.order(), [0, 1, 1]);
    assert!(run.ended_ms() < 11_000, "{run:?}");
}

#[test]
fn a_unary_answer_gets_the_expected_generation_time_on_top() {
    let mut world = World::new(&[&[1, 1]]);
    world.profile.stream = false;
    world.profile.max_output_tokens = Some(500);
    world.script(0, &[Act::Silent]);
    assert_eq!(world.run().calls[1], (20_000, 1), "500 tokens at 50 a second");
}

#[test]
fn the_generation_time_is_learned() {
    let mut world = World::new(&[&[1], &[1]]);
    world.profile.stream = false;
    world.profile.max_output_tokens = Some(500);
    let ticket = world.registry.begin(&world.binding, DeploymentIndex(0), world.now, 0);
    for _ in 0..100 {
        world.registry.learn_pace(ticket, Some(500), Duration::from_secs(2));
    }
    world.registry.release(ticket);
    world.script(0, &[Act::Silent]);
    let (beside, _) = world.run().calls[1];
    assert!((12_000..12_100).contains(&beside), "{beside}");
}

#[test]
fn the_attempt_timeout_ends_an_attempt_and_moves_on() {
    let mut world = World::new(&[&[1, 1]]);
    world.model().tiers[0].timeouts.attempt = Some(Duration::from_secs(5));
    world.script(0, &[Act::Silent]);
    assert_eq!(world.run().calls, [(0, 0), (5_000, 1)]);
    world.assert_idle();
}
