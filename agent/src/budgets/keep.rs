//! The task beside the requests: writes marks down ahead of use, and is the ledger of an
//! agent that runs alone.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use trunkline_proto::agent::v1::{BudgetClaim, BudgetLease};
use trunkline_routing::budget::{
    lease::{self, Ask},
    ledger::{Account, Ledger},
    period::Span,
};

use super::{
    Budgets,
    claims::{span_of, wire_span},
    disk::{self, Content, FORMER_MAX, Former},
    held::Note,
};

/// Between two writes at least: one serves all requests that wait.
const WRITE_SPACING: Duration = Duration::from_millis(5);

/// What was spent is written down so often, if nothing else makes a write.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// At the end: how long the ledger's confirmation is waited for. The file keeps what was
/// not confirmed.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

/// The ledgers of an agent that runs alone, by budget and period; accounts by start.
type Own = BTreeMap<(Box<str>, Span), Ledger<String>>;

/// Serves until `shutdown`, which comes when no request is under way any more. `alone`:
/// there is no control plane, and this is the ledger.
pub(crate) async fn run(budgets: Arc<Budgets>, alone: bool, shutdown: CancellationToken) {
    let mut keeper = Keeper { own: alone.then(Own::new), budgets, written: None, warned: false };
    keeper.open().await;
    let mut last = Instant::now();
    loop {
        tokio::select! {
            biased; // A stop first: what it writes is all there is.
            () = shutdown.cancelled() => break,
            () = keeper.due(last) => {}
        }
        last = Instant::now();
        keeper.serve(false).await;
    }
    keeper.close().await;
}

struct Keeper {
    budgets: Arc<Budgets>,
    /// Some: this agent runs alone.
    own: Option<Own>,
    /// What is on disk.
    written: Option<Content>,
    warned: bool,
}

impl Keeper {
    async fn due(&self, last: Instant) {
        sleep_until(last + WRITE_SPACING).await;
        if self.own.is_some() {
            tokio::select! {
                biased; // Whatever it is, both are looked at.
                () = self.budgets.write.notified() => {}
                () = self.budgets.due(last) => {}
            }
        } else {
            timeout(WRITE_EVERY, self.budgets.write.notified()).await.ok();
        }
    }

    /// Takes over what the start before left.
    async fn open(&mut self) {
        let Some(path) = self.budgets.file.clone() else { return };
        let read = tokio::task::spawn_blocking(move || (disk::read(&path), path)).await;
        let Ok((read, path)) = read else { return };
        let content = read.unwrap_or_else(|why| {
            tracing::warn!(path = %path.display(), why, "what was written down of budgets can't be read; their leases of before count as spent");
            Content::default()
        });
        match &mut self.own {
            None => self.budgets.former.lock().extend(content.accounts),
            Some(own) => {
                for Former { account, budget, note } in content.ledger {
                    own.entry((budget, note.span)).or_default().tell(account, &note.account);
                }
                for Former { account, budget, note } in content.accounts {
                    let ledger = own.entry((budget, note.span)).or_default();
                    ledger.tell(account.clone(), &note.account);
                    ledger.finish(account, note.mark);
                }
            }
        }
        if self.own.is_some() {
            self.budgets.set_ledger(true);
        }
    }

    /// Writes down what must be, then lets it be used.
    async fn serve(&mut self, last: bool) {
        let claims = if self.own.is_some() { self.budgets.claims(false) } else { Vec::new() };
        let spans = self.own.as_mut().map(|own| settle(own, &self.budgets, &claims));
        let now = self.budgets.clock.now();
        let mut raised = Vec::new();
        let mut content = Content::default();
        for entry in self.budgets.entries() {
            let (note, is_new) = entry.held.note(now);
            let Some(note) = note else { continue };
            // One that needs no marks has nothing to write.
            content.accounts.push(self.former(&entry.budget.name, note));
            if is_new {
                raised.push((entry.held, note));
            }
        }
        let former = self.budgets.former.lock().clone();
        content.accounts.extend(former.into_iter().rev().take(FORMER_MAX));
        for ((budget, span), ledger) in self.own.iter().flatten() {
            content.ledger.extend(ledger.accounts().map(|(account, one)| Former {
                account: account.clone(),
                budget: budget.clone(),
                note: Note { span: *span, account: *one, mark: one.granted },
            }));
        }
        if self.written.as_ref() != Some(&content) || last {
            self.write(content).await;
        }
        for (held, note) in raised {
            held.noted(&note);
        }
        if let Some((own, spans)) = self.own.as_ref().zip(spans) {
            let leases: Vec<_> =
                spans.iter().filter_map(|(name, span)| self.lease(own, name, *span)).collect();
            if !leases.is_empty() {
                self.budgets.hear(&leases);
            }
        }
    }

    fn former(&self, budget: &str, note: Note) -> Former {
        Former { account: self.budgets.account.clone(), budget: budget.into(), note }
    }

    /// Brings the disk up to date. One that refuses is told once; then money is used
    /// without a note, and after a crash all of the lease counts as spent.
    async fn write(&mut self, content: Content) {
        let Some(path) = self.budgets.file.clone() else { return };
        let nothing = content == Content::default() && self.written.is_none();
        if nothing {
            return;
        }
        let copy = content.clone();
        let written = tokio::task::spawn_blocking(move || {
            disk::write(&path, &copy).inspect_err(|_| {
                // Its marks would be too low from now on.
                std::fs::remove_file(&path).ok();
            })
        });
        let result = match written.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match result {
            Ok(()) => {
                if std::mem::replace(&mut self.warned, false) {
                    tracing::info!("budgets are written down again");
                }
                self.written = Some(content);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(
                        error,
                        "budgets are not written down; after a crash their leases count as spent"
                    );
                }
            }
        }
    }

    fn lease(&self, own: &Own, name: &str, span: Span) -> Option<BudgetLease> {
        let ledger = own.get(&(name.into(), span))?;
        let limit = self.budgets.in_use.load().by_name.get(name)?.budget.limit;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let remaining = Duration::from_secs(span.end()).saturating_sub(unix);
        let own_account = &self.budgets.account;
        Some(BudgetLease {
            budget: name.to_owned(),
            account: own_account.clone(),
            span: Some(wire_span(span)),
            remaining: prost_types::Duration::try_from(remaining).ok(),
            granted_nano_usd: ledger.account(own_account).map_or(0, |account| account.granted),
            obtainable_nano_usd: ledger.obtainable(limit, |account| account == own_account),
            scarce: lease::is_scarce(ledger.remaining(limit), limit.0),
        })
    }

    /// Nothing is under way any more: what is left goes back, here or with the next start.
    async fn close(&mut self) {
        let budgets = Arc::clone(&self.budgets);
        let closed: Vec<_> = budgets
            .entries()
            .into_iter()
            .filter_map(|entry| Some(self.former(&entry.budget.name, entry.held.close()?)))
            .collect();
        if let Some(own) = &mut self.own {
            for Former { account, budget, note } in closed {
                let ledger = own.entry((budget, note.span)).or_default();
                ledger.tell(account.clone(), &note.account);
                ledger.finish(account, note.mark);
            }
        } else {
            budgets.former.lock().extend(closed);
        }
        self.serve(true).await;
        if !budgets.has_ledger() || self.own.is_some() {
            return;
        }
        let confirmed = async {
            while !budgets.former.lock().is_empty() {
                budgets.ask.notify_one();
                timeout(WRITE_EVERY / 20, budgets.write.notified()).await.ok();
            }
        };
        if timeout(CONFIRM_WITHIN, confirmed).await.is_ok() {
            self.serve(true).await;
        }
    }
}

/// Takes claims into the agent's own ledgers and grants what is asked for. Gives the
/// budgets and periods to answer for.
fn settle(own: &mut Own, budgets: &Budgets, claims: &[BudgetClaim]) -> Vec<(Box<str>, Span)> {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let in_use = budgets.in_use.load();
    let mut told = Vec::new();
    for claim in claims {
        let Some(entry) = in_use.by_name.get(claim.budget.as_str()) else { continue };
        let budget = &entry.budget;
        let current = Span::at(budget.period, unix);
        let span = claim.span.as_ref().and_then(span_of).unwrap_or(current);
        let ledger = own.entry((budget.name.clone(), span)).or_default();
        let account = Account {
            granted: claim.granted_nano_usd,
            spent: claim.spent_nano_usd,
            returned: claim.returned_nano_usd,
        };
        ledger.tell(claim.account.clone(), &account);
        let ask =
            Ask { waiting: claim.waiting_nano_usd, least: claim.least_nano_usd, ahead: claim.ahead_nano_usd };
        if span == current {
            let size = lease::size(&ask, ledger.remaining(budget.limit), 1);
            ledger.grant(claim.account.clone(), size, budget.limit);
        }
        told.push((budget.name.clone(), span));
    }
    // One period before the one that runs, for requests that began in it.
    own.retain(|(_, span), _| span.end() + 3_600 > unix);
    told
}
