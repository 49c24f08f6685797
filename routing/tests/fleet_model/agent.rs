//! An agent: the real registry, with requests, a breaker of its own, and a memory that
//! is gone when it is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use trunkline_routing::{
    breaker::{Sample, State as Local},
    fleet::{Counts, Forced, Outcome, State},
    registry::{
        Binding, FleetState, FleetVerdict, Forced as Order, Health, ProbeLease, ProbeOutcome, Registry,
    },
    table::{DeploymentIndex, RoutingTable, VirtualModel},
    time::Timestamp,
};

use crate::plane::Publication;

/// Without a word for so long the control plane counts as away.
const HEARD_FOR: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) registry: Registry,
    binding: Binding,
    rng: StdRng,
    pub(crate) incarnation: u64,
    /// Since when its stream has been open.
    pub(crate) connected: Option<Duration>,
    pub(crate) heard: Duration,
    pub(crate) epoch: u64,
    /// The highest generation it was told of each subject, in this epoch.
    pub(crate) held: BTreeMap<String, u64>,
    /// What it holds as open, and whether an operator forced it until when.
    pub(crate) forced: BTreeMap<String, (Forced, Duration)>,
    /// Leases that it can use: subject and generation, end, by number.
    pub(crate) leases: BTreeMap<u64, (String, u64, Duration)>,
    pub(crate) counts: BTreeMap<String, Counts>,
    pub(crate) results: Vec<(u64, Outcome)>,
    /// Leases of which it knows the result: an older word does not give them again.
    done: BTreeSet<u64>,
    /// Generation held when its own breaker opened.
    open: BTreeMap<String, u64>,
    pub(crate) open_told: BTreeMap<String, u64>,
}

/// A request that was sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) deployment: usize,
    pub(crate) under_lease: bool,
    pub(crate) at_floor: bool,
}

pub(crate) fn at(now: Duration) -> Timestamp {
    Timestamp::ZERO + now
}

impl Agent {
    pub(crate) fn new(table: &RoutingTable, incarnation: u64, seed: u64, now: Duration) -> Self {
        let mut registry = Registry::new();
        let binding = registry.bind(table, at(now));
        Self {
            registry,
            binding,
            rng: StdRng::seed_from_u64(seed),
            incarnation,
            connected: None,
            heard: Duration::ZERO,
            epoch: 0,
            held: BTreeMap::new(),
            forced: BTreeMap::new(),
            leases: BTreeMap::new(),
            counts: BTreeMap::new(),
            results: Vec::new(),
            done: BTreeSet::new(),
            open: BTreeMap::new(),
            open_told: BTreeMap::new(),
        }
    }

    pub(crate) fn hear(&mut self, told: &Publication, now: Duration) {
        self.alive(now);
        if told.epoch != self.epoch {
            self.held.clear();
            self.epoch = told.epoch;
        }
        for (subject, stored, _) in &told.verdicts {
            let held = self.held.entry(subject.clone()).or_default();
            *held = (*held).max(stored.generation);
        }
        let verdicts = told.verdicts.iter().map(|(subject, stored, left)| {
            let (state, admit_percent) = match stored.record.state {
                State::Closed => (FleetState::Closed, 100),
                State::Open => (FleetState::Open, 100),
                State::HalfOpen => (FleetState::HalfOpen, 100),
                State::Ramping(percent) => (FleetState::Ramping, percent),
            };
            FleetVerdict {
                subject,
                state,
                generation: stored.generation,
                until: (state == FleetState::Open).then(|| at(now + *left)),
                openings: stored.record.openings,
                admit_percent,
            }
        });
        self.registry.set_fleet(&told.epoch.to_string(), verdicts, at(now), &mut self.rng);
        self.forced =
            told.forced.iter().map(|(name, forced, left)| (name.clone(), (*forced, now + *left))).collect();
        let orders = self.forced.iter().map(|(name, (forced, end))| {
            let order = if *forced == Forced::Open { Order::Open } else { Order::Closed };
            (name.as_str(), order, Some(at(*end)))
        });
        self.registry.set_forced(orders, at(now));
        let leases = told.leases.iter().map(|(lease, left)| ProbeLease {
            deployment: &lease.deployment,
            lease_id: lease.id,
            generation: lease.generation,
            expires: at(now + *left),
            is_check: false,
        });
        self.registry.set_leases(leases, at(now));
        let known = std::mem::take(&mut self.leases);
        self.leases = told
            .leases
            .iter()
            .filter(|(lease, _)| !self.done.contains(&lease.id))
            .map(|(lease, left)| {
                let fresh = (lease.subject.to_string(), lease.generation, now + *left);
                (lease.id, known.get(&lease.id).cloned().unwrap_or(fresh))
            })
            .collect();
    }

    pub(crate) fn alive(&mut self, now: Duration) {
        self.heard = now;
        self.registry.heard_from_fleet(at(now + HEARD_FOR));
    }

    /// Sends one request for `model`, if any target takes it. `fails` is what a deployment
    /// does to it.
    pub(crate) fn send(
        &mut self,
        table: &RoutingTable,
        model: &VirtualModel,
        fails: &[bool],
        now: Duration,
    ) -> Option<Sent> {
        let clock = at(now);
        let floor = self.registry.floor(&self.binding, model, clock, 1, |_| true);
        let targets: Vec<_> = model.tiers[0].targets.iter().map(|target| target.deployment).collect();
        let first = self.rng.random_range(0..targets.len());
        let ready = |agent: &mut Self, deployment: DeploymentIndex| match agent.registry.health_at_floor(
            &agent.binding,
            deployment,
            clock,
            1,
            floor,
        ) {
            Health::Ready(share) => agent.rng.random_range(0..100) < share,
            Health::Blocked(_) => false,
        };
        let target = (0..targets.len())
            .map(|offset| targets[(first + offset) % targets.len()])
            .find(|deployment| ready(self, *deployment))?;
        let index = target.0 as usize;
        let name = table.deployments[index].name.to_string();
        let forced = self.forced.get(&name).filter(|(_, end)| *end > now).map(|(forced, _)| *forced);
        assert_ne!(forced, Some(Forced::Open), "I5: a request to {name}, which is forced open");
        let ticket = self.registry.begin(&self.binding, target, clock, 1);
        let sample = if fails[index] { Sample::Failure } else { Sample::Success };
        if self.registry.record(ticket, clock, sample, &mut self.rng) {
            self.open.insert(name.clone(), self.held.get(&name).copied().unwrap_or_default());
        }
        self.registry.release(ticket);
        let results = self.registry.take_probe_results();
        let under_lease = !results.is_empty();
        for result in results {
            self.leases.remove(&result.lease_id);
            self.done.insert(result.lease_id);
            self.results.push((
                result.lease_id,
                match result.outcome {
                    ProbeOutcome::Succeeded => Outcome::Succeeded,
                    ProbeOutcome::Failed => Outcome::Failed("timeout".into()),
                    ProbeOutcome::Unused => Outcome::Unused,
                },
            ));
        }
        let counts = self.counts.entry(name).or_default();
        *counts = counts.and(Counts { requests: 1, failures: u32::from(fails[index]) });
        Some(Sent { deployment: index, under_lease, at_floor: floor == Some(target) })
    }

    /// Its own breakers that are open, if that changed since it was told last.
    pub(crate) fn news(&mut self, table: &RoutingTable, now: Duration) -> Option<BTreeMap<String, u64>> {
        let open: BTreeMap<_, _> = (0..table.deployments.len())
            .filter(|index| {
                let view = self.registry.breaker(&self.binding, DeploymentIndex(*index as u32), at(now));
                matches!(view.state, Local::Open { .. })
            })
            .map(|index| {
                let name = table.deployments[index].name.to_string();
                let base = self.open.get(&name).copied().unwrap_or_default();
                (name, base)
            })
            .collect();
        (open != self.open_told).then(|| {
            self.open_told.clone_from(&open);
            open
        })
    }
}
