//! `drain`: an agent out of service, and back.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_proto::admin::v1::{Agent, AgentState, DrainAgentRequest};

use crate::{args::DrainArgs, client::ControlPlane, failure::Failure, get, terminal};

/// Between looks. An agent tells how it is every few seconds.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn run(args: DrainArgs) -> Result<(), Failure> {
    let control_plane = ControlPlane::of(&args.connection)?;
    let DrainArgs { agent, resume, reason, wait, .. } = args;
    let request = DrainAgentRequest { agent_id: agent.clone(), resume, reason };
    let answer = control_plane.call(request, async |admin, request| admin.drain_agent(request).await).await?;
    terminal::print_line(&told(&answer.agent.unwrap_or_default(), resume))?;
    let Some(patience) = wait else { return Ok(()) };
    let end = Instant::now() + patience;
    loop {
        let agents = get::all_agents(&control_plane).await?.agents;
        let seen = agents.into_iter().find(|one| one.agent_id == agent).unwrap_or_default();
        if is_drained(&seen) {
            return terminal::print_line(&format!("{agent} is out of service, with nothing in flight"));
        }
        if Instant::now() >= end {
            return Err(Failure::failed(in_vain(&agent, &seen, patience)));
        }
        sleep(PAUSE).await;
    }
}

/// Whether it says so itself. One that is not connected may go on serving: it does not
/// need the control plane for that.
fn is_drained(agent: &Agent) -> bool {
    agent.state() == AgentState::Connected && agent.draining && agent.in_flight == 0
}

/// Why the wait was in vain.
fn in_vain(name: &str, agent: &Agent, patience: Duration) -> String {
    if agent.state() != AgentState::Connected {
        return format!(
            "{name} is not connected after {patience:?}: nobody here knows what it serves; look at its /readyz"
        );
    }
    format!("{name} is not out of service after {patience:?}: {} in flight", agent.in_flight)
}

fn told(agent: &Agent, resume: bool) -> String {
    let Agent { agent_id, in_flight, .. } = agent;
    match (resume, agent.state() == AgentState::Connected) {
        (false, true) => format!("{agent_id} is told to go out of service; {in_flight} in flight"),
        (false, false) => format!("{agent_id} is not connected; it is told when it comes"),
        (true, true) => format!("{agent_id} is told to come back into service"),
        (true, false) => format!("{agent_id} is not connected; it serves when it comes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_can_be_stopped_once_it_says_so_and_nothing_is_in_flight() {
        let check = |state: AgentState, draining: bool, in_flight: u32, expected: bool| {
            let agent = Agent { state: state.into(), draining, in_flight, ..Agent::default() };
            assert_eq!(is_drained(&agent), expected, "{state:?} {draining} {in_flight}");
        };
        check(AgentState::Connected, true, 0, true);
        check(AgentState::Connected, true, 1, false);
        check(AgentState::Connected, false, 0, false);
        check(AgentState::Disconnected, false, 3, false);
        check(AgentState::Disconnected, true, 0, false);
        check(AgentState::Unspecified, false, 0, false);
    }

    #[test]
    fn wait_in_vain_says_what_is_known() {
        let say = |agent: &Agent| in_vain("a1", agent, Duration::from_secs(9));
        assert!(say(&Agent::default()).contains("not connected after 9s"));
        let busy = Agent { state: AgentState::Connected.into(), in_flight: 3, ..Agent::default() };
        assert!(say(&busy).contains("3 in flight"));
    }

    #[test]
    fn what_was_told_says_whether_it_was_heard() {
        let agent =
            Agent { agent_id: "a1".to_owned(), state: AgentState::Connected.into(), ..Agent::default() };
        assert!(told(&agent, false).contains("out of service"));
        assert!(told(&agent, true).contains("back into service"));
        assert!(told(&Agent::default(), false).contains("not connected"));
    }
}
