//! Turns a source and a scenario into the requests of one run.

use rand::{Rng, RngExt};
use trunkline_routing::time::Timestamp;

use super::{Part, Row, Source, Traffic};
use crate::{
    math,
    scenario::{Bursts, Scenario, TrafficSpec},
    seeds::{Purpose, rng},
};

/// The rate is constant for so long.
const STEP_S: f64 = 0.1;

/// Most input of a made-up request: a large window.
const SYNTHETIC_INPUT_MAX: f64 = 200_000.0;
/// Longest made-up answer.
const SYNTHETIC_OUTPUT_MAX: f64 = 8_192.0;

/// An agent takes one token for so many bytes of a request's body.
const BYTES_PER_TOKEN: f64 = 4.0;
/// What a token has in truth: half of all texts are within 18 % of the median (code and
/// numbers have fewer bytes per token, plain English has more), and the JSON around the
/// text is counted too.
const BYTES_MEDIAN: f64 = 4.0;
const BYTES_SIGMA: f64 = 0.25;

/// One request that will come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// When.
    pub at: Timestamp,
    /// The part of the traffic it belongs to.
    pub part: usize,
    /// At which agent.
    pub agent: usize,
    /// Tokens of the prompt, as its provider counts them.
    pub input_tokens: u32,
    /// Tokens of the prompt as told from its bytes: all that is known before an answer.
    pub input_estimate: u32,
    /// Tokens of the answer, before a provider's verbosity. Nobody knows them before.
    pub output_tokens: u32,
    /// Tokens of the prompt that the provider of an earlier request may hold.
    pub reusable_prefix_tokens: u32,
    /// The limit on the answer that the request names.
    pub max_output_tokens: Option<u32>,
    /// The least quality it needs.
    pub min_quality: Option<f64>,
}

/// All requests of a run, by time.
pub fn arrivals(scenario: &Scenario, traffic: &Traffic, seed: u64) -> Vec<Arrival> {
    let clock = Clock::new(&scenario.traffic, scenario.duration_s, &mut rng(seed, Purpose::Rate, 0));
    let all: f64 = traffic.parts.iter().map(|part| part.share).sum();
    let mut arrivals = Vec::new();
    for (at, part) in traffic.parts.iter().enumerate() {
        let mut chance = rng(seed, Purpose::Traffic, at as u64);
        let share = part.share / all;
        part.play(clock.total() * share, &mut chance, |ideal, row| {
            arrivals.push(scenario.arrival(clock.time(ideal / share), at, row));
        });
    }
    arrivals.sort_by_key(|arrival| arrival.at);
    // Drawn after the sort and one by one: an agent or a floor does not depend on the
    // part.
    let mut chance = rng(seed, Purpose::Callers, 0);
    let mut texts = rng(seed, Purpose::Texts, 0);
    for arrival in &mut arrivals {
        let bytes = f64::from(arrival.input_tokens) * math::lognormal(BYTES_MEDIAN, BYTES_SIGMA, &mut texts);
        arrival.input_estimate = (bytes / BYTES_PER_TOKEN).clamp(1.0, u32::MAX.into()) as u32;
        arrival.agent = chance.random_range(0..scenario.agents as usize);
        let mut point = chance.random::<f64>();
        arrival.min_quality = scenario.floors.iter().find_map(|floor| {
            point -= floor.share;
            (point < 0.0).then_some(floor.min_quality)
        });
    }
    arrivals
}

impl Scenario {
    fn arrival(&self, t_s: f64, part: usize, row: Row) -> Arrival {
        let declared = self.traffic.declare_output_from;
        Arrival {
            at: Timestamp::ZERO + math::seconds(t_s),
            part,
            agent: 0,
            input_tokens: row.input_tokens,
            input_estimate: row.input_tokens,
            output_tokens: row.output_tokens.max(1),
            reusable_prefix_tokens: row.reusable_prefix_tokens.min(row.input_tokens),
            max_output_tokens: declared.map(|least| row.output_tokens.next_power_of_two().max(least)),
            min_quality: None,
        }
    }
}

impl Part {
    /// Calls `emit` with requests at a mean rate of 1 until `end`.
    fn play<R: Rng>(&self, end: f64, chance: &mut R, mut emit: impl FnMut(f64, Row)) {
        match &self.source {
            Source::Trace(rows) => {
                let span = rows[rows.len() - 1].t_s - rows[0].t_s;
                let mean_gap = span / (rows.len() - 1) as f64;
                let mut at = chance.random_range(0..rows.len());
                let mut now = chance.random::<f64>();
                while now < end {
                    emit(now, rows[at]);
                    let next = (at + 1) % rows.len();
                    // From the last row to the first is one usual gap.
                    let gap = if next == 0 { mean_gap } else { rows[next].t_s - rows[at].t_s };
                    now += gap / mean_gap;
                    at = next;
                }
            }
            Source::Synthetic { input_median, input_sigma, output_median, output_sigma } => {
                let mut now = math::exponential(1.0, chance);
                while now < end {
                    let input = math::lognormal(*input_median, *input_sigma, chance);
                    let output = math::lognormal(*output_median, *output_sigma, chance);
                    let row = Row {
                        t_s: now,
                        input_tokens: input.clamp(1.0, SYNTHETIC_INPUT_MAX) as u32,
                        output_tokens: output.clamp(1.0, SYNTHETIC_OUTPUT_MAX) as u32,
                        reusable_prefix_tokens: 0,
                    };
                    emit(now, row);
                    now += math::exponential(1.0, chance);
                }
            }
        }
    }
}

/// Maps a clock that ticks once per request to virtual time.
struct Clock {
    /// Requests expected by the end of each step.
    expected: Vec<f64>,
}

impl Clock {
    fn new(spec: &TrafficSpec, duration_s: f64, chance: &mut impl Rng) -> Self {
        let steps = (duration_s / STEP_S).ceil().max(1.0) as usize;
        let bursts = spec.bursts.map(|bursts| bursts.factors(steps, chance));
        let mut sum = 0.0;
        let expected = (0..steps).map(|step| {
            let now = step as f64 * STEP_S;
            let mut rate = spec.rate_per_s;
            if let Some(day) = spec.day {
                rate *= 1.0 + day.amplitude * math::sine(now / day.length_s);
            }
            if let Some(factors) = &bursts {
                rate *= factors[step];
            }
            for surge in &spec.surges {
                if (surge.start_s..surge.start_s + surge.duration_s).contains(&now) {
                    rate *= surge.factor;
                }
            }
            sum += rate * STEP_S;
            sum
        });
        Self { expected: expected.collect() }
    }

    fn total(&self) -> f64 {
        self.expected.last().copied().unwrap_or(0.0)
    }

    /// When so many requests are expected to have come.
    fn time(&self, requests: f64) -> f64 {
        let step = self.expected.partition_point(|expected| *expected <= requests);
        let before = if step == 0 { 0.0 } else { self.expected[step - 1] };
        let Some(after) = self.expected.get(step) else { return self.expected.len() as f64 * STEP_S };
        (step as f64 + (requests - before) / (after - before)) * STEP_S
    }
}

impl Bursts {
    /// The rate in each step, relative to the mean.
    fn factors(self, steps: usize, chance: &mut impl Rng) -> Vec<f64> {
        let busy_share = self.busy_s / (self.busy_s + self.quiet_s);
        let quiet = 1.0 / (1.0 - busy_share + busy_share * self.factor);
        let mut busy = false;
        let mut left = math::exponential(self.quiet_s, chance);
        let mut factors = Vec::with_capacity(steps);
        for _ in 0..steps {
            factors.push(if busy { quiet * self.factor } else { quiet });
            left -= STEP_S;
            while left <= 0.0 {
                busy = !busy;
                left += math::exponential(if busy { self.busy_s } else { self.quiet_s }, chance);
            }
        }
        factors
    }
}
