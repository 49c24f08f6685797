//! Routing tables come and go; state stays by name. A [`Binding`] maps the indices of
//! one table to it.

use alloc::{boxed::Box, vec::Vec};

use super::{
    EPOCHS_PER_BREAKER, Registry,
    slot::{Account, Slot, SlotId},
};
use crate::{
    breaker::Breaker,
    caps::Caps,
    hold::Hold,
    pace::Pace,
    swrr::Rotation,
    table::{BreakerPolicy, DeploymentIndex, Limits, RoutingTable, Strategy},
    time::Timestamp,
    train::{learner::Learner, moment::Moment},
};

/// Maps the indices of one routing table to the registry's state.
#[derive(Clone, Debug, Default)]
pub struct Binding {
    generation: u64,
    slots: Vec<SlotId>,
    rotations: Vec<usize>,
}

/// The turns of a tier. Those of first attempts and of all later ones are apart: what is
/// retried must not bend the shares of what is not.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    first: Rotation,
    again: Rotation,
}

/// Turns taken are kept while these stay as they were: under other weights they would
/// mean something else.
pub(super) type RotationKey = (Strategy, Vec<(Box<str>, u32)>);

impl Registry {
    /// Takes a routing table: keeps the state of what stays, forgets what is gone.
    pub fn bind(&mut self, table: &RoutingTable, now: Timestamp) -> Binding {
        self.generation += 1;
        let accounts = self.bind_accounts(table);
        for slot in &mut self.slots {
            slot.live = false;
            slot.account = None;
        }
        let mut slots = Vec::with_capacity(table.deployments.len());
        for deployment in &table.deployments {
            let provider = table.provider(deployment.provider);
            let id = self.slot_for(&deployment.name, deployment.breaker, now);
            let slot = &mut self.slots[id.index as usize];
            slot.live = true;
            slot.breaker.set_policy(deployment.breaker);
            slot.breaker.set_probes_to_close(provider.health_check.probes_to_close());
            slot.account = accounts.get(deployment.provider.0 as usize).copied();
            slot.limits = deployment.limits;
            let metered =
                slot.limits.requests_per_minute.is_some() || slot.limits.tokens_per_minute.is_some();
            slot.meter = metered.then(|| slot.meter.take().unwrap_or_default());
            if slot.credential != provider.credential {
                slot.credential.clone_from(&provider.credential);
                slot.credentials = slot.credentials.wrapping_add(1);
                slot.hold.clear();
                slot.caps.clear();
            }
            slots.push(id);
        }
        let slots_live = &self.slots;
        self.by_name.retain(|_, id| slots_live[id.index as usize].live);
        self.find_verdicts();
        let rotations = self.bind_rotations(table);
        Binding { generation: self.generation, slots, rotations }
    }

    fn bind_accounts(&mut self, table: &RoutingTable) -> Vec<usize> {
        let mut old = core::mem::take(&mut self.accounts);
        for provider in &table.providers {
            let known = old.iter().position(|account| {
                account.provider == provider.name && account.credential == provider.credential
            });
            let account = known.map_or_else(
                || Account {
                    provider: provider.name.clone(),
                    credential: provider.credential.clone(),
                    missing: self.missing.contains(&provider.name),
                    ..Account::default()
                },
                |index| old.swap_remove(index),
            );
            self.accounts.push(account);
        }
        (0..self.accounts.len()).collect()
    }

    fn slot_for(&mut self, name: &str, policy: BreakerPolicy, now: Timestamp) -> SlotId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        self.next_epoch += EPOCHS_PER_BREAKER;
        // A place of a deployment that is gone is used again once nothing runs on it.
        // Tickets and bindings from before carry another incarnation.
        let free = (0..).zip(&self.slots).find(|(index, slot)| {
            let named = self.by_name.get(&slot.name).is_some_and(|id| id.index == *index);
            !slot.live && slot.in_flight == 0 && !named
        });
        let id = free.map_or(SlotId { index: self.slots.len() as u32, incarnation: 0 }, |(index, slot)| {
            SlotId { index, incarnation: slot.incarnation.wrapping_add(1) }
        });
        let fresh = Slot {
            name: name.into(),
            breaker: Breaker::new(policy, self.next_epoch, now),
            forced: self.verdicts.get(name).copied(),
            hold: Hold::default(),
            account: None,
            credential: None,
            credentials: 0,
            incarnation: id.incarnation,
            limits: Limits::default(),
            meter: None,
            caps: Caps::default(),
            in_flight: 0,
            pace: Pace::default(),
            learner: Learner::default(),
            moment: Moment::default(),
            fleet: None,
            heard: None,
            live: true,
            last_result: now,
            failed_checks: 0,
            verdict: None,
            base_generation: 0,
        };
        match self.slots.get_mut(id.index as usize) {
            Some(place) => *place = fresh,
            None => self.slots.push(fresh),
        }
        self.by_name.insert(name.into(), id);
        id
    }

    fn bind_rotations(&mut self, table: &RoutingTable) -> Vec<usize> {
        let mut old = core::mem::take(&mut self.rotation_keys);
        let mut rotations = Vec::new();
        let mut bases = Vec::with_capacity(table.virtual_models.len());
        for model in &table.virtual_models {
            bases.push(rotations.len());
            for (tier, targets) in model.tiers.iter().enumerate() {
                let named = targets.targets.iter();
                let named =
                    named.map(|target| (table.deployment(target.deployment).name.clone(), target.weight));
                let wanted = (model.strategy, named.collect::<Vec<_>>());
                let key = (model.name.clone(), tier);
                let kept = old.remove(&key).filter(|(_, known)| *known == wanted);
                let rotation = kept.and_then(|(index, _)| self.rotations.get(index).cloned());
                self.rotation_keys.insert(key, (rotations.len(), wanted));
                rotations.push(rotation.unwrap_or_else(|| {
                    let turns = Rotation::new(targets.targets.len());
                    Turns { first: turns.clone(), again: turns }
                }));
            }
        }
        self.rotations = rotations;
        bases
    }

    /// The turn-taking of first attempts in a tier. None for a pin, or under a table that
    /// was replaced.
    pub(crate) fn rotation(&mut self, binding: &Binding, model: usize, tier: usize) -> Option<&mut Rotation> {
        Some(&mut self.turns(binding, model, tier)?.first)
    }

    /// The same for attempts after the first.
    pub(crate) fn rotation_again(
        &mut self,
        binding: &Binding,
        model: usize,
        tier: usize,
    ) -> Option<&mut Rotation> {
        Some(&mut self.turns(binding, model, tier)?.again)
    }

    fn turns(&mut self, binding: &Binding, model: usize, tier: usize) -> Option<&mut Turns> {
        if binding.generation != self.generation {
            return None;
        }
        let base = *binding.rotations.get(model)?;
        self.rotations.get_mut(base + tier)
    }
}

impl Binding {
    /// Counts the tables that its registry was bound to, from 1.
    pub const fn number(&self) -> u64 {
        self.generation
    }

    pub(super) fn slot(&self, deployment: DeploymentIndex) -> SlotId {
        self.slots[deployment.0 as usize]
    }
}
