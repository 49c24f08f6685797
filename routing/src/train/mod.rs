//! Learning how long deployments take, how much they say and how often they fail, from
//! the attempts that ended. The control plane trains on the samples of all agents, an
//! agent on its own, the simulator as both.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::time::Duration;

mod evidence;
pub(crate) mod learner;
pub(crate) mod load;
mod model;
pub(crate) mod moment;
mod occupancy;
pub(crate) mod outputs;
pub(crate) mod regression;
#[cfg(test)]
mod tests;

pub use evidence::Sums;
use learner::{Learner, Ratios};
pub use model::{Coefficients, DeploymentModel, FleetModels};
use occupancy::Occupancy;
use outputs::Outputs;
pub use outputs::{OutputKey, OutputModel, output_key, route_id};

use crate::time::Timestamp;

/// Deployments that are trained, at 9 KiB each: as many as the fleet keeps breakers of.
/// Of more, the one longest without samples is forgotten.
const DEPLOYMENTS_MAX: usize = 20_000;
/// An agent that said nothing for so long is gone.
const AGENT_GONE: Duration = Duration::from_secs(30);
/// Agents counted.
const AGENTS_MAX: usize = 20_000;
/// Pairs of deployment and agent whose attempts are counted, at some 200 bytes each:
/// 10,000 agents with ten deployments each. What is beyond counts as idle.
const PAIRS_MAX: usize = 100_000;
/// Counts kept of each pair: those of 80 s at a report every 10 s.
const COUNTS_MAX: usize = 8;
/// The load that a request met is known once those that ran beside it have ended.
const SETTLED_AFTER: Duration = Duration::from_secs(20);
/// Answers of a deployment that wait for that. Of more, some say nothing about load.
const UNSETTLED_MAX: usize = 512;

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// A whole answer.
    Ok,
    /// It failed before its first content.
    Failed,
    /// The answer broke off.
    Broke,
    /// Silent until its time was up, or until another attempt won.
    Silent,
    /// Dropped since another attempt won, or the caller left. It took at least so long.
    Overtaken,
}

/// One attempt that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// [`route_id`] of the virtual model.
    pub route: u64,
    /// On the trainer's clock.
    pub started: Timestamp,
    /// All input tokens, cached ones included.
    pub input_tokens: u64,
    /// The part of them that the provider had cached.
    pub cached_input_tokens: u64,
    /// Limit on the output.
    pub max_output_tokens: Option<u32>,
    /// Output tokens.
    pub output_tokens: u64,
    /// Until the first content. None: answered in one piece, or none came.
    pub ttft: Option<Duration>,
    /// Until its end.
    pub duration: Duration,
    /// What came of it.
    pub kind: SampleKind,
    /// Attempts that its agent had running there as it started, itself included. 0: not
    /// known, so that it says nothing about load.
    pub in_flight_own: u32,
    /// Seconds until the first content, as predicted. 0: not predicted.
    pub predicted_ttft_s: f32,
}

impl Sample {
    /// Input tokens that the provider had to read.
    pub(crate) fn fresh_input(&self) -> f64 {
        self.input_tokens.saturating_sub(self.cached_input_tokens) as f64
    }
}

#[derive(Clone, Debug, Default)]
struct Lane {
    learner: Learner,
    occupancy: Occupancy,
    /// Attempts that each agent had running, and when it said so, oldest first.
    running: BTreeMap<u64, VecDeque<(u32, Timestamp)>>,
    /// Starts of answers, and what they say of load once that is known.
    unsettled: VecDeque<(Timestamp, Ratios)>,
    newest: Timestamp,
}

/// Trains on the samples of several agents.
#[derive(Clone, Debug, Default)]
pub struct Trainer {
    lanes: BTreeMap<Box<str>, Lane>,
    agents: BTreeMap<u64, Timestamp>,
    /// Pairs of deployment and agent in `running`.
    pairs: usize,
    outputs: Outputs,
}

impl Trainer {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An agent's attempt at `deployment` ended. `agent`: any number that is its alone.
    pub fn add(&mut self, agent: u64, deployment: &str, sample: &Sample) {
        let now = sample.started + sample.duration;
        self.meet(agent, now);
        let agents = self.agents.len();
        let outputs = &mut self.outputs;
        let Some(lane) = lane(&mut self.lanes, deployment) else { return };
        lane.newest = lane.newest.max(now);
        lane.occupancy.add(sample.started, now);
        let key = output_key(sample.route, sample.input_tokens, sample.max_output_tokens);
        let expected = outputs::expected(outputs.sums(now, key));
        let in_flight = lane.in_flight(agent, agents, sample);
        let ratio = lane.learner.learn(now, sample, in_flight, expected);
        match ratio {
            _ if sample.in_flight_own == 0 => {}
            Some(ratio) if agents <= 1 => lane.learner.learn_load(now, in_flight, ratio),
            Some(ratio) if lane.unsettled.len() < UNSETTLED_MAX => {
                lane.unsettled.push_back((sample.started, ratio));
            }
            Some(_) | None => {}
        }
        if sample.kind == SampleKind::Ok && sample.output_tokens > 0 {
            outputs.learn(now, key, sample.output_tokens as f64, lane.learner.verbosity(now));
        }
    }

    /// An agent said how many attempts it has running at `deployment`.
    pub fn running(&mut self, agent: u64, deployment: &str, in_flight: u32, at: Timestamp) {
        if !self.meet(agent, at) {
            return;
        }
        let Some(lane) = lane(&mut self.lanes, deployment) else { return };
        if !lane.running.contains_key(&agent) {
            if self.pairs >= PAIRS_MAX {
                return;
            }
            self.pairs += 1;
        }
        let counts = lane.running.entry(agent).or_default();
        if counts.back().is_none_or(|(_, said)| *said <= at) {
            if counts.len() >= COUNTS_MAX {
                counts.pop_front();
            }
            counts.push_back((in_flight, at));
        }
    }

    /// What is known now.
    pub fn publish(&mut self, now: Timestamp) -> FleetModels {
        self.agents.retain(|_, heard| now.since(*heard) <= AGENT_GONE);
        let mut models = Vec::with_capacity(self.lanes.len());
        self.pairs = 0;
        for (name, lane) in &mut self.lanes {
            lane.settle(now);
            let newest = |counts: &VecDeque<(u32, Timestamp)>| counts.back().copied().unwrap_or_default();
            lane.running.retain(|_, counts| now.since(newest(counts).1) <= AGENT_GONE);
            self.pairs += lane.running.len();
            let count = lane.running.len().max(1) as u32;
            let ages: Duration = lane.running.values().map(|counts| now.since(newest(counts).1)).sum();
            models.push((
                name.clone(),
                DeploymentModel {
                    in_flight: lane.running.values().map(|counts| f64::from(newest(counts).0)).sum(),
                    in_flight_age: ages / count,
                    ..lane.learner.model(now)
                },
            ));
        }
        FleetModels { agents: self.agents.len() as u32, models, outputs: self.outputs.publish(now) }
    }

    /// Begins with what a trainer published at `at`: the slow parts, as far as they are
    /// published, with the doubt that samples of the past deserve. What was of the moment
    /// is over.
    pub fn restore(&mut self, models: &FleetModels, at: Timestamp) {
        for (name, model) in &models.models {
            if model.slow.is_sane()
                && model.slow.samples > 0
                && let Some(lane) = lane(&mut self.lanes, name)
            {
                lane.learner = Learner::restored(model, at);
                lane.newest = at;
            }
        }
        if !models.outputs.is_empty() {
            self.outputs.adopt(&models.outputs, at);
        }
    }

    /// Forgets deployments that `keep` does not name.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.lanes.retain(|name, _| keep(name));
    }

    /// Whether it is one of those counted.
    fn meet(&mut self, agent: u64, now: Timestamp) -> bool {
        let room = self.agents.len() < AGENTS_MAX || self.agents.contains_key(&agent);
        if room {
            let heard = self.agents.entry(agent).or_insert(now);
            *heard = now.max(*heard);
        }
        room
    }
}

impl Lane {
    /// Learns of load from answers whose company is known by now.
    fn settle(&mut self, now: Timestamp) {
        let mut left = VecDeque::new();
        for (started, ratio) in self.unsettled.drain(..) {
            if now.since(started) < SETTLED_AFTER {
                left.push_back((started, ratio));
            } else if let Some(in_flight) = self.occupancy.at(started) {
                self.learner.learn_load(now, f64::from(in_flight.max(1)), ratio);
            }
        }
        self.unsettled = left;
    }

    /// Attempts that the sample met as it started, over all agents, as far as is known
    /// when it comes.
    fn in_flight(&self, agent: u64, agents: usize, sample: &Sample) -> f64 {
        let own = f64::from(sample.in_flight_own.max(1));
        if agents <= 1 {
            return own;
        }
        let others = self.running.iter().filter(|(known, _)| **known != agent);
        own + others.map(|(_, counts)| count_at(counts, sample.started)).sum::<f64>()
    }
}

/// What was running at `at`: between two counts on the line from one to the other, before
/// the first and after the last as they say.
fn count_at(counts: &VecDeque<(u32, Timestamp)>, at: Timestamp) -> f64 {
    let mut later = None;
    for &(count, said) in counts.iter().rev() {
        let count = f64::from(count);
        if said <= at {
            let Some((next, then)) = later else { return count };
            let (gap, into): (Duration, Duration) = (Timestamp::since(then, said), at.since(said));
            return count + (next - count) * into.as_secs_f64() / gap.as_secs_f64().max(1e-9);
        }
        later = Some((count, said));
    }
    later.map_or(0.0, |(count, _)| count)
}

fn lane<'a>(lanes: &'a mut BTreeMap<Box<str>, Lane>, deployment: &str) -> Option<&'a mut Lane> {
    if !lanes.contains_key(deployment) {
        if lanes.len() >= DEPLOYMENTS_MAX {
            let oldest = lanes.iter().min_by_key(|(_, lane)| lane.newest).map(|(name, _)| name.clone());
            lanes.remove(&oldest?);
        }
        lanes.insert(deployment.into(), Lane::default());
    }
    lanes.get_mut(deployment)
}
