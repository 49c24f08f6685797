//! The wallet: an agent's part of a budget in one period. A request reserves the most it
//! can cost, and when it is over, only what it did cost is spent.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::{lease::Ask, ledger::Account};
use crate::{math, time::Timestamp};

/// Half of what was seen is forgotten in so many seconds.
const HALF_LIFE_SECS: f64 = 10.0;

/// A wallet holds money ahead for so long at the pace of the last seconds: a control
/// plane that restarts is not noticed.
const AHEAD: Duration = Duration::from_secs(60);

/// A mark is raised about so often: a sync of the disk each time.
const MARK_STEP: Duration = Duration::from_millis(100);

/// A sum over the last seconds, the older the less: `rate * HALF_LIFE / ln 2` in a steady
/// state.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    sum: f64,
    at: Timestamp,
}

impl Recent {
    fn add(&mut self, amount: u64, now: Timestamp) {
        self.sum = self.at(now) + amount as f64;
        self.at = self.at.max(now);
    }

    fn at(&self, now: Timestamp) -> f64 {
        self.sum * math::exp2(-now.since(self.at).as_secs_f64() / HALF_LIFE_SECS)
    }

    /// What `span` takes at this pace.
    fn over(&self, span: Duration, now: Timestamp) -> u64 {
        let per_second = self.at(now) * core::f64::consts::LN_2 / HALF_LIFE_SECS;
        // Saturates; never NaN, for all that goes in is finite.
        (per_second * span.as_secs_f64()) as u64
    }
}

/// Money of one budget in one period, at one agent. Amounts are nano-dollars.
#[derive(Clone, Debug, Default)]
pub struct Wallet {
    account: Account,
    reserved: u64,
    /// How much of it may be used before something is written down. See [`Self::mark`].
    mark: u64,
    /// What all requests that wait for money need.
    waiting: u64,
    /// How many of them need how much. As many entries as requests at most.
    waiters: BTreeMap<u64, u32>,
    /// The latest reservation: what the next one is likely to be.
    latest: u64,
    spent_lately: Recent,
    reserved_lately: Recent,
}

impl Wallet {
    /// One that needs nothing written down.
    pub fn unmarked() -> Self {
        Self { mark: u64::MAX, ..Self::default() }
    }

    /// What the ledger is told.
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// Held by requests under way.
    pub const fn reserved(&self) -> u64 {
        self.reserved
    }

    /// What a request can reserve, up to the mark.
    pub fn available(&self) -> u64 {
        let usable = self.account.granted.saturating_sub(self.account.returned).min(self.mark);
        usable.saturating_sub(self.account.spent).saturating_sub(self.reserved)
    }

    /// What was given and is neither spent, nor reserved, nor given back.
    pub fn idle(&self) -> u64 {
        self.account.outstanding().saturating_sub(self.reserved)
    }

    /// Reserves the most that a request can cost. False: there is not so much.
    pub fn reserve(&mut self, amount: u64, now: Timestamp) -> bool {
        self.latest = amount;
        if amount > self.available() {
            return false;
        }
        self.force(amount, now);
        true
    }

    /// Reserves what is not there: for budgets that do not refuse.
    pub fn force(&mut self, amount: u64, now: Timestamp) {
        self.reserved = self.reserved.saturating_add(amount);
        self.reserved_lately.add(amount, now);
    }

    /// Part of a request's cost is known. `held` is what of its reservation pays for it.
    pub fn spend(&mut self, held: u64, cost: u64, now: Timestamp) {
        self.reserved = self.reserved.saturating_sub(held);
        self.account.spent = self.account.spent.saturating_add(cost);
        self.spent_lately.add(cost, now);
    }

    /// A request is over, and so much of its reservation is left.
    pub fn release(&mut self, held: u64) {
        self.reserved = self.reserved.saturating_sub(held);
    }

    /// Another request waits for `amount`.
    pub fn begin_wait(&mut self, amount: u64) {
        *self.waiters.entry(amount).or_default() += 1;
        self.waiting = self.waiting.saturating_add(amount);
    }

    /// It waits no more.
    pub fn end_wait(&mut self, amount: u64) {
        let Some(count) = self.waiters.get_mut(&amount) else { return };
        *count -= 1;
        if *count == 0 {
            self.waiters.remove(&amount);
        }
        self.waiting = self.waiting.saturating_sub(amount);
    }

    /// What the smallest request that waits needs; 0: none waits.
    fn least(&self) -> u64 {
        self.waiters.keys().next().copied().unwrap_or(0)
    }

    /// The period is over: who waits, waits for the money of the `next`, and goes on at the
    /// same pace.
    pub fn hand_over(&mut self, next: &mut Self) {
        next.waiting = core::mem::take(&mut self.waiting);
        next.waiters = core::mem::take(&mut self.waiters);
        next.latest = self.latest;
        next.spent_lately = self.spent_lately;
        next.reserved_lately = self.reserved_lately;
    }

    /// The ledger gave so much since the period began.
    pub fn granted(&mut self, granted: u64) {
        self.account.granted = self.account.granted.max(granted);
    }

    /// What to hold for requests to come: a minute at the pace of spending, and as much
    /// again as was reserved in the last second.
    fn target(&self, now: Timestamp) -> u64 {
        let spent = self.spent_lately.over(AHEAD, now);
        spent.saturating_add(self.reserved_lately.over(Duration::from_secs(1), now))
    }

    /// What to ask the ledger for. None: there is enough. It is asked for when half of
    /// what should be held is gone, so not with every request.
    pub fn ask(&self, now: Timestamp) -> Option<Ask> {
        let (idle, target) = (self.idle(), self.target(now));
        // Spent beyond the lease: the next one pays for that first.
        let short = self.waiting > idle;
        if !short && idle >= target / 2 {
            return None;
        }
        let waiting = self.waiting.saturating_sub(idle);
        let ahead = target.saturating_sub(idle.saturating_sub(self.waiting));
        // One of those that wait may fit into what is idle and others not.
        let least = if waiting == 0 { 0 } else { self.least().saturating_sub(idle).max(1) };
        Some(Ask { waiting, least, ahead })
    }

    /// Gives back what is idle beyond the need of the next moments: all but one request's
    /// worth when money is `scarce`, else what is more than twice the target. Scarce
    /// money that is too little for any request that waits goes back whole: in as many
    /// small parts as there are agents it would help nobody. The answer is how much; the
    /// ledger learns it from [`Self::account`].
    pub fn give_back(&mut self, scarce: bool, now: Timestamp) -> u64 {
        let lately = self.reserved_lately.over(Duration::from_secs(1), now);
        let keep = match scarce {
            true if self.waiting > 0 => {
                if self.least() > self.idle() {
                    0
                } else {
                    self.waiting
                }
            }
            true => lately.min(self.latest),
            false => (self.target(now).saturating_mul(2)).max(self.waiting),
        };
        let surplus = self.idle().saturating_sub(keep);
        self.account.returned += surplus;
        surplus
    }

    /// No request is under way and none will come: all that is left is given back.
    pub fn close(&mut self) {
        self.account.returned += self.idle();
    }

    /// The mark that should be written down next: what is in use, and what the next moments
    /// take. None: the one that is written is good for a while.
    ///
    /// After a crash nobody knows what was spent since the last word on it. With a mark
    /// on disk it is known that it was not more than that, and the rest of the lease is
    /// not lost.
    pub fn next_mark(&self, now: Timestamp) -> Option<u64> {
        if self.mark == u64::MAX {
            return None;
        }
        let used = self.account.spent.saturating_add(self.reserved);
        let step = self.reserved_lately.over(MARK_STEP, now).max(self.latest);
        let step = step.saturating_add(self.waiting);
        let held = self.account.granted.saturating_sub(self.account.returned);
        let low = self.mark < held && self.mark.saturating_sub(used) < step;
        low.then(|| used.saturating_add(step.saturating_mul(2)))
    }

    /// The mark is on disk.
    pub fn mark(&mut self, mark: u64) {
        self.mark = self.mark.max(mark);
    }

    /// The mark that holds: no more than this was spent or is reserved, whatever happens,
    /// apart from what requests cost beyond their reservation.
    pub const fn marked(&self) -> u64 {
        self.mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_nanos(1_000_000_000);

    #[test]
    fn a_request_reserves_the_most_it_can_cost_and_spends_what_it_does() {
        let mut wallet = Wallet::unmarked();
        wallet.granted(100);
        assert!(wallet.reserve(80, T0));
        assert!(!wallet.reserve(21, T0));
        wallet.spend(10, 10, T0);
        wallet.release(70);
        assert_eq!((wallet.available(), wallet.account().spent, wallet.reserved()), (90, 10, 0));
    }

    #[test]
    fn who_waits_is_asked_for_and_the_smallest_is_named() {
        let mut wallet = Wallet::unmarked();
        assert_eq!(wallet.ask(T0), None);
        wallet.begin_wait(30);
        wallet.begin_wait(20);
        assert_eq!(wallet.ask(T0), Some(Ask { waiting: 50, least: 20, ahead: 0 }));
        wallet.granted(25);
        assert_eq!(wallet.ask(T0), Some(Ask { waiting: 25, least: 1, ahead: 0 }));
        wallet.end_wait(30);
        assert_eq!(wallet.ask(T0), None);
    }

    #[test]
    fn idle_money_goes_back_when_the_pace_falls() {
        let mut wallet = Wallet::unmarked();
        wallet.granted(1_000_000);
        for second in 0..100 {
            let now = T0 + Duration::from_secs(second);
            assert!(wallet.reserve(100, now));
            wallet.spend(100, 100, now);
        }
        let now = T0 + Duration::from_secs(100);
        wallet.give_back(false, now);
        // A minute at 100 a second, twice; the estimate is some percent off.
        assert!((10_000..14_000).contains(&wallet.idle()), "{}", wallet.idle());
        assert_eq!(wallet.ask(now), None);
        wallet.give_back(true, now);
        assert!((90..=100).contains(&wallet.idle()), "{}", wallet.idle());
        wallet.give_back(false, now + Duration::from_secs(600));
        assert_eq!(wallet.idle(), 0);
        assert_eq!(wallet.account().committed(), wallet.account().spent);
    }

    #[test]
    fn nothing_is_used_beyond_the_mark() {
        let mut wallet = Wallet::default();
        wallet.granted(1_000);
        assert!(!wallet.reserve(10, T0));
        let mark = wallet.next_mark(T0).unwrap();
        assert_eq!(mark, 20);
        wallet.mark(mark);
        assert!(wallet.reserve(10, T0) && wallet.reserve(10, T0) && !wallet.reserve(1, T0));
        wallet.close();
        assert_eq!(wallet.account().returned, 980);
    }
}
