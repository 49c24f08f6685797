//! Budgets.

use std::time::SystemTime;

use trunkline_routing::{
    budget::{Action, Budget, Scope, period::Period},
    money::NanoUsd,
};

use super::{
    field,
    table::{Known, Names},
};
use crate::{
    problems::{Path, Problems},
    types::v1,
};

/// For people whose request a budget that rejects has no money for.
pub fn budget_spent(budget: &str, resets: SystemTime) -> String {
    let resets = prost_types::Timestamp { nanos: 0, ..resets.into() };
    format!("budget '{budget}' has less left than this request can cost; it starts anew at {resets}")
}

/// All budgets, in document order.
pub(super) fn budgets(wire: &[v1::Budget], known: &Known<'_>, problems: &mut Problems) -> Vec<Budget> {
    let mut names = Names::default();
    let mut budgets = Vec::with_capacity(wire.len());
    for (position, one) in wire.iter().enumerate() {
        let path = Path::Root.item("budgets", position);
        names.insert(&one.name, "budgets", position, &path, problems);
        budgets.push(budget(one, known, &path, problems));
    }
    budgets
}

fn budget(wire: &v1::Budget, known: &Known<'_>, path: &Path<'_>, problems: &mut Problems) -> Budget {
    field::check_name(&wire.name, "", &path.field("name"), problems);
    let limit_path = path.field("limit_usd");
    let limit = field::usd(&wire.limit_usd, &limit_path, problems);
    if wire.limit_usd.is_empty() {
        problems.push(limit_path, "is required, in US dollars, as in 50");
    } else if limit == Some(0) {
        problems
            .push(limit_path, "must be more than 0; to let nobody in, take the virtual model from the key");
    }
    let period = period(wire.period, &path.field("period"), problems);
    Budget {
        name: wire.name.as_str().into(),
        scope: scope(wire.scope.as_ref(), known, &path.field("scope"), problems),
        limit: NanoUsd(limit.unwrap_or_default()),
        period: period.unwrap_or_default(),
        action: action(wire.action, &path.field("action"), problems),
    }
}

fn scope(
    wire: Option<&v1::BudgetScope>,
    known: &Known<'_>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Scope {
    let Some(wire) = wire else { return Scope::default() };
    let (api_key, virtual_model) = (wire.api_key.as_str(), wire.virtual_model.as_str());
    if !api_key.is_empty() && !known.api_keys.contains(api_key) {
        problems.push(path.field("api_key"), format!("no API key is called {}", field::quoted(api_key)));
    }
    if !virtual_model.is_empty() && !known.virtual_models.contains(virtual_model) {
        let message = format!("no virtual model is called {}", field::quoted(virtual_model));
        problems.push(path.field("virtual_model"), message);
    }
    let given = |name: &str| (!name.is_empty()).then(|| name.into());
    Scope { api_key: given(api_key), virtual_model: given(virtual_model) }
}

/// How long a period is. None: it is not said, or not known.
pub(super) fn period(number: i32, path: &Path<'_>, problems: &mut Problems) -> Option<Period> {
    use v1::BudgetPeriod::{Day, Hour, Month, Unspecified};
    match v1::BudgetPeriod::try_from(number) {
        Ok(Hour) => Some(Period::Hour),
        Ok(Day) => Some(Period::Day),
        Ok(Month) => Some(Period::Month),
        Ok(Unspecified) => {
            problems.push(path, "is required: HOUR, DAY or MONTH");
            None
        }
        Err(_) => {
            field::unknown_enum(number, path, problems);
            None
        }
    }
}

/// What happens when it is spent.
pub(super) fn action(number: i32, path: &Path<'_>, problems: &mut Problems) -> Action {
    use v1::BudgetAction::{Alert, Downgrade, Reject, Unspecified};
    match v1::BudgetAction::try_from(number) {
        Ok(Unspecified | Reject) => Action::Reject,
        Ok(Downgrade) => Action::Downgrade,
        Ok(Alert) => Action::Alert,
        Err(_) => {
            field::unknown_enum(number, path, problems);
            Action::Reject
        }
    }
}

/// The wire's name of a period.
pub const fn wire_period(period: Period) -> v1::BudgetPeriod {
    match period {
        Period::Hour => v1::BudgetPeriod::Hour,
        Period::Day => v1::BudgetPeriod::Day,
        Period::Month => v1::BudgetPeriod::Month,
    }
}

/// The period of that number on the wire. None: there is none.
pub fn period_of(number: i32) -> Option<Period> {
    period(number, &Path::Root, &mut Problems::default())
}
