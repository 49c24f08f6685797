//! Which requests get the better model while the budget lasts. A period's requests come
//! with values and prices nobody knows before; both the rate and the values drift, so
//! that money spent early is missed late.

use rand::{RngExt, rngs::StdRng};
use trunkline_routing::budget::pacing::{Pacer, Progress, Upgrade as Bought};

use crate::{
    math,
    run::report::BudgetFigures,
    seeds::{Purpose, rng},
};

/// Requests of the period, about.
const REQUESTS: usize = 10_000;
/// What part of all upgrades the budget could pay for.
const AFFORDABLE: f64 = 0.2;
/// The value of an upgrade grows by this factor over the period.
const VALUE_DRIFT: f64 = 6.0;
/// The rate swings by so much around its mean.
const RATE_SWING: f64 = 0.5;
/// Nano-dollars in a dollar.
const NANOS: f64 = 1e9;

/// How it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Dual,
    UntilEmpty,
}

/// A request that could be answered by the better model.
#[derive(Clone, Copy, Debug)]
struct Upgrade {
    /// When, 0 to 1 of the period.
    at: f64,
    value: f64,
    nano_usd: u64,
}

pub(super) fn run(way: Way, seed: u64) -> BudgetFigures {
    let upgrades = upgrades(&mut rng(seed, Purpose::Traffic, u64::MAX));
    let all: u64 = upgrades.iter().map(|upgrade| upgrade.nano_usd).sum();
    let limit = (all as f64 * AFFORDABLE) as u64;
    let (spent, value) = match way {
        Way::Dual => dual(&upgrades, limit),
        Way::UntilEmpty => until_empty(&upgrades, limit),
    };
    BudgetFigures {
        limit_usd: limit as f64 / NANOS,
        spent_usd: spent as f64 / NANOS,
        falsely_refused: 0,
        value: value / optimum(&upgrades, limit),
    }
}

fn upgrades(rng: &mut StdRng) -> Vec<Upgrade> {
    let mut upgrades = Vec::with_capacity(REQUESTS);
    let mut at = 0.0;
    loop {
        let rate = REQUESTS as f64 * (1.0 + RATE_SWING * libm::sin(core::f64::consts::TAU * at));
        at += -libm::log(1.0 - rng.random::<f64>()) / rate;
        if at >= 1.0 {
            return upgrades;
        }
        let dollars = math::lognormal(0.002, 0.8, rng);
        let value = math::lognormal(1.0, 0.8, rng) * math::power(VALUE_DRIFT, at);
        upgrades.push(Upgrade { at, value, nano_usd: (dollars * NANOS) as u64 });
    }
}

/// The most value that the money buys, knowing all: the best value per dollar first, the
/// last one in part. No plan can do better.
fn optimum(upgrades: &[Upgrade], limit: u64) -> f64 {
    let mut best: Vec<&Upgrade> = upgrades.iter().filter(|upgrade| upgrade.nano_usd > 0).collect();
    let per_dollar = |upgrade: &Upgrade| upgrade.value / upgrade.nano_usd as f64;
    best.sort_by(|a, b| per_dollar(b).total_cmp(&per_dollar(a)));
    let mut left = limit as f64;
    let mut value = 0.0;
    for upgrade in best {
        let part = f64::min(1.0, left / upgrade.nano_usd as f64);
        value += upgrade.value * part;
        left -= upgrade.nano_usd as f64 * part;
        if part < 1.0 {
            break;
        }
    }
    value
}

fn until_empty(upgrades: &[Upgrade], limit: u64) -> (u64, f64) {
    let (mut spent, mut value) = (0, 0.0);
    for upgrade in upgrades {
        if spent + upgrade.nano_usd > limit {
            break;
        }
        spent += upgrade.nano_usd;
        value += upgrade.value;
    }
    (spent, value)
}

fn dual(upgrades: &[Upgrade], limit: u64) -> (u64, f64) {
    let mut pacer = Pacer::default();
    let (mut spent, mut value) = (0, 0.0);
    for upgrade in upgrades {
        let progress = Progress { spent: spent as f64 / limit as f64, elapsed: upgrade.at };
        let offered = Bought { value: upgrade.value, extra_nano_usd: upgrade.nano_usd };
        if pacer.buys(offered, progress) && spent + upgrade.nano_usd <= limit {
            spent += upgrade.nano_usd;
            value += upgrade.value;
        }
    }
    (spent, value)
}
