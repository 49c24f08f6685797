//! One publication: what is known now, and the messages that say so. Shared by all
//! sessions, and made at most once.

use std::{collections::HashSet, sync::OnceLock};

use trunkline_proto::{
    agent::v1,
    convert::{wire_model, wire_outputs},
};
use trunkline_routing::train::FleetModels;

/// Deployments in one message, at some 250 bytes each; of more, those with the newest
/// answers. The others are as agents know them themselves.
const DEPLOYMENTS_MAX: usize = 2_000;

/// What is known of all deployments.
#[derive(Debug, Default)]
pub(crate) struct Published {
    seq: u64,
    models: FleetModels,
    /// Places of those that changed since the publication before.
    changed: Vec<usize>,
    /// This one is to be told whole to everybody.
    refresh: bool,
    whole: OnceLock<v1::FleetModels>,
    changes: OnceLock<v1::FleetModels>,
}

impl Published {
    /// The publication after this one. `refresh`: everybody is told all of it.
    pub(super) fn next(&self, models: FleetModels, changed: &HashSet<Box<str>>, refresh: bool) -> Self {
        let places = models.models.iter().enumerate().filter(|(_, (name, _))| changed.contains(name));
        let changed = places.map(|(place, _)| place).collect();
        Self { seq: self.seq + 1, models, changed, refresh, ..Self::default() }
    }

    /// Grows by one with each. 0: nothing was published yet.
    pub(crate) const fn seq(&self) -> u64 {
        self.seq
    }

    /// What is known.
    pub(crate) const fn models(&self) -> &FleetModels {
        &self.models
    }

    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.models.models.is_empty()
    }

    /// What an agent that was told `told` last is to be told. None: nothing.
    pub(crate) fn message_after(&self, told: u64) -> Option<v1::FleetModels> {
        if told >= self.seq || self.is_empty() {
            return None;
        }
        let message = if told + 1 == self.seq && !self.refresh {
            self.changes.get_or_init(|| self.message(self.changed.iter().copied(), false))
        } else {
            self.whole.get_or_init(|| self.message(0..self.models.models.len(), true))
        };
        Some(message.clone())
    }

    fn message(&self, places: impl Iterator<Item = usize>, outputs: bool) -> v1::FleetModels {
        let mut places: Vec<usize> = places.collect();
        if places.len() > DEPLOYMENTS_MAX {
            places.sort_by_key(|place| {
                let (_, model) = &self.models.models[*place];
                model.newest_age.unwrap_or(std::time::Duration::MAX)
            });
            places.truncate(DEPLOYMENTS_MAX);
        }
        let deployments = places.into_iter().map(|place| {
            let (name, model) = &self.models.models[place];
            wire_model(name, model)
        });
        v1::FleetModels {
            agents: self.models.agents,
            deployments: deployments.collect(),
            outputs: if outputs { wire_outputs(&self.models.outputs) } else { Vec::new() },
        }
    }
}
