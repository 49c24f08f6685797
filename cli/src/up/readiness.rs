//! Waits until the agent serves what is configured.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_proto::{
    admin::v1::{AgentState, ListAgentsResponse},
    types::v1::Version,
};

use crate::{client::ControlPlane, failure::Failure, get};

/// Between looks; people don't notice less.
const PAUSE: Duration = Duration::from_millis(50);

/// An agent on the same machine needs milliseconds; later, something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns when a connected agent has applied this version or a newer one.
pub(super) async fn wait(control_plane: &ControlPlane, version: &Version) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    loop {
        let agents = get::all_agents(control_plane).await?;
        if any_applied(&agents, version) {
            return Ok(());
        }
        if Instant::now() >= end {
            let nack = agents.agents.into_iter().map(|agent| agent.last_nack).find(|nack| !nack.is_empty());
            return Err(Failure::failed(format!(
                "the agent did not apply revision {} within {PATIENCE:?}: {}",
                version.revision,
                nack.unwrap_or_else(|| "it said no reason; try --log info".to_owned())
            )));
        }
        sleep(PAUSE).await;
    }
}

/// Revisions of different epochs can't be compared, so both must be right.
fn any_applied(agents: &ListAgentsResponse, version: &Version) -> bool {
    agents.agents.iter().filter(|agent| agent.state() == AgentState::Connected).any(|agent| {
        agent
            .applied
            .as_ref()
            .is_some_and(|applied| applied.epoch == version.epoch && applied.revision >= version.revision)
    })
}

#[cfg(test)]
mod tests {
    use trunkline_proto::admin::v1::Agent;

    use super::*;

    #[test]
    fn only_a_connected_agent_with_the_revision_counts() {
        let check = |state: AgentState, epoch: &str, revision: u64, expected: bool| {
            let applied = Some(Version { epoch: epoch.to_owned(), revision });
            let agent = Agent { state: state.into(), applied, ..Agent::default() };
            let agents = ListAgentsResponse { agents: vec![agent], ..ListAgentsResponse::default() };
            let wanted = Version { epoch: "e".to_owned(), revision: 3 };
            assert_eq!(any_applied(&agents, &wanted), expected, "{state:?} {epoch} {revision}");
        };
        check(AgentState::Connected, "e", 3, true);
        check(AgentState::Connected, "e", 4, true);
        check(AgentState::Connected, "e", 2, false);
        check(AgentState::Connected, "old", 3, false);
        check(AgentState::Disconnected, "e", 3, false);
    }
}
