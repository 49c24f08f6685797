//! `get`: one RPC, shown as a table or as its JSON.

mod agents;
mod audit;
mod breakers;
mod budgets;
mod faults;
mod history;
mod prices;
mod revisions;
mod stats;

use std::time::SystemTime;

use trunkline_proto::admin::v1::{ListBreakersRequest, ListFaultsRequest};

pub(crate) use self::{agents::all_agents, faults::table as faults_table};
use crate::{
    args::{GetArgs, Listing, ListingFormat},
    client::ControlPlane,
    failure::Failure,
    json, terminal,
};

/// The most that a control plane puts into a page.
const PAGE_SIZE_MAX: u32 = 1_000;

pub(crate) async fn run(args: GetArgs) -> Result<(), Failure> {
    let control_plane = ControlPlane::of(&args.connection)?;
    terminal::print(&listing(&control_plane, args.what, args.output).await?)
}

async fn listing(
    control_plane: &ControlPlane,
    what: Listing,
    output: ListingFormat,
) -> Result<String, Failure> {
    let now = SystemTime::now();
    let text = match what {
        Listing::Stats(args) => {
            let request = stats::request(args, now)?;
            let stats =
                control_plane.call(request, async |admin, request| admin.get_stats(request).await).await?;
            show(output, "GetStatsResponse", &stats, stats::table)?
        }
        Listing::Agents => {
            show(output, "ListAgentsResponse", &all_agents(control_plane).await?, agents::table)?
        }
        Listing::Breakers { active } => {
            let request = ListBreakersRequest { active_only: active };
            let list = control_plane
                .call(request, async |admin, request| admin.list_breakers(request).await)
                .await?;
            show(output, "ListBreakersResponse", &list, breakers::table)?
        }
        Listing::Revisions { limit } => {
            let list = revisions::newest(control_plane, limit).await?;
            show(output, "ListRevisionsResponse", &list, revisions::table)?
        }
        Listing::Audit(args) => {
            let list = audit::newest(control_plane, &args, now).await?;
            let table = if args.changes { audit::changes } else { audit::table };
            show(output, "QueryAuditResponse", &list, table)?
        }
        Listing::Faults => {
            let request = ListFaultsRequest {};
            let list =
                control_plane.call(request, async |admin, request| admin.list_faults(request).await).await?;
            show(output, "ListFaultsResponse", &list, faults::table)?
        }
        Listing::Prices => {
            let list = prices::entries(control_plane).await?;
            let deployments = match output {
                ListingFormat::Table => prices::deployments(control_plane).await?,
                ListingFormat::Json => Vec::new(),
            };
            show(output, "ListPriceEntriesResponse", &list, |list| prices::table(list, &deployments, now))?
        }
        Listing::Budgets { name: Some(name) } => {
            let budget = budgets::one(control_plane, name).await?;
            show(output, "GetBudgetResponse", &budget, budgets::accounts)?
        }
        Listing::Budgets { name: None } => {
            show(output, "ListBudgetsResponse", &budgets::all(control_plane).await?, budgets::table)?
        }
        Listing::History(args) => {
            let history = history::all(control_plane, &args, now).await?;
            show(output, "QueryHistoryResponse", &history, history::table)?
        }
    };
    Ok(text)
}

fn show<M: prost::Message>(
    output: ListingFormat,
    name: &str,
    message: &M,
    table: impl FnOnce(&M) -> String,
) -> Result<String, Failure> {
    match output {
        ListingFormat::Json => Ok(json::pretty(&format!("trunkline.admin.v1.{name}"), message)?),
        ListingFormat::Table => Ok(table(message)),
    }
}

/// Of the next page, if so many are still missing.
fn page_size(missing: u32) -> i32 {
    i32::try_from(missing.min(PAGE_SIZE_MAX)).unwrap_or(i32::MAX)
}

/// A line below a listing that ends before its end.
fn more(next_page_token: &str) -> &'static str {
    if next_page_token.is_empty() { "" } else { "there are older ones: --limit N\n" }
}
