//! What failures cost in extra calls.

use std::{time::Duration, vec::Vec};

use super::world::{Act, End, Run, World};

const BURST: u64 = 20;

/// So many requests, one every `gap` milliseconds, whatever becomes of them.
fn traffic(world: &mut World, count: u64, gap: u64) -> Vec<Run> {
    let start = world.now;
    let mut runs = Vec::new();
    for index in 0..count {
        world.now = start + Duration::from_millis(index * gap);
        runs.push(world.arrive());
        // Only what has happened by then may be known.
        world.drive_until(&mut runs, index * gap + super::world::millis(start));
    }
    world.drive(&mut runs);
    runs
}

#[test]
fn a_full_outage_is_not_amplified() {
    for act in [Act::Status(503, 5), Act::Status(500, 5), Act::Empty(5), Act::Status(500, 2_000), Act::Silent]
    {
        let mut world = World::new(&[&[1, 1], &[1]]);
        world.model().deadline = Duration::from_secs(25);
        for index in 0..3 {
            world.script(index, &[act]);
        }
        // A move to a deployment that nothing bad is known of is free, so the outage
        // must first be seen: a silent one takes first_token at each deployment.
        let runs = traffic(&mut world, 1_150, 200);
        let calls: u64 = runs[150..].iter().map(|run| run.calls.len() as u64).sum();
        assert!(calls <= 1_200 + BURST, "{act:?}: {calls} calls");
        world.assert_idle();
    }
}

#[test]
fn one_move_to_a_target_that_is_well_is_free_and_all_others_cost_a_token() {
    let mut world = World::new(&[&[1], &[1], &[1]]);
    while world.registry.bucket().spend() {}
    world.model().retry_budget_percent = 0;
    world.script(0, &[Act::Status(503, 5)]);
    world.script(1, &[Act::Status(503, 5)]);
    assert_eq!(world.run().order(), [0, 1], "the bucket is empty for a second move");
    assert_eq!(world.run().order(), [0], "the next is not well any more");
}

#[test]
fn three_hundred_requests_caught_by_one_dying_provider_are_all_rescued() {
    for act in [Act::Status(503, 500), Act::Status(500, 500), Act::Empty(500), Act::Silent] {
        let mut world = World::new(&[&[1, 1]]);
        world.model().max_attempts = 3;
        for _ in 0..20 {
            world.run();
        }
        world.script(0, &[act]);
        let mut runs: Vec<_> = (0..600).map(|_| world.arrive()).collect();
        world.drive(&mut runs);
        let caught = runs.iter().filter(|run| run.order()[0] == 0).count();
        assert_eq!(caught, 300);
        assert!(runs.iter().all(|run| run.outcome() == End::Answer(1)), "{act:?}");
        world.assert_idle();
    }
}

#[test]
fn a_healed_provider_gets_its_full_share_back_by_steps() {
    let mut world = World::new(&[&[1, 1]]);
    world.script(0, &[Act::Status(503, 1)]);
    traffic(&mut world, 100, 10);
    world.script(0, &[Act::Answer(1)]);
    let runs = traffic(&mut world, 3_000, 20);
    assert!(runs.iter().all(|run| matches!(run.outcome(), End::Answer(_))));
    let share = |runs: &[Run]| runs.iter().filter(|run| run.order()[0] == 0).count() * 100 / runs.len();
    let back = runs.iter().position(|run| run.order()[0] == 0).unwrap();
    assert!(share(&runs[back..back + 100]) <= 15, "ten percent of its weight at first");
    assert_eq!(share(&runs[2_800..]), 50);
}
