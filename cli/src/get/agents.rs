//! `get agents`: who is connected, and what keeps them from working.

use trunkline_proto::admin::v1::{Agent, ListAgentsRequest, ListAgentsResponse};

use crate::{
    cell::{or_nothing, short_name},
    client::ControlPlane,
    failure::Failure,
    table::{Align, render},
};

/// All pages in one.
pub(crate) async fn all_agents(control_plane: &ControlPlane) -> Result<ListAgentsResponse, Failure> {
    let mut all = ListAgentsResponse::default();
    let mut page_token = String::new();
    loop {
        let request = ListAgentsRequest { page_size: 1_000, page_token };
        let page =
            control_plane.call(request, async |admin, request| admin.list_agents(request).await).await?;
        all.agents.extend(page.agents);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

pub(super) fn table(agents: &ListAgentsResponse) -> String {
    if agents.agents.is_empty() {
        return "no agent is connected\n".to_owned();
    }
    let columns = [
        ("AGENT", Align::Left),
        ("STATE", Align::Left),
        ("REVISION", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("ADDRESS", Align::Left),
        ("VERSION", Align::Left),
        ("PROBLEM", Align::Left),
    ];
    let rows: Vec<_> = agents
        .agents
        .iter()
        .map(|agent| {
            [
                agent.agent_id.clone(),
                state(agent),
                agent.applied.as_ref().map_or(0, |version| version.revision).to_string(),
                agent.in_flight.to_string(),
                or_nothing(&agent.advertise),
                or_nothing(&agent.build_version),
                problem(agent),
            ]
        })
        .collect();
    render(columns, &rows)
}

/// An agent that is being drained says so where others say that they are connected.
pub(crate) fn state(agent: &Agent) -> String {
    let state = short_name(agent.state().as_str_name(), "AGENT_STATE_");
    match (agent.drain_requested, agent.draining) {
        (_, true) => format!("{state}, drained"),
        (true, false) => format!("{state}, drain asked"),
        (false, false) => state,
    }
}

fn problem(agent: &Agent) -> String {
    let mut problems = Vec::new();
    if !agent.last_nack.is_empty() {
        problems.push(format!("refused an update: {}", agent.last_nack));
    }
    if !agent.missing_credentials.is_empty() {
        problems.push(format!("no credential for {}", agent.missing_credentials.join(", ")));
    }
    if agent.ahead {
        problems.push("holds a newer revision than the store: was the store rolled back?".to_owned());
    }
    if !agent.active_faults.is_empty() {
        problems.push(format!("drill: {}", agent.active_faults.join(", ")));
    }
    if agent.telemetry_gaps > 0 {
        problems.push(format!("lost counts {} times", agent.telemetry_gaps));
    }
    or_nothing(&problems.join("; "))
}

#[cfg(test)]
mod tests {
    use trunkline_proto::{admin::v1::AgentState, types::v1::Version};

    use super::*;

    #[test]
    fn agents_show_what_keeps_them_from_working() {
        let agent = Agent {
            agent_id: "a1".to_owned(),
            state: AgentState::Connected.into(),
            applied: Some(Version { epoch: String::new(), revision: 7 }),
            missing_credentials: vec!["openai".to_owned()],
            ..Agent::default()
        };
        let table = super::table(&ListAgentsResponse { agents: vec![agent], next_page_token: String::new() });
        assert!(table.contains("connected") && table.contains('7'), "{table}");
        assert!(table.contains("no credential for openai"), "{table}");
    }

    #[test]
    fn drains_drills_and_lost_counts_show() {
        let agent = Agent {
            state: AgentState::Connected.into(),
            drain_requested: true,
            active_faults: vec!["slow-swift".to_owned()],
            telemetry_gaps: 2,
            ahead: true,
            ..Agent::default()
        };
        let told = super::table(&ListAgentsResponse {
            agents: vec![agent.clone()],
            ..ListAgentsResponse::default()
        });
        for text in ["connected, drain asked", "drill: slow-swift", "lost counts 2 times", "rolled back"] {
            assert!(told.contains(text), "{told}");
        }
        assert_eq!(state(&Agent { draining: true, ..agent }), "connected, drained");
    }
}
