//! The control plane of a run: what agents report becomes models, which come back to
//! all of them some time later.

use std::{collections::VecDeque, time::Duration};

use rand::RngExt;
use trunkline_routing::{
    time::Timestamp,
    train::{FleetModels, Sample, Trainer},
};

use super::world::World;
use crate::seeds::{Purpose, rng};

/// The control plane publishes at least so often.
const PUBLISH_EVERY_S: f64 = 2.0;

/// The control plane, and what is on its way to and from it.
#[derive(Debug)]
pub(super) struct Fleet {
    trainer: Trainer,
    /// By agent: the deployment's place, and what came of an attempt there.
    unreported: Vec<Vec<(usize, Sample)>>,
    /// Published, and not yet at the agents. As long as the delay lasts.
    on_the_way: VecDeque<Published>,
}

/// What agents are told at once.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) models: FleetModels,
    /// The prices are those of this moment.
    pub(super) priced: Timestamp,
}

/// What a timer of a run is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// This agent reports.
    Report(usize),
    /// The control plane publishes.
    Publish,
    /// A publication is at the agents.
    Adopt,
}

impl Fleet {
    pub(super) fn new(agents: usize) -> Self {
        Self { trainer: Trainer::new(), unreported: vec![Vec::new(); agents], on_the_way: VecDeque::new() }
    }

    /// Starts the clocks. Agents do not report in step.
    pub(super) fn begin(&mut self, world: &mut World<'_>) {
        let mut chance = rng(world.seed(), Purpose::Reports, 0);
        let every = world.scenario.report_every_s;
        for agent in 0..self.unreported.len() {
            let first = Duration::from_secs_f64(every * chance.random::<f64>());
            world.timer_at(agent, world.now + first);
        }
        world.timer_at(self.unreported.len(), world.now + publish_every(world));
    }

    /// What the timer is for.
    pub(super) fn due(&self, number: usize) -> Due {
        match number.cmp(&self.unreported.len()) {
            std::cmp::Ordering::Less => Due::Report(number),
            std::cmp::Ordering::Equal => Due::Publish,
            std::cmp::Ordering::Greater => Due::Adopt,
        }
    }

    /// An attempt of an agent ended.
    pub(super) fn ended(&mut self, agent: usize, place: usize, sample: Sample) {
        self.unreported[agent].push((place, sample));
    }

    /// An agent reports: what ended, and what runs at each deployment.
    pub(super) fn report(
        &mut self,
        world: &mut World<'_>,
        agent: usize,
        running: impl Iterator<Item = (usize, u32)>,
    ) {
        let name = |place: usize| format!("{}/model", world.providers[place].spec.model.name);
        for (place, sample) in self.unreported[agent].drain(..) {
            self.trainer.add(agent as u64, &name(place), &sample);
        }
        for (place, running) in running {
            self.trainer.running(agent as u64, &name(place), running, world.now);
        }
        world.timer_at(agent, world.now + Duration::from_secs_f64(world.scenario.report_every_s));
    }

    pub(super) fn publish(&mut self, world: &mut World<'_>) {
        // A price that changes at the very moment of a publication comes with the next:
        // the worst that can happen to it.
        let priced = Timestamp::from_nanos(world.now.as_nanos().saturating_sub(1));
        let models = self.trainer.publish(world.now);
        self.on_the_way.push_back(Published { models, priced });
        let delay = Duration::from_secs_f64(world.scenario.publish_delay_s);
        world.timer_at(self.unreported.len() + 1, world.now + delay);
        world.timer_at(self.unreported.len(), world.now + publish_every(world));
    }

    /// The publication that is at the agents now.
    pub(super) fn arrived(&mut self) -> Option<Published> {
        self.on_the_way.pop_front()
    }
}

fn publish_every(world: &World<'_>) -> Duration {
    Duration::from_secs_f64(world.scenario.report_every_s.min(PUBLISH_EVERY_S))
}
