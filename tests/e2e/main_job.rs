//! The main job: one command or three processes, real traffic, exact shares, exact
//! counts.

use std::collections::BTreeMap;

use serde_json::json;
use trunkline_proto::admin::v1::StatsRow;
use trunkline_tests::{
    agent::Agent,
    chat::chat,
    control_plane::ControlPlane,
    document::Document,
    provider::{ANSWER, Provider},
    reply::Reply,
    up::Up,
};

#[tokio::test]
async fn up_without_a_configuration_serves_every_interface_and_ends_in_order() {
    let mut up = Up::start();
    let url = up.process.url("agent");
    trunkline_tests::patience::until(
        "up to say what to try",
        async || up.process.said("Ctrl-C"),
        |said| *said,
    )
    .await;
    let client = reqwest::Client::new();
    let post = async |path: &str, body| {
        let response = client.post(format!("{url}/v1/{path}")).json(&body).send().await.unwrap();
        Reply::read(response).await
    };

    let whole = post("chat/completions", chat(false)).await;
    assert_eq!(whole.status, 200, "{whole:?}");
    assert!(!whole.text().is_empty());
    let streamed = post("chat/completions", chat(true)).await;
    assert!(
        !streamed.text().is_empty() && streamed.has_done() && streamed.errors().is_empty(),
        "{streamed:?}"
    );
    let completion = post("completions", json!({"model": "chat", "prompt": "hello", "max_tokens": 4})).await;
    assert!(!completion.text().is_empty(), "{completion:?}");
    let embeddings = post("embeddings", json!({"model": "chat", "input": ["hello", "world"]})).await;
    assert_eq!(embeddings.json()["data"].as_array().unwrap().len(), 2, "{embeddings:?}");
    let models = Reply::read(client.get(format!("{url}/v1/models")).send().await.unwrap()).await;
    assert_eq!(models.json()["data"][0]["id"], "chat", "{models:?}");

    up.process.terminate();
    assert_eq!(up.process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_hundred_requests_at_70_to_30_are_70_and_30_and_counted_exactly() {
    let (seventy, thirty) = (Provider::start("seventy").await, Provider::start("thirty").await);
    let mut control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    admin.apply(&Document::weighted(&[(&seventy, 70), (&thirty, 30)])).await;
    let agent = Agent::following(&control_plane.url);
    agent.ready().await;

    for at in 0..100 {
        let reply = agent.chat(at % 2 == 0).await;
        assert_eq!(reply.text(), ANSWER, "{reply:?}");
    }
    assert_eq!((seventy.requests(), thirty.requests()), (70, 30));

    let rows = admin.stats_count(100).await;
    equal_to_the_providers_counts(&rows, &[&seventy, &thirty]);
    control_plane = control_plane.restart();
    let after = control_plane.admin().await.stats().await;
    equal_to_the_providers_counts(&after, &[&seventy, &thirty]);
    assert_eq!(rows["seventy/m"].cost_nano_usd, after["seventy/m"].cost_nano_usd);
}

fn equal_to_the_providers_counts(rows: &BTreeMap<String, StatsRow>, providers: &[&Provider]) {
    for provider in providers {
        let (row, counted) = (&rows[&provider.deployment()], provider.live.counters());
        assert_eq!(row.attempts, counted.requests, "{row:?}");
        assert_eq!(row.successes, counted.requests, "{row:?}");
        assert_eq!(row.input_tokens, counted.input_tokens, "{row:?}");
        assert_eq!(row.output_tokens, counted.output_tokens, "{row:?}");
        // 1 and 4 dollars per million tokens, in nano-dollars.
        let cost = counted.input_tokens * 1_000 + counted.output_tokens * 4_000;
        assert_eq!(row.cost_nano_usd, cost, "{row:?}");
        assert!(row.errors_by_class.is_empty(), "{row:?}");
    }
}
