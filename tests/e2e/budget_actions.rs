//! What budgets do to requests: downgrade, pace, tell, and refuse those that apps send
//! themselves after Route.

use std::time::SystemTime;

use serde_json::{Value, json};
use trunkline_proto::admin::v1::{BudgetStatus, GetBudgetRequest};
use trunkline_sdk::{
    Client, RouteRequestExt as _,
    types::{ExclusionReason, OutcomeClass, ReportOutcomeRequest, RouteRequest, Strategy, Usage},
};
use trunkline_tests::{
    admin::Admin, agent::Agent, control_plane::ControlPlane, document::Document, patience::until,
    provider::Provider,
};

fn body(max_tokens: u64) -> Value {
    json!({
        "model": "chat", "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "hello, world"}],
    })
}

/// What a provider at the usual prices was paid: 1 dollar per million tokens in, 4 out.
fn paid(provider: &Provider) -> u64 {
    let counters = provider.live.counters();
    counters.input_tokens * 1_000 + counters.output_tokens * 4_000
}

async fn status(admin: &Admin) -> BudgetStatus {
    let request = GetBudgetRequest { name: "all".to_owned() };
    admin.client.clone().get_budget(request).await.unwrap().into_inner().status.unwrap()
}

#[tokio::test]
async fn a_budget_may_downgrade_or_only_tell() {
    let (dear, cheap) = (Provider::start("alpha").await, Provider::start("beta").await);
    let text = |action: &str| {
        Document::weighted(&[(&dear, 9), (&cheap, 1)])
            .deployment("beta", "price: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}")
            .section("budgets:")
            .section(&format!("  - {{name: all, limit_usd: 0.0001, period: HOUR, action: {action}}}"))
    };
    for (action, word) in [("DOWNGRADE", "downgraded"), ("ALERT", "alerted")] {
        let agent = Agent::alone(&text(action)).await;
        let told = async || {
            let reply = agent.chat(false).await;
            assert_eq!(reply.status.as_u16(), 200, "{reply:?}");
            let metrics = reqwest::get(format!("{}/metrics", agent.ops_url)).await.unwrap();
            metrics.text().await.unwrap()
        };
        let wanted = format!("trunkline_agent_budget_requests_total{{budget=\"all\",result=\"{word}\"}}");
        until("the budget to be spent", told, |text| text.contains(&wanted)).await;
        let mut cheapest = 0;
        for _ in 0..10 {
            let reply = agent.chat(false).await;
            cheapest += u32::from(reply.header("x-trunkline-deployment") == cheap.deployment());
            if action == "DOWNGRADE" {
                assert_eq!(agent.decision(&reply).await.strategy(), Strategy::Cost);
            }
        }
        // One in ten as configured, for shares are exact; or all at once, though nothing
        // was learned of them.
        assert_eq!(cheapest, if action == "ALERT" { 1 } else { 10 });
    }
}

#[tokio::test]
async fn a_downgrade_passes_over_dearer_tiers() {
    let (dear, cheap) = (Provider::start("alpha").await, Provider::start("beta").await);
    let document = Document::chain(&[&dear, &cheap])
        .deployment("beta", "price: {input_usd_per_mtok: 1, output_usd_per_mtok: 1}")
        .section("budgets: [{name: all, limit_usd: 0.00001, period: DAY, action: DOWNGRADE}]");
    let agent = Agent::alone(&document).await;
    for _ in 0..5 {
        assert_eq!(agent.chat(false).await.header("x-trunkline-deployment"), cheap.deployment());
    }
    assert_eq!(dear.requests(), 0, "one answer may cost more than the limit");
}

/// Share of the period that is gone.
fn elapsed(status: &BudgetStatus) -> f64 {
    let secs = |time: Option<prost_types::Timestamp>| time.unwrap().seconds as f64;
    let (start, end) = (secs(status.period_start_time), secs(status.period_end_time));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    (now - start) / (end - start)
}

#[tokio::test]
async fn the_better_model_is_paced_over_the_period() {
    const WORDS: u64 = 150;
    let (dear, cheap) = (Provider::talkative("alpha", WORDS).await, Provider::talkative("beta", WORDS).await);
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    // Money for some 65 answers of the dear one.
    let document = Document::weighted(&[(&dear, 9), (&cheap, 1)])
        .deployment("beta", "price: {input_usd_per_mtok: 0.001, output_usd_per_mtok: 0.001}")
        .section("budgets: [{name: all, limit_usd: 0.04, period: MONTH, action: DOWNGRADE}]");
    admin.apply(&document).await;
    let agent = Agent::following(&control_plane.url);
    agent.ready().await;
    let share = || paid(&dear) as f64 / 40_000_000.0;
    let ask = async || {
        let reply = agent.post("/v1/chat/completions", &body(200)).await;
        assert_eq!(reply.status.as_u16(), 200, "{reply:?}");
        share()
    };
    let planned = elapsed(&status(&admin).await);
    // What is of the period that is gone is spent, one answer more or less,
    until("the plan's money to be spent", ask, |share| *share > planned - 0.04).await;
    // and the rest is left for the rest of it, however many want it now.
    for _ in 0..60 {
        ask().await;
    }
    println!("spent {} of the limit after {planned} of the period", share());
    assert!(share() < planned + 0.04, "{} {planned}", share());
    let metrics = reqwest::get(format!("{}/metrics", agent.ops_url)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("budget=\"all\",result=\"paced\"") || planned > 0.95, "{metrics}");
}

#[tokio::test]
async fn requests_that_apps_send_themselves_count_and_are_refused_alike() {
    let provider = Provider::talkative("alpha", 150).await;
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    let document =
        Document::even(&[&provider]).section("budgets: [{name: all, limit_usd: 0.001, period: MONTH}]");
    admin.apply(&document).await;
    let agent = Agent::following(&control_plane.url);
    agent.ready().await;
    let (at_agent, at_control_plane) =
        (agent.sdk().await, Client::connect(control_plane.url.as_str()).await.unwrap());

    // Two answers may cost more than there is, one does not.
    let mut two = body(200);
    two["n"] = json!(2);
    let refused = agent.post("/v1/chat/completions", &two).await;
    assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (402, "budget_exceeded"));
    let decision = agent.decision(&refused).await;
    assert!(decision.candidates.is_empty() && decision.attempts.is_empty(), "{decision:?}");
    assert_eq!(decision.excluded[0].reason(), ExclusionReason::Budget);
    assert!(decision.excluded[0].detail.contains("'all'"), "{decision:?}");

    let request = || RouteRequest { max_output_tokens: 200, ..RouteRequest::model("chat") };
    for sdk in [&at_agent, &at_control_plane] {
        sdk.route(request()).await.unwrap();
    }
    // The app says what its attempt cost: 610,000 nano-dollars.
    let routed = at_agent.route(request()).await.unwrap().decision.unwrap();
    let outcome = ReportOutcomeRequest {
        decision_id: routed.decision_id,
        deployment: provider.deployment(),
        outcome: OutcomeClass::Ok.into(),
        usage: Some(Usage { input_tokens: 10, output_tokens: 150, ..Usage::default() }),
        ..ReportOutcomeRequest::default()
    };
    at_agent.report_outcome(outcome).await.unwrap();
    let known = async || status(&admin).await;
    until("the report to be charged", known, |status| status.spent_nano_usd == 610_000).await;

    for sdk in [&at_agent, &at_control_plane] {
        let refused = async || sdk.route(request()).await.err().map(|error| error.to_string());
        let says = |error: &Option<String>| {
            error.as_ref().is_some_and(|error| error.contains("budget 'all' has less left"))
        };
        until("Route to be refused", refused, says).await;
    }
    assert_eq!(agent.post("/v1/chat/completions", &body(200)).await.error_code(), "budget_exceeded");
    assert_eq!(provider.requests(), 0);
    // What can cost no more than is left goes on.
    let small = RouteRequest { max_output_tokens: 10, ..RouteRequest::model("chat") };
    for sdk in [&at_agent, &at_control_plane] {
        sdk.route(small.clone()).await.unwrap();
    }
}
