//! Shares of smooth weighted round robin.

use proptest::{collection::vec, prelude::*};
use trunkline_routing::swrr::Rotation;

proptest! {
    #[test]
    fn shares_are_exact_in_any_round_while_health_is_constant(weights in vec(0_u32..40, 1..8)) {
        let round = weights.iter().sum::<u32>() as usize;
        prop_assume!(round > 0);
        let mut rotation = Rotation::new(weights.len());
        let picks: Vec<usize> = (0..round * 3).map(|_| rotation.pick(&weights).unwrap()).collect();
        for window in picks.windows(round) {
            for (target, weight) in weights.iter().enumerate() {
                prop_assert_eq!(window.iter().filter(|pick| **pick == target).count() as u32, *weight);
            }
        }
    }

    #[test]
    fn what_is_out_gets_no_turn_and_the_others_keep_their_proportions(
        weights in vec(1_u32..40, 2..6),
        outages in vec(any::<u8>(), 0..200),
    ) {
        let mut rotation = Rotation::new(weights.len());
        for outage in outages {
            let up: Vec<u32> =
                weights.iter().enumerate().map(|(at, weight)| if outage >> at & 1 == 1 { 0 } else { *weight }).collect();
            if let Some(pick) = rotation.pick(&up) {
                prop_assert!(up[pick] > 0);
            }
        }
        // Whatever happened before: a hundred rounds give each its share but for the
        // few turns that it was owed.
        let round = weights.iter().sum::<u32>();
        let mut counts = vec![0_i64; weights.len()];
        for _ in 0..round * 100 {
            counts[rotation.pick(&weights).unwrap()] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            prop_assert!((count - i64::from(*weight) * 100).unsigned_abs() <= weights.len() as u64 * 2, "{counts:?}");
        }
    }
}
