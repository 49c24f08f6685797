//! Gates, quarantines and forced states: what holds traffic back beside the breaker.

use core::time::Duration;

use super::{EPOCHS_PER_BREAKER, Forced, Registry, Ticket};
use crate::{
    classify::QuarantineScope,
    hint::RateHeaders,
    hold::{Gate, QuarantineReason},
    time::Timestamp,
};

impl Registry {
    /// The deployment asked for less.
    pub fn gate(&mut self, ticket: Ticket, now: Timestamp, gate: Gate) {
        if let Some(slot) = self.slot_under(ticket) {
            slot.hold.gate(now, gate);
        }
    }

    /// What the head of an answer said of the deployment's limits.
    pub fn rate_headers(&mut self, ticket: Ticket, now: Timestamp, headers: &RateHeaders) {
        if let Some(slot) = self.slot_under(ticket) {
            slot.caps.headers(ticket.started, now, headers);
        }
    }

    /// The deployment, or its whole account, is broken.
    pub fn quarantine(
        &mut self,
        ticket: Ticket,
        now: Timestamp,
        reason: QuarantineReason,
        scope: QuarantineScope,
        for_how_long: Duration,
    ) {
        let Some(slot) = self.slot_under(ticket) else { return };
        match scope {
            QuarantineScope::Deployment => slot.hold.quarantine(now, reason, for_how_long),
            QuarantineScope::Account | QuarantineScope::Credential => {
                let account = slot.account;
                if let Some(account) = account.and_then(|account| self.accounts.get_mut(account)) {
                    account.hold.quarantine(now, reason, for_how_long);
                }
            }
        }
    }

    /// Providers whose credential can't be resolved here; the others can.
    /// A credential that turned up again ends its account's quarantine. Holds for later
    /// tables too.
    pub fn set_missing_credentials(&mut self, providers: &[impl AsRef<str>]) {
        self.missing = providers.iter().map(|provider| provider.as_ref().into()).collect();
        for account in &mut self.accounts {
            let missing = self.missing.contains(&account.provider);
            if account.missing && !missing {
                account.hold.clear();
            }
            account.missing = missing;
        }
    }

    /// Another value turned up behind the provider's credential reference: what was in
    /// quarantine under the old one is tried again, and late words on that say nothing.
    /// Gates stay, since a new key does not raise the account's limits.
    pub fn credential_changed(&mut self, provider: &str) {
        let accounts = self.accounts.iter_mut().enumerate();
        for (index, account) in accounts.filter(|(_, account)| *account.provider == *provider) {
            account.hold.end_quarantine();
            for slot in self.slots.iter_mut().filter(|slot| slot.account == Some(index)) {
                slot.credentials = slot.credentials.wrapping_add(1);
                slot.hold.end_quarantine();
            }
        }
    }

    /// Takes all operator verdicts, also on deployments that only a later table names.
    /// What is not named is forced no more; a breaker that is given back so starts
    /// closed and knows nothing. One whose verdict ran out goes on where it was.
    pub fn set_forced<'a>(
        &mut self,
        verdicts: impl IntoIterator<Item = (&'a str, Forced, Option<Timestamp>)>,
        now: Timestamp,
    ) {
        self.verdicts =
            verdicts.into_iter().map(|(name, forced, until)| (name.into(), (forced, until))).collect();
        for slot in &mut self.slots {
            let next = self.verdicts.get(&slot.name).copied();
            if slot.forced(now).is_some() && next.is_none() {
                self.next_epoch += EPOCHS_PER_BREAKER;
                slot.breaker.reset(self.next_epoch, now);
            }
            slot.forced = next;
        }
    }
}
