//! A control plane with a store that keeps what was committed, and sometimes not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{RngExt as _, rngs::StdRng};
use trunkline_routing::{
    fleet::{Fleet, Forced, Lease, Purpose, Record, State},
    table::RoutingTable,
    time::Timestamp,
};

/// What is durable of one subject.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) generation: u64,
    pub(crate) record: Record,
    /// With the wall time at which it ends.
    pub(crate) forced: Option<(Forced, u64)>,
    pub(crate) since_wall: u64,
    /// On the world's clock, for checks only.
    pub(crate) since: Duration,
}

/// What is durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) epoch: u64,
    pub(crate) verdicts: BTreeMap<String, Stored>,
    pub(crate) lease_end: u64,
}

/// What an agent is told.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) epoch: u64,
    pub(crate) verdicts: Vec<(String, Stored, Duration)>,
    pub(crate) forced: Vec<(String, Forced, Duration)>,
    pub(crate) leases: Vec<(Lease, Duration)>,
}

/// The process. Its clock begins anew with it.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) fleet: Fleet,
    pub(crate) started: Duration,
    /// Changes whenever there is something new to tell.
    pub(crate) told: u64,
    /// It is killed at the end of this step.
    pub(crate) dies: bool,
}

const LONG_AGO: Duration = Duration::from_hours(24 * 400);

impl Plane {
    pub(crate) fn start(store: &Store, table: &RoutingTable, known: usize, now: Duration, wall: u64) -> Self {
        let mut fleet = Fleet::new(store.lease_end, known, Timestamp::ZERO + LONG_AGO);
        fleet.set_table(table);
        let mut plane = Self { fleet, started: now, told: 0, dies: false };
        plane.adopt(store, now, wall);
        plane
    }

    pub(crate) fn clock(&self, now: Duration) -> Timestamp {
        Timestamp::ZERO + LONG_AGO + now.saturating_sub(self.started)
    }

    pub(crate) fn adopt(&mut self, store: &Store, now: Duration, wall: u64) {
        let clock = self.clock(now);
        for (subject, stored) in &store.verdicts {
            let age = Duration::from_millis(wall.saturating_sub(stored.since_wall));
            let forced = stored.forced.map(|(forced, _)| forced);
            self.fleet.adopt(subject, stored.generation, (stored.record.clone(), forced), age, clock);
        }
    }

    /// Takes a step. `fails` is whether the store refuses, and the answer whether there is
    /// anything new to tell.
    pub(crate) fn step(
        &mut self,
        store: &mut Store,
        (now, wall): (Duration, u64),
        fails: bool,
        rng: &mut StdRng,
    ) -> Vec<String> {
        let clock = self.clock(now);
        if let Some(end) = self.fleet.lease_numbers_wanted().filter(|_| !fails) {
            store.lease_end = store.lease_end.max(end);
            self.fleet.reserve_leases(store.lease_end);
        }
        let mut changed = Vec::new();
        for due in self.fleet.decide(clock, rng) {
            let known = store.verdicts.get(&*due.subject);
            assert!(
                known.is_none_or(|known| known.forced.is_none()),
                "I5: an operator rules {}",
                due.subject
            );
            if fails || known.map_or(0, |known| known.generation) != due.from_generation {
                continue;
            }
            let generation = due.from_generation + 1;
            let stored =
                Stored { generation, record: due.record, forced: None, since_wall: wall, since: now };
            store.verdicts.insert(due.subject.to_string(), stored);
            changed.push(due.subject.to_string());
        }
        // It may be killed here, between the commit and the push.
        if !changed.is_empty() && rng.random_bool(0.02) {
            self.dies = true;
            return changed;
        }
        self.adopt(store, now, wall);
        let granted = self.fleet.grant(|_| Duration::from_secs(5), clock, rng);
        self.told += u64::from(granted || !changed.is_empty());
        changed
    }

    pub(crate) fn publication(&self, store: &Store, agent: u64, (now, wall): (Duration, u64)) -> Publication {
        let clock = self.clock(now);
        let left = |stored: &Stored| {
            let age = Duration::from_millis(wall.saturating_sub(stored.since_wall));
            let open_for = stored.record.open_for.max(Duration::from_secs(1));
            open_for.saturating_sub(age).clamp(Duration::from_secs(1), open_for)
        };
        let held = store.verdicts.iter();
        let found = held.clone().filter(|(_, one)| one.forced.is_none() && one.record.state != State::Closed);
        let forced = held.filter_map(|(subject, one)| {
            let (forced, end) = one.forced?;
            Some((subject.clone(), forced, Duration::from_millis(end.saturating_sub(wall))))
        });
        let current = |lease: &&Lease| {
            store.verdicts.get(&*lease.subject).is_some_and(|one| one.generation == lease.generation)
        };
        let leases = self.fleet.leases().filter(|lease| lease.agent == agent && lease.until > clock);
        Publication {
            epoch: store.epoch,
            verdicts: found.map(|(subject, one)| (subject.clone(), one.clone(), left(one))).collect(),
            forced: forced.collect(),
            leases: leases.filter(current).map(|lease| (lease.clone(), lease.until.since(clock))).collect(),
        }
    }
}

impl Store {
    /// An operator's word, with the time at which it ends.
    pub(crate) fn force(&mut self, subject: &str, forced: Forced, end: u64, wall: u64, now: Duration) {
        let closed =
            || Record { state: State::Closed, openings: 0, open_for: Duration::ZERO, reason: "".into() };
        let fresh = Stored { generation: 0, record: closed(), forced: None, since_wall: wall, since: now };
        let stored = self.verdicts.entry(subject.to_owned()).or_insert(fresh);
        stored.generation += 1;
        stored.forced = Some((forced, end));
        stored.since = now;
    }

    /// Ends what operators forced for a time. What was open under it has to be probed.
    pub(crate) fn expire(&mut self, wall: u64, now: Duration) -> bool {
        let mut ended = false;
        for stored in self.verdicts.values_mut() {
            if stored.forced.is_some_and(|(_, end)| end <= wall) {
                stored.forced = None;
                stored.generation += 1;
                (stored.since, stored.since_wall) = (now, wall);
                if stored.record.state != State::Closed {
                    stored.record.state = State::HalfOpen;
                }
                ended = true;
            }
        }
        ended
    }
}

/// Numbers of leases that were given, and who can use which.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    given: BTreeSet<u64>,
    holders: BTreeMap<u64, u64>,
}

impl Ledger {
    /// I1, as far as the control plane knows.
    pub(crate) fn check(&mut self, fleet: &Fleet) -> u64 {
        let mut new = 0;
        let mut subjects = BTreeSet::new();
        for lease in fleet.leases() {
            assert!(lease.purpose != Purpose::HalfOpen || subjects.insert(lease.subject.clone()));
            let holder = self.holders.insert(lease.id, lease.agent);
            if holder.is_none() {
                assert!(self.given.insert(lease.id), "I1: lease {} was given before", lease.id);
                assert!(self.given.last() == Some(&lease.id), "I1: lease numbers only grow");
                new += 1;
            }
            assert!(holder.is_none_or(|known| known == lease.agent), "I1: lease {} moved", lease.id);
        }
        new
    }

    /// An older store knows fewer numbers.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}
