//! A budget of one dollar under three agents with fifty clients each: what is spent stays
//! within it, and nobody is refused while there is money. Also when an agent is killed
//! with a lease, and when one can't reach the control plane.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use trunkline_proto::admin::v1::{BudgetStatus, GetBudgetRequest};
use trunkline_tests::{
    admin::Admin,
    agent::Agent,
    control_plane::ControlPlane,
    document::Document,
    fault_proxy::{FaultProxy, Trouble},
    patience::until,
    provider::Provider,
};

const CLIENTS: usize = 50;
const LIMIT: u64 = 1_000_000_000;

/// Words of an answer, and the most that a request allows.
const WORDS: u64 = 150;
const MAX_TOKENS: u64 = 200;

/// What requests that are under way at a kill may have cost, and what their agent had
/// marked ahead of use: nobody knows, so it counts as spent.
const IN_DOUBT: u64 = CLIENTS as u64 * MAX_TOKENS * 4_400 * 5 / 4;

fn document(provider: &Provider, action: &str) -> Document {
    let budget = format!("  - {{name: all, limit_usd: 1, period: MONTH, action: {action}}}");
    Document::even(&[provider]).section("budgets:").section(&budget)
}

fn body() -> Value {
    json!({
        "model": "chat", "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": "hello, world"}],
    })
}

/// What the provider was paid: 1 dollar per million tokens in, 4 out.
fn paid(provider: &Provider) -> u64 {
    let counters = provider.live.counters();
    counters.input_tokens * 1_000 + counters.output_tokens * 4_000
}

/// What clients saw.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicU64,
    refused: AtomicU64,
    /// Refused because money was held, and asked again.
    held: AtomicU64,
}

/// Clients of one agent, each asking until the budget is spent or its agent is gone.
fn clients(all: &mut JoinSet<()>, url: &str, seen: &Arc<Seen>) {
    for _ in 0..CLIENTS {
        let (url, seen) = (format!("{url}/v1/chat/completions"), Arc::clone(seen));
        all.spawn(async move {
            let http = reqwest::Client::new();
            loop {
                let Ok(response) = http.post(&url).json(&body()).send().await else { return };
                let status = response.status().as_u16();
                let Ok(answer) = response.json::<Value>().await else { return };
                match (status, answer["error"]["code"].as_str()) {
                    (200, _) => seen.answered.fetch_add(1, Ordering::Relaxed),
                    (402, Some("budget_reserved")) => seen.held.fetch_add(1, Ordering::Relaxed),
                    (402, Some("budget_exceeded")) => {
                        seen.refused.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    other => panic!("{other:?}: {answer}"),
                };
            }
        });
    }
}

async fn finish(mut all: JoinSet<()>) {
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

async fn status(admin: &Admin) -> BudgetStatus {
    let request = GetBudgetRequest { name: "all".to_owned() };
    admin.client.clone().get_budget(request).await.unwrap().into_inner().status.unwrap()
}

async fn fleet(provider: &Provider, urls: [&str; 3], admin: &Admin) -> [Agent; 3] {
    admin.apply(&document(provider, "REJECT")).await;
    let agents = urls.map(Agent::following);
    for agent in &agents {
        agent.ready().await;
    }
    agents
}

/// Waits until the ledger knows of all that was paid and nothing is under way.
async fn reconciled(admin: &Admin, provider: &Provider) -> BudgetStatus {
    let known = async || status(admin).await;
    until("the ledger to know what was spent", known, |status| status.spent_nano_usd == paid(provider)).await
}

#[tokio::test]
async fn a_dollar_is_spent_to_the_end_and_no_further() {
    let provider = Provider::slow("alpha", WORDS, 0.000_5).await;
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    let url = control_plane.url.as_str();
    let agents = fleet(&provider, [url; 3], &admin).await;
    let (seen, mut all) = (Arc::new(Seen::default()), JoinSet::new());
    for agent in &agents {
        clients(&mut all, &agent.url, &seen);
    }
    finish(all).await;
    let spent = paid(&provider);
    println!("spent {spent} of {LIMIT}: {seen:?}");
    assert!(spent <= LIMIT, "{spent}");
    assert!(spent >= LIMIT / 100 * 97, "{spent}: {seen:?}");
    assert_eq!(seen.refused.load(Ordering::Relaxed), 3 * CLIENTS as u64);
    let status = reconciled(&admin, &provider).await;
    assert_eq!(status.remaining_nano_usd + status.spent_nano_usd + status.reserved_nano_usd, LIMIT);

    // The last one is told when there is money again, and an operator may give more.
    let refused = agents[0].post("/v1/chat/completions", &body()).await;
    assert_eq!(refused.error_code(), "budget_exceeded", "{refused:?}");
    assert!(refused.body.contains("'all'") && refused.body.contains("starts anew at 20"), "{refused:?}");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(refused.header("x-should-retry"), "false");
    let more = Document::even(&[&provider])
        .section("budgets: [{name: all, limit_usd: 2, period: MONTH, action: REJECT}]");
    admin.apply(&more).await;
    let again = async || agents[0].post("/v1/chat/completions", &body()).await.status.as_u16();
    until("a higher limit to count", again, |status| *status == 200).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_with_a_lease_takes_no_more_of_the_budget_than_it_used() {
    let provider = Provider::slow("alpha", WORDS, 0.000_5).await;
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    let url = control_plane.url.as_str();
    let [one, two, dying] = fleet(&provider, [url; 3], &admin).await;
    let (seen, mut all) = (Arc::new(Seen::default()), JoinSet::new());
    for agent in [&one, &two, &dying] {
        clients(&mut all, &agent.url, &seen);
    }
    until("a third to be spent", async || paid(&provider), |spent| *spent > LIMIT / 3).await;
    let back = dying.restart();
    back.ready().await;
    clients(&mut all, &back.url, &seen);
    finish(all).await;
    let spent = paid(&provider);
    println!("spent {spent} of {LIMIT}: {seen:?}");
    assert!(spent <= LIMIT, "{spent}");
    assert!(spent >= LIMIT / 100 * 97 - IN_DOUBT, "{spent}: {seen:?}");
    // What was under way at the kill is known not to be more than this.
    let known = async || status(&admin).await;
    let covered = |status: &BudgetStatus| {
        status.lost_nano_usd <= IN_DOUBT
            && status.spent_nano_usd + status.reserved_nano_usd >= paid(&provider)
    };
    let status = until("the ledger to cover what was spent", known, covered).await;
    assert!(status.spent_nano_usd <= spent, "{status:?}");
}

#[tokio::test]
async fn an_agent_without_a_control_plane_spends_its_lease_and_no_more() {
    let provider = Provider::slow("alpha", WORDS, 0.000_5).await;
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    let url = control_plane.url.as_str();
    let link = FaultProxy::start(url).await;
    let agents = fleet(&provider, [url, url, link.url.as_str()], &admin).await;
    let (seen, mut all) = (Arc::new(Seen::default()), JoinSet::new());
    for agent in &agents {
        clients(&mut all, &agent.url, &seen);
    }
    until("a third to be spent", async || paid(&provider), |spent| *spent > LIMIT / 3).await;
    link.set(Trouble::Closed);
    link.cut();
    finish(all).await;
    assert!(paid(&provider) <= LIMIT, "{}", paid(&provider));

    link.set(Trouble::None);
    let status = reconciled(&admin, &provider).await;
    assert!(status.spent_nano_usd <= LIMIT);
    // What the agent had left is there for all again.
    let (seen, mut all) = (Arc::new(Seen::default()), JoinSet::new());
    for agent in &agents {
        clients(&mut all, &agent.url, &seen);
    }
    finish(all).await;
    let spent = paid(&provider);
    println!("spent {spent} of {LIMIT}: {seen:?}");
    assert!((LIMIT / 100 * 97..=LIMIT).contains(&spent), "{spent}");
    reconciled(&admin, &provider).await;
}

#[tokio::test]
async fn an_agent_that_runs_alone_keeps_to_its_budget_over_a_kill() {
    let provider = Provider::slow("alpha", WORDS, 0.000_5).await;
    let agent = Agent::alone(&document(&provider, "REJECT")).await;
    let (seen, mut all) = (Arc::new(Seen::default()), JoinSet::new());
    clients(&mut all, &agent.url, &seen);
    until("half to be spent", async || paid(&provider), |spent| *spent > LIMIT / 2).await;
    let agent = agent.restart();
    agent.ready().await;
    clients(&mut all, &agent.url, &seen);
    finish(all).await;
    let spent = paid(&provider);
    println!("spent {spent} of {LIMIT}: {seen:?}");
    assert!((LIMIT / 100 * 97 - IN_DOUBT..=LIMIT).contains(&spent), "{spent}: {seen:?}");
    let agent = agent.stop_and_start().await;
    agent.ready().await;
    let refused = agent.post("/v1/chat/completions", &body()).await;
    assert_eq!(refused.error_code(), "budget_exceeded", "{refused:?}");
}

#[tokio::test]
async fn what_has_no_price_is_refused_under_a_budget_that_rejects() {
    let (priced, unpriced) = (Provider::start("alpha").await, Provider::start("beta").await);
    let document = Document::weighted(&[(&unpriced, 9), (&priced, 1)])
        .deployment("beta", "")
        .virtual_model("free", &unpriced.deployment())
        .section("budgets: [{name: all, limit_usd: 1, period: DAY}]");
    let agent = Agent::alone(&document).await;
    for _ in 0..10 {
        assert_eq!(agent.chat(false).await.header("x-trunkline-deployment"), priced.deployment());
    }
    let mut body = body();
    body["model"] = json!("free");
    let refused = agent.post("/v1/chat/completions", &body).await;
    assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (402, "budget_unpriced"));
    assert_eq!(unpriced.requests(), 0);
}
