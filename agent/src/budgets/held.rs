//! One budget at this agent: the wallet of the period that runs, and those of periods
//! before it until they are told of.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use trunkline_routing::{
    budget::{
        Budget,
        lease::Ask,
        ledger::Account,
        pacing::{Pacer, Progress, Upgrade},
        period::{Period, Span},
        wallet::Wallet,
    },
    time::Timestamp,
};

/// Ended periods that are still told of. One in which requests began that are not over is
/// kept beyond that, so there are at most as many more as requests under way.
const PAST_MAX: usize = 2;

/// A lease ends so long after the ledger was last heard. The ledger waits an hour more.
const LEASE_FOR: Duration = Duration::from_secs(24 * 3_600);

/// A budget's money. Locked for a few hundred nanoseconds at a time.
#[derive(Debug)]
pub(crate) struct Held {
    pub(super) period: Period,
    state: Mutex<State>,
    /// Woken when there may be more money, or none any more.
    pub(super) changed: Notify,
}

#[derive(Debug)]
struct State {
    purse: Purse,
    past: VecDeque<Purse>,
    /// When the period ends. None: not known yet.
    ends: Option<Timestamp>,
    /// When the ledger was last heard.
    heard: Timestamp,
    /// The most that could be had for requests when the ledger was last heard, and what
    /// this agent had spent by then.
    obtainable: Option<u64>,
    spent_then: u64,
    /// Under DOWNGRADE: what is worth the better model.
    pacer: Pacer,
    /// The agent stops: nothing is asked for any more.
    closed: bool,
}

/// One period's wallet.
#[derive(Debug, Default)]
struct Purse {
    /// Counts periods of this process: a reservation names its own.
    number: u64,
    span: Option<Span>,
    wallet: Wallet,
    /// Reservations that are not over: what they cost is paid from here, whatever period
    /// has come.
    open: u32,
    /// Something is to be told.
    untold: bool,
}

/// Whether money is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// It is reserved, in this period.
    Reserved(u64),
    /// It may come.
    Wait,
    /// Not in this period.
    Never,
}

/// What is to be told of one account.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claim {
    pub(super) span: Option<Span>,
    pub(super) account: Account,
    pub(super) ask: Option<Ask>,
}

/// What the ledger said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) span: Span,
    pub(super) remaining: Duration,
    pub(super) granted: u64,
    pub(super) obtainable: u64,
    pub(super) scarce: bool,
}

/// What is written down of one period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Note {
    pub(super) span: Span,
    pub(super) account: Account,
    /// No more than this was spent, whatever happens after it was written.
    pub(super) mark: u64,
}

impl Held {
    pub(super) fn new(period: Period, now: Timestamp) -> Arc<Self> {
        let state = State {
            purse: Purse::default(),
            past: VecDeque::new(),
            ends: None,
            heard: now,
            obtainable: None,
            spent_then: 0,
            pacer: Pacer::default(),
            closed: false,
        };
        Arc::new(Self { period, state: Mutex::new(state), changed: Notify::new() })
    }

    /// Reserves `amount` if it is there.
    pub(super) fn offer(&self, amount: u64, now: Timestamp) -> Offer {
        let mut state = self.state.lock();
        state.roll(now);
        if state.purse.wallet.reserve(amount, now) {
            state.purse.open += 1;
            return Offer::Reserved(state.purse.number);
        }
        match state.obtainable {
            Some(obtainable) if amount > obtainable => Offer::Never,
            _ => Offer::Wait,
        }
    }

    /// Whether the ledger was heard in this period.
    pub(super) fn is_known(&self, now: Timestamp) -> bool {
        let mut state = self.state.lock();
        state.roll(now);
        state.obtainable.is_some()
    }

    /// Whether less than `amount` is left for all agents together, as far as is known.
    pub(super) fn is_spent(&self, amount: u64, now: Timestamp) -> bool {
        let mut state = self.state.lock();
        state.roll(now);
        state.left().is_some_and(|left| amount > left)
    }

    /// Whether a request gets the better model, at the pace that money goes. Until the
    /// ledger was heard it does.
    pub(super) fn buys(&self, budget: &Budget, upgrade: Upgrade, now: Timestamp) -> bool {
        let mut state = self.state.lock();
        state.roll(now);
        let known = state.left().zip(state.purse.span).zip(state.ends);
        let Some(((left, span), ends)) = known else { return true };
        state.pacer.buys(upgrade, Progress::of(budget, span, left, ends.since(now)))
    }

    /// Reserves `amount` whether it is there or not.
    pub(super) fn force(&self, amount: u64, now: Timestamp) -> u64 {
        let mut state = self.state.lock();
        state.roll(now);
        state.purse.wallet.force(amount, now);
        state.purse.open += 1;
        state.purse.number
    }

    /// A request waits for `amount`. Whether requests under way could free it is the
    /// answer.
    pub(super) fn begin_wait(&self, amount: u64) -> bool {
        let mut state = self.state.lock();
        let wallet = &mut state.purse.wallet;
        wallet.begin_wait(amount);
        amount <= wallet.idle().saturating_add(wallet.reserved())
    }

    pub(super) fn end_wait(&self, amount: u64) {
        self.state.lock().purse.wallet.end_wait(amount);
    }

    /// Part of a request's cost: `held` of it is from its reservation in period `number`.
    pub(super) fn spend(&self, number: u64, held: u64, cost: u64, now: Timestamp) {
        let mut state = self.state.lock();
        if let Some(purse) = state.purse_of(number) {
            purse.wallet.spend(held, cost, now);
            purse.untold = true;
        }
    }

    /// What a request cost that nothing was reserved for.
    pub(super) fn charge(&self, cost: u64, now: Timestamp) {
        let mut state = self.state.lock();
        state.roll(now);
        state.purse.wallet.spend(0, cost, now);
        state.purse.untold = true;
    }

    /// `held` of a reservation is not needed any more.
    pub(super) fn release(&self, number: u64, held: u64) {
        if let Some(purse) = self.state.lock().purse_of(number) {
            purse.wallet.release(held);
        }
        self.changed.notify_waiters();
    }

    /// A reservation is over: nothing more is paid from it.
    pub(super) fn close_one(&self, number: u64) {
        if let Some(purse) = self.state.lock().purse_of(number) {
            purse.open = purse.open.saturating_sub(1);
        }
    }

    /// There may be more by now: an operator raised the limit, or an agent gave back. It is
    /// asked for with the next demand.
    pub(super) fn ask_again(&self) {
        self.state.lock().purse.untold = true;
    }

    /// Whether the ledger should be asked, or the mark be raised, soon.
    pub(super) fn is_short(&self, now: Timestamp) -> bool {
        let state = self.state.lock();
        state.purse.wallet.ask(now).is_some() || state.purse.wallet.next_mark(now).is_some()
    }

    /// What the ledger should be told. `all`: also what it was told already.
    pub(super) fn claims(&self, all: bool, now: Timestamp) -> Vec<Claim> {
        let mut state = self.state.lock();
        state.roll(now);
        let mut claims = Vec::new();
        for purse in state.past.iter_mut().filter(|purse| purse.untold || all) {
            purse.untold = false;
            claims.push(Claim { span: purse.span, account: *purse.wallet.account(), ask: None });
        }
        let closed = state.closed;
        let purse = &mut state.purse;
        let ask = if closed { None } else { purse.wallet.ask(now) };
        let known = *purse.wallet.account() != Account::default();
        // While it holds anything the ledger hears of it, or would take it for lost.
        if purse.untold || ask.is_some() || purse.wallet.idle() > 0 || (all && known) {
            purse.untold = false;
            claims.push(Claim { span: purse.span, account: *purse.wallet.account(), ask });
        }
        claims
    }

    /// Takes in what the ledger said. True: something is to be told at once.
    pub(super) fn hear(&self, word: &Word, now: Timestamp) -> bool {
        let back = {
            let mut state = self.state.lock();
            state.roll(now);
            if state.purse.span.is_some_and(|span| span.start < word.span.start) {
                state.next_period();
            }
            match state.purse.span {
                Some(span) if span != word.span => 0,
                _ => {
                    state.purse.span = Some(word.span);
                    state.ends = Some(now + word.remaining);
                    state.heard = now;
                    state.obtainable = Some(word.obtainable);
                    state.spent_then = state.purse.wallet.account().spent;
                    let wallet = &mut state.purse.wallet;
                    wallet.granted(word.granted);
                    let back = wallet.give_back(word.scarce, now);
                    state.purse.untold |= back > 0;
                    // Only what others may wait for is worth a message of its own.
                    if word.scarce { back } else { 0 }
                }
            }
        };
        self.changed.notify_waiters();
        back > 0
    }

    /// What is to be written down before more money is used. None: nothing new, unless
    /// `all` is asked for.
    pub(super) fn note(&self, now: Timestamp) -> (Option<Note>, bool) {
        let state = self.state.lock();
        let Some(span) = state.purse.span else { return (None, false) };
        let wallet = &state.purse.wallet;
        let next = wallet.next_mark(now);
        let mark = next.unwrap_or_else(|| wallet.marked());
        (Some(Note { span, account: *wallet.account(), mark }), next.is_some())
    }

    /// The note is on disk.
    pub(super) fn noted(&self, note: &Note) {
        {
            let mut state = self.state.lock();
            if state.purse.span == Some(note.span) {
                state.purse.wallet.mark(note.mark);
            }
        }
        self.changed.notify_waiters();
    }

    /// No request is under way and none will come. What is to be told of it for good.
    pub(super) fn close(&self) -> Option<Note> {
        let mut state = self.state.lock();
        state.closed = true;
        state.purse.wallet.close();
        let (span, account) = (state.purse.span?, *state.purse.wallet.account());
        (account != Account::default()).then_some(Note { span, account, mark: account.spent })
    }

    /// How long the period lasts yet. `wall` tells where the ledger did not.
    pub(super) fn resets_in(&self, now: Timestamp, wall: SystemTime) -> Duration {
        if let Some(ends) = self.state.lock().ends {
            return ends.since(now);
        }
        let unix = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(Span::at(self.period, unix.as_secs()).end()).saturating_sub(unix)
    }
}

impl State {
    /// Ends what is over at `now`.
    fn roll(&mut self, now: Timestamp) {
        if self.ends.is_some_and(|ends| ends <= now) {
            self.next_period();
        }
        if now.since(self.heard) > LEASE_FOR {
            self.purse.wallet.close();
        }
    }

    /// What is left for requests of all agents, as far as is known.
    fn left(&self) -> Option<u64> {
        let since = self.purse.wallet.account().spent.saturating_sub(self.spent_then);
        Some(self.obtainable?.saturating_sub(since))
    }

    fn next_period(&mut self) {
        let number = self.purse.number + 1;
        let mut wallet = Wallet::default();
        self.purse.wallet.hand_over(&mut wallet);
        let next = Purse { number, span: None, wallet, ..Purse::default() };
        let mut past = std::mem::replace(&mut self.purse, next);
        past.untold = true;
        // One that no ledger ever named is of no period.
        if past.span.is_some() {
            self.past.push_back(past);
        }
        let mut surplus = self.past.len().saturating_sub(PAST_MAX);
        self.past.retain(|purse| {
            let goes = surplus > 0 && purse.open == 0;
            surplus -= usize::from(goes);
            !goes
        });
        self.ends = None;
        self.obtainable = None;
    }

    fn purse_of(&mut self, number: u64) -> Option<&mut Purse> {
        if self.purse.number == number {
            return Some(&mut self.purse);
        }
        self.past.iter_mut().find(|purse| purse.number == number)
    }
}

#[cfg(test)]
mod tests;
