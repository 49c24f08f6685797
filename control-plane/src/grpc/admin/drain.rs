//! DrainAgent: takes an agent out of service, or brings it back. The order is durable and
//! told to the agent whenever it connects.

use std::time::SystemTime;

use tonic::Status;
use trunkline_proto::{
    admin::v1::{Agent, AgentState, DrainAgentRequest, DrainAgentResponse},
    status,
};

use super::agents;
use crate::grpc::{Context, refuse, sync::check_agent_id};

/// A sentence.
const REASON_BYTES_MAX: usize = 256;

pub(super) async fn drain(
    context: &Context,
    request: DrainAgentRequest,
    principal: String,
) -> Result<DrainAgentResponse, Status> {
    let DrainAgentRequest { agent_id, resume, reason } = request;
    check_agent_id("agent_id", &agent_id)?;
    if reason.len() > REASON_BYTES_MAX {
        return Err(status::invalid_field("reason", &format!("must have at most {REASON_BYTES_MAX} bytes")));
    }
    if resume && !reason.is_empty() {
        return Err(status::invalid_field("reason", "has no meaning with resume; leave it out"));
    }
    let known = context.registry.get(&agent_id, SystemTime::now());
    // One that never came back can still be forgotten.
    let drained = context.repository.drains().reason(&agent_id).is_some();
    if known.is_none() && !drained {
        return Err(status::not_found("agent", &agent_id));
    }
    let order = (!resume).then_some(reason);
    let done = context.repository.set_drain(agent_id.clone(), order, principal.clone()).await;
    done.map_err(|error| refuse::commit(&error))?;
    tracing::info!(agent_id, principal, resume, "drain of an agent set by an operator");
    let unknown =
        || Agent { agent_id: agent_id.clone(), state: AgentState::Disconnected.into(), ..Agent::default() };
    let agent = context.registry.get(&agent_id, SystemTime::now()).or(known).unwrap_or_else(unknown);
    Ok(DrainAgentResponse { agent: Some(agents::with_order(agent, &context.repository.drains())) })
}
