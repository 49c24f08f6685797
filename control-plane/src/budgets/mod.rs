//! Budgets at the control plane: one ledger per budget and period, from which agents get
//! leases. Why it is done so: `docs/adr/0011-budget-leases.md`.
//!
//! ```text
//! Sync stream -- claims --> keeper: tell, grant -> store -> answer with leases
//! ```
//!
//! What agents say may come twice or late; a grant is durable before it is sent.

mod books;
mod keeper;
mod status;
mod stored;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use trunkline_proto::{
    admin::v1::BudgetStatus,
    agent::v1::{BudgetClaim, BudgetGrant},
};
use trunkline_routing::{budget::Budget, table::RoutingTable};

use self::books::Books;
pub(crate) use self::keeper::Keeper;

/// Demands that wait. Agents ask again, so what finds no place is dropped.
const QUEUE_MAX: usize = 1_024;

/// Claims of one demand that are looked at; agents send no more.
const CLAIMS_MAX: usize = 1_000;

/// Answers that wait for one agent. It asks again, so what finds no place is dropped.
const ANSWERS_MAX: usize = 8;

/// What agents ask of budgets, and what operators see of them.
#[derive(Clone, Debug)]
pub(crate) struct Budgets {
    books: Arc<Mutex<Books>>,
    demands: mpsc::Sender<Demand>,
}

/// What one agent holds and needs.
#[derive(Debug)]
struct Demand {
    agent_id: Arc<str>,
    claims: Vec<BudgetClaim>,
    answers: mpsc::Sender<BudgetGrant>,
}

/// The place of one agent's stream among those that get leases.
#[derive(Debug)]
pub(crate) struct Line {
    budgets: Budgets,
    agent_id: Arc<str>,
    sender: mpsc::Sender<BudgetGrant>,
    receiver: mpsc::Receiver<BudgetGrant>,
}

impl Budgets {
    /// A place for the stream of `agent_id`.
    pub(crate) fn line(&self, agent_id: &str) -> Line {
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        Line { budgets: self.clone(), agent_id: agent_id.into(), sender, receiver }
    }

    /// What requests could still get of `budget`, in nano-dollars.
    pub(crate) fn left(&self, budget: &Budget, now: SystemTime) -> u64 {
        self.books.lock().left(budget, Now::at(now))
    }

    /// What became of a budget in the period of `now`. None: it is not in `table`.
    pub(crate) fn status(
        &self,
        table: &RoutingTable,
        name: &str,
        with_accounts: bool,
        now: SystemTime,
    ) -> Option<BudgetStatus> {
        let at = table.budgets.binary_search_by(|budget| (*budget.name).cmp(name)).ok()?;
        Some(self.books.lock().status(&table.budgets[at], with_accounts, Now::at(now)))
    }
}

impl Line {
    /// Takes in what the agent says. The answer comes from [`Self::next`], or not at all:
    /// then the agent asks again.
    pub(crate) fn ask(&self, mut claims: Vec<BudgetClaim>) {
        claims.truncate(CLAIMS_MAX);
        let demand = Demand { agent_id: Arc::clone(&self.agent_id), claims, answers: self.sender.clone() };
        drop(self.budgets.demands.try_send(demand));
    }

    /// The next leases for the agent.
    pub(crate) async fn next(&mut self) -> BudgetGrant {
        match self.receiver.recv().await {
            Some(grant) => grant,
            // This holds a sender itself, so there is always one.
            None => std::future::pending().await,
        }
    }
}

/// The time, on both clocks.
#[derive(Clone, Copy, Debug)]
struct Now {
    unix_ms: u64,
    instant: tokio::time::Instant,
}

impl Now {
    fn at(wall: SystemTime) -> Self {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix_ms: since.as_millis() as u64, instant: tokio::time::Instant::now() }
    }

    const fn unix_secs(self) -> u64 {
        self.unix_ms / 1_000
    }
}
