//! Budgets: Get, List, Create, Update, Delete.

use std::time::SystemTime;

use tonic::Status;
use trunkline_proto::{
    admin::v1::{
        Config, CreateBudgetRequest, CreateBudgetResponse, DeleteBudgetRequest, DeleteBudgetResponse,
        GetBudgetResponse, ListBudgetsRequest, ListBudgetsResponse, UpdateBudgetRequest,
        UpdateBudgetResponse,
    },
    convert, status,
    types::v1::Budget,
};

use super::{
    mask,
    page::Page,
    write::{Write, checked, etag_matches, required},
};
use crate::grpc::Context;

const KIND: &str = "budget";
const FIELD: &str = "budget";
const LISTING: &str = "budgets";

pub(super) fn get(context: &Context, name: &str) -> Result<GetBudgetResponse, Status> {
    let state = context.repository.state();
    let budget = found(&state.config, name)?;
    let status = context.budgets.status(&state.table, name, true, SystemTime::now());
    Ok(GetBudgetResponse { budget: Some(budget), status })
}

pub(super) fn list(context: &Context, request: &ListBudgetsRequest) -> Result<ListBudgetsResponse, Status> {
    let page = Page::parse(LISTING, request.page_size, &request.page_token)?;
    let state = page.state(&context.repository)?;
    let mut sorted: Vec<&Budget> = state.config.budgets.iter().collect();
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    let (budgets, next_page_token) = page.cut(LISTING, &state, sorted, |budget| &budget.name);
    let now = SystemTime::now();
    let status = |budget: &&Budget| context.budgets.status(&state.table, &budget.name, false, now);
    let statuses = budgets.iter().map(|budget| status(budget).unwrap_or_default()).collect();
    let budgets = budgets.into_iter().cloned().map(with_etag).collect();
    Ok(ListBudgetsResponse { budgets, next_page_token, statuses })
}

pub(super) async fn create(
    context: &Context,
    principal: String,
    request: CreateBudgetRequest,
) -> Result<CreateBudgetResponse, Status> {
    let write = Write::new("CreateBudget", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let budget = required(FIELD, request.budget)?;
    let name = budget.name.clone();
    let written = write.run(context, move |state, config| {
        if find(config, &budget.name).is_ok() {
            return Err(status::already_exists(KIND, &budget.name));
        }
        config.budgets.push(Budget { etag: String::new(), ..budget });
        let inside = format!("budgets[{}]", config.budgets.len() - 1);
        checked(&state.version, config, &inside, FIELD)
    });
    let written = written.await?;
    let budget = Some(found(&written.config, &name)?);
    Ok(CreateBudgetResponse { budget, version: Some(written.version), changes: written.changes })
}

pub(super) async fn update(
    context: &Context,
    principal: String,
    request: UpdateBudgetRequest,
) -> Result<UpdateBudgetResponse, Status> {
    let write = Write::new("UpdateBudget", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let given = required(FIELD, request.budget)?;
    let name = given.name.clone();
    let written = write.run(context, move |state, config| {
        let index = find(config, &given.name)?;
        let stored = &config.budgets[index];
        etag_matches(KIND, &given.name, &given.etag, &convert::etag_of_budget(stored))?;
        let mask = request.update_mask.as_ref();
        config.budgets[index] =
            mask::merge("trunkline.types.v1.Budget", stored, &given, mask, &["name", "etag"])?;
        checked(&state.version, config, &format!("budgets[{index}]"), FIELD)
    });
    let written = written.await?;
    let budget = Some(found(&written.config, &name)?);
    Ok(UpdateBudgetResponse { budget, version: Some(written.version), changes: written.changes })
}

pub(super) async fn delete(
    context: &Context,
    principal: String,
    request: DeleteBudgetRequest,
) -> Result<DeleteBudgetResponse, Status> {
    let write = Write::new("DeleteBudget", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let written = write.run(context, move |_, config| {
        let name = request.name.as_str();
        let index = find(config, name)?;
        let etag = convert::etag_of_budget(&config.budgets[index]);
        etag_matches(KIND, name, &request.etag, &etag)?;
        config.budgets.remove(index);
        Ok(())
    });
    let written = written.await?;
    Ok(DeleteBudgetResponse { version: Some(written.version), changes: written.changes })
}

fn found(config: &Config, name: &str) -> Result<Budget, Status> {
    Ok(with_etag(config.budgets[find(config, name)?].clone()))
}

/// Where the budget is.
fn find(config: &Config, name: &str) -> Result<usize, Status> {
    let found = config.budgets.iter().position(|budget| budget.name == name);
    found.ok_or_else(|| status::not_found(KIND, name))
}

/// As Get and WatchResources show it.
pub(super) fn with_etag(mut budget: Budget) -> Budget {
    budget.etag = convert::etag_of_budget(&budget);
    budget
}
