//! An agent's registry, and the model of what it must do.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, prelude::*};
use rand::{SeedableRng, rngs::StdRng};
use trunkline_routing::{
    breaker::Sample,
    price::Schedule,
    registry::{Binding, Block, FleetState, FleetVerdict, Forced, Health, ProbeLease, Registry, Ticket},
    table::{
        BreakerPolicy, Capabilities, Constraints, Deployment, DeploymentIndex, Dialect, HealthCheck, Limits,
        Provider, ProviderIndex, RoutingTable, Target, Tier, Timeouts, VirtualModel,
    },
    time::Timestamp,
};

/// Two deployments of one provider, one of another.
const DEPLOYMENTS: [&str; 3] = ["p/a", "p/b", "q/c"];
const SUBJECTS: [&str; 5] = ["p/a", "p/b", "q/c", "p", "q"];
const PROVIDER_OF: [&str; 3] = ["p", "p", "q"];

fn subject(name: &str) -> usize {
    SUBJECTS.iter().position(|subject| *subject == name).unwrap_or(SUBJECTS.len())
}

fn table() -> RoutingTable {
    let provider = |name: &str| Provider {
        name: name.into(),
        dialect: Dialect::OpenAi,
        base_url: "https://provider.test".into(),
        credential: None,
        allow_private_network: false,
        region: None,
        health_check: HealthCheck::default(),
    };
    let deployment = |name: &str| Deployment {
        name: name.into(),
        provider: ProviderIndex(u32::from(name.starts_with('q'))),
        upstream_model: "model".into(),
        capabilities: Capabilities::ALL,
        context_window: None,
        max_output_tokens: None,
        quality: None,
        prices: Schedule::unknown(),
        breaker: BreakerPolicy::default(),
        limits: Limits::default(),
    };
    RoutingTable {
        providers: vec![provider("p"), provider("q")],
        deployments: DEPLOYMENTS.iter().map(|name| deployment(name)).collect(),
        ..RoutingTable::default()
    }
}

pub(crate) fn model(tiers: &[&[(u32, u32)]]) -> VirtualModel {
    let tiers = tiers.iter().map(|targets| Tier {
        targets: targets
            .iter()
            .map(|(at, weight)| Target { deployment: DeploymentIndex(*at), weight: *weight })
            .collect(),
        timeouts: Timeouts::default(),
        max_attempts: targets.len() as u32,
    });
    VirtualModel {
        constraints: Constraints::default(),
        tiers: tiers.collect(),
        ..VirtualModel::pin("chat", DeploymentIndex(0))
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Each subject's state and generation, and the seconds that OPEN lasts.
    Publish(Vec<(usize, u8, u64, u64)>, bool),
    /// Deployment, whether for its provider's verdict, how far the generation is off,
    /// seconds.
    Grant(usize, bool, u64, u64),
    Force(usize, u8, u64),
    Begin(usize),
    Record(usize, u8),
    Release(usize),
    /// Heard, or silent from now on.
    Hear(bool),
    Pass(u64),
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    let verdict = (0..SUBJECTS.len(), 0_u8..4, 1_u64..6, 1_u64..20);
    prop_oneof![
        2 => (vec(verdict, 0..4), prop::bool::weighted(0.1)).prop_map(|(all, epoch)| Event::Publish(all, epoch)),
        3 => (0..DEPLOYMENTS.len(), any::<bool>(), 0_u64..2, 1_u64..30)
            .prop_map(|(at, provider, off, ttl)| Event::Grant(at, provider, off, ttl)),
        1 => (0..DEPLOYMENTS.len(), 0_u8..3, 1_u64..60).prop_map(|(at, how, ttl)| Event::Force(at, how, ttl)),
        8 => (0..DEPLOYMENTS.len()).prop_map(Event::Begin),
        6 => (any::<usize>(), 0_u8..6).prop_map(|(at, what)| Event::Record(at, what)),
        3 => any::<usize>().prop_map(Event::Release),
        2 => prop::bool::weighted(0.5).prop_map(Event::Hear),
        4 => (0_u64..40_000).prop_map(Event::Pass),
    ]
}

/// A verdict, as the model holds it.
#[derive(Clone, Copy, Debug)]
struct Held {
    state: FleetState,
    generation: u64,
    until: Timestamp,
}

impl Held {
    fn blocks(self) -> bool {
        matches!(self.state, FleetState::Open | FleetState::HalfOpen)
    }
}

#[derive(Clone, Debug)]
struct Lease {
    id: u64,
    at: usize,
    generation: u64,
    expires: Timestamp,
    done: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) binding: Binding,
    pub(crate) rng: StdRng,
    pub(crate) now: Timestamp,
    epoch: u32,
    held: BTreeMap<usize, Held>,
    leases: Vec<Lease>,
    pub(crate) next_lease: u64,
    pub(crate) heard_until: Timestamp,
    forced: BTreeMap<usize, (Forced, Timestamp)>,
    /// Ticket, the lease it must be under, and whether it said something.
    running: Vec<(Ticket, Option<u64>, bool)>,
}

const HEARD_FOR: Duration = Duration::from_secs(30);

impl World {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::new();
        let now = Timestamp::ZERO + Duration::from_secs(1_000);
        let binding = registry.bind(&table(), now);
        let mut world = Self {
            registry,
            binding,
            rng: StdRng::seed_from_u64(7),
            now,
            epoch: 0,
            held: BTreeMap::new(),
            leases: Vec::new(),
            next_lease: 1,
            heard_until: now,
            forced: BTreeMap::new(),
            running: Vec::new(),
        };
        world.hear(true);
        world
    }

    fn hear(&mut self, heard: bool) {
        if heard {
            self.heard_until = self.now + HEARD_FOR;
            self.registry.heard_from_fleet(self.heard_until);
        }
    }

    pub(crate) fn publish(&mut self, all: &[(usize, u8, u64, u64)], other_epoch: bool) {
        if other_epoch {
            self.epoch += 1;
            self.held.clear();
        }
        let mut named = BTreeMap::new();
        for (subject, state, generation, seconds) in all {
            let state = [FleetState::Open, FleetState::HalfOpen, FleetState::Ramping, FleetState::Closed]
                [*state as usize];
            let until = self.now + Duration::from_secs(*seconds);
            named.insert(*subject, Held { state, generation: *generation, until });
        }
        let verdicts = named.iter().map(|(subject, held)| FleetVerdict {
            subject: SUBJECTS[*subject],
            state: held.state,
            generation: held.generation,
            until: (held.state == FleetState::Open).then_some(held.until),
            openings: 1,
            admit_percent: 10,
        });
        let epoch = self.epoch.to_string();
        self.registry.set_fleet(&epoch, verdicts, self.now, &mut self.rng);
        for subject in 0..SUBJECTS.len() {
            let known = self.held.get(&subject).copied();
            match (known, named.get(&subject).copied()) {
                (Some(known), Some(new)) if new.generation < known.generation => {}
                (Some(known), Some(new))
                    if new.generation == known.generation && known.state != FleetState::Closed =>
                {
                    let both_open = known.state == FleetState::Open && new.state == FleetState::Open;
                    let until = if both_open { known.until.min(new.until) } else { known.until };
                    self.held.insert(subject, Held { until, ..new });
                }
                (_, Some(new)) => drop(self.held.insert(subject, new)),
                (Some(known), None) => {
                    self.held.insert(subject, Held { state: FleetState::Closed, ..known });
                }
                (None, None) => {}
            }
        }
        self.hear(true);
    }

    pub(crate) fn grant(&mut self, at: usize, provider: bool, off: u64, seconds: u64) {
        let subject = subject(if provider { PROVIDER_OF[at] } else { DEPLOYMENTS[at] });
        let generation = self.held.get(&subject).map_or(1, |held| held.generation) - off.min(1);
        let expires = self.now + Duration::from_secs(seconds);
        self.leases.retain(|lease| lease.at != at && lease.expires > self.now);
        self.leases.push(Lease { id: self.next_lease, at, generation, expires, done: false });
        self.next_lease += 1;
        self.tell_leases();
    }

    /// Those that are done are told as well: the control plane may not know yet.
    pub(crate) fn tell_leases(&mut self) {
        let leases = self.leases.iter().map(|lease| ProbeLease {
            deployment: DEPLOYMENTS[lease.at],
            lease_id: lease.id,
            generation: lease.generation,
            expires: lease.expires,
            is_check: false,
        });
        self.registry.set_leases(leases, self.now);
    }

    fn force(&mut self, at: usize, how: u8, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        match how {
            0 => drop(self.forced.remove(&at)),
            1 => drop(self.forced.insert(at, (Forced::Open, until))),
            _ => drop(self.forced.insert(at, (Forced::Closed, until))),
        }
        let forced =
            self.forced.iter().map(|(at, (forced, until))| (DEPLOYMENTS[*at], *forced, Some(*until)));
        self.registry.set_forced(forced, self.now);
    }

    fn forced(&self, at: usize) -> Option<Forced> {
        self.forced.get(&at).filter(|(_, until)| *until > self.now).map(|(forced, _)| *forced)
    }

    /// The lease that admits one attempt at the deployment now, by the model.
    fn usable(&self, at: usize) -> Option<&Lease> {
        let blocking = self.blocking(at);
        self.leases.iter().find(|lease| {
            lease.at == at
                && !lease.done
                && lease.expires > self.now
                && blocking.iter().any(|held| held.generation == lease.generation)
                && !self.running.iter().any(|(_, used, _)| *used == Some(lease.id))
        })
    }

    /// The verdicts that block the deployment while the control plane is heard.
    fn blocking(&self, at: usize) -> Vec<Held> {
        let subjects = (0..SUBJECTS.len())
            .filter(|subject| [DEPLOYMENTS[at], PROVIDER_OF[at]].contains(&SUBJECTS[*subject]));
        subjects.filter_map(|subject| self.held.get(&subject)).filter(|held| held.blocks()).copied().collect()
    }

    fn begin(&mut self, at: usize) {
        let deployment = DeploymentIndex(at as u32);
        let health = self.registry.health(&self.binding, deployment, self.now, 1);
        let blocking = self.blocking(at);
        let heard = self.now < self.heard_until;
        let lease = self.usable(at).cloned();
        match self.forced(at) {
            Some(Forced::Open) => {
                assert_eq!(health, Health::Blocked(Block::Forced));
                return;
            }
            // Its learned cap is none of the fleet's.
            Some(Forced::Closed) => {
                assert!(matches!(health, Health::Ready(100) | Health::Blocked(Block::LearnedCap(_))));
            }
            None if heard && !blocking.is_empty() && lease.is_none() => {
                assert!(matches!(health, Health::Blocked(Block::Fleet(_) | Block::Breaker(_))), "{health:?}");
                return;
            }
            None => {}
        }
        let Health::Ready(_) = health else { return };
        let alone = self.forced(at).is_none() && !heard && !blocking.is_empty();
        if alone && lease.is_none() {
            let early = blocking.iter().any(|held| held.state == FleetState::Open && self.now < held.until);
            assert!(!early, "open_for was not over on the local clock");
        }
        let ticket = self.registry.begin(&self.binding, deployment, self.now, 1);
        // Without the control plane a lease is needed until open_for is over; whether it was
        // after that, the model can't tell.
        let open = blocking.iter().any(|held| held.state == FleetState::Open && self.now < held.until);
        let leased = lease.filter(|_| heard && !blocking.is_empty() || open).map(|lease| lease.id);
        self.running.push((ticket, leased, false));
        if leased.is_some() {
            assert!(self.usable(at).is_none_or(|other| Some(other.id) != leased), "two under one lease");
        }
    }

    pub(crate) fn step(&mut self, event: &Event) {
        match event {
            Event::Publish(all, other) => self.publish(all, *other),
            Event::Grant(at, provider, off, seconds) => self.grant(*at, *provider, *off, *seconds),
            Event::Force(at, how, seconds) => self.force(*at, *how, *seconds),
            Event::Begin(at) => self.begin(*at),
            Event::Record(at, what) if !self.running.is_empty() => {
                let at = at % self.running.len();
                let samples = [
                    Sample::Success,
                    Sample::Failure,
                    Sample::Begun,
                    Sample::RateLimited,
                    Sample::Neutral,
                    Sample::BrokeOff,
                ];
                let sample = samples[*what as usize];
                self.registry.record(self.running[at].0, self.now, sample, &mut self.rng);
                let (_, used, said) = &mut self.running[at];
                if sample != Sample::Neutral && !core::mem::replace(said, true) {
                    let used = *used;
                    for lease in self.leases.iter_mut().filter(|lease| Some(lease.id) == used) {
                        lease.done = true;
                    }
                    self.tell_leases();
                }
            }
            Event::Release(at) if !self.running.is_empty() => {
                let (ticket, ..) = self.running.swap_remove(at % self.running.len());
                self.registry.release(ticket);
            }
            Event::Hear(heard) => self.hear(*heard),
            Event::Pass(millis) => self.now = self.now + Duration::from_millis(*millis),
            Event::Record(..) | Event::Release(_) => {}
        }
    }
}
