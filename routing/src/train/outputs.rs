//! How long answers are: by route, size of the input and limit of the output.
//!
//! A mean per cell, drawn to the mean of its route and that to a guess for all. A
//! deployment that talks more than others is told apart by its verbosity, so that a cell
//! learns from all of them.

use alloc::{collections::BTreeMap, vec::Vec};

use super::evidence::{Evidence, Sums};
use crate::time::Timestamp;

/// Cells kept, 56 bytes each: all those of 128 routes. The longest unused one goes first.
const CELLS_MAX: usize = 4_096;
/// Cells that one publication carries.
const PUBLISHED_MAX: usize = 1_024;
/// Seconds after which a sample weighs 1/e.
const TAU_S: f64 = 3_600.0;
/// Tokens of an answer of which nothing is known.
const GUESS: f64 = 256.0;
/// Samples that draw a route's mean to the guess, and a cell's to that of its route.
const GUESS_STRENGTH: f64 = 1.0;
const ROUTE_STRENGTH: f64 = 3.0;
/// Stands for all cells of a route.
const WHOLE_ROUTE: u8 = u8::MAX;

/// A kind of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputKey {
    /// [`route_id`] of the virtual model.
    pub route: u64,
    /// Which size of input and limit of output; 255: all of them.
    pub bucket: u8,
}

/// What is known of one kind of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutputModel {
    /// Which.
    pub key: OutputKey,
    /// Output tokens: their sum and the samples behind it.
    pub tokens: Sums,
}

/// Names a virtual model in what is learned: FNV-1a of its name, 64 bits.
pub fn route_id(name: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    name.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The kind of a request with so much input and such a limit on its output.
pub fn output_key(route: u64, input_tokens: u64, max_output_tokens: Option<u32>) -> OutputKey {
    // Inputs by powers of four from 64 tokens on.
    let input = (input_tokens.max(1).ilog2().saturating_sub(4) / 2).min(7) as u8;
    let limit = match max_output_tokens {
        None => 0,
        Some(..=128) => 1,
        Some(..=1_024) => 2,
        Some(_) => 3,
    };
    OutputKey { route, bucket: input * 4 + limit }
}

/// All kinds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outputs {
    cells: BTreeMap<OutputKey, Evidence>,
}

impl Outputs {
    /// An answer of so many tokens; `verbosity`: how much longer than others this
    /// deployment answers.
    pub(crate) fn learn(&mut self, now: Timestamp, key: OutputKey, tokens: f64, verbosity: f64) {
        let tokens = tokens / verbosity;
        for key in [key, OutputKey { bucket: WHOLE_ROUTE, ..key }] {
            if self.cells.len() >= CELLS_MAX && !self.cells.contains_key(&key) {
                let oldest = self.cells.iter().min_by_key(|(_, cell)| cell.newest()).map(|(key, _)| *key);
                if let Some(oldest) = oldest {
                    self.cells.remove(&oldest);
                }
            }
            self.cells.entry(key).or_default().add(now, tokens, 1.0, TAU_S);
        }
    }

    /// What is known of a kind and of its whole route.
    pub(crate) fn sums(&self, now: Timestamp, key: OutputKey) -> (Sums, Sums) {
        let read =
            |key: &OutputKey| self.cells.get(key).map(|cell| cell.read(now, TAU_S)).unwrap_or_default();
        (read(&key), read(&OutputKey { bucket: WHOLE_ROUTE, ..key }))
    }

    /// Those with the most samples.
    pub(crate) fn publish(&self, now: Timestamp) -> Vec<OutputModel> {
        let mut all: Vec<OutputModel> = self
            .cells
            .iter()
            .map(|(key, cell)| OutputModel { key: *key, tokens: cell.read(now, TAU_S) })
            .collect();
        all.sort_by(|a, b| b.tokens.weight.total_cmp(&a.tokens.weight).then(a.key.cmp(&b.key)));
        all.truncate(PUBLISHED_MAX);
        all
    }

    /// Takes over what others published.
    pub(crate) fn adopt(&mut self, models: &[OutputModel], now: Timestamp) {
        self.cells.clear();
        for model in models.iter().take(PUBLISHED_MAX) {
            let Sums { sum, weight } = model.tokens.sane();
            if weight > 0.0 && sum >= 0.0 {
                self.cells.entry(model.key).or_default().add(now, sum / weight, weight, TAU_S);
            }
        }
    }
}

/// Tokens expected of an answer, before the deployment's verbosity.
pub(crate) fn expected((cell, route): (Sums, Sums)) -> f64 {
    cell.mean(route.mean(GUESS, GUESS_STRENGTH), ROUTE_STRENGTH)
}
