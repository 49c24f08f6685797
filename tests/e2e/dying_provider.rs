//! One of two providers dies under ten concurrent callers, and comes back.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use trunkline_tests::{
    agent::Agent,
    chat::chat,
    document::Document,
    patience::until,
    provider::{ANSWER, Provider},
    reply::Reply,
};

const CALLERS: usize = 10;

/// Answers awaited in each phase.
const PHASE: u64 = 150;

/// Attempts on the dead provider: those under way when it died and until the breaker
/// opened (five failures in a row), then a probe now and then.
const WASTED_MAX: u64 = 40;

/// What the callers saw.
#[derive(Debug, Default)]
struct Seen {
    answers: AtomicU64,
    /// Attempts that failed at the provider named `dying`.
    wasted: AtomicU64,
    stop: AtomicBool,
}

#[tokio::test]
async fn no_call_fails_and_the_full_share_comes_back_by_ramp() {
    let (mut dying, healthy) = (Provider::start("dying").await, Provider::start("healthy").await);
    let document = Document::even(&[&dying, &healthy]).providers("breaker: {open_base: 200ms, open_max: 1s}");
    let agent = Arc::new(Agent::alone(&document).await);
    let seen = Arc::new(Seen::default());
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(call(Arc::clone(&agent), Arc::clone(&seen), caller % 2 == 0)))
        .collect();
    answers(&seen, PHASE).await;

    dying.die().await;
    let answered = seen.answers.load(Ordering::Relaxed);
    answers(&seen, answered + 2 * PHASE).await;
    let wasted = seen.wasted.load(Ordering::Relaxed);
    assert!((1..=WASTED_MAX).contains(&wasted), "{wasted} attempts on the dead provider");

    dying.revive().await;
    seen.stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("a call failed");
    }
    comes_back_by_ramp(&agent, &dying).await;
}

/// Calls again and again until it is told to stop; every answer must be whole.
async fn call(agent: Arc<Agent>, seen: Arc<Seen>, stream: bool) {
    while !seen.stop.load(Ordering::Relaxed) {
        let reply = agent.chat(stream).await;
        assert_eq!(reply.text(), ANSWER, "{reply:?}");
        assert!(reply.errors_if_stream().is_empty(), "{reply:?}");
        seen.wasted.fetch_add(wasted(&reply), Ordering::Relaxed);
        seen.answers.fetch_add(1, Ordering::Relaxed);
    }
}

fn wasted(reply: &Reply) -> u64 {
    let attempts = reply.header("x-trunkline-attempts").split(',');
    attempts.filter(|attempt| attempt.starts_with("dying/m:") && !attempt.ends_with(":ok")).count() as u64
}

async fn answers(seen: &Seen, count: u64) {
    let answers = async || seen.answers.load(Ordering::Relaxed);
    until("the callers to get answers", answers, |answers| *answers >= count).await;
}

/// Shares of twenty calls grow from none to exactly ten.
async fn comes_back_by_ramp(agent: &Agent, dying: &Provider) {
    let mut shares = Vec::new();
    let batch = async || {
        let before = dying.requests();
        for _ in 0..20 {
            let response = agent.open(&chat(false)).await;
            assert_eq!(Reply::read(response).await.text(), ANSWER);
        }
        dying.requests() - before
    };
    let mut in_a_row = 0;
    let shown = async || {
        let share = batch().await;
        shares.push(share);
        in_a_row = if share == 10 { in_a_row + 1 } else { 0 };
        in_a_row
    };
    until("the full share", shown, |in_a_row| *in_a_row == 3).await;
    assert!(shares.iter().any(|share| (1..10).contains(share)), "no ramp: {shares:?}");
}
