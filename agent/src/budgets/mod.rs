//! Budgets at this agent: what requests reserve and spend, and what the ledger gives and
//! is told. The ledger is the control plane's, or this agent's own when it runs alone.

mod admit;
mod again;
mod claims;
mod disk;
mod held;
mod keep;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use trunkline_routing::{budget::Budget, money::NanoUsd, table::RoutingTable};

pub(crate) use self::{
    admit::{OverBudget, Why, admit, look},
    again::Short,
    keep::run,
};
use self::{disk::Former, held::Held};
use crate::clock::Clock;

/// The file inside the data directory.
const FILE: &str = "budgets";

/// Between two demands at least: what comes meanwhile travels together.
const ASK_SPACING: Duration = Duration::from_millis(20);

/// Between two demands at most, while money is held or was spent.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// All budgets of this agent.
#[derive(Debug)]
pub(crate) struct Budgets {
    clock: Clock,
    /// Names this start.
    account: String,
    in_use: ArcSwap<InUse>,
    /// Accounts that are over and that the ledger has not confirmed yet.
    former: Mutex<Vec<Former>>,
    /// Woken when the ledger should be told something.
    ask: Notify,
    /// Woken when something should be written down.
    write: Notify,
    /// Whether there is a ledger to ask.
    ledger: watch::Sender<bool>,
    /// Where notes are kept. None: nowhere; a lease is then lost with the process.
    file: Option<PathBuf>,
}

/// The budgets of the table in use.
#[derive(Debug, Default)]
struct InUse {
    by_name: HashMap<Box<str>, Entry>,
    /// By key and by virtual model; empty: none.
    by_scope: HashMap<Box<str>, HashMap<Box<str>, Vec<Entry>>>,
}

/// A budget as configured, and its money.
#[derive(Clone, Debug)]
struct Entry {
    budget: Arc<Budget>,
    held: Arc<Held>,
}

/// What an attempt may spend: the most it can cost, of each budget that its request counts
/// for. What is left when it is dropped goes back.
#[derive(Debug)]
pub(crate) struct Reservation {
    clock: Clock,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    entry: Entry,
    /// The period it was taken from.
    number: u64,
    amount: u64,
    left: AtomicU64,
}

impl Budgets {
    /// None yet. `account` names this start; notes are kept in `data_dir`.
    pub(crate) fn new(clock: Clock, account: String, data_dir: Option<PathBuf>) -> Self {
        Self {
            clock,
            account,
            in_use: ArcSwap::default(),
            former: Mutex::default(),
            ask: Notify::new(),
            write: Notify::new(),
            ledger: watch::Sender::new(false),
            file: data_dir.map(|directory| directory.join(FILE)),
        }
    }

    /// Uses the budgets of another table. Money of those that stay is kept.
    pub(crate) fn load(&self, table: &RoutingTable) {
        let before = self.in_use.load();
        if before.by_name.is_empty() && table.budgets.is_empty() {
            return;
        }
        let now = self.clock.now();
        let mut next = InUse::default();
        for budget in &table.budgets {
            let known = before.by_name.get(&budget.name).filter(|one| one.held.period == budget.period);
            let held = known.map_or_else(|| Held::new(budget.period, now), |known| Arc::clone(&known.held));
            let entry = Entry { budget: Arc::new(budget.clone()), held };
            let scope = &budget.scope;
            let (key, model) = (scope.api_key.clone(), scope.virtual_model.clone());
            let models = next.by_scope.entry(key.unwrap_or_default()).or_default();
            models.entry(model.unwrap_or_default()).or_default().push(entry.clone());
            next.by_name.insert(budget.name.clone(), entry);
        }
        self.in_use.store(Arc::new(next));
    }

    /// The budgets that a request of `tenant` for `model` counts for, by name: all
    /// requests reserve in the same order.
    fn covering(&self, tenant: Option<&str>, model: Option<&str>) -> Vec<Entry> {
        let in_use = self.in_use.load();
        let mut found = Vec::new();
        if in_use.by_name.is_empty() {
            return found;
        }
        let keys = [Some(""), tenant].into_iter().flatten();
        for models in keys.filter_map(|key| in_use.by_scope.get(key)) {
            let names = [Some(""), model].into_iter().flatten();
            found.extend(names.filter_map(|name| models.get(name)).flatten().cloned());
        }
        found.sort_unstable_by(|one, other| one.budget.name.cmp(&other.budget.name));
        found
    }

    /// Counts what an app says that a request of its own cost.
    pub(crate) fn charge(&self, tenant: Option<&str>, model: Option<&str>, cost: NanoUsd) {
        let now = self.clock.now();
        for entry in self.covering(tenant, model) {
            entry.held.charge(cost.0, now);
        }
    }

    /// Whether there is a ledger to ask, from now on. Each connection starts with
    /// everything there is to tell.
    pub(crate) fn set_ledger(&self, there: bool) {
        self.ledger.send_replace(there);
        if there {
            self.ask.notify_one();
        }
    }

    fn has_ledger(&self) -> bool {
        *self.ledger.borrow()
    }

    /// Returns when the ledger should be told something, if it was told something at
    /// `last`.
    pub(crate) async fn due(&self, last: Instant) {
        sleep_until(last + ASK_SPACING).await;
        tokio::select! {
            biased; // Who needs money now goes first.
            () = self.ask.notified() => {}
            () = sleep_until(last + TELL_EVERY) => {}
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.in_use.load().by_name.values().cloned().collect()
    }
}

impl Reservation {
    fn new(clock: Clock) -> Self {
        Self { clock, parts: Vec::new() }
    }

    fn add(&mut self, entry: &Entry, number: u64, amount: u64) {
        self.parts.push(Part { entry: entry.clone(), number, amount, left: AtomicU64::new(amount) });
    }

    /// Whether nothing was paid from it.
    pub(crate) fn is_whole(&self) -> bool {
        self.parts.iter().all(|part| part.left.load(Ordering::Relaxed) == part.amount)
    }

    /// Its attempt is over: what is left goes back.
    pub(crate) fn give_back(&self) {
        for part in &self.parts {
            part.entry.held.release(part.number, part.left.swap(0, Ordering::Relaxed));
        }
    }

    /// The attempt cost so much.
    pub(crate) fn charge(&self, cost: NanoUsd) {
        let now = self.clock.now();
        for part in &self.parts {
            let take = |left: u64| Some(left.saturating_sub(cost.0));
            // It never refuses.
            let before =
                part.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or_default();
            part.entry.held.spend(part.number, before.min(cost.0), cost.0, now);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back();
        for part in &self.parts {
            part.entry.held.close_one(part.number);
        }
    }
}
