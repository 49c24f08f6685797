//! What the control plane learned, on its way to the request path. Changes only travel,
//! so what was not taken yet is kept by name, newest only.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;
use trunkline_proto::{agent::v1, convert::fleet_models};
use trunkline_routing::train::{DeploymentModel, FleetModels, OutputModel};

/// Deployments that wait. The control plane names 2,000 at most.
const WAITING_MAX: usize = 10_000;

/// Models that came in and were not taken yet.
#[derive(Debug, Default)]
pub struct ModelInbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    agents: u32,
    models: BTreeMap<Box<str>, DeploymentModel>,
    outputs: Vec<OutputModel>,
}

impl ModelInbox {
    /// Takes what a control plane sent.
    pub(super) fn put(&self, message: v1::FleetModels) {
        let FleetModels { agents, models, outputs } = fleet_models(message);
        let mut waiting = self.waiting.lock();
        waiting.agents = agents;
        for (name, model) in models {
            if waiting.models.len() < WAITING_MAX || waiting.models.contains_key(&name) {
                waiting.models.insert(name, model);
            }
        }
        if !outputs.is_empty() {
            waiting.outputs = outputs;
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// All that came since the last time, as soon as there is something.
    pub async fn take(&self) -> FleetModels {
        self.arrived.notified().await;
        let Waiting { agents, models, outputs } = std::mem::take(&mut *self.waiting.lock());
        FleetModels { agents, models: models.into_iter().collect(), outputs }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_proto::convert::wire_model;

    use super::*;

    #[tokio::test]
    async fn changes_that_wait_are_taken_together_and_the_newest_of_each_counts() {
        let inbox = ModelInbox::default();
        let model = |in_flight| DeploymentModel { in_flight, ..DeploymentModel::default() };
        let message = |agents, named: &[(&str, f64)]| v1::FleetModels {
            agents,
            deployments: named.iter().map(|(name, running)| wire_model(name, &model(*running))).collect(),
            outputs: Vec::new(),
        };
        inbox.put(message(1, &[("p/a", 1.0), ("p/b", 2.0)]));
        inbox.put(message(2, &[("p/b", 3.0)]));
        let taken = inbox.take().await;
        let expected = vec![("p/a".into(), model(1.0)), ("p/b".into(), model(3.0))];
        assert_eq!((taken.agents, taken.models), (2, expected));
    }
}
