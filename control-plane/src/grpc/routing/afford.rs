//! What budgets say of a request that an app would send itself. Nothing is reserved: what
//! it costs counts when an agent hears of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tonic::Status;
use trunkline_proto::{convert::budget_spent, status};
use trunkline_routing::{
    budget::{Action, Budget, period::Span, worst},
    decide::Route,
    eligibility::Profile,
    money::NanoUsd,
    table::RoutingTable,
};

use crate::budgets::Budgets;

/// `profile` as budgets allow it to `tenant`.
///
/// # Errors
/// RESOURCE_EXHAUSTED if a budget that rejects has no money for the request.
pub(super) fn afford(
    budgets: &Budgets,
    table: &RoutingTable,
    route: Route<'_>,
    tenant: Option<&str>,
    profile: &Profile,
) -> Result<Profile, Status> {
    let mut profile = *profile;
    let virtual_model = route.index.map(|_| &*route.model.name);
    let mut covering =
        table.budgets.iter().filter(|budget| budget.scope.covers(tenant, virtual_model)).peekable();
    if covering.peek().is_none() {
        return Ok(profile);
    }
    let worst = worst::worst(table, route.model, &profile);
    let (now, dearest) = (SystemTime::now(), worst.dearest.unwrap_or_default().0);
    for budget in covering {
        let is_spent = || dearest > budgets.left(budget, now);
        match budget.action {
            Action::Reject if worst.dearest.is_none() && worst.unpriced => {
                let message = format!(
                    "budget '{}' rejects what could cost anything, and no deployment that can serve this request has a known price; configure one",
                    budget.name
                );
                return Err(status::resource_exhausted("BUDGET_EXCEEDED", message, None));
            }
            Action::Reject if is_spent() => {
                let resets = ends(budget, now);
                let message = budget_spent(&budget.name, resets);
                let wait = resets.duration_since(now).ok();
                return Err(status::resource_exhausted("BUDGET_EXCEEDED", message, wait));
            }
            // Leaves out what has no price, for it could cost anything.
            Action::Reject => profile.max_cost = profile.max_cost.or(Some(NanoUsd(u64::MAX))),
            Action::Downgrade if is_spent() => profile.cheapest = true,
            Action::Downgrade | Action::Alert => {}
        }
    }
    Ok(profile)
}

/// When the period that holds `now` ends.
fn ends(budget: &Budget, now: SystemTime) -> SystemTime {
    let unix = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(Span::at(budget.period, unix.as_secs()).end())
}
