//! What operators see of a budget.

use trunkline_proto::admin::v1::{BudgetAccount, BudgetStatus};
use trunkline_routing::budget::{Budget, ledger::Ledger, period::Span};

use super::{
    Now,
    books::{Books, Key, wire_secs},
};

/// Accounts that are shown; more only make the answer long.
const ACCOUNTS_SHOWN: usize = 1_000;

impl Books {
    /// What requests could still get of `budget` in the period that holds `now`: all but
    /// what was spent, and what agents hold of which nothing is heard.
    pub(super) fn left(&self, budget: &Budget, now: Now) -> u64 {
        let span = Span::at(budget.period, now.unix_secs());
        let ledger = self.by_name.get(&budget.name).and_then(|book| book.periods.get(&span));
        let heard = |key: &Key| self.is_heard(key, now.instant);
        ledger.map_or(budget.limit.0, |ledger| ledger.obtainable(budget.limit, heard))
    }

    /// What became of `budget` in the period that holds `now`.
    pub(super) fn status(&self, budget: &Budget, with_accounts: bool, now: Now) -> BudgetStatus {
        let span = Span::at(budget.period, now.unix_secs());
        let none = Ledger::default();
        let ledger = self.by_name.get(&budget.name).and_then(|book| book.periods.get(&span)).unwrap_or(&none);
        let lost = |key: &Key| !self.is_heard(key, now.instant);
        let lost_nano_usd =
            ledger.accounts().filter(|(key, _)| lost(key)).map(|(_, one)| one.outstanding()).sum();
        let mut accounts: Vec<BudgetAccount> = Vec::new();
        if with_accounts {
            accounts.extend(ledger.accounts().map(|(key, one)| BudgetAccount {
                agent_id: key.agent_id.to_string(),
                account: key.account.to_string(),
                granted_nano_usd: one.granted,
                spent_nano_usd: one.spent,
                returned_nano_usd: one.returned,
                last_heard_time: self.heard.get(key).map(|heard| wire_secs(heard.unix_ms / 1_000)),
                lost: lost(key),
            }));
            accounts.sort_by_key(|one| {
                std::cmp::Reverse(one.granted_nano_usd.saturating_sub(one.returned_nano_usd))
            });
            accounts.truncate(ACCOUNTS_SHOWN);
        }
        BudgetStatus {
            budget: budget.name.to_string(),
            period_start_time: Some(wire_secs(span.start)),
            period_end_time: Some(wire_secs(span.end())),
            limit_nano_usd: budget.limit.0,
            spent_nano_usd: ledger.spent(),
            reserved_nano_usd: ledger.committed().saturating_sub(ledger.spent()),
            remaining_nano_usd: ledger.remaining(budget.limit),
            lost_nano_usd,
            accounts,
        }
    }
}
