//! Budgets over sockets: what nobody reads is paid for, and nothing starts that is not.

use super::*;

/// One dollar per token of input. What is asked has 19 tokens by its bytes: 21 dollars are
/// reserved for an attempt, and one of which nothing is told costs 19. An answer says 1.
const PRICE: &str = "name: m, price: {input_usd_per_mtok: 1000000, output_usd_per_mtok: 0}";

async fn agent(providers: &[&Provider], limit_usd: u32, timeouts: &str, deadline: &str) -> Agent {
    let budget = format!("budgets: [{{name: all, limit_usd: {limit_usd}, period: MONTH, action: REJECT}}]\n");
    let document = document(providers, &format!("    deadline: {deadline}\n{budget}"))
        .replace("name: m", PRICE)
        .replace("weight: 1}]", &format!("weight: 1}}], timeouts: {{{timeouts}}}"));
    let agent = Agent::start(&document, Limits::default()).await;
    // It has read its own ledger when it knows that this is too much.
    let long = post("/v1/chat/completions", "", &CHAT.replace("hi", &"hi ".repeat(1_000)));
    let known = async {
        while !agent.ask(&long).await.contains("has less left than") {
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(known).await;
    agent
}

fn chat() -> String {
    // Of one token: the wait for a whole answer is short.
    post("/v1/chat/completions", "", &CHAT.replacen('{', "{\"max_tokens\":1,", 1))
}

#[tokio::test]
async fn who_leaves_before_the_answer_has_spent_all_the_same() {
    let mut silent = Provider::start(Play::Silence).await;
    let agent = agent(&[&silent], 50, "first_token: 10s", "10s").await;
    for at in 1..=2 {
        let mut stream = agent.connect().await;
        stream.write_all(chat().as_bytes()).await.unwrap();
        silent.until(|seen| seen.0 == at).await;
        drop(stream);
        // The agent hangs up when it knows.
        silent.until(|seen| seen.1 == at).await;
    }
    let answer = agent.ask(&chat()).await;
    assert!(answer.starts_with("HTTP/1.1 402 "), "{answer}");
}

#[tokio::test]
async fn who_loses_a_race_is_paid() {
    let (silent, good) = (Provider::start(Play::Silence).await, Provider::start(Play::Answer).await);
    // Two at once fit once: by themselves, answers would go on for a while.
    let agent = agent(&[&silent, &good], 60, "first_token: 10ms", "2s").await;
    let mut answered = 0;
    let refused = loop {
        let answer = agent.ask(&chat()).await;
        if !answer.starts_with("HTTP/1.1 200 ") || answered == 20 {
            break answer;
        }
        answered += 1;
    };
    assert!((1..5).contains(&answered), "{answered}: {refused}");
}

#[tokio::test]
async fn what_only_makes_it_faster_is_left_out_where_there_is_no_money_for_two() {
    for (limit_usd, status, asked) in [(30, "504", 0), (60, "200", 1)] {
        let (silent, good) = (Provider::start(Play::Silence).await, Provider::start(Play::Answer).await);
        let agent = agent(&[&silent, &good], limit_usd, "first_token: 10ms", "2s").await;
        let answer = agent.ask(&chat()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{limit_usd}: {answer}");
        assert_eq!(good.seen.borrow().0, asked, "{limit_usd}");
    }
}

#[tokio::test]
async fn a_retry_needs_money_of_its_own_if_the_first_was_not_free() {
    let overloaded = Play::Status("503 Service Unavailable");
    let attempt = "first_token: 10s, attempt: 50ms";
    for (play, limit_usd, status, asked) in
        [(Play::Silence, 30, "402", 0), (Play::Silence, 60, "200", 1), (overloaded, 30, "200", 1)]
    {
        let (first, good) = (Provider::start(play).await, Provider::start(Play::Answer).await);
        let agent = agent(&[&first, &good], limit_usd, attempt, "10s").await;
        let answer = agent.ask(&chat()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{limit_usd}: {answer}");
        assert_eq!(good.seen.borrow().0, asked, "{limit_usd}: {answer}");
    }
}
