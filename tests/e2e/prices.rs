//! Prices and keys that change while agents serve.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use trunkline_proto::{
    admin::v1::CreatePriceEntryRequest,
    types::v1::{Price, PriceEntry},
};
use trunkline_tests::{
    admin::Admin, agent::Agent, chat::chat, cli::trunkline, control_plane::ControlPlane, document::Document,
    patience::until, provider::Provider, reply::Reply,
};

struct World {
    #[expect(dead_code, reason = "it answers until it is dropped")]
    provider: Provider,
    control_plane: ControlPlane,
    admin: Admin,
    agent: Agent,
}

impl World {
    /// One provider, at 1 and 4 dollars per million tokens, and an agent that serves it.
    async fn new() -> Self {
        let provider = Provider::start("alpha").await;
        let control_plane = ControlPlane::start();
        let admin = control_plane.admin().await;
        admin.apply(&Document::even(&[&provider])).await;
        let agent = Agent::following(&control_plane.url);
        agent.ready().await;
        admin.agents_hold(1, 1).await;
        Self { provider, control_plane, admin, agent }
    }

    /// What one request costs now, in nano-dollars: as the answer says, and as expected
    /// when it was decided.
    async fn cost(&self) -> (u64, u64) {
        let reply = self.agent.chat(false).await;
        let dollars: f64 = reply.header("x-trunkline-cost-usd").parse().unwrap();
        let decision = self.agent.decision(&reply).await;
        let nano = (dollars * 1e9).round() as u64;
        assert_eq!(decision.attempts[0].cost_nano_usd, Some(nano), "{decision:?}");
        (nano, decision.candidates[0].expected_cost_nano_usd.unwrap())
    }

    async fn status_with(&self, key: &str) -> u16 {
        let request = self.agent.request("/v1/chat/completions", &chat(false)).bearer_auth(key);
        Reply::read(request.send().await.unwrap()).await.status.as_u16()
    }
}

fn times((cost, expected): (u64, u64), factor: u64) -> (u64, u64) {
    (cost * factor, expected * factor)
}

#[tokio::test]
async fn a_price_from_a_list_and_one_of_the_future_count_at_the_agent() {
    let world = World::new().await;
    let first = world.cost().await;
    let run = |words: &[&str]| trunkline(&world.control_plane.url, words);

    let directory = TempDir::new().unwrap();
    let list = directory.path().join("list.json");
    fs::write(&list, r#"{"m": {"input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6}}"#).unwrap();
    let import = ["prices", "import", "--format", "litellm", list.to_str().unwrap()];
    let planned = run(&[&import[..], &["--dry-run"]].concat()).done();
    assert!(planned.ends_with("not applied (dry run); revision 1\n"), "{planned}");
    run(&import).done();
    world.admin.agents_hold(1, 2).await;
    assert_eq!(world.cost().await, times(first, 2));
    let shown = run(&["get", "prices"]).done();
    assert!(shown.contains("alpha/m") && shown.contains("list: m"), "{shown}");

    // At the agent long before it begins.
    let begins = SystemTime::now() + Duration::from_secs(4);
    let since = begins.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let valid_from =
        prost_types::Timestamp { seconds: (since / 1_000) as i64, nanos: (since % 1_000) as i32 * 1_000_000 };
    let price =
        Price { input_usd_per_mtok: "3".into(), output_usd_per_mtok: "12".into(), ..Price::default() };
    let entry = PriceEntry {
        name: "soon".into(),
        deployment: "alpha/m".into(),
        price: Some(price),
        valid_from: Some(valid_from),
        ..PriceEntry::default()
    };
    let request = CreatePriceEntryRequest { price_entry: Some(entry), ..Default::default() };
    world.admin.client.clone().create_price_entry(request).await.unwrap();
    world.admin.agents_hold(1, 3).await;
    let before = world.cost().await;
    assert!(SystemTime::now() >= begins || before == times(first, 2), "{before:?}");
    until("the price to begin", async || world.cost().await, |cost| *cost == times(first, 3)).await;
    assert!(SystemTime::now() >= begins);
    assert_eq!(world.admin.agents_hold(1, 3).await.len(), 1, "nothing more was sent");
}

#[tokio::test]
async fn a_price_that_jumps_waits_for_a_person() {
    let world = World::new().await;
    let first = world.cost().await;
    let directory = TempDir::new().unwrap();
    let list = directory.path().join("list.json");
    fs::write(&list, r#"{"data": [{"id": "m", "pricing": {"prompt": "0.00001", "completion": "0.00004"}}]}"#)
        .unwrap();
    let run = |words: &[&str]| trunkline(&world.control_plane.url, words);
    let said = run(&["prices", "import", "--format", "openrouter", list.to_str().unwrap()]).done();
    assert!(said.contains("held back: alpha/m: the input price goes from 1 to 10"), "{said}");
    world.admin.agents_hold(1, 2).await;
    assert_eq!(world.cost().await, first);
    let name = said.split("prices accept ").nth(1).unwrap().lines().next().unwrap();
    run(&["prices", "accept", name]).done();
    world.admin.agents_hold(1, 3).await;
    assert_eq!(world.cost().await, times(first, 10));
}

#[tokio::test]
async fn keys_that_are_made_work_at_agents_and_deleted_ones_are_refused() {
    let world = World::new().await;
    let run = |words: &[&str]| trunkline(&world.control_plane.url, words);
    let team = run(&["keys", "create", "team-a"]).done().trim().to_owned();
    let other = run(&["keys", "create", "other", "--allow", "chat"]).done().trim().to_owned();
    world.admin.agents_hold(1, 3).await;
    assert_eq!(world.agent.chat(false).await.status, 401);
    assert_eq!((world.status_with(&team).await, world.status_with(&other).await), (200, 200));
    let listed = run(&["keys", "list"]).done();
    assert!(listed.contains("team-a") && !listed.contains(&team[3..]), "{listed}");

    run(&["keys", "delete", "team-a"]).done();
    world.admin.agents_hold(1, 4).await;
    assert_eq!((world.status_with(&team).await, world.status_with(&other).await), (401, 200));
    for log in [world.agent.process.log(), world.control_plane.process.log()] {
        assert!(!log.contains(&team[3..]) && !log.contains(&other[3..]), "a key is in a log");
    }
}
