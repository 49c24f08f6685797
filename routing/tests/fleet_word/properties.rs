//! Under any order of events.

use proptest::{collection::vec, prelude::*};
use trunkline_routing::{
    registry::{Block, Health},
    table::DeploymentIndex,
};

use crate::world::{World, event, model};

proptest! {
    /// I1: one attempt in flight under one lease. I2: no attempt at what the fleet holds
    /// open without lease. I5: what is forced stays until its end, whoever is heard.
    #[test]
    fn the_fleets_word_is_kept_under_any_order_of_events(events in vec(event(), 1..200)) {
        let mut world = World::new();
        let mut told = std::collections::BTreeSet::new();
        for event in &events {
            world.step(event);
            for result in world.registry.take_probe_results() {
                prop_assert!(result.lease_id < world.next_lease);
                prop_assert!(told.insert(result.lease_id), "one result for each lease");
            }
        }
    }

    /// The floor is never taken while a target is ready, never one that an operator or
    /// its own breaker holds back, and never missing while one could serve.
    #[test]
    fn the_floor_is_one_target_and_only_when_none_is_ready(events in vec(event(), 1..120)) {
        let mut world = World::new();
        let model = model(&[&[(0, 1), (2, 3)], &[(1, 1)]]);
        for event in &events {
            world.step(event);
            let health =
                |at: u32| world.registry.health(&world.binding, DeploymentIndex(at), world.now, 1);
            let local =
                |at: u32| world.registry.local_health(&world.binding, DeploymentIndex(at), world.now, 1);
            let ready = (0..3).any(|at| matches!(health(at), Health::Ready(_)));
            let could = |at: &u32| {
                matches!(health(*at), Health::Blocked(Block::Fleet(_))) && matches!(local(*at), Health::Ready(_))
            };
            // By tier, then by weight.
            let expected = if ready { None } else { [2, 0, 1].into_iter().find(could) };
            let floor = world.registry.floor(&world.binding, &model, world.now, 1, |_| true);
            prop_assert_eq!(floor, expected.map(DeploymentIndex));
        }
    }
}
