//! How scores become chances.

use super::{Question, Ranked, normalize};
use crate::{math, table::Affinity};

/// Chances that fall with the distance of the score from the `best`: by 1/e per `scale`,
/// to nothing beyond `cut`. Only for those that `which` names, each times its gate.
pub(super) fn soft_min(
    ranked: &mut [Ranked],
    which: impl Fn(&Ranked) -> bool,
    best: f64,
    scale: f64,
    cut: f64,
) {
    for one in ranked.iter_mut() {
        let behind = one.score - best;
        let near = which(one) && behind <= cut;
        one.chance = if near { one.gate * math::exp(-behind / scale.max(f64::MIN_POSITIVE)) } else { 0.0 };
    }
    normalize(ranked);
}

/// The power of two choices: of two drawn at random the one with fewer requests in
/// flight (Mitzenmacher 2001), here as exact chances.
pub(super) fn by_in_flight(ranked: &mut [Ranked]) {
    let load = |one: &Ranked| (one.estimate.in_flight + 1.0) / one.gate;
    let count = ranked.len();
    if count == 1 {
        ranked[0].chance = 1.0;
        return;
    }
    let pairs = (count * count.saturating_sub(1)) as f64;
    for index in 0..count {
        let own = load(&ranked[index]);
        let wins = ranked.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, other)| {
            let other = load(other);
            if own < other {
                2.0
            } else if own > other {
                0.0
            } else {
                1.0
            }
        });
        ranked[index].chance = wins.sum::<f64>() / pairs;
    }
}

/// The request's session, if sessions count.
pub(super) fn session(question: &Question<'_>) -> Option<u64> {
    question.profile.session.filter(|_| question.route.model.affinity == Affinity::Session)
}

/// Where all agents would send a session of which nothing is known: the target with the
/// largest of these (Thaler and Ravishankar 1998).
pub(super) fn rendezvous(session: u64, name: &str) -> u64 {
    // SplitMix64's finaliser (Steele, Lea and Flood 2014).
    let mut mixed = session ^ crate::train::route_id(name);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
