//! `get budgets`: what was spent, and who holds what.

use trunkline_proto::{
    admin::v1::{
        BudgetAccount, BudgetStatus, GetBudgetRequest, GetBudgetResponse, ListBudgetsRequest,
        ListBudgetsResponse,
    },
    types::v1::Budget,
};

use crate::{
    cell::{short_name, time},
    client::ControlPlane,
    failure::Failure,
    table::{Align, render},
};

/// All pages in one.
pub(super) async fn all(control_plane: &ControlPlane) -> Result<ListBudgetsResponse, Failure> {
    let mut all = ListBudgetsResponse::default();
    let mut page_token = String::new();
    loop {
        let request = ListBudgetsRequest { page_size: 1_000, page_token };
        let page =
            control_plane.call(request, async |admin, request| admin.list_budgets(request).await).await?;
        all.budgets.extend(page.budgets);
        all.statuses.extend(page.statuses);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

pub(super) async fn one(control_plane: &ControlPlane, name: String) -> Result<GetBudgetResponse, Failure> {
    let request = GetBudgetRequest { name };
    control_plane.call(request, async |admin, request| admin.get_budget(request).await).await
}

pub(super) fn table(list: &ListBudgetsResponse) -> String {
    if list.budgets.is_empty() {
        return "no budget is configured\n".to_owned();
    }
    let rows: Vec<_> =
        list.budgets.iter().zip(&list.statuses).map(|(budget, status)| row(budget, status)).collect();
    budgets(&rows)
}

fn budgets(rows: &[[String; 9]]) -> String {
    let columns = [
        ("BUDGET", Align::Left),
        ("SCOPE", Align::Left),
        ("ACTION", Align::Left),
        ("LIMIT USD", Align::Right),
        ("SPENT", Align::Right),
        ("RESERVED", Align::Right),
        ("REMAINING", Align::Right),
        ("LOST", Align::Right),
        ("ENDS", Align::Left),
    ];
    render(columns, rows)
}

/// The budget, and below it who holds what.
pub(super) fn accounts(answer: &GetBudgetResponse) -> String {
    let (budget, status) =
        (answer.budget.clone().unwrap_or_default(), answer.status.clone().unwrap_or_default());
    let mut text = budgets(&[row(&budget, &status)]);
    if status.accounts.is_empty() {
        return text;
    }
    let columns = [
        ("AGENT", Align::Left),
        ("GRANTED", Align::Right),
        ("SPENT", Align::Right),
        ("HELD", Align::Right),
        ("LAST HEARD", Align::Left),
        ("STATE", Align::Left),
    ];
    let rows: Vec<_> = status.accounts.iter().map(account).collect();
    text.push('\n');
    text.push_str(&render(columns, &rows));
    text
}

fn account(account: &BudgetAccount) -> [String; 6] {
    let held = account.granted_nano_usd.saturating_sub(account.returned_nano_usd);
    [
        account.agent_id.clone(),
        usd(account.granted_nano_usd),
        usd(account.spent_nano_usd),
        usd(held.saturating_sub(account.spent_nano_usd)),
        time(account.last_heard_time),
        if account.lost { "lost" } else { "heard" }.to_owned(),
    ]
}

fn row(budget: &Budget, status: &BudgetStatus) -> [String; 9] {
    [
        budget.name.clone(),
        scope(budget),
        short_name(budget.action().as_str_name(), "BUDGET_ACTION_").replace("unspecified", "reject"),
        budget.limit_usd.clone(),
        usd(status.spent_nano_usd),
        usd(status.reserved_nano_usd),
        usd(status.remaining_nano_usd),
        usd(status.lost_nano_usd),
        time(status.period_end_time),
    ]
}

fn scope(budget: &Budget) -> String {
    let Some(scope) = &budget.scope else { return "all".to_owned() };
    let parts = [("key", &scope.api_key), ("model", &scope.virtual_model)];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(word, name)| format!("{word} {name}"))
        .collect();
    if parts.is_empty() { "all".to_owned() } else { parts.join(", ") }
}

/// In US dollars, rounded up to microdollars, so that what was spent is never shown as
/// nothing.
fn usd(nanos: u64) -> String {
    let micros = nanos.div_ceil(1_000);
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use trunkline_proto::types::v1::BudgetScope;

    use super::*;

    #[test]
    fn budgets_say_whose_they_are_and_what_is_left() {
        let scope = BudgetScope { api_key: "team-a".to_owned(), virtual_model: String::new() };
        let budget = Budget {
            name: "daily".to_owned(),
            scope: Some(scope),
            limit_usd: "50".to_owned(),
            ..Budget::default()
        };
        let status = BudgetStatus {
            spent_nano_usd: 1_500_000_001,
            remaining_nano_usd: 48_499_999_999,
            accounts: vec![BudgetAccount {
                agent_id: "a".to_owned(),
                lost: true,
                ..BudgetAccount::default()
            }],
            ..BudgetStatus::default()
        };
        let list = ListBudgetsResponse {
            budgets: vec![budget.clone()],
            statuses: vec![status.clone()],
            ..ListBudgetsResponse::default()
        };
        let text = table(&list);
        assert!(
            text.contains("daily   key team-a  reject         50  1.500001  0.000000  48.500000"),
            "{text}"
        );
        let text = accounts(&GetBudgetResponse { budget: Some(budget), status: Some(status) });
        assert!(text.contains("LAST HEARD") && text.ends_with("lost\n"), "{text}");
    }
}
