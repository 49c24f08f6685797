//! Budgets: how much a key, a virtual model or everybody may spend in an hour, a day or
//! a month, held by agents that decide alone.
//!
//! ```text
//! limit --- Ledger --- lease ---> Wallet --- reservation ---> request
//!              ^                    |                            |
//!              +---- spent, returned (sums, never deltas) <--- cost
//! ```
//!
//! The ledger gives money away before it is spent, so agents never ask while a request
//! waits, and counts what it gave as spent until it hears better. All counters of an
//! account only grow, and the larger one wins: a message that is lost, repeated or
//! overtaken changes nothing. Why: `docs/adr/0011-budget-leases.md`.

pub mod lease;
pub mod ledger;
pub mod pacing;
pub mod period;
pub mod wallet;
pub mod worst;

use alloc::boxed::Box;

use self::period::Period;
use crate::money::NanoUsd;

/// A limit on spending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Unique.
    pub name: Box<str>,
    /// Whose spending counts.
    pub scope: Scope,
    /// Most that is spent in one period.
    pub limit: NanoUsd,
    /// How long a period is.
    pub period: Period,
    /// What happens at the limit.
    pub action: Action,
}

/// Whose spending counts. Both absent: everybody's. Both given: that key's on that model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Name of an app key.
    pub api_key: Option<Box<str>>,
    /// Name of a virtual model. Pins of a deployment are on none.
    pub virtual_model: Option<Box<str>>,
}

impl Scope {
    /// Whether a request of the key `api_key` for `virtual_model` counts.
    pub fn covers(&self, api_key: Option<&str>, virtual_model: Option<&str>) -> bool {
        let fits = |wanted: &Option<Box<str>>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        fits(&self.api_key, api_key) && fits(&self.virtual_model, virtual_model)
    }
}

/// What happens to a request that the budget has no money for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// It is refused.
    #[default]
    Reject,
    /// It is served by the cheapest deployment that is capable of it.
    Downgrade,
    /// It is served as any other; the operator is told.
    Alert,
}

impl Action {
    /// As shown in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Downgrade => "downgrade",
            Self::Alert => "alert",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_what_it_names_and_an_empty_one_everything() {
        let scope = |key: Option<&str>, model: Option<&str>| Scope {
            api_key: key.map(Into::into),
            virtual_model: model.map(Into::into),
        };
        for (scope, given, expected) in [
            (scope(None, None), (None, None), true),
            (scope(None, None), (Some("a"), Some("m")), true),
            (scope(Some("a"), None), (Some("a"), None), true),
            (scope(Some("a"), None), (None, None), false),
            (scope(Some("a"), Some("m")), (Some("a"), Some("m")), true),
            (scope(Some("a"), Some("m")), (Some("a"), Some("n")), false),
            (scope(None, Some("m")), (Some("a"), None), false),
        ] {
            assert_eq!(scope.covers(given.0, given.1), expected, "{scope:?} {given:?}");
        }
    }
}
