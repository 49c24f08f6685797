//! A control plane that restarts under a thousand agents: all come back, none waits
//! long, and operators are served meanwhile.

use std::time::Duration;

use trunkline_proto::{
    admin::v1::{ApplyConfigRequest, Config},
    types::v1::{Dialect, Provider},
};
use trunkline_tests::{admin::Admin, control_plane::ControlPlane, fleet::Fleet, patience::within};

const AGENTS: usize = 1_000;

/// What the design promises for a restart.
const LIMIT: Duration = Duration::from_secs(30);

/// A configuration of some size, so that tables are not for free.
fn config(region: &str) -> Config {
    let provider = |number: usize| Provider {
        name: format!("provider-{number}"),
        region: region.to_owned(),
        dialect: Dialect::Openai.into(),
        base_url: "https://api.example.com/v1".to_owned(),
        ..Provider::default()
    };
    Config { providers: (0..200).map(provider).collect(), ..Config::default() }
}

async fn apply(admin: &Admin, region: &str) -> u64 {
    let request = ApplyConfigRequest { config: Some(config(region)), ..ApplyConfigRequest::default() };
    let applied = within("an operator's write", admin.client.clone().apply_config(request)).await.unwrap();
    applied.into_inner().version.unwrap().revision
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_come_back_to_a_restarted_control_plane() {
    let control_plane = ControlPlane::start();
    let first = apply(&control_plane.admin().await, "eu").await;
    let fleet = Fleet::start(&control_plane.url, AGENTS);
    assert_eq!(fleet.wait_for(first, LIMIT).await, AGENTS);

    let control_plane = control_plane.restart();
    let admin = control_plane.admin().await;
    // In the middle of the storm.
    let second = apply(&admin, "us").await;
    assert_eq!(second, first + 1);
    assert_eq!(fleet.wait_for(second, LIMIT).await, AGENTS, "of {AGENTS} agents");
    let agents = within(
        "a listing",
        admin.client.clone().list_agents(trunkline_proto::admin::v1::ListAgentsRequest {
            page_size: 1_000,
            ..Default::default()
        }),
    )
    .await
    .unwrap();
    assert_eq!(agents.into_inner().agents.len(), AGENTS);
}
