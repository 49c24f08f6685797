//! The ledger of one budget over one period: what was given to whom, and what is known
//! of its end.

use alloc::collections::BTreeMap;

use crate::money::NanoUsd;

/// Sums of one account since the period began. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Given to it, in nano-dollars.
    pub granted: u64,
    /// Spent by it. More than it was given if estimates were too low, or if its budget
    /// does not refuse.
    pub spent: u64,
    /// Given back by it, or taken back when nothing was heard of it for too long.
    pub returned: u64,
}

impl Account {
    /// What it may have spent.
    pub fn committed(&self) -> u64 {
        self.granted.saturating_sub(self.returned).max(self.spent)
    }

    /// What it may spend yet.
    pub fn outstanding(&self) -> u64 {
        self.granted.saturating_sub(self.returned).saturating_sub(self.spent)
    }

    /// Takes over what is larger in `told`. False: nothing was.
    pub fn merge(&mut self, told: &Self) -> bool {
        let before = *self;
        self.granted = self.granted.max(told.granted);
        self.spent = self.spent.max(told.spent);
        self.returned = self.returned.max(told.returned).min(self.granted);
        *self != before
    }
}

/// All accounts of one budget in one period. `K` names an account: one start of one
/// agent, for a lease does not outlive the process that holds it.
///
/// The invariant: the sum of what accounts may have spent ([`Account::committed`]) is
/// at most the limit, apart from what was spent beyond leases, and from a limit that was
/// lowered later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger<K> {
    accounts: BTreeMap<K, Account>,
    committed: u64,
    spent: u64,
}

impl<K> Default for Ledger<K> {
    fn default() -> Self {
        Self { accounts: BTreeMap::new(), committed: 0, spent: 0 }
    }
}

impl<K: Ord> Ledger<K> {
    /// What is known of an account.
    pub fn account(&self, key: &K) -> Option<&Account> {
        self.accounts.get(key)
    }

    /// All of them, by key.
    pub fn accounts(&self) -> impl Iterator<Item = (&K, &Account)> {
        self.accounts.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// What was spent, as far as it was told, in nano-dollars.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// What may have been spent: what was told, and all that was given and not told of.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// What can be given.
    pub fn remaining(&self, limit: NanoUsd) -> u64 {
        limit.0.saturating_sub(self.committed)
    }

    /// The most that requests could still get: all but what was spent, and what accounts
    /// hold of which nothing is heard.
    pub fn obtainable(&self, limit: NanoUsd, is_heard: impl Fn(&K) -> bool) -> u64 {
        let lost = self.accounts.iter().filter(|(key, _)| !is_heard(key));
        let lost = lost.fold(0_u64, |sum, (_, account)| sum.saturating_add(account.outstanding()));
        limit.0.saturating_sub(self.spent.saturating_add(lost))
    }

    /// Takes in what an account says of itself, in any order and as often as it likes.
    /// It may know of more than this ledger was left with: a store that lost commits.
    /// False: nothing new.
    pub fn tell(&mut self, key: K, told: &Account) -> bool {
        self.change(key, |account| account.merge(told))
    }

    /// Gives `amount` to an account, or what is left of it.
    pub fn grant(&mut self, key: K, amount: u64, limit: NanoUsd) -> u64 {
        let amount = amount.min(self.remaining(limit));
        if amount > 0 {
            self.change(key, |account| {
                // What was spent beyond the lease is paid first, or the lease would only
                // pay for the past.
                let over = account.spent.saturating_sub(account.granted.saturating_sub(account.returned));
                account.granted = account.granted.saturating_add(over).saturating_add(amount);
            });
        }
        amount
    }

    /// Takes back a grant that was never sent.
    pub fn revoke(&mut self, key: K, amount: u64) {
        self.change(key, |account| account.granted = account.granted.saturating_sub(amount));
    }

    /// An account is over, and no more than `at_most` was spent of it: what it held beyond
    /// that is free again. False: nothing new.
    pub fn finish(&mut self, key: K, at_most: u64) -> bool {
        self.change(key, |account| {
            let free = account.granted.saturating_sub(at_most.max(account.spent));
            let new = free > account.returned;
            account.returned = account.returned.max(free);
            new
        })
    }

    /// Takes back what an account has not spent, and gives how much that is. Only for one
    /// that is known not to spend it any more.
    pub fn release(&mut self, key: K) -> u64 {
        self.change(key, |account| {
            let freed = account.outstanding();
            account.returned += freed;
            freed
        })
    }

    fn change<T>(&mut self, key: K, change: impl FnOnce(&mut Account) -> T) -> T {
        let account = self.accounts.entry(key).or_default();
        let (committed, spent) = (account.committed(), account.spent);
        let result = change(account);
        self.committed = self.committed.saturating_sub(committed).saturating_add(account.committed());
        self.spent = self.spent.saturating_sub(spent).saturating_add(account.spent);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: NanoUsd = NanoUsd(100);

    fn told(granted: u64, spent: u64, returned: u64) -> Account {
        Account { granted, spent, returned }
    }

    #[test]
    fn what_was_given_counts_as_spent_until_it_is_settled_or_returned() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.grant("a", 60, LIMIT), 60);
        assert_eq!(ledger.grant("b", 60, LIMIT), 40, "what is left");
        assert_eq!((ledger.remaining(LIMIT), ledger.spent()), (0, 0));
        assert!(ledger.tell("a", &told(60, 25, 30)));
        assert_eq!((ledger.remaining(LIMIT), ledger.spent()), (30, 25));
        assert!(!ledger.tell("a", &told(10, 20, 5)), "an old message says nothing new");
        assert_eq!(ledger.remaining(LIMIT), 30);
    }

    #[test]
    fn what_the_lost_hold_is_obtainable_by_nobody() {
        let mut ledger = Ledger::default();
        ledger.grant("a", 50, LIMIT);
        ledger.grant("b", 30, LIMIT);
        ledger.tell("a", &told(50, 10, 0));
        assert_eq!(ledger.obtainable(LIMIT, |_| true), 90);
        assert_eq!(ledger.obtainable(LIMIT, |key| *key == "a"), 60);
        assert_eq!(ledger.release("b"), 30);
        assert_eq!(ledger.remaining(LIMIT), 50);
        // It spent after all.
        ledger.tell("b", &told(30, 7, 0));
        assert_eq!((ledger.remaining(LIMIT), ledger.committed()), (43, 57));
    }

    #[test]
    fn spending_beyond_a_lease_is_paid_before_the_next_one() {
        let mut ledger = Ledger::default();
        ledger.grant("a", 10, LIMIT);
        ledger.tell("a", &told(10, 25, 0));
        assert_eq!(ledger.remaining(LIMIT), 75);
        assert_eq!(ledger.grant("a", 5, LIMIT), 5);
        assert_eq!(ledger.account(&"a").unwrap().outstanding(), 5);
        assert_eq!(ledger.remaining(LIMIT), 70);
    }

    #[test]
    fn an_account_that_knows_of_more_is_believed() {
        let mut ledger = Ledger::default();
        ledger.tell("a", &told(80, 30, 0));
        assert_eq!((ledger.remaining(LIMIT), ledger.spent()), (20, 30));
    }
}
