//! `random-weighted`: what most gateways' tutorials do, kept to compare with. No
//! request is routed by it.

use alloc::vec::Vec;

use rand_core::Rng;

use crate::math;

/// Draws a target at random over cumulative weights. `tried` holds what the request
/// drew before. A draw that hits one of those gives up, whatever else is left.
pub fn random_weighted(weights: &[u32], tried: &mut Vec<usize>, rng: &mut impl Rng) -> Option<usize> {
    let drawn = draw(weights, rng)?;
    if tried.contains(&drawn) {
        return None;
    }
    tried.push(drawn);
    Some(drawn)
}

/// A draw by weight; None if all are 0.
pub(crate) fn draw(weights: &[u32], rng: &mut impl Rng) -> Option<usize> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let mut point = (math::unit(rng) * total as f64) as u64;
    weights.iter().position(|weight| {
        let hit = point < u64::from(*weight);
        point = point.saturating_sub((*weight).into());
        hit
    })
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn it_gives_up_on_a_second_draw_of_the_same_while_others_are_left() {
        let mut rng = StdRng::seed_from_u64(1);
        let gave_up = (0..1_000).filter(|_| {
            let mut tried = Vec::new();
            random_weighted(&[70, 30], &mut tried, &mut rng);
            random_weighted(&[70, 30], &mut tried, &mut rng).is_none()
        });
        // 0.7 * 0.7 + 0.3 * 0.3 = 58 %.
        assert!((530..=630).contains(&gave_up.count()));
    }

    #[test]
    fn nothing_to_draw_is_none() {
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(random_weighted(&[0, 0], &mut Vec::new(), &mut rng), None);
    }
}
