//! What agent and ledger say to each other, from and to the wire.

use std::time::Duration;

use trunkline_proto::{
    agent::v1::{BudgetClaim, BudgetLease, BudgetSpan},
    convert,
};
use trunkline_routing::budget::period::Span;

use super::{
    Budgets,
    held::{Claim, Word},
};

impl Budgets {
    /// What the ledger should be told now. `all`: also what it was told already.
    pub(crate) fn claims(&self, all: bool) -> Vec<BudgetClaim> {
        let now = self.clock.now();
        let mut claims = Vec::new();
        for entry in self.entries() {
            let told = entry.held.claims(all, now);
            claims.extend(told.iter().map(|claim| wire_claim(&entry.budget.name, &self.account, claim)));
        }
        for former in &*self.former.lock() {
            let claim = Claim { span: Some(former.note.span), account: former.note.account, ask: None };
            let wire = wire_claim(&former.budget, &former.account, &claim);
            claims.push(BudgetClaim { at_most_nano_usd: Some(former.note.mark), ..wire });
        }
        claims
    }

    /// Takes in what the ledger gives.
    pub(crate) fn hear(&self, leases: &[BudgetLease]) {
        let now = self.clock.now();
        let in_use = self.in_use.load();
        let mut tell = false;
        for lease in leases {
            let Some(word) = word(lease) else { continue };
            if lease.account == self.account
                && let Some(entry) = in_use.by_name.get(lease.budget.as_str())
            {
                tell |= entry.held.hear(&word, now);
            }
            self.former.lock().retain(|one| {
                // It is heard: what was said of it is durable.
                (one.account.as_str(), &*one.budget, one.note.span)
                    != (lease.account.as_str(), lease.budget.as_str(), word.span)
            });
        }
        if tell {
            self.ask.notify_one();
        }
        self.write.notify_one();
    }
}

fn wire_claim(budget: &str, account: &str, claim: &Claim) -> BudgetClaim {
    let ask = claim.ask.unwrap_or_default();
    BudgetClaim {
        budget: budget.to_owned(),
        account: account.to_owned(),
        span: claim.span.map(wire_span),
        granted_nano_usd: claim.account.granted,
        spent_nano_usd: claim.account.spent,
        returned_nano_usd: claim.account.returned,
        at_most_nano_usd: None,
        waiting_nano_usd: ask.waiting,
        least_nano_usd: ask.least,
        ahead_nano_usd: ask.ahead,
    }
}

fn word(lease: &BudgetLease) -> Option<Word> {
    Some(Word {
        span: span_of(lease.span.as_ref()?)?,
        remaining: Duration::try_from(lease.remaining?).ok()?,
        granted: lease.granted_nano_usd,
        obtainable: lease.obtainable_nano_usd,
        scarce: lease.scarce,
    })
}

pub(super) fn wire_span(span: Span) -> BudgetSpan {
    let seconds = i64::try_from(span.start).unwrap_or(i64::MAX);
    BudgetSpan {
        period: convert::wire_period(span.period).into(),
        start_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
    }
}

pub(super) fn span_of(wire: &BudgetSpan) -> Option<Span> {
    let start = u64::try_from(wire.start_time?.seconds).ok()?;
    Some(Span { period: convert::period_of(wire.period)?, start })
}
