//! Budgets under everything that goes wrong: messages lost, repeated and overtaken,
//! agents that die and come back, and a crowd at the edge.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use rand::{SeedableRng as _, rngs::StdRng};
use trunkline_routing::{
    budget::{
        lease::{self, Ask},
        ledger::{Account, Ledger},
        pacing::{Pacer, Progress, Upgrade},
        wallet::Wallet,
    },
    money::NanoUsd,
    time::Timestamp,
};

const LIMIT: NanoUsd = NanoUsd(10_000);
const AGENTS: usize = 3;

/// One start of one agent.
type Key = (usize, u32);

/// Something that happens. Numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Reserve { agent: usize, most: u64, cost: u64 },
    Answer { agent: usize, which: usize },
    Mark { agent: usize },
    GiveBack { agent: usize, scarce: bool },
    Tell { agent: usize },
    Hear { which: usize, again: bool },
    LoseUp { which: usize },
    Take { which: usize, again: bool },
    LoseDown { which: usize },
    Crash { agent: usize },
    Stop { agent: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let agent = 0..AGENTS;
    prop_oneof![
        // One in eight costs more than was reserved for it.
        6 => (agent.clone(), 1..200_u64, 0..9_u64)
            .prop_map(|(agent, most, eighth)| Step::Reserve { agent, most, cost: most * eighth / 8 }),
        6 => (agent.clone(), 0..8_usize).prop_map(|(agent, which)| Step::Answer { agent, which }),
        4 => agent.clone().prop_map(|agent| Step::Mark { agent }),
        1 => (agent.clone(), any::<bool>()).prop_map(|(agent, scarce)| Step::GiveBack { agent, scarce }),
        6 => agent.clone().prop_map(|agent| Step::Tell { agent }),
        5 => (0..8_usize, any::<bool>()).prop_map(|(which, again)| Step::Hear { which, again }),
        1 => (0..8_usize).prop_map(|which| Step::LoseUp { which }),
        5 => (0..8_usize, any::<bool>()).prop_map(|(which, again)| Step::Take { which, again }),
        1 => (0..8_usize).prop_map(|which| Step::LoseDown { which }),
        1 => agent.clone().prop_map(|agent| Step::Crash { agent }),
        1 => agent.prop_map(|agent| Step::Stop { agent }),
    ]
}

/// What an agent keeps on disk.
#[derive(Clone, Copy, Default)]
struct Disk {
    spent: u64,
    mark: u64,
}

#[derive(Default)]
struct Agent {
    start: u32,
    wallet: Wallet,
    disk: Disk,
    /// What was reserved, and what it costs.
    running: Vec<(u64, u64)>,
    waiting: Vec<u64>,
    /// Earlier starts, and the most that each spent.
    former: Vec<(u32, Account, u64)>,
}

struct Up {
    key: Key,
    account: Account,
    ask: Option<Ask>,
    /// Set when the account is over.
    at_most: Option<u64>,
}

#[derive(Default)]
struct World {
    now: Timestamp,
    ledger: Ledger<Key>,
    agents: Vec<Agent>,
    up: Vec<Up>,
    down: Vec<(Key, u64)>,
    /// What providers were paid, and how much of it nobody could foresee.
    paid: u64,
    unforeseen: u64,
}

impl World {
    fn new() -> Self {
        Self { agents: (0..AGENTS).map(|_| Agent::default()).collect(), ..Self::default() }
    }

    fn pay(&mut self, (held, cost): (u64, u64)) {
        self.paid += cost;
        self.unforeseen += cost.saturating_sub(held);
    }

    fn run(&mut self, step: &Step) {
        self.now = self.now + Duration::from_millis(70);
        let now = self.now;
        match *step {
            Step::Reserve { agent, most, cost } => {
                let one = &mut self.agents[agent];
                if one.wallet.reserve(most, now) {
                    one.running.push((most, cost));
                } else if one.waiting.len() < 4 {
                    one.wallet.begin_wait(most);
                    one.waiting.push(most);
                }
            }
            Step::Answer { agent, which } => {
                let one = &mut self.agents[agent];
                if which < one.running.len() {
                    let (held, cost) = one.running.remove(which);
                    one.wallet.spend(held.min(cost), cost, now);
                    one.wallet.release(held.saturating_sub(cost));
                    self.pay((held, cost));
                }
            }
            Step::Mark { agent } => {
                let one = &mut self.agents[agent];
                if let Some(mark) = one.wallet.next_mark(now) {
                    one.disk = Disk { spent: one.wallet.account().spent, mark };
                    one.wallet.mark(mark);
                }
            }
            Step::GiveBack { agent, scarce } => drop(self.agents[agent].wallet.give_back(scarce, now)),
            Step::Tell { agent } => self.tell(agent),
            Step::Hear { which, again } => self.hear(which, again),
            Step::LoseUp { which } if which < self.up.len() => drop(self.up.remove(which)),
            Step::Take { which, again } => self.take(which, again),
            Step::LoseDown { which } if which < self.down.len() => drop(self.down.remove(which)),
            Step::LoseUp { .. } | Step::LoseDown { .. } => {}
            Step::Crash { agent } => {
                let Disk { spent, mark } = self.agents[agent].disk;
                self.end(agent, Account { spent, ..Account::default() }, mark);
            }
            Step::Stop { agent } => {
                while !self.agents[agent].running.is_empty() {
                    self.run(&Step::Answer { agent, which: 0 });
                }
                let one = &mut self.agents[agent];
                one.waiting.drain(..).for_each(|amount| one.wallet.end_wait(amount));
                one.wallet.close();
                let account = *one.wallet.account();
                self.end(agent, account, account.spent);
            }
        }
    }

    /// A process ends; another one takes its place and knows what was on disk.
    fn end(&mut self, agent: usize, known: Account, at_most: u64) {
        let one = &mut self.agents[agent];
        let running = std::mem::take(&mut one.running);
        let mut former = std::mem::take(&mut one.former);
        former.push((one.start, known, at_most));
        *one = Agent { start: one.start + 1, former, ..Agent::default() };
        // Providers finish what they began.
        for one in running {
            self.pay(one);
        }
    }

    fn tell(&mut self, agent: usize) {
        let one = &self.agents[agent];
        let (account, ask) = (*one.wallet.account(), one.wallet.ask(self.now));
        self.up.push(Up { key: (agent, one.start), account, ask, at_most: None });
        for (start, account, at_most) in &one.former {
            let key = (agent, *start);
            self.up.push(Up { key, account: *account, ask: None, at_most: Some(*at_most) });
        }
    }

    fn hear(&mut self, which: usize, again: bool) {
        let Some(Up { key, account, ask, at_most }) = self.up.get(which) else { return };
        let key = *key;
        self.ledger.tell(key, account);
        if let Some(at_most) = at_most {
            self.ledger.finish(key, *at_most);
        }
        if let Some(ask) = ask {
            let amount = lease::size(ask, self.ledger.remaining(LIMIT), AGENTS as u64);
            self.ledger.grant(key, amount, LIMIT);
            let granted = self.ledger.account(&key).map_or(0, |account| account.granted);
            self.down.push((key, granted));
        }
        if !again {
            self.up.remove(which);
        }
    }

    fn take(&mut self, which: usize, again: bool) {
        let Some(((agent, start), granted)) = self.down.get(which).copied() else { return };
        if !again {
            self.down.remove(which);
        }
        let one = &mut self.agents[agent];
        if one.start != start {
            return;
        }
        one.wallet.granted(granted);
        if let Some(most) = one.waiting.pop() {
            one.wallet.end_wait(most);
        }
    }

    /// What must hold at any moment.
    fn check(&self) {
        assert!(self.paid <= LIMIT.0 + self.unforeseen, "{} + {} paid", self.paid, self.unforeseen);
        assert!(self.ledger.committed() <= LIMIT.0 + self.unforeseen);
        let sum = |of: fn(&Account) -> u64| self.ledger.accounts().map(|(_, one)| of(one)).sum::<u64>();
        assert_eq!(sum(Account::committed), self.ledger.committed());
        assert_eq!(sum(|account| account.spent), self.ledger.spent());
        assert!(self.ledger.spent() <= self.paid);
    }

    /// All that is under way ends, all agents stop, and everybody is heard.
    fn settle(&mut self) {
        for agent in 0..AGENTS {
            self.run(&Step::Stop { agent });
            self.tell(agent);
        }
        while !self.up.is_empty() {
            self.hear(self.up.len() - 1, false);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_order_of_events_spends_more_than_the_limit(steps in vec(step(), 1..400)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
            world.check();
        }
        let crashed = steps.iter().any(|step| matches!(step, Step::Crash { .. }));
        world.settle();
        world.check();
        if crashed {
            // What was under way at a crash is only known not to be more.
            prop_assert!(world.ledger.committed() + world.unforeseen >= world.paid);
        } else {
            prop_assert_eq!(world.ledger.spent(), world.paid);
            // A grant that met a dead account is not used, and not lost for ever either.
            let stray: u64 = world.ledger.accounts().map(|(_, one)| one.outstanding()).sum();
            prop_assert_eq!(world.ledger.committed(), world.paid + stray);
        }
    }
}

/// A client that waits, or its request that runs until then.
#[derive(Clone, Copy)]
enum Client {
    Waits,
    Runs { until: u64, held: u64, cost: u64 },
    Refused,
}

/// 64 clients of four agents at the edge of a budget, until all are refused. Gives what
/// was spent, and the most one request could cost.
fn crowd(seed: u64) -> (u64, u64) {
    const MOST: u64 = 1_000;
    const LIMIT: NanoUsd = NanoUsd(64 * MOST);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut ledger: Ledger<usize> = Ledger::default();
    let mut wallets: Vec<Wallet> = (0..4).map(|_| Wallet::unmarked()).collect();
    let mut clients = [Client::Waits; 64];
    for wallet in &mut wallets {
        (0..16).for_each(|_| wallet.begin_wait(MOST));
    }
    for tick in 0..100_000_u64 {
        let now = Timestamp::from_nanos(tick * 1_000_000);
        for (at, client) in clients.iter_mut().enumerate() {
            let wallet = &mut wallets[at % 4];
            match *client {
                Client::Runs { until, held, cost } if until <= tick => {
                    wallet.spend(cost, cost, now);
                    wallet.release(held - cost);
                    wallet.begin_wait(MOST);
                    *client = Client::Waits;
                }
                Client::Waits if wallet.reserve(MOST, now) => {
                    wallet.end_wait(MOST);
                    let until = tick + rng.random_range(20..200_u64);
                    *client = Client::Runs { until, held: MOST, cost: rng.random_range(0..=MOST) };
                }
                // As agents do: for good only when nothing can come any more.
                Client::Waits if ledger.obtainable(LIMIT, |_| true) < MOST => {
                    wallet.end_wait(MOST);
                    *client = Client::Refused;
                }
                _ => {}
            }
        }
        if clients.iter().all(|client| matches!(client, Client::Refused)) {
            let spent: u64 = wallets.iter().map(|wallet| wallet.account().spent).sum();
            assert!(spent <= LIMIT.0, "seed {seed}: {spent}");
            return (LIMIT.0 - spent, MOST);
        }
        // A round trip to the control plane every 10 ms.
        for (at, wallet) in wallets.iter_mut().enumerate().filter(|_| tick % 10 == 0) {
            wallet.give_back(lease::is_scarce(ledger.remaining(LIMIT), LIMIT.0), now);
            ledger.tell(at, wallet.account());
            if let Some(ask) = wallet.ask(now) {
                ledger.grant(at, lease::size(&ask, ledger.remaining(LIMIT), 4), LIMIT);
            }
            wallet.granted(ledger.account(&at).map_or(0, |account| account.granted));
        }
    }
    panic!("seed {seed}: clients wait for ever, {} obtainable", ledger.obtainable(LIMIT, |_| true));
}

#[test]
fn sixty_four_at_the_edge_neither_overspend_nor_are_refused_while_there_is_money() {
    for seed in 0..50 {
        let (left, most) = crowd(seed);
        assert!(left < most, "seed {seed}: {left} left");
    }
}

/// Values of upgrades and their cost. What a dollar buys differs tenfold and more from
/// request to request, and drifts over three times of a day, of which the last is the
/// best.
fn upgrades(rng: &mut StdRng) -> Vec<(f64, u64)> {
    let one = |at: usize, rng: &mut StdRng| {
        let pace = [0.8, 1.0, 1.25][at * 3 / 6_000];
        let cost = rng.random_range(500_000..1_500_000_u64);
        let worth: f64 = rng.random_range(0.1..2.0);
        (pace * worth * worth * cost as f64 / 1e9, cost)
    };
    (0..6_000).map(|at| one(at, rng)).collect()
}

/// The value that a fraction of all upgrades brings at best, knowing them all.
fn optimum(all: &[(f64, u64)], money: u64) -> f64 {
    let mut best = all.to_vec();
    best.sort_by(|one, other| (other.0 / other.1 as f64).total_cmp(&(one.0 / one.1 as f64)));
    let mut left = money;
    best.iter()
        .take_while(|(_, cost)| {
            let fits = *cost <= left;
            left = left.saturating_sub(*cost);
            fits
        })
        .map(|(value, _)| value)
        .sum()
}

#[test]
fn pacing_gets_most_of_what_could_be_had_and_spending_until_empty_does_not() {
    for seed in 0..20 {
        let all = upgrades(&mut StdRng::seed_from_u64(seed));
        let money = all.iter().map(|(_, cost)| cost).sum::<u64>() / 5;
        let best = optimum(&all, money);

        let (mut left, mut greedy) = (money, 0.0);
        for (value, cost) in &all {
            if *cost <= left {
                left -= cost;
                greedy += value;
            }
        }
        assert!(greedy / best < 0.5, "seed {seed}: {}", greedy / best);

        let (mut left, mut paced) = (money, 0.0);
        let mut dual = Pacer::default();
        for (at, (value, cost)) in all.iter().enumerate() {
            let elapsed = at as f64 / all.len() as f64;
            let progress = Progress { spent: 1.0 - left as f64 / money as f64, elapsed };
            if dual.buys(Upgrade { value: *value, extra_nano_usd: *cost }, progress) && *cost <= left {
                left -= cost;
                paced += value;
            }
        }
        assert!(left < money / 20, "seed {seed}: {left} of {money} are left");
        assert!(paced / best >= 0.9, "seed {seed}: {}", paced / best);
    }
}

/// An hour of requests at three agents, each of which hears every 2 s what all spent until
/// then. What an upgrade costs, and how much was spent by each minute.
fn paced_hour(rng: &mut StdRng, limit: u64) -> Vec<u64> {
    let mut agents = [(Pacer::default(), 0_u64, 0_u64); 3];
    let (mut spent, mut minutes) = (0_u64, Vec::new());
    for tick in 0..36_000_u64 {
        if tick % 20 == 0 {
            for (_, heard, own) in &mut agents {
                (*heard, *own) = (spent, 0);
            }
        }
        if tick % 600 == 0 {
            minutes.push(spent);
        }
        for (pacer, heard, own) in &mut agents {
            let known = (*heard + *own) as f64 / limit as f64;
            let progress = Progress { spent: known, elapsed: tick as f64 / 36_000.0 };
            // The same for all: nothing but time and money decides.
            let upgrade = Upgrade { value: 0.1, extra_nano_usd: rng.random_range(900..1_100) };
            if pacer.buys(upgrade, progress) && spent + upgrade.extra_nano_usd <= limit {
                spent += upgrade.extra_nano_usd;
                *own += upgrade.extra_nano_usd;
            }
        }
    }
    minutes.push(spent);
    minutes
}

#[test]
fn money_for_upgrades_lasts_for_the_whole_period_over_three_agents() {
    // A tenth of the upgrades that are asked for.
    let limit = 36_000 * 3 * 1_000 / 10;
    for seed in 0..5 {
        let minutes = paced_hour(&mut StdRng::seed_from_u64(seed), limit);
        for (minute, spent) in minutes.iter().enumerate() {
            let (planned, spent) = (minute as f64 / 60.0, *spent as f64 / limit as f64);
            assert!((planned - spent).abs() < 0.03, "seed {seed}, minute {minute}: {spent}");
        }
    }
}
