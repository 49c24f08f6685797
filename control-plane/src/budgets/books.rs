//! All ledgers, and who asks for what. No I/O: the keeper makes durable what changes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use trunkline_proto::{
    agent::v1::{BudgetClaim, BudgetGrant, BudgetLease, BudgetSpan},
    convert,
};
use trunkline_routing::{
    budget::{
        Budget,
        lease::{self, Ask},
        ledger::{Account, Ledger},
        period::Span,
    },
    table::RoutingTable,
};

use super::{Demand, Now, stored::Row};

/// An agent of which nothing was heard for so long is lost: what it holds comes back
/// to nobody for now. It says something every 2 s while it holds anything.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(30);

/// An account of which nothing was heard for so long is over. Its agent stops using it
/// an hour before, on its own clock.
const RELEASE_AFTER_MS: u64 = 25 * 3_600 * 1_000;

/// Agents that asked within this time share what there is.
const CONTENDS_FOR: Duration = Duration::from_secs(10);

/// Between calls for idle money of one budget.
const RECALL_EVERY: Duration = Duration::from_millis(100);

/// A period is kept for so long after its end, for agents that come back late.
const KEPT_SECS: u64 = 24 * 3_600;

/// Accounts in one ledger: every agent there can be, and as many restarts. Beyond, new
/// ones get nothing until the next period.
const ACCOUNTS_MAX: usize = 20_000;

/// Accounts over all ledgers, at about 300 bytes each.
const ALL_ACCOUNTS_MAX: usize = 200_000;

/// Longest agent id or account name that is taken.
const NAME_BYTES_MAX: usize = 256;

/// One start of one agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) agent_id: Arc<str>,
    pub(super) account: Arc<str>,
}

/// What is known of one budget.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) periods: BTreeMap<Span, Ledger<Key>>,
    /// Who asked for money, and when.
    asked: HashMap<Key, Instant>,
    recalled: Option<Instant>,
    /// The hundredths of the limit that were last told to be spent, and of which period.
    told: Option<(Span, u64)>,
}

/// When an account was last heard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    pub(super) unix_ms: u64,
    /// None: not since the start.
    instant: Option<Instant>,
    /// It said that it is over.
    finished: bool,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) by_name: HashMap<Box<str>, Book>,
    pub(super) heard: HashMap<Key, Heard>,
    lines: HashMap<Key, mpsc::Sender<BudgetGrant>>,
    accounts: usize,
    started: Instant,
}

/// An account in one period of a budget.
type Place = (Box<str>, Span, Key);

/// What a batch of demands changed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) dirty: HashSet<(Box<str>, Span, Key)>,
    granted: Vec<(Box<str>, Span, Key, u64)>,
    /// What to answer, by line.
    replies: Vec<(mpsc::Sender<BudgetGrant>, Vec<Place>)>,
    /// Budgets that had less than somebody needs.
    short: HashSet<Box<str>>,
}

impl Books {
    pub(super) fn new() -> Self {
        Self {
            by_name: HashMap::new(),
            heard: HashMap::new(),
            lines: HashMap::new(),
            accounts: 0,
            started: Instant::now(),
        }
    }

    /// Takes in what was stored. What is known already stays where it is more.
    pub(super) fn load(&mut self, row: Row) {
        let Row { budget, span, key, account, heard_unix_ms } = row;
        let ledger = self.by_name.entry(budget).or_default().periods.entry(span).or_default();
        self.accounts += usize::from(ledger.account(&key).is_none());
        ledger.tell(key.clone(), &account);
        let heard = self.heard.entry(key).or_insert(Heard { unix_ms: heard_unix_ms, ..Heard::default() });
        heard.unix_ms = heard.unix_ms.max(heard_unix_ms);
    }

    /// Takes in a demand and decides on it. Nothing may be sent before it is durable.
    pub(super) fn take(&mut self, table: &RoutingTable, demand: Demand, now: Now, batch: &mut Batch) {
        let Demand { agent_id, claims, answers } = demand;
        let mut told = Vec::with_capacity(claims.len());
        for claim in claims {
            let name = claim.account.as_str();
            let plain = name.bytes().all(|byte| byte.is_ascii_graphic());
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !plain {
                continue;
            }
            let at = table.budgets.binary_search_by(|budget| (*budget.name).cmp(&*claim.budget));
            let Some(budget) = at.ok().map(|at| &table.budgets[at]) else { continue };
            let key = Key { agent_id: Arc::clone(&agent_id), account: name.into() };
            if claim.at_most_nano_usd.is_none() {
                self.lines.insert(key.clone(), answers.clone());
            }
            if let Some(span) = self.settle(budget, &key, &claim, now, batch) {
                told.push((budget.name.clone(), span, key));
            }
        }
        if !told.is_empty() {
            batch.replies.push((answers, told));
        }
    }

    /// One claim. None: it is about a period that nobody knows any more.
    fn settle(
        &mut self,
        budget: &Budget,
        key: &Key,
        claim: &BudgetClaim,
        now: Now,
        batch: &mut Batch,
    ) -> Option<Span> {
        let current = Span::at(budget.period, now.unix_secs());
        let span = match &claim.span {
            None => current,
            Some(wire) => span_of(wire)?,
        };
        let full = self.accounts >= ALL_ACCOUNTS_MAX;
        let book = self.by_name.entry(budget.name.clone()).or_default();
        if span != current && !book.periods.contains_key(&span) {
            return None;
        }
        let ledger = book.periods.entry(span).or_default();
        if ledger.account(key).is_none() {
            if full || ledger.len() >= ACCOUNTS_MAX {
                tracing::warn!(budget = %budget.name, "too many accounts; new agents get no money until the next period");
                return None;
            }
            self.accounts += 1;
        }
        let finished = claim.at_most_nano_usd.is_some();
        let heard = Heard { unix_ms: now.unix_ms, instant: Some(now.instant), finished };
        self.heard.insert(key.clone(), heard);
        let mut changed = ledger.tell(key.clone(), &account(claim));
        if let Some(at_most) = claim.at_most_nano_usd {
            changed |= ledger.finish(key.clone(), at_most);
        } else if span == current {
            let ask = Ask {
                waiting: claim.waiting_nano_usd,
                least: claim.least_nano_usd,
                ahead: claim.ahead_nano_usd,
            };
            if ask.waiting > 0 || ask.ahead > 0 {
                book.asked.insert(key.clone(), now.instant);
                book.asked.retain(|_, at| now.instant.saturating_duration_since(*at) < CONTENDS_FOR);
                let size = lease::size(&ask, ledger.remaining(budget.limit), book.asked.len() as u64);
                let given = ledger.grant(key.clone(), size, budget.limit);
                if given > 0 {
                    batch.granted.push((budget.name.clone(), span, key.clone(), given));
                    changed = true;
                }
                if given < ask.least {
                    batch.short.insert(budget.name.clone());
                }
            }
        }
        if changed {
            batch.dirty.insert((budget.name.clone(), span, key.clone()));
        }
        Some(span)
    }

    /// The batch is durable: agents are told.
    pub(super) fn answer(&mut self, table: &RoutingTable, batch: &Batch, now: Now) {
        let mut leases = Leases { books: self, table, batch, now, known: HashMap::new() };
        let mut grants: Vec<_> = Vec::with_capacity(batch.replies.len());
        for (line, told) in &batch.replies {
            let leases = told.iter().filter_map(|(name, span, key)| leases.lease(name, *span, key));
            grants.push((line.clone(), BudgetGrant { leases: leases.collect() }));
        }
        grants.extend(leases.recalls());
        for name in &batch.short {
            if let Some(book) = self.by_name.get_mut(name) {
                let due =
                    book.recalled.is_none_or(|at| now.instant.saturating_duration_since(at) >= RECALL_EVERY);
                book.recalled = if due { Some(now.instant) } else { book.recalled };
            }
        }
        for (line, grant) in grants {
            // Who has no room asks again; who is gone needs none.
            drop(line.try_send(grant));
        }
        self.tell_operators(table, batch, now);
    }

    /// The batch did not become durable: nobody gets what was granted in it.
    pub(super) fn undo(&mut self, batch: Batch) {
        for (name, span, key, amount) in batch.granted {
            let ledger = self.by_name.get_mut(&name).and_then(|book| book.periods.get_mut(&span));
            if let Some(ledger) = ledger {
                ledger.revoke(key, amount);
            }
        }
    }

    /// Says once per period when a budget is four fifths spent, and when it is spent.
    fn tell_operators(&mut self, table: &RoutingTable, batch: &Batch, now: Now) {
        let names: HashSet<&str> = batch.dirty.iter().map(|(name, ..)| &**name).collect();
        for budget in table.budgets.iter().filter(|budget| names.contains(&*budget.name)) {
            let span = Span::at(budget.period, now.unix_secs());
            let Some(book) = self.by_name.get_mut(&budget.name) else { continue };
            let Some(ledger) = book.periods.get(&span) else { continue };
            let spent = u128::from(ledger.spent()) * 100 / u128::from(budget.limit.0.max(1));
            let step = [100, 80].into_iter().find(|step| spent >= u128::from(*step));
            let Some(step) = step else { continue };
            let told = book.told.filter(|(of, _)| *of == span).map_or(0, |(_, step)| step);
            if step > told {
                book.told = Some((span, step));
                let action = budget.action.name();
                tracing::warn!(budget = %budget.name, action, "{step} % of the budget is spent in this period");
            }
        }
    }

    /// Ends what is over: accounts of which nothing was heard for too long, periods that
    /// ended, lines that are closed. Gives the rows that changed and those that are gone.
    pub(super) fn expire(&mut self, now: Now) -> (Batch, Vec<(Box<str>, Span, Key)>) {
        let (mut batch, mut gone) = (Batch::default(), Vec::new());
        for (name, book) in &mut self.by_name {
            for (span, ledger) in &mut book.periods {
                if span.end() + KEPT_SECS < now.unix_secs() {
                    gone.extend(ledger.accounts().map(|(key, _)| (name.clone(), *span, key.clone())));
                    continue;
                }
                let silent = |key: &Key| {
                    let heard = self.heard.get(key).map_or(0, |heard| heard.unix_ms);
                    heard.saturating_add(RELEASE_AFTER_MS) < now.unix_ms
                };
                let over = ledger.accounts().filter(|(key, one)| one.outstanding() > 0 && silent(key));
                for key in over.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                    let freed = ledger.release(key.clone());
                    tracing::warn!(budget = %name, agent_id = %key.agent_id, freed, "nothing was heard of this agent for 25 hours; what it held of the budget is free again");
                    batch.dirty.insert((name.clone(), *span, key));
                }
            }
            book.periods.retain(|span, _| span.end() + KEPT_SECS >= now.unix_secs());
        }
        self.by_name.retain(|_, book| !book.periods.is_empty());
        self.accounts -= gone.len().min(self.accounts);
        self.lines.retain(|_, line| !line.is_closed());
        if !gone.is_empty() {
            let books = self.by_name.values().flat_map(|book| book.periods.values());
            let known: HashSet<&Key> =
                books.flat_map(|ledger| ledger.accounts().map(|(key, _)| key)).collect();
            self.heard.retain(|key, _| known.contains(key));
        }
        (batch, gone)
    }

    /// The row to store.
    pub(super) fn row(&self, name: &str, span: Span, key: &Key) -> Option<Row> {
        let account = self.by_name.get(name)?.periods.get(&span)?.account(key)?;
        let heard_unix_ms = self.heard.get(key).map_or(0, |heard| heard.unix_ms);
        Some(Row { budget: name.into(), span, key: key.clone(), account: *account, heard_unix_ms })
    }

    /// All rows: what is in memory may be more than what a view that was opened again has.
    pub(super) fn all(&self) -> HashSet<(Box<str>, Span, Key)> {
        let periods =
            self.by_name.iter().flat_map(|(name, book)| book.periods.iter().map(move |one| (name, one)));
        periods
            .flat_map(|(name, (span, ledger))| {
                ledger.accounts().map(move |(key, _)| (name.clone(), *span, key.clone()))
            })
            .collect()
    }

    /// Whether something was heard of an account lately, and may be again: what one held
    /// that is over comes back to nobody. After a start all count as heard
    /// for a while: agents need time to come back.
    pub(super) fn is_heard(&self, key: &Key, now: Instant) -> bool {
        let heard = self.heard.get(key).copied().unwrap_or_default();
        let last = heard.instant.unwrap_or(self.started);
        !heard.finished && now.saturating_duration_since(last) < LOST_AFTER
    }
}

/// Makes leases of what the books say; looks over all accounts of a ledger once.
struct Leases<'a> {
    books: &'a Books,
    table: &'a RoutingTable,
    batch: &'a Batch,
    now: Now,
    /// By budget and period: what is obtainable, and whether it is scarce.
    known: HashMap<(Box<str>, Span), (u64, bool)>,
}

impl Leases<'_> {
    fn lease(&mut self, name: &str, span: Span, key: &Key) -> Option<BudgetLease> {
        let ledger = self.books.by_name.get(name)?.periods.get(&span)?;
        let account = ledger.account(key)?;
        let at = self.table.budgets.binary_search_by(|budget| (*budget.name).cmp(name)).ok()?;
        let limit = self.table.budgets[at].limit;
        let (books, short, now) = (self.books, self.batch.short.contains(name), self.now);
        let (obtainable, scarce) = *self.known.entry((name.into(), span)).or_insert_with(|| {
            let obtainable = ledger.obtainable(limit, |key| books.is_heard(key, now.instant));
            (obtainable, short || lease::is_scarce(ledger.remaining(limit), limit.0))
        });
        let remaining = (span.end() * 1_000).saturating_sub(now.unix_ms);
        Some(BudgetLease {
            budget: name.to_owned(),
            account: key.account.to_string(),
            span: Some(wire_span(span)),
            remaining: prost_types::Duration::try_from(Duration::from_millis(remaining)).ok(),
            granted_nano_usd: account.granted,
            obtainable_nano_usd: obtainable,
            scarce,
        })
    }

    /// Word to all who hold money of a budget that somebody needs more of.
    fn recalls(&mut self) -> Vec<(mpsc::Sender<BudgetGrant>, BudgetGrant)> {
        let (books, batch, now) = (self.books, self.batch, self.now);
        let mut recalls = Vec::new();
        for name in &batch.short {
            let Some(book) = books.by_name.get(name) else { continue };
            if book.recalled.is_some_and(|at| now.instant.saturating_duration_since(at) < RECALL_EVERY) {
                continue;
            }
            let Some((span, ledger)) =
                book.periods.iter().find(|(span, _)| (span.start..span.end()).contains(&now.unix_secs()))
            else {
                continue;
            };
            let holders = ledger.accounts().filter(|(_, account)| account.outstanding() > 0);
            for (key, _) in holders {
                let Some(line) = books.lines.get(key) else { continue };
                if let Some(lease) = self.lease(name, *span, key) {
                    recalls.push((line.clone(), BudgetGrant { leases: vec![lease] }));
                }
            }
        }
        recalls
    }
}

fn account(claim: &BudgetClaim) -> Account {
    Account {
        granted: claim.granted_nano_usd,
        spent: claim.spent_nano_usd,
        returned: claim.returned_nano_usd,
    }
}

fn span_of(wire: &BudgetSpan) -> Option<Span> {
    let start = u64::try_from(wire.start_time?.seconds).ok()?;
    Some(Span { period: convert::period_of(wire.period)?, start })
}

pub(super) fn wire_span(span: Span) -> BudgetSpan {
    BudgetSpan { period: convert::wire_period(span.period).into(), start_time: Some(wire_secs(span.start)) }
}

pub(super) fn wire_secs(secs: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: i64::try_from(secs).unwrap_or(i64::MAX), nanos: 0 }
}
