//! Three agents and 64 callers at the edge of a budget: each caller asks again as soon as
//! it is answered, until it is refused. Messages between agents and the ledger take time.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};
use trunkline_routing::{
    budget::{
        lease,
        ledger::{Account, Ledger},
        wallet::Wallet,
    },
    money::NanoUsd,
    time::Timestamp,
};

use crate::{
    run::report::BudgetFigures,
    seeds::{Purpose, rng},
};

const AGENTS: usize = 3;
const CALLERS: usize = 64;
/// The budget: about a thousand requests, or sixteen per caller.
const LIMIT: NanoUsd = NanoUsd(1_000_000_000);
/// The most that a request can cost; what it does cost is 10 % to 100 % of it.
const WORST: u64 = 2_000_000;
/// One step of the clock.
const STEP: Duration = Duration::from_millis(10);
/// An agent and the ledger exchange messages every so many steps, and each takes one.
const EXCHANGE_STEPS: u64 = 10;
/// A request waits for money so many steps before it is refused: 5 s, as at agents.
const PATIENCE_STEPS: u64 = 500;
/// Longest run: what is not over then never ends.
const STEPS_MAX: u64 = 1_000_000;
/// Nano-dollars in a dollar.
const NANOS: f64 = 1e9;

/// How agents share the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Leases,
    CheckThenSpend,
}

/// What a caller is doing.
#[derive(Clone, Copy, Debug)]
enum Caller {
    /// It is about to ask.
    Ready,
    /// Its request waits for money since that step.
    Waiting(u64),
    /// Its request runs until that step and will cost so much.
    Running(u64, u64),
    /// It was refused.
    Gone,
}

struct Edge {
    way: Way,
    ledger: Ledger<usize>,
    wallets: [Wallet; AGENTS],
    /// What agents hear next: the total they are granted, and whether money is scarce.
    told: [(u64, bool); AGENTS],
    /// What the ledger hears next.
    said: [Account; AGENTS],
    /// The total that agents without leases heard last.
    heard_spent: u64,
    spent: u64,
    running_worst: u64,
    /// Since which step there is money for a request that no request holds.
    free_since: Option<u64>,
    falsely_refused: u64,
    rng: StdRng,
}

pub(super) fn run(way: Way, seed: u64) -> BudgetFigures {
    let mut edge = Edge {
        way,
        ledger: Ledger::default(),
        wallets: std::array::from_fn(|_| Wallet::unmarked()),
        told: [(0, false); AGENTS],
        said: [Account::default(); AGENTS],
        heard_spent: 0,
        spent: 0,
        running_worst: 0,
        free_since: Some(0),
        falsely_refused: 0,
        rng: rng(seed, Purpose::Callers, u64::MAX),
    };
    let mut callers = [Caller::Ready; CALLERS];
    for step in 0..STEPS_MAX {
        if step % EXCHANGE_STEPS == 0 {
            edge.exchange(step);
        }
        for (n, caller) in callers.iter_mut().enumerate() {
            *caller = edge.advance(*caller, n % AGENTS, step);
            edge.look_for_free_money(step);
        }
        if callers.iter().all(|caller| matches!(caller, Caller::Gone)) {
            break;
        }
    }
    BudgetFigures {
        limit_usd: LIMIT.0 as f64 / NANOS,
        spent_usd: edge.spent as f64 / NANOS,
        falsely_refused: edge.falsely_refused,
        value: 0.0,
    }
}

fn time(step: u64) -> Timestamp {
    Timestamp::ZERO + STEP * (step as u32 + 1)
}

impl Edge {
    fn advance(&mut self, caller: Caller, agent: usize, step: u64) -> Caller {
        match caller {
            Caller::Ready => self.ask(agent, step, step, false),
            Caller::Waiting(since) => self.ask(agent, since, step, true),
            Caller::Running(until, cost) if step >= until => {
                self.settle(agent, cost, step);
                Caller::Ready
            }
            Caller::Running(..) | Caller::Gone => caller,
        }
    }

    fn ask(&mut self, agent: usize, since: u64, step: u64, waits: bool) -> Caller {
        if self.reserve(agent, step) {
            if waits {
                self.wallets[agent].end_wait(WORST);
            }
            self.running_worst += WORST;
            let cost = self.rng.random_range(WORST / 10..=WORST);
            return Caller::Running(step + self.rng.random_range(50..500), cost);
        }
        if step - since < PATIENCE_STEPS && self.way == Way::Leases {
            if !waits {
                self.wallets[agent].begin_wait(WORST);
            }
            return Caller::Waiting(since);
        }
        if waits {
            self.wallets[agent].end_wait(WORST);
        }
        // All the time that it waited there was money that was neither spent nor held.
        if self.free_since.is_some_and(|free| free <= since) {
            self.falsely_refused += 1;
        }
        Caller::Gone
    }

    fn reserve(&mut self, agent: usize, step: u64) -> bool {
        match self.way {
            Way::Leases => self.wallets[agent].reserve(WORST, time(step)),
            Way::CheckThenSpend => self.heard_spent + WORST <= LIMIT.0,
        }
    }

    fn look_for_free_money(&mut self, step: u64) {
        let is_free = self.spent + self.running_worst + WORST <= LIMIT.0;
        self.free_since = if is_free { self.free_since.or(Some(step)) } else { None };
    }

    fn settle(&mut self, agent: usize, cost: u64, step: u64) {
        self.spent += cost;
        self.running_worst -= WORST;
        if self.way == Way::Leases {
            self.wallets[agent].spend(cost, cost, time(step));
            self.wallets[agent].release(WORST - cost);
        }
    }

    /// Each side hears what the other said at the last exchange, and says something new.
    fn exchange(&mut self, step: u64) {
        self.heard_spent = self.spent;
        if self.way == Way::CheckThenSpend {
            return;
        }
        for agent in 0..AGENTS {
            let (granted, scarce) = self.told[agent];
            self.wallets[agent].granted(granted);
            self.wallets[agent].give_back(scarce, time(step));
            let said = std::mem::replace(&mut self.said[agent], *self.wallets[agent].account());
            self.ledger.tell(agent, &said);
            if let Some(ask) = self.wallets[agent].ask(time(step)) {
                let amount = lease::size(&ask, self.ledger.remaining(LIMIT), AGENTS as u64);
                self.ledger.grant(agent, amount, LIMIT);
            }
            let account = self.ledger.account(&agent).copied().unwrap_or_default();
            self.told[agent] = (account.granted, lease::is_scarce(self.ledger.remaining(LIMIT), LIMIT.0));
        }
    }
}
