//! ListAgents: pages by agent id. Agents come and go, so pages are of the moment.

use std::time::SystemTime;

use tonic::Status;
use trunkline_proto::admin::v1::{Agent, ListAgentsRequest, ListAgentsResponse};

use super::page::Page;
use crate::{grpc::Context, repository::DrainSet};

const LISTING: &str = "agents";

pub(super) fn list(context: &Context, request: &ListAgentsRequest) -> Result<ListAgentsResponse, Status> {
    let page = Page::parse(LISTING, request.page_size, &request.page_token)?;
    // One more shows whether there is another page.
    let agents = context.registry.list(&page.after, page.size + 1, SystemTime::now());
    let state = context.repository.state();
    let (agents, next_page_token) = page.cut(LISTING, &state, agents, |agent| &agent.agent_id);
    let drains = context.repository.drains();
    let agents = agents.into_iter().map(|agent| with_order(agent, &drains)).collect();
    Ok(ListAgentsResponse { agents, next_page_token })
}

/// With what an operator orders of it.
pub(super) fn with_order(agent: Agent, drains: &DrainSet) -> Agent {
    Agent { drain_requested: drains.reason(&agent.agent_id).is_some(), ..agent }
}
