//! Ledgers across restarts, periods, agents that are lost, and a crowd.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;
use trunkline_proto::{
    admin::v1::Config,
    agent::v1::{BudgetClaim, BudgetLease},
    types::v1,
};

use super::*;
use crate::repository::{ConfigWrite, Repository, RepositoryOptions};

/// 2026-11-22T16:00:00Z.
const START: u64 = 1_795_363_200;
const LIMIT: u64 = 1_000_000_000;

/// The keeper's clock: each test has a thread of its own.
mod clock {
    use std::{cell::Cell, time::Duration};

    use super::{SystemTime, UNIX_EPOCH};

    thread_local!(static SECS: Cell<u64> = const { Cell::new(super::START) });

    pub(super) fn set(secs: u64) {
        SECS.set(secs);
    }

    pub(super) fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(SECS.get())
    }
}

struct World {
    repository: Arc<Repository>,
    keeper: Keeper,
    budgets: Budgets,
}

impl World {
    async fn new(period: v1::BudgetPeriod) -> Self {
        clock::set(START);
        let repository = Repository::open(RepositoryOptions::default()).unwrap();
        let budget = v1::Budget {
            name: "b".into(),
            limit_usd: "1".into(),
            period: period.into(),
            ..v1::Budget::default()
        };
        let write = ConfigWrite {
            config: Config { budgets: vec![budget], ..Config::default() },
            expected_revision: 0,
            principal: "tester".into(),
            method: "ApplyConfig",
            request_id: None,
            request_sha256: [0; 32],
            force: false,
        };
        repository.commit(write).await.unwrap();
        let (keeper, budgets) = Keeper::new(Arc::clone(&repository), clock::now);
        Self { repository, keeper, budgets }
    }

    /// One demand, and its answer.
    async fn ask(&mut self, agent: &str, claim: BudgetClaim) -> Option<BudgetLease> {
        let mut line = self.budgets.line(agent);
        let demand = Demand {
            agent_id: Arc::clone(&line.agent_id),
            claims: vec![claim],
            answers: line.sender.clone(),
        };
        self.keeper.serve(vec![demand]).await;
        line.receiver.try_recv().ok().and_then(|grant| grant.leases.into_iter().next())
    }

    fn status(&self) -> BudgetStatus {
        let state = self.repository.state();
        self.budgets.status(&state.table, "b", true, clock::now()).unwrap()
    }

    /// A control plane that starts anew on the same store.
    fn restart(&mut self) {
        (self.keeper, self.budgets) = Keeper::new(Arc::clone(&self.repository), clock::now);
    }
}

fn waiting(waiting: u64) -> BudgetClaim {
    BudgetClaim {
        budget: "b".into(),
        account: "start".into(),
        waiting_nano_usd: waiting,
        least_nano_usd: waiting,
        ..BudgetClaim::default()
    }
}

fn spent(lease: &BudgetLease, spent: u64) -> BudgetClaim {
    BudgetClaim {
        span: lease.span,
        granted_nano_usd: lease.granted_nano_usd,
        spent_nano_usd: spent,
        ..waiting(0)
    }
}

#[tokio::test]
async fn what_was_granted_is_there_after_a_restart() {
    let mut world = World::new(v1::BudgetPeriod::Day).await;
    let lease = world.ask("a", waiting(LIMIT / 4)).await.unwrap();
    assert_eq!(lease.granted_nano_usd, LIMIT / 4);
    world.ask("a", spent(&lease, 7)).await.unwrap();
    world.restart();
    // Whoever asks first has it read.
    world.ask("other", waiting(0)).await.unwrap();
    let status = world.status();
    assert_eq!((status.spent_nano_usd, status.reserved_nano_usd), (7, LIMIT / 4 - 7));
    assert_eq!(status.remaining_nano_usd, LIMIT - LIMIT / 4);
}

#[tokio::test]
async fn each_period_starts_with_all_of_the_limit_and_late_word_counts_for_its_own() {
    let mut world = World::new(v1::BudgetPeriod::Hour).await;
    clock::set(START + 3_599);
    let lease = world.ask("a", waiting(LIMIT / 2)).await.unwrap();
    let remaining = std::time::Duration::try_from(lease.remaining.unwrap()).unwrap();
    assert_eq!(remaining, std::time::Duration::from_secs(1));
    clock::set(START + 3_600);
    let next = world.ask("a", waiting(LIMIT / 2)).await.unwrap();
    assert_ne!(next.span, lease.span);
    assert_eq!(next.obtainable_nano_usd, LIMIT);
    world.ask("a", spent(&lease, 5)).await.unwrap();
    assert_eq!((world.status().spent_nano_usd, world.status().remaining_nano_usd), (0, LIMIT / 2));
    // A day later nobody asks for the first hour any more.
    clock::set(START + 3_600 + 25 * 3_600);
    world.ask("a", waiting(1)).await.unwrap();
    world.budgets.books.lock().expire(Now::at(clock::now()));
    assert_eq!(world.ask("a", spent(&lease, 6)).await, None);
}

#[tokio::test]
async fn an_account_that_is_over_gives_back_what_it_did_not_use() {
    let mut world = World::new(v1::BudgetPeriod::Month).await;
    let lease = world.ask("a", waiting(LIMIT / 2)).await.unwrap();
    let over = BudgetClaim { at_most_nano_usd: Some(LIMIT / 10), ..spent(&lease, 3) };
    let obtainable = world.ask("a", over).await.unwrap().obtainable_nano_usd;
    assert_eq!(obtainable, LIMIT - LIMIT / 10, "nobody gets what it may have spent");
    let status = world.status();
    assert_eq!((status.spent_nano_usd, status.reserved_nano_usd), (3, LIMIT / 10 - 3));
    assert_eq!(status.lost_nano_usd, LIMIT / 10 - 3);
}

#[tokio::test]
async fn an_agent_that_is_gone_for_a_day_gives_back_its_lease() {
    let mut world = World::new(v1::BudgetPeriod::Month).await;
    world.ask("a", waiting(LIMIT / 2)).await.unwrap();
    for (hours, expected) in [(24, LIMIT / 2), (26, LIMIT)] {
        clock::set(START + hours * 3_600);
        world.budgets.books.lock().expire(Now::at(clock::now()));
        assert_eq!(world.status().remaining_nano_usd, expected, "{hours}");
    }
}

#[tokio::test]
async fn who_holds_idle_money_hears_that_it_is_needed() {
    let mut world = World::new(v1::BudgetPeriod::Day).await;
    let mut holder = world.budgets.line("holder");
    let demand = |line: &Line, claim: BudgetClaim| Demand {
        agent_id: Arc::clone(&line.agent_id),
        claims: vec![claim],
        answers: line.sender.clone(),
    };
    let first = demand(&holder, waiting(LIMIT));
    world.keeper.serve(vec![first]).await;
    let held = holder.receiver.try_recv().unwrap().leases.remove(0);
    assert_eq!(held.granted_nano_usd, LIMIT);
    let denied = world.ask("poor", waiting(10)).await.unwrap();
    assert_eq!((denied.granted_nano_usd, denied.scarce), (0, true));
    let recall = holder.receiver.try_recv().unwrap().leases.remove(0);
    assert!(recall.scarce);
    let back = BudgetClaim { returned_nano_usd: LIMIT / 2, ..spent(&held, 1) };
    world.ask("holder", back).await.unwrap();
    assert_eq!(world.ask("poor", waiting(10)).await.unwrap().granted_nano_usd, 10);
}

#[tokio::test]
async fn nothing_is_said_of_budgets_that_are_not_configured_or_of_names_that_are_none() {
    let mut world = World::new(v1::BudgetPeriod::Day).await;
    for claim in [
        BudgetClaim { budget: "other".into(), ..waiting(1) },
        BudgetClaim { account: "a b".into(), ..waiting(1) },
        BudgetClaim { account: String::new(), ..waiting(1) },
    ] {
        assert_eq!(world.ask("a", claim).await, None);
    }
    let now = Now { unix_ms: START * 1_000, instant: Instant::now() };
    assert!(world.budgets.books.lock().expire(now).1.is_empty());
}
