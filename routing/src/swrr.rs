//! Smooth weighted round robin: exact shares with the smallest gaps.
//!
//! The algorithm is nginx's (Igor Sysoev, 2012): each pick adds every weight to its
//! current value, takes the largest, and subtracts the total from it. Over any
//! window as long as the sum of the weights each target is picked exactly `weight`
//! times. A target that is out keeps its value, which is always smaller than one
//! round, so its return brings no burst.

use alloc::vec::Vec;

/// The turn-taking state of one tier.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    current: Vec<i64>,
}

impl Rotation {
    /// A rotation over `targets` targets, none of which had a turn.
    pub fn new(targets: usize) -> Self {
        Self { current: alloc::vec![0; targets] }
    }

    /// Takes the next turn. `weights` holds one weight per target; 0 is left out of
    /// this turn. None if all are 0.
    ///
    /// # Panics
    /// If there are more weights than targets.
    pub fn pick(&mut self, weights: &[u32]) -> Option<usize> {
        assert!(weights.len() <= self.current.len(), "more weights than targets");
        let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
        if total == 0 {
            return None;
        }
        let mut best: Option<usize> = None;
        for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            self.current[index] += i64::from(*weight);
            if best.is_none_or(|best| self.current[index] > self.current[best]) {
                best = Some(index);
            }
        }
        if let Some(best) = best {
            // No clamp: the values must add up to zero, or turns taken among a few of the
            // targets would change the shares of all.
            self.current[best] -= total;
        }
        best
    }

    /// The order in which `weights` would come first if no turn were taken.
    pub fn order(&self, weights: &[u32]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..weights.len()).filter(|index| weights[*index] > 0).collect();
        order.sort_by_key(|index| core::cmp::Reverse(self.current[*index] + i64::from(weights[*index])));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(weights: &[u32], count: usize) -> Vec<usize> {
        let mut rotation = Rotation::new(weights.len());
        (0..count).map(|_| rotation.pick(weights).unwrap()).collect()
    }

    #[test]
    fn seventy_thirty_is_exact_in_any_hundred() {
        let picks = picks(&[70, 30], 1_000);
        for window in picks.windows(100) {
            assert_eq!(window.iter().filter(|pick| **pick == 0).count(), 70);
        }
    }

    #[test]
    fn turns_are_spread_not_bunched() {
        assert_eq!(picks(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn a_target_that_returns_gets_no_burst() {
        let mut rotation = Rotation::new(2);
        for _ in 0..1_000 {
            rotation.pick(&[1, 0]);
        }
        let after: Vec<_> = (0..10).map(|_| rotation.pick(&[1, 1]).unwrap()).collect();
        assert_eq!(after.iter().filter(|pick| **pick == 1).count(), 5);
    }

    #[test]
    fn turns_taken_for_retries_do_not_bend_the_shares() {
        let mut rotation = Rotation::new(2);
        let mut first = || {
            let first = rotation.pick(&[90, 10]).unwrap();
            let others = if first == 0 { [0, 10] } else { [90, 0] };
            rotation.pick(&others);
            first
        };
        let picks: Vec<usize> = (0..1_000).map(|_| first()).collect();
        assert!(picks.windows(100).all(|window| window.iter().filter(|pick| **pick == 0).count() == 90));
    }

    #[test]
    fn nothing_to_pick_is_none() {
        assert_eq!(Rotation::new(2).pick(&[0, 0]), None);
    }
}
