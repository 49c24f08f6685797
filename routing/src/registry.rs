//! What an agent knows of its targets right now: breakers, gates, quarantines, turns
//! taken, attempts running. One owner keeps it; requests read and change it through
//! the verbs here.
//!
//! State is kept by name and outlives changes of the routing table; a [`Binding`]
//! maps one table's indices to it.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::time::Duration;

use rand_core::Rng;

use crate::{
    breaker::{Admission, Breaker, Sample, State},
    bucket::RetryBucket,
    classify::QuarantineScope,
    hold::{Gate, Hold, QuarantineReason},
    limits::Meter,
    pace::Pace,
    swrr::Rotation,
    table::{Credential, DeploymentIndex, Limits, RoutingTable, Strategy},
    time::Timestamp,
};

/// Room for the transitions of one breaker before the next one's epochs begin.
const EPOCHS_PER_BREAKER: u64 = 1 << 32;

/// Names a deployment's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId {
    index: u32,
    /// Places are used again: what was kept from an earlier use must not touch a later.
    incarnation: u32,
}

/// An operator's word on a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    /// No traffic.
    Open,
    /// Traffic, whatever the breaker says.
    Closed,
}

/// What an attempt that may run is to the registry. Give it back with
/// [`Registry::release`].
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    slot: SlotId,
    epoch: u64,
    probe: bool,
    /// Under which credential it started.
    credential: u32,
}

/// Whether a deployment may get an attempt now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Yes, with this share of its weight in percent.
    Ready(u8),
    /// No.
    Blocked(Block),
}

/// Why not, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// An operator said so, or took it out of the table.
    Forced,
    /// Something is broken until somebody acts.
    Quarantine(QuarantineReason, Timestamp),
    /// It asked for less.
    Gate(Timestamp),
    /// Its breaker is open, or a probe is on its way.
    Breaker(Timestamp),
    /// The configured limit of this agent is used up.
    Limit,
}

impl Ticket {
    /// Whose attempt it is.
    pub const fn slot(&self) -> SlotId {
        self.slot
    }
}

#[derive(Debug)]
struct Slot {
    name: Box<str>,
    breaker: Breaker,
    forced: Option<(Forced, Option<Timestamp>)>,
    hold: Hold,
    /// None: the deployment is gone.
    account: Option<usize>,
    credential: Option<Credential>,
    /// Counts changes of the credential: a late word on an old one says nothing about
    /// the new one.
    credentials: u32,
    incarnation: u32,
    limits: Limits,
    meter: Option<Meter>,
    in_flight: u32,
    pace: Pace,
    live: bool,
}

#[derive(Debug, Default)]
struct Account {
    provider: Box<str>,
    credential: Option<Credential>,
    hold: Hold,
    missing: bool,
}

/// Maps the indices of one routing table to the registry's state.
#[derive(Clone, Debug, Default)]
pub struct Binding {
    generation: u64,
    slots: Vec<SlotId>,
    rotations: Vec<usize>,
}

/// Turns taken are kept while these stay as they were: under other weights they would
/// mean something else.
type RotationKey = (Strategy, Vec<(Box<str>, u32)>);

/// The state.
#[derive(Debug, Default)]
pub struct Registry {
    slots: Vec<Slot>,
    by_name: BTreeMap<Box<str>, SlotId>,
    accounts: Vec<Account>,
    rotations: Vec<Rotation>,
    rotation_keys: BTreeMap<(Box<str>, usize), (usize, RotationKey)>,
    generation: u64,
    next_epoch: u64,
    bucket: RetryBucket,
    /// Kept for deployments and providers that only a later table names.
    verdicts: BTreeMap<Box<str>, (Forced, Option<Timestamp>)>,
    missing: Vec<Box<str>>,
}

impl Registry {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

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
            slot.account = accounts.get(deployment.provider.0 as usize).copied();
            slot.limits = deployment.limits;
            let metered =
                slot.limits.requests_per_minute.is_some() || slot.limits.tokens_per_minute.is_some();
            slot.meter = metered.then(|| slot.meter.take().unwrap_or_default());
            if slot.credential != provider.credential {
                slot.credential.clone_from(&provider.credential);
                slot.credentials = slot.credentials.wrapping_add(1);
                slot.hold.clear();
            }
            slots.push(id);
        }
        let slots_live = &self.slots;
        self.by_name.retain(|_, id| slots_live[id.index as usize].live);
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

    fn slot_for(&mut self, name: &str, policy: crate::table::BreakerPolicy, now: Timestamp) -> SlotId {
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
            in_flight: 0,
            pace: Pace::default(),
            live: true,
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
                rotations.push(rotation.unwrap_or_else(|| Rotation::new(targets.targets.len())));
            }
        }
        self.rotations = rotations;
        bases
    }

    /// Whether the deployment may get an attempt of `tokens` now.
    pub fn health(
        &self,
        binding: &Binding,
        deployment: DeploymentIndex,
        now: Timestamp,
        tokens: u64,
    ) -> Health {
        let Some(slot) = self.slot(binding.slot(deployment)) else { return Health::Blocked(Block::Forced) };
        let account = slot.account.and_then(|account| self.accounts.get(account));
        let forced = slot.forced(now);
        if forced == Some(Forced::Open) {
            return Health::Blocked(Block::Forced);
        }
        if account.is_some_and(|account| account.missing) {
            return Health::Blocked(Block::Quarantine(QuarantineReason::MissingCredential, now));
        }
        let holds = [Some(&slot.hold), account.map(|account| &account.hold)];
        for hold in holds.into_iter().flatten() {
            if let Some((reason, until)) = hold.quarantined(now) {
                return Health::Blocked(Block::Quarantine(reason, until));
            }
            if let Some(until) = hold.gated_until(now) {
                return Health::Blocked(Block::Gate(until));
            }
        }
        let share = match slot.breaker.admission(now) {
            _ if forced == Some(Forced::Closed) => 100,
            Admission::Share(share) => share,
            Admission::Probe => 100,
            Admission::Rejected { until } => return Health::Blocked(Block::Breaker(until)),
        };
        let full = slot.limits.max_in_flight.is_some_and(|most| slot.in_flight >= most);
        let spent = slot.meter.as_ref().is_some_and(|meter| !meter.admits(&slot.limits, now, tokens));
        if full || spent {
            return Health::Blocked(Block::Limit);
        }
        Health::Ready(share)
    }

    /// Starts an attempt of `tokens`.
    pub fn begin(
        &mut self,
        binding: &Binding,
        deployment: DeploymentIndex,
        now: Timestamp,
        tokens: u64,
    ) -> Ticket {
        let id = binding.slot(deployment);
        let Some(slot) = self.slot_mut(id) else {
            return Ticket { slot: id, epoch: 0, probe: false, credential: 0 };
        };
        slot.in_flight += 1;
        if let Some(meter) = &mut slot.meter {
            meter.charge(now, tokens);
        }
        let (epoch, probe) = slot.breaker.begin(now);
        Ticket { slot: id, epoch, probe, credential: slot.credentials }
    }

    /// A result of an attempt. Returns whether the breaker opened.
    pub fn record(&mut self, ticket: Ticket, now: Timestamp, sample: Sample, rng: &mut impl Rng) -> bool {
        let Some(slot) = self.slot_mut(ticket.slot) else { return false };
        if slot.forced(now).is_some() {
            return false;
        }
        if sample == Sample::Success {
            slot.hold.answered();
        }
        slot.breaker.record(now, ticket.epoch, ticket.probe, sample, rng)
    }

    /// An attempt looks bad, but its result will be known later only: free moves to
    /// its deployment end now.
    pub fn suspect(&mut self, ticket: Ticket) {
        if let Some(slot) = self.slot_mut(ticket.slot) {
            slot.breaker.suspect(ticket.epoch);
        }
    }

    /// The attempt runs no more.
    pub fn release(&mut self, ticket: Ticket) {
        if let Some(slot) = self.slot_mut(ticket.slot) {
            slot.in_flight = slot.in_flight.saturating_sub(1);
        }
    }

    /// The deployment asked for less.
    pub fn gate(&mut self, ticket: Ticket, now: Timestamp, gate: Gate) {
        if let Some(slot) = self.slot_under(ticket) {
            slot.hold.gate(now, gate);
        }
    }

    /// The deployment, or its whole account, is broken.
    pub fn quarantine(
        &mut self,
        ticket: Ticket,
        now: Timestamp,
        reason: QuarantineReason,
        scope: QuarantineScope,
        for_how_long: Duration,
    ) {
        let Some(slot) = self.slot_under(ticket) else { return };
        match scope {
            QuarantineScope::Deployment => slot.hold.quarantine(now, reason, for_how_long),
            QuarantineScope::Account | QuarantineScope::Credential => {
                let account = slot.account;
                if let Some(account) = account.and_then(|account| self.accounts.get_mut(account)) {
                    account.hold.quarantine(now, reason, for_how_long);
                }
            }
        }
    }

    /// Providers whose credential can't be resolved here; the others can.
    /// A credential that turned up again ends its account's quarantine. Holds for later
    /// tables too.
    pub fn set_missing_credentials(&mut self, providers: &[impl AsRef<str>]) {
        self.missing = providers.iter().map(|provider| provider.as_ref().into()).collect();
        for account in &mut self.accounts {
            let missing = self.missing.contains(&account.provider);
            if account.missing && !missing {
                account.hold.clear();
            }
            account.missing = missing;
        }
    }

    /// Takes all operator verdicts, also on deployments that only a later table names.
    /// What is not named is forced no more; a breaker that is given back so starts
    /// closed and knows nothing. One whose verdict ran out goes on where it was.
    pub fn set_forced<'a>(
        &mut self,
        verdicts: impl IntoIterator<Item = (&'a str, Forced, Option<Timestamp>)>,
        now: Timestamp,
    ) {
        self.verdicts =
            verdicts.into_iter().map(|(name, forced, until)| (name.into(), (forced, until))).collect();
        for slot in &mut self.slots {
            let next = self.verdicts.get(&slot.name).copied();
            if slot.forced(now).is_some() && next.is_none() {
                self.next_epoch += EPOCHS_PER_BREAKER;
                slot.breaker.reset(self.next_epoch, now);
            }
            slot.forced = next;
        }
    }

    /// The turn-taking of a tier. None for a pin, or under a table that was replaced.
    pub(crate) fn rotation(&mut self, binding: &Binding, model: usize, tier: usize) -> Option<&mut Rotation> {
        if binding.generation != self.generation {
            return None;
        }
        let base = *binding.rotations.get(model)?;
        self.rotations.get_mut(base + tier)
    }

    /// The retry bucket.
    pub fn bucket(&mut self) -> &mut RetryBucket {
        &mut self.bucket
    }

    /// Closed, and no failure among its last ten results.
    pub fn recently_clean(&self, binding: &Binding, deployment: DeploymentIndex, now: Timestamp) -> bool {
        self.slot(binding.slot(deployment)).is_some_and(|slot| slot.breaker.recently_clean(now))
    }

    /// How long whole answers of the deployment are expected to take.
    pub fn expected_generation(
        &self,
        binding: &Binding,
        deployment: DeploymentIndex,
        max_output_tokens: Option<u32>,
    ) -> Duration {
        let unknown = Pace::default();
        let pace = self.slot(binding.slot(deployment)).map_or(&unknown, |slot| &slot.pace);
        pace.expected(max_output_tokens)
    }

    /// Attempts running at the deployment.
    pub fn in_flight(&self, binding: &Binding, deployment: DeploymentIndex) -> u32 {
        self.slot(binding.slot(deployment)).map_or(0, |slot| slot.in_flight)
    }

    /// A whole answer came, asked with this limit on its tokens.
    pub fn learn_pace(&mut self, ticket: Ticket, max_output_tokens: Option<u32>, took: Duration) {
        if let Some(slot) = self.slot_mut(ticket.slot) {
            slot.pace.learn(max_output_tokens, took);
        }
    }

    /// The breaker of a deployment, as shown. One that is gone is shown forced open.
    pub fn breaker(&self, binding: &Binding, deployment: DeploymentIndex, now: Timestamp) -> BreakerView {
        let gone = BreakerView { state: State::Closed, forced: Some(Forced::Open), openings: 0 };
        self.slot(binding.slot(deployment)).map_or(gone, |slot| slot.view(now))
    }

    /// Everything that is not normal, by deployment, then accounts by provider.
    pub fn protections(&self, now: Timestamp) -> (Vec<DeploymentProtection>, Vec<AccountProtection>) {
        let live = self.slots.iter().filter(|slot| slot.live);
        let mut deployments: Vec<_> = live
            .map(|slot| DeploymentProtection {
                deployment: slot.name.clone(),
                breaker: slot.view(now),
                gate: slot.hold.gated_until(now),
                quarantine: slot.hold.quarantined(now),
            })
            .filter(|slot| {
                slot.breaker.state != State::Closed || slot.gate.is_some() || slot.quarantine.is_some()
            })
            .collect();
        deployments.sort_by(|a, b| a.deployment.cmp(&b.deployment));
        let accounts = self
            .accounts
            .iter()
            .filter_map(|account| {
                let missing = account.missing.then_some((QuarantineReason::MissingCredential, now));
                let quarantine = missing.or_else(|| account.hold.quarantined(now))?;
                Some(AccountProtection { provider: account.provider.clone(), quarantine })
            })
            .collect();
        (deployments, accounts)
    }

    /// None: its place was given to another deployment.
    fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(id.index as usize).filter(|slot| slot.incarnation == id.incarnation)
    }

    fn slot_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(id.index as usize).filter(|slot| slot.incarnation == id.incarnation)
    }

    /// The slot, if its credential is still that of the ticket.
    fn slot_under(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        self.slot_mut(ticket.slot).filter(|slot| slot.credentials == ticket.credential)
    }
}

impl Binding {
    fn slot(&self, deployment: DeploymentIndex) -> SlotId {
        self.slots[deployment.0 as usize]
    }
}

impl Slot {
    fn forced(&self, now: Timestamp) -> Option<Forced> {
        self.forced.filter(|(_, until)| until.is_none_or(|until| until > now)).map(|(forced, _)| forced)
    }

    fn view(&self, now: Timestamp) -> BreakerView {
        BreakerView {
            state: self.breaker.state(now),
            forced: self.forced(now),
            openings: self.breaker.openings(),
        }
    }
}

/// A breaker, as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerView {
    /// What the breaker says.
    pub state: State,
    /// What an operator says; it rules.
    pub forced: Option<Forced>,
    /// Openings in a row.
    pub openings: u32,
}

/// What protects a deployment now.
#[derive(Clone, Debug)]
pub struct DeploymentProtection {
    /// Full name.
    pub deployment: Box<str>,
    /// Its breaker.
    pub breaker: BreakerView,
    /// End of its rate gate.
    pub gate: Option<Timestamp>,
    /// Its quarantine.
    pub quarantine: Option<(QuarantineReason, Timestamp)>,
}

/// What protects an account now.
#[derive(Clone, Debug)]
pub struct AccountProtection {
    /// The provider.
    pub provider: Box<str>,
    /// Its quarantine.
    pub quarantine: (QuarantineReason, Timestamp),
}
