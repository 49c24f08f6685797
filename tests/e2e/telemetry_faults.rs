//! Telemetry through a bad link: whatever it delays, loses, repeats or cuts, and
//! whichever end restarts, every attempt is counted once.

use std::time::Duration;

use trunkline_tests::{
    agent::Agent,
    control_plane::ControlPlane,
    document::Document,
    fault_proxy::{FaultProxy, Trouble},
    patience::until,
    provider::{Provider, TOKENS},
};

/// Requests while the link has one trouble.
const REQUESTS: usize = 40;

/// An agent behind a bad link, and all that is counted.
struct World {
    provider: Provider,
    control_plane: ControlPlane,
    proxy: FaultProxy,
    agent: Agent,
}

impl World {
    async fn start() -> Self {
        let provider = Provider::start("alpha").await;
        let control_plane = ControlPlane::start();
        control_plane.admin().await.apply(&Document::even(&[&provider])).await;
        let proxy = FaultProxy::start(&control_plane.url).await;
        let agent = Agent::following(&proxy.url);
        agent.ready().await;
        Self { provider, control_plane, proxy, agent }
    }

    async fn requests(&self, count: usize) {
        requests(&self.agent, count).await;
    }

    /// Waits until all is counted, and checks that nothing is counted twice: not now, and
    /// not when all that was under way has arrived.
    async fn check(&self) {
        let sent = self.provider.requests();
        let admin = self.control_plane.admin().await;
        admin.stats_count(sent).await;
        // One more report of the agent has come since: what was repeated before it was too.
        self.requests(1).await;
        let rows = admin.stats_count(sent + 1).await;
        let row = &rows["alpha/m"];
        assert_eq!((row.attempts, row.successes), (sent + 1, sent + 1));
        assert_eq!(row.output_tokens, (sent + 1) * TOKENS);
    }
}

async fn requests(agent: &Agent, count: usize) {
    for number in 0..count {
        let reply = agent.chat(number % 2 == 0).await;
        assert_eq!(reply.status, 200, "telemetry is nothing that a request waits for");
    }
}

#[tokio::test]
async fn totals_are_exact_through_delays_silence_losses_and_cuts() {
    let world = World::start().await;
    world.requests(3).await;
    world.check().await;
    let troubles =
        [Trouble::Delay(Duration::from_millis(100)), Trouble::Deaf, Trouble::Silent, Trouble::Closed];
    for trouble in troubles {
        world.proxy.set(trouble);
        world.requests(REQUESTS).await;
        world.proxy.cut();
        world.requests(REQUESTS).await;
        world.proxy.set(Trouble::None);
        // What waits in a connection from the time of the trouble is lost with it.
        world.proxy.cut();
        world.check().await;
    }
}

#[tokio::test]
async fn totals_are_exact_when_connections_are_cut_in_the_middle_of_frames() {
    let world = World::start().await;
    for bytes in [1, 9, 10, 40, 137, 256, 700, 1_500] {
        world.proxy.cut_after(bytes);
        // Each report brings the cut nearer.
        let reported = async || {
            world.requests(1).await;
            world.proxy.is_cut()
        };
        until("the cut", reported, |cut| *cut).await;
    }
    world.check().await;
}

#[tokio::test]
async fn totals_are_exact_over_restarts_of_both_ends() {
    let mut world = World::start().await;
    for _ in 0..3 {
        world.requests(REQUESTS).await;
        // Acknowledgements are lost just before: the agent must send again.
        world.proxy.set(Trouble::Deaf);
        world.requests(3).await;
        world.control_plane = world.control_plane.restart();
        world.proxy.cut();
        world.proxy.set(Trouble::None);
        world.requests(3).await;
        world.check().await;
    }
    // A clean stop of the agent while the control plane is gone.
    let World { provider, control_plane, proxy, agent } = world;
    let away = control_plane.kill();
    requests(&agent, REQUESTS).await;
    let agent = agent.stop_and_start().await;
    agent.ready().await;
    requests(&agent, 3).await;
    let control_plane = away.start();
    proxy.cut();
    World { provider, control_plane, proxy, agent }.check().await;
}

#[tokio::test]
async fn an_agent_that_is_killed_loses_a_moment_at_most_and_says_so() {
    let world = World::start().await;
    world.requests(3).await;
    world.check().await;
    let World { provider, control_plane, proxy, agent } = world;
    let away = control_plane.kill();
    requests(&agent, REQUESTS).await;
    let before = provider.requests();
    // All of these are on the agent's disk once it has written after the last of them.
    agent.spooled().await;
    requests(&agent, 5).await;
    let agent = agent.restart();
    agent.ready().await;
    let control_plane = away.start();
    let admin = control_plane.admin().await;
    let rows = admin.stats_count(before).await;
    let sent = provider.requests();
    assert!((before..=sent).contains(&rows["alpha/m"].attempts), "{} of {sent}", rows["alpha/m"].attempts);
    until(
        "the gap to be shown",
        async || admin.agents().await,
        |agents| agents.iter().any(|agent| agent.telemetry_gaps == 1),
    )
    .await;
    drop((agent, proxy));
}
