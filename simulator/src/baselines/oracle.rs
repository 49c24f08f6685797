//! Two that know every provider's true state, and the length of every answer. They are
//! greedy, and have the same attempts and timeouts as the baselines: what foresight
//! about attempts can win is not in them.

use rand::rngs::StdRng;

use super::{Ask, Picker, smallest};
use crate::run::Truth;

/// What an answer that breaks off costs, in seconds: it can't be had again.
const BREAK_S: f64 = 200.0;
/// A deployment that fails more often is not taken for its price.
const FAILS_MAX: f64 = 0.3;

/// Where none meets the SLO, none is taken that is slower than so many times the fastest.
const LATE_MAX: f64 = 2.0;

fn expected_s(truth: &Truth, best_s: f64) -> f64 {
    truth.expected_s(best_s) + truth.breaks * BREAK_S
}

/// The best true time of those that answer.
fn best_s(truths: &[Truth], of: &[usize]) -> f64 {
    let times = of.iter().filter(|at| truths[**at].fails < 0.5).map(|at| truths[*at].total_s);
    times.fold(60.0, f64::min)
}

/// The fastest expected answer above the floor.
pub(super) struct Oracle;

impl Picker for Oracle {
    fn pick(&mut self, ask: &Ask<'_, '_>, _chance: &mut StdRng) -> Option<usize> {
        let truths = ask.truths();
        let above = ask.above_floor();
        let best = best_s(&truths, &above);
        smallest(&above, |at| expected_s(&truths[at], best))
    }
}

/// The cheapest that is expected to meet floor and SLO. If none is, the SLO is lost: the
/// cheapest of those that take at most twice as long as the fastest.
pub(super) struct OracleCost;

impl Picker for OracleCost {
    fn pick(&mut self, ask: &Ask<'_, '_>, chance: &mut StdRng) -> Option<usize> {
        let truths = ask.truths();
        let slo = ask.world.scenario.slo;
        let meets = |at: &usize| {
            let truth = &truths[*at];
            truth.ttft_s <= slo.ttft_s * 0.85
                && truth.total_s <= slo.total_s * 0.85
                && truth.fails < FAILS_MAX
        };
        let feasible: Vec<usize> = ask.above_floor().into_iter().filter(meets).collect();
        let cost = |at: usize| truths[at].cost.0 as f64;
        if let Some(cheapest) = smallest(&feasible, cost) {
            return Some(cheapest);
        }
        let above = ask.above_floor();
        let latest = LATE_MAX * best_s(&truths, &above);
        let late = |at: &usize| truths[*at].fails < FAILS_MAX && truths[*at].total_s <= latest;
        let late: Vec<usize> = above.into_iter().filter(late).collect();
        smallest(&late, cost).or_else(|| Oracle.pick(ask, chance))
    }
}
