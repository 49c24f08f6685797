//! Strategies that predict, with real processes: an agent learns from what it sees, the
//! fleet from all agents, and people see why.

use trunkline_sdk::types::{AttemptStart, Candidate, Decision, RouteRequest, ScoreBasis};
use trunkline_simulator::{
    Ttft,
    live::{Fault, LiveProvider},
};
use trunkline_tests::{
    agent::Agent,
    chat::chat,
    control_plane::ControlPlane,
    document::Document,
    patience::until,
    provider::{Provider, TOKENS, model},
    reply::Reply,
};

/// Requests whose shares are looked at.
const ENOUGH: usize = 50;

/// One whose first content takes so long.
async fn provider(name: &str, ttft_s: f64) -> Provider {
    let ttft = Ttft { base_s: ttft_s, per_1k_input_s: 0.0, sigma: 0.0, head_share: 0.0 };
    let model = trunkline_simulator::ProviderModel { ttft, ..model(name, TOKENS) };
    Provider::serve(name, LiveProvider::new(model, 1)).await
}

async fn ask(agent: &Agent, count: usize) -> Vec<String> {
    let mut went = Vec::new();
    for _ in 0..count {
        let reply = agent.chat(true).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        went.push(reply.header("x-trunkline-deployment").to_owned());
    }
    went
}

/// Asks until both targets were met often enough to be predicted: which is met when is
/// chance.
async fn learn(agent: &Agent) {
    let decide = async || {
        let reply = agent.chat(true).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        agent.decision(&reply).await
    };
    until("both targets to be known", decide, |decision| {
        let known = |one: &Candidate| one.score.is_some_and(|score| score.basis() == ScoreBasis::Own);
        decision.candidates.len() == 2 && decision.candidates.iter().all(known)
    })
    .await;
}

fn share(went: &[String], deployment: &str) -> f64 {
    went.iter().filter(|one| *one == deployment).count() as f64 / went.len() as f64
}

fn candidate<'a>(decision: &'a Decision, deployment: &str) -> &'a Candidate {
    let found = decision.candidates.iter().find(|one| one.deployment == deployment);
    found.unwrap_or_else(|| panic!("{deployment} is no candidate: {decision:?}"))
}

#[tokio::test]
async fn latency_learns_which_target_is_fast_and_shows_the_terms() {
    let (slow, fast) = (provider("slow", 0.3).await, provider("fast", 0.01).await);
    let document = Document::even(&[&slow, &fast]).chat("strategy: STRATEGY_LATENCY");
    let agent = Agent::alone(&document).await;
    learn(&agent).await;
    let went = ask(&agent, ENOUGH).await;
    assert!(share(&went, "fast/m") > 0.8, "{went:?}");

    let reply = agent.chat(true).await;
    assert_eq!(reply.header("x-trunkline-strategy"), "latency");
    let decision = agent.decision(&reply).await;
    for name in ["slow/m", "fast/m"] {
        let score = candidate(&decision, name).score.unwrap();
        assert_eq!(score.basis(), ScoreBasis::Own, "{score:?}");
        let sum = score.ttft_seconds + score.output_seconds + score.error_seconds + score.break_seconds;
        assert!((sum - score.value).abs() < 1e-9, "{score:?}");
        let ttft = score.base_ttft_seconds * score.load_factor * score.moment_factor;
        assert!((ttft / score.ttft_seconds - 1.0).abs() < 1e-6, "{score:?}");
    }
    let seconds = |name| candidate(&decision, name).score.unwrap().ttft_seconds;
    assert!(seconds("slow/m") > 2.0 * seconds("fast/m"), "{decision:?}");
    assert_eq!(decision.attempts[0].start(), AttemptStart::First);
}

#[tokio::test]
async fn an_agent_that_never_sent_a_request_knows_what_another_one_learned() {
    let (slow, fast) = (provider("slow", 0.3).await, provider("fast", 0.01).await);
    let control_plane = ControlPlane::start();
    let document = Document::even(&[&slow, &fast]).chat("strategy: STRATEGY_LATENCY");
    control_plane.admin().await.apply(&document).await;
    let (one, other) = (Agent::following(&control_plane.url), Agent::following(&control_plane.url));
    one.ready().await;
    other.ready().await;
    learn(&one).await;

    for url in [&other.url, &control_plane.url] {
        let client = trunkline_sdk::Client::connect(url.as_str()).await.unwrap();
        let decide = async || {
            let request = RouteRequest { model: "chat".to_owned(), ..RouteRequest::default() };
            client.route(request).await.unwrap().decision.unwrap()
        };
        let knows = |decision: &Decision| {
            let known = |one: &Candidate| one.score.is_some_and(|score| score.basis() == ScoreBasis::Fleet);
            decision.candidates.len() == 2 && decision.candidates.iter().all(known)
        };
        let decision = until("the models of the other agent", decide, knows).await;
        assert!(candidate(&decision, "fast/m").probability > 0.8, "{decision:?}");
    }
}

#[tokio::test]
async fn cost_takes_the_cheapest_that_fits() {
    let (dear, cheap) = (provider("dear", 0.01).await, provider("cheap", 0.02).await);
    let price = |usd: u32| format!("price: {{input_usd_per_mtok: {usd}, output_usd_per_mtok: {usd}}}");
    let document = Document::even(&[&dear, &cheap])
        .deployment("dear", &price(10))
        .deployment("cheap", &price(1))
        .chat("strategy: STRATEGY_COST");
    let agent = Agent::alone(&document).await;
    learn(&agent).await;
    let went = ask(&agent, ENOUGH).await;
    assert!(share(&went, "cheap/m") > 0.8, "{went:?}");
}

#[tokio::test]
async fn a_request_that_fits_nowhere_is_told_which_constraint_binds() {
    let (dear, cheap) = (Provider::start("dear").await, Provider::start("cheap").await);
    let price = |usd: u32| format!("price: {{input_usd_per_mtok: {usd}, output_usd_per_mtok: {usd}}}");
    let document = Document::even(&[&dear, &cheap])
        .deployment("dear", &price(1_000))
        .deployment("cheap", &price(1))
        .chat("strategy: STRATEGY_COST");
    let agent = Agent::alone(&document).await;
    let header = ("x-trunkline-max-cost-usd", "0.000000001");
    let request = agent.request("/v1/chat/completions", &chat(false)).header(header.0, header.1);
    let reply = Reply::read(request.send().await.unwrap()).await;
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (503, "no_target"));
    let error = &reply.json()["error"];
    assert_eq!(error["constraint"]["reason"], "COST", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("at most 0.000000001 USD is allowed"), "{message}");

    let request =
        RouteRequest { model: "chat".to_owned(), affinity_key: "s".repeat(257), ..RouteRequest::default() };
    let refused = agent.sdk().await.route(request).await.unwrap_err();
    assert!(refused.to_string().contains("at most 256"), "{refused}");
}

#[tokio::test]
async fn a_second_attempt_takes_over_from_a_target_that_stalls() {
    let (one, two) = (provider("one", 0.01).await, provider("two", 0.01).await);
    let document = Document::even(&[&one, &two])
        .chat("strategy: STRATEGY_LATENCY")
        .timeouts("first_token: 60s")
        .chat("hedge: {budget_percent: 100}");
    let agent = Agent::alone(&document).await;
    learn(&agent).await;
    one.fail(Fault::Silent);
    let mut overtaken = false;
    for _ in 0..20 {
        let reply = agent.chat(true).await;
        assert_eq!((reply.status.as_u16(), reply.header("x-trunkline-deployment")), (200, "two/m"));
        let decision = agent.decision(&reply).await;
        // On a machine that is slow by itself the prediction allows for more, and the soft
        // time limit comes first.
        let second = |start| matches!(start, AttemptStart::Hedge | AttemptStart::Beside);
        overtaken |= decision.attempts.iter().any(|attempt| second(attempt.start()));
    }
    assert!(overtaken, "no second attempt was started");
}
