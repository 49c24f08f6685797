//! Agents, a control plane, and what goes wrong between them, on one clock of steps.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use trunkline_routing::{
    fleet::{Counts, Forced, Outcome, State},
    table::RoutingTable,
};

use crate::{
    agent::Agent,
    plane::{Ledger, Plane, Publication, Store, Stored},
    table::{OPEN_MAX, table},
};

const STEP: Duration = Duration::from_millis(100);
/// With faults, then without.
const CHAOS: Duration = Duration::from_secs(60);
/// `open_max` and its spread, two leases, the steps of the ramp, and an agent's own
/// breaker in front of a probe.
const RECOVERY: Duration = Duration::from_secs(2 * (OPEN_MAX.as_secs() + 1) + 2 * 6 + 3 * 5 + 5);
/// Longest way of a message. Leases have more slack than that.
const DELAY_MAX: Duration = Duration::from_millis(800);
/// The control plane misses an agent after so long.
const MISSED: Duration = Duration::from_secs(15);
const AGENTS: usize = 4;

/// What happened, so that a run in which nothing did is noticed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) providers: u64,
    pub(crate) leases: u64,
    pub(crate) crashes: u64,
    pub(crate) rollbacks_seen: u64,
    pub(crate) requests: u64,
}

impl Counted {
    pub(crate) fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.providers += other.providers;
        self.leases += other.leases;
        self.crashes += other.crashes;
        self.rollbacks_seen += other.rollbacks_seen;
        self.requests += other.requests;
    }
}

/// From an agent to the control plane.
#[derive(Clone, Debug)]
enum Up {
    Report(BTreeMap<String, Counts>),
    Open(BTreeMap<String, u64>),
    Probed(u64, Outcome),
}

/// One agent's stream: in order, with a way of its own.
#[derive(Debug, Default)]
struct Link {
    up: VecDeque<(Duration, Up)>,
    down: VecDeque<(Duration, Publication)>,
    /// Nothing gets through until then.
    cut_until: Duration,
    /// What the agent was told last.
    told: u64,
    /// When it tries to connect.
    retry: Duration,
}

#[derive(Debug)]
pub(crate) struct World {
    table: RoutingTable,
    rng: StdRng,
    now: Duration,
    /// In ms; it jumps.
    wall: u64,
    store: Store,
    /// Copies of the store, oldest first.
    backups: Vec<Store>,
    plane: Option<Plane>,
    plane_back: Duration,
    agents: Vec<Agent>,
    links: Vec<Link>,
    broken: Vec<bool>,
    ledger: Ledger,
    pub(crate) counted: Counted,
    seed: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let table = table();
        let agents = (0..AGENTS as u64).map(|id| Agent::new(&table, 0, seed ^ (id << 32), Duration::ZERO));
        let agents = agents.collect();
        let store = Store { epoch: 1, ..Store::default() };
        let wall = 1_000_000_000_000;
        Self {
            plane: Some(Plane::start(&store, &table, 0, Duration::ZERO, wall)),
            broken: vec![false; table.deployments.len()],
            table,
            rng: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            wall,
            backups: vec![store.clone()],
            store,
            plane_back: Duration::ZERO,
            agents,
            links: (0..AGENTS).map(|_| Link::default()).collect(),
            ledger: Ledger::default(),
            counted: Counted::default(),
            seed,
        }
    }

    pub(crate) fn run(&mut self) {
        while self.now < CHAOS {
            self.go_wrong();
            self.step(true);
        }
        self.heal();
        let healed = self.now;
        while self.now < healed + RECOVERY {
            self.step(false);
        }
        for (subject, stored) in &self.store.verdicts {
            let calm = stored.forced.is_some() || stored.record.state == State::Closed;
            assert!(calm, "I3: seed {}: {subject} is {stored:?} {RECOVERY:?} after all healed", self.seed);
        }
    }

    fn chance(&mut self, each: Duration) -> bool {
        self.rng.random_bool(STEP.as_secs_f64() / each.as_secs_f64())
    }

    fn go_wrong(&mut self) {
        if self.chance(Duration::from_secs(6)) {
            // A deployment, or a whole provider.
            let first = self.rng.random_range(0..self.broken.len());
            let all = if first < 3 && self.rng.random_bool(0.5) { 0..3 } else { first..first + 1 };
            let broken = self.rng.random_bool(0.6);
            self.broken[all].fill(broken);
        }
        if self.chance(Duration::from_secs(25)) {
            let agent = self.rng.random_range(0..AGENTS);
            self.counted.crashes += 1;
            let incarnation = self.agents[agent].incarnation + 1;
            self.agents[agent] = Agent::new(&self.table, incarnation, self.seed ^ incarnation, self.now);
            self.cut(agent, Duration::from_secs(1));
        }
        if self.chance(Duration::from_secs(20)) {
            let (agent, seconds) = (self.rng.random_range(0..AGENTS), self.rng.random_range(1..30));
            self.cut(agent, Duration::from_secs(seconds));
        }
        if self.chance(Duration::from_secs(30)) {
            let seconds = self.rng.random_range(0..12);
            self.kill_plane(seconds);
        }
        if self.chance(Duration::from_secs(30)) {
            let jump = self.rng.random_range(0..7_200_000);
            self.wall = (self.wall + jump).saturating_sub(3_600_000);
        }
        if self.chance(Duration::from_secs(5)) {
            self.backups.push(self.store.clone());
        }
        if self.chance(Duration::from_secs(90)) {
            self.store = self.backups[self.rng.random_range(0..self.backups.len())].clone();
            self.ledger.forget();
            self.kill_plane(1);
        }
        if self.chance(Duration::from_secs(30)) {
            let subject = &self.table.deployments[self.rng.random_range(0..self.broken.len())].name;
            let forced = if self.rng.random_bool(0.5) { Forced::Open } else { Forced::Closed };
            let end = self.wall + self.rng.random_range(1_000..20_000);
            self.store.force(subject, forced, end, self.wall, self.now);
            self.tell_all();
        }
    }

    fn heal(&mut self) {
        self.broken.fill(false);
        for link in &mut self.links {
            link.cut_until = link.cut_until.min(self.now);
        }
        self.plane_back = self.plane_back.min(self.now);
        // What operators forced ends as well.
        self.store.expire(u64::MAX, self.now);
        let wall = self.wall;
        self.store.verdicts.values_mut().for_each(|stored| stored.since_wall = stored.since_wall.min(wall));
        self.tell_all();
    }

    fn kill_plane(&mut self, seconds: u64) {
        self.plane = None;
        self.plane_back = self.now + Duration::from_secs(seconds);
        self.counted.crashes += 1;
        for agent in 0..AGENTS {
            self.cut(agent, Duration::from_millis(100));
        }
    }

    /// The agent does not know before it misses messages.
    fn cut(&mut self, agent: usize, time: Duration) {
        let link = &mut self.links[agent];
        link.up.clear();
        link.down.clear();
        link.cut_until = link.cut_until.max(self.now + time);
        link.retry = link.cut_until + Duration::from_millis(self.rng.random_range(0..1_000));
        self.agents[agent].connected = None;
    }

    fn tell_all(&mut self) {
        let (now, wall) = (self.now, self.wall);
        if let Some(plane) = &mut self.plane {
            plane.adopt(&self.store, now, wall);
            plane.told += 1;
        }
    }

    fn step(&mut self, faults: bool) {
        self.now += STEP;
        self.wall += STEP.as_millis() as u64;
        if self.plane.is_none() && self.plane_back <= self.now {
            self.plane = Some(Plane::start(&self.store, &self.table, AGENTS, self.now, self.wall));
        }
        self.connect();
        self.deliver_up();
        self.decide(faults);
        self.deliver_down();
        for agent in 0..AGENTS {
            self.traffic(agent);
        }
        self.check_leases();
    }

    fn connect(&mut self) {
        for id in 0..AGENTS {
            let (link, agent) = (&mut self.links[id], &mut self.agents[id]);
            let Some(plane) = &mut self.plane else { continue };
            if agent.connected.is_some() || link.retry > self.now || link.cut_until > self.now {
                let missed = agent.connected.is_none() && agent.heard + MISSED < self.now;
                if missed {
                    plane.fleet.disconnected(id as u64);
                }
                continue;
            }
            // It says what it holds: more than the store does was lost by the store.
            let known = |subject: &str| self.store.verdicts.get(subject).map_or(0, |one| one.generation);
            let ahead = agent.held.iter().any(|(subject, held)| *held > known(subject));
            if agent.epoch == self.store.epoch && ahead {
                self.counted.rollbacks_seen += 1;
                self.store.epoch += 1;
                self.kill_plane(1);
                return;
            }
            agent.connected = Some(self.now);
            agent.alive(self.now);
            agent.open_told.clear();
            (link.told, link.retry) = (u64::MAX, Duration::ZERO);
            plane.fleet.connected(id as u64, agent.incarnation, plane.clock(self.now));
        }
    }

    fn deliver_up(&mut self) {
        let Some(plane) = &mut self.plane else { return };
        let clock = plane.clock(self.now);
        for (id, link) in self.links.iter_mut().enumerate() {
            while link.up.front().is_some_and(|(at, _)| *at <= self.now) {
                let Some((_, message)) = link.up.pop_front() else { break };
                match message {
                    Up::Report(counts) => {
                        let counts = counts.iter().map(|(name, counts)| (name.as_str(), *counts));
                        plane.fleet.report(id as u64, Duration::from_secs(1), counts, clock);
                    }
                    Up::Open(open) => {
                        plane
                            .fleet
                            .open_at(id as u64, open.iter().map(|(name, base)| (name.as_str(), *base)));
                    }
                    Up::Probed(lease, outcome) => drop(plane.fleet.probed(id as u64, lease, outcome)),
                }
            }
        }
    }

    fn decide(&mut self, faults: bool) {
        let fails = faults && self.rng.random_bool(0.05);
        if self.store.expire(self.wall, self.now) {
            self.tell_all();
        }
        let Some(plane) = &mut self.plane else { return };
        let before = self.store.verdicts.clone();
        let changed = plane.step(&mut self.store, (self.now, self.wall), fails, &mut self.rng);
        self.counted.leases += self.ledger.check(&plane.fleet);
        if std::mem::take(&mut plane.dies) {
            self.kill_plane(1);
        }
        for subject in changed {
            let stored = &self.store.verdicts[&subject];
            let former = before.get(&subject);
            let grew = stored.generation == former.map_or(0, |one| one.generation) + 1;
            assert!(grew, "I4: {subject}");
            let fell = stored.record.state.is_out() && former.is_none_or(|one| !one.record.state.is_out());
            assert!(!fell || self.has_targets(&subject), "I6: seed {}: {subject}", self.seed);
            match stored.record.state {
                State::Open => {
                    self.counted.opened += 1;
                    self.counted.providers += u64::from(!subject.contains('/'));
                }
                State::Closed => self.counted.closed += 1,
                State::HalfOpen | State::Ramping(_) => {}
            }
        }
    }

    /// Whether each virtual model that `subject` took a target of has one left.
    fn has_targets(&self, subject: &str) -> bool {
        let admits = |name: &str| match self.store.verdicts.get(name) {
            Some(Stored { forced: Some((how, _)), .. }) => *how == Forced::Closed,
            Some(one) => !one.record.state.is_out(),
            None => true,
        };
        self.table.virtual_models.iter().all(|model| {
            let names = model.tiers[0].targets.iter().map(|target| {
                let deployment = &self.table.deployments[target.deployment.0 as usize];
                (&deployment.name, &self.table.providers[deployment.provider.0 as usize].name)
            });
            let mut lost =
                names.clone().filter(|(name, provider)| ***name == *subject || ***provider == *subject);
            let mut left = names.filter(|(name, provider)| admits(name) && admits(provider));
            lost.next().is_none() || left.next().is_some()
        })
    }

    fn deliver_down(&mut self) {
        let at = (self.now, self.wall);
        for (id, link) in self.links.iter_mut().enumerate() {
            let agent = &mut self.agents[id];
            if let (Some(plane), Some(_)) = (&self.plane, agent.connected)
                && link.told != plane.told
            {
                link.told = plane.told;
                let delay = Duration::from_millis(self.rng.random_range(0..DELAY_MAX.as_millis() as u64));
                let arrives =
                    link.down.back().map_or(self.now + delay, |(last, _)| (self.now + delay).max(*last));
                link.down.push_back((arrives, plane.publication(&self.store, id as u64, at)));
            }
            while link.down.front().is_some_and(|(at, _)| *at <= self.now) {
                if let Some((_, told)) = link.down.pop_front() {
                    agent.hear(&told, self.now);
                }
            }
            if agent.connected.is_some() && self.now.as_millis().is_multiple_of(5_000) {
                agent.alive(self.now);
            }
        }
    }

    fn traffic(&mut self, id: usize) {
        let agent = &mut self.agents[id];
        for model in &self.table.virtual_models {
            let Some(sent) = agent.send(&self.table, model, &self.broken, self.now) else { continue };
            self.counted.requests += 1;
            let deployment = &self.table.deployments[sent.deployment];
            let provider = &self.table.providers[deployment.provider.0 as usize].name;
            // I2, once the verdict has had the time to arrive.
            let settled = self.now.saturating_sub(DELAY_MAX + STEP * 2);
            let told = self.plane.is_some() && agent.connected.is_some_and(|since| since < settled);
            for name in [&deployment.name, provider] {
                let Some(stored) = self.store.verdicts.get(&**name).filter(|one| one.forced.is_none()) else {
                    continue;
                };
                let out =
                    stored.record.state.is_out() && stored.since < settled && agent.epoch == self.store.epoch;
                let may = sent.under_lease || sent.at_floor;
                let forced = agent.forced.contains_key(&*deployment.name);
                assert!(
                    !(told && out) || may || forced,
                    "I2: seed {} at {:?}: {name} {stored:?} {sent:?} held {:?} connected {:?} heard {:?}",
                    self.seed,
                    self.now,
                    agent.held,
                    agent.connected,
                    agent.heard
                );
            }
        }
        let link = &mut self.links[id];
        let delay = Duration::from_millis(self.rng.random_range(0..DELAY_MAX.as_millis() as u64));
        let mut send = |message| {
            let arrives = link.up.back().map_or(self.now + delay, |(last, _)| (self.now + delay).max(*last));
            link.up.push_back((arrives, message));
        };
        if agent.connected.is_none() {
            agent.results.clear();
            return;
        }
        if self.now.as_millis().is_multiple_of(1_000) {
            send(Up::Report(std::mem::take(&mut agent.counts)));
        }
        agent.results.drain(..).for_each(|(lease, outcome)| send(Up::Probed(lease, outcome)));
        if let Some(open) = agent.news(&self.table, self.now) {
            send(Up::Open(open));
        }
    }

    /// I1: who can use a lease, by what arrived.
    fn check_leases(&self) {
        let mut usable: BTreeMap<(&str, u64), (usize, u64)> = BTreeMap::new();
        for (id, agent) in self.agents.iter().enumerate().filter(|(_, agent)| agent.epoch == self.store.epoch)
        {
            for (lease, (subject, generation, _)) in agent.leases.iter().filter(|(_, held)| held.2 > self.now)
            {
                let newest = agent.held.get(subject).is_some_and(|held| held == generation);
                if newest && let Some(other) = usable.insert((subject, *generation), (id, *lease)) {
                    panic!(
                        "I1: seed {}: {subject} at {generation}: {other:?} and {:?}",
                        self.seed,
                        (id, lease)
                    );
                }
            }
        }
    }
}
