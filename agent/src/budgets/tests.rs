//! Budgets of an agent that is its own ledger, over stops and kills.

use std::path::Path;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trunkline_routing::budget::{Action, Scope, period::Period};

use super::{held::Offer, *};

const LIMIT: u64 = 1_000_000;

fn table() -> RoutingTable {
    let budget = |name: &str, api_key: Option<&str>, virtual_model: Option<&str>| Budget {
        name: name.into(),
        scope: Scope { api_key: api_key.map(Into::into), virtual_model: virtual_model.map(Into::into) },
        limit: NanoUsd(LIMIT),
        period: Period::Month,
        action: Action::Reject,
    };
    let budgets = vec![
        budget("all", None, None),
        budget("chat", None, Some("chat")),
        budget("team", Some("team"), None),
        budget("team-chat", Some("team"), Some("chat")),
    ];
    RoutingTable { budgets, ..RoutingTable::default() }
}

/// One start of an agent that runs alone.
struct Start {
    budgets: Arc<Budgets>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Start {
    fn new(account: &str, data_dir: &Path) -> Self {
        let budgets = Budgets::new(Clock::start(), account.to_owned(), Some(data_dir.to_owned()));
        let (budgets, stop) = (Arc::new(budgets), CancellationToken::new());
        budgets.load(&table());
        let task = tokio::spawn(run(Arc::clone(&budgets), true, stop.clone()));
        Self { budgets, stop, task }
    }

    /// As a request does it.
    async fn reserve(&self, amount: u64) -> Option<Reservation> {
        let entry = self.budgets.covering(None, None).remove(0);
        entry.held.begin_wait(amount);
        let offer = loop {
            let changed = entry.held.changed.notified();
            match entry.held.offer(amount, self.budgets.clock.now()) {
                Offer::Wait => {
                    self.budgets.ask.notify_one();
                    self.budgets.write.notify_one();
                    tokio::time::timeout(Duration::from_millis(50), changed).await.ok();
                }
                offer => break offer,
            }
        };
        entry.held.end_wait(amount);
        let Offer::Reserved(number) = offer else { return None };
        let mut reservation = Reservation::new(self.budgets.clock);
        reservation.add(&entry, number, amount);
        Some(reservation)
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    async fn kill(self) {
        self.task.abort();
        self.task.await.unwrap_err();
    }
}

#[test]
fn a_request_counts_for_every_budget_that_covers_it() {
    let budgets = Budgets::new(Clock::start(), "start".to_owned(), None);
    budgets.load(&table());
    let names = |tenant: Option<&str>, model: Option<&str>| -> Vec<String> {
        let covering = budgets.covering(tenant, model);
        covering.iter().map(|entry| entry.budget.name.to_string()).collect()
    };
    assert_eq!(names(None, None), ["all"]);
    assert_eq!(names(None, Some("chat")), ["all", "chat"]);
    assert_eq!(names(Some("team"), Some("chat")), ["all", "chat", "team", "team-chat"]);
    assert_eq!(names(Some("other"), Some("mail")), ["all"]);
    // Another table: what is gone covers nothing, and money of the rest stays.
    budgets.covering(None, None)[0].held.charge(7, budgets.clock.now());
    budgets.load(&RoutingTable { budgets: table().budgets[..1].to_vec(), ..RoutingTable::default() });
    assert_eq!(names(Some("team"), Some("chat")), ["all"]);
    assert_eq!(budgets.claims(false)[0].spent_nano_usd, 7);
}

#[tokio::test]
async fn what_was_spent_stays_spent_over_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let start = Start::new("one", directory.path());
    let reservation = start.reserve(LIMIT / 2).await.unwrap();
    reservation.charge(NanoUsd(LIMIT / 10));
    drop(reservation);
    start.stop().await;
    let start = Start::new("two", directory.path());
    assert!(start.reserve(LIMIT - LIMIT / 10 + 1).await.is_none());
    let rest = start.reserve(LIMIT - LIMIT / 10).await;
    assert!(rest.is_some(), "all but what was spent");
    drop(rest);
    start.stop().await;
}

#[tokio::test]
async fn after_a_kill_what_was_reserved_counts_as_spent_and_the_rest_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let start = Start::new("one", directory.path());
    let running = start.reserve(LIMIT / 10).await.unwrap();
    start.kill().await;
    drop(running);
    let start = Start::new("two", directory.path());
    assert!(start.reserve(LIMIT - LIMIT / 10 + 1).await.is_none());
    // A mark is at most a few requests ahead.
    assert!(start.reserve(LIMIT / 2).await.is_some());
    start.stop().await;
}
