//! One provider fails under traffic of three agents: the fleet opens it for all, one agent
//! at a time probes it, and it comes back by ramp. No caller ever sees a failure.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::sleep};
use trunkline_proto::{
    admin::v1::FleetBreaker,
    types::v1::{BreakerState, ExclusionReason},
};
use trunkline_simulator::live::Fault;
use trunkline_tests::{
    admin::Admin,
    agent::Agent,
    chat::chat,
    control_plane::ControlPlane,
    document::Document,
    patience::{PATIENCE, until},
    provider::{ANSWER, Provider},
};

const AGENTS: usize = 3;
/// Callers of each agent.
const CALLERS: usize = 2;
/// Between two calls of one caller: enough traffic, and room for others on the machine.
const PAUSE: Duration = Duration::from_millis(15);
/// An agent counts the control plane as gone after so long without a word.
const LIVENESS: Duration = Duration::from_secs(15);

struct Fleet {
    dying: Provider,
    healthy: Provider,
    agents: Vec<Arc<Agent>>,
    admin: Admin,
    control_plane: ControlPlane,
}

/// Callers that never stop, and what they saw.
struct Callers {
    answers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

async fn fleet(breaker: &str) -> Fleet {
    let (dying, healthy) = (Provider::start("dying").await, Provider::start("healthy").await);
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    let document = Document::even(&[&dying, &healthy])
        .timeouts("first_token: 400ms")
        .providers(&format!("breaker: {{{breaker}}}"));
    admin.apply(&document).await;
    let agents: Vec<_> = (0..AGENTS).map(|_| Arc::new(Agent::following(&control_plane.url))).collect();
    for agent in &agents {
        agent.ready().await;
    }
    admin.agents_hold(AGENTS, 1).await;
    Fleet { dying, healthy, agents, admin, control_plane }
}

impl Callers {
    fn start(agents: &[Arc<Agent>]) -> Self {
        let (answers, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        for agent in agents {
            for caller in 0..CALLERS {
                let (agent, answers, stop) = (Arc::clone(agent), Arc::clone(&answers), Arc::clone(&stop));
                tasks.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        // Streams: a silent one is overtaken after `first_token`.
                        let reply = agent.chat(caller % 2 == 0).await;
                        assert_eq!(reply.text(), ANSWER, "{reply:?}");
                        assert!(reply.errors_if_stream().is_empty(), "{reply:?}");
                        answers.fetch_add(1, Ordering::Relaxed);
                        sleep(PAUSE).await;
                    }
                });
            }
        }
        Self { answers, stop, tasks }
    }

    /// Waits for so many more answers.
    async fn answer(&self, more: u64) {
        let all = self.answers.load(Ordering::Relaxed) + more;
        let seen = async || self.answers.load(Ordering::Relaxed);
        until("the callers to get answers", seen, |answers| *answers >= all).await;
    }

    /// Every call had its answer.
    async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(caller) = self.tasks.join_next().await {
            assert!(caller.is_ok(), "a call failed: {caller:?}");
        }
        self.answers.load(Ordering::Relaxed)
    }
}

impl Fleet {
    async fn verdict(&self) -> FleetBreaker {
        self.admin.breaker("dying/m").await.fleet.unwrap_or_default()
    }

    async fn verdict_is(&self, states: &[BreakerState]) -> FleetBreaker {
        let fits = |verdict: &FleetBreaker| states.contains(&verdict.state());
        until("the fleet's verdict", async || self.verdict().await, fits).await
    }

    /// Why `agent` keeps away from the dying provider, as its newest decision says.
    async fn excluded(&self, agent: &Agent) -> Option<(ExclusionReason, String)> {
        let reply = agent.chat(false).await;
        assert_eq!(reply.text(), ANSWER, "{reply:?}");
        let decision = agent.decision(&reply).await;
        let excluded = decision.excluded.into_iter().find(|one| one.deployment == "dying/m")?;
        Some((excluded.reason(), excluded.detail))
    }

    /// Waits until every agent says that the fleet's verdict keeps it away.
    async fn all_keep_away(&self) {
        for agent in &self.agents {
            let by_verdict = |why: &Option<(ExclusionReason, String)>| {
                why.as_ref().is_some_and(|(reason, _)| *reason == ExclusionReason::FleetBreaker)
            };
            let why = until("the verdict to rule", async || self.excluded(agent).await, by_verdict).await;
            assert!(why.is_some_and(|(_, detail)| detail.contains("other agents")));
        }
    }
}

#[tokio::test]
async fn a_dying_provider_is_left_by_all_probed_by_one_and_comes_back_unnoticed() {
    let fleet = fleet("open_base: 1s, open_max: 2s").await;
    let callers = Callers::start(&fleet.agents);
    callers.answer(150).await;
    assert!(fleet.dying.requests() > 30, "it has its share");

    fleet.dying.fail(Fault::status(502));
    let verdict = fleet.verdict_is(&[BreakerState::Open, BreakerState::HalfOpen]).await;
    assert!(verdict.openings >= 1, "{verdict:?}");
    assert!(fleet.admin.breaker("dying/m").await.generation >= 1);
    fleet.all_keep_away().await;
    assert_eq!(fleet.admin.breaker("healthy/m").await.state(), BreakerState::Closed);

    // Hanging probes would show if two ran at a time.
    fleet.dying.fail(Fault::Silent);
    let before = fleet.dying.requests();
    let (mut most, end) = (0, Instant::now() + PATIENCE);
    while fleet.dying.requests() < before + 3 {
        assert!(Instant::now() < end, "three probes did not come: {:#?}", fleet.verdict().await);
        most = most.max(fleet.dying.live.counters().in_flight);
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(most, 1, "one probe at a time for the whole fleet");
    assert!(callers.answers.load(Ordering::Relaxed) > 200, "traffic went on meanwhile");

    fleet.dying.fail(None);
    fleet.verdict_is(&[BreakerState::Ramping]).await;
    fleet.verdict_is(&[BreakerState::Closed]).await;
    let share = async || {
        let before = fleet.dying.requests();
        for _ in 0..20 {
            assert_eq!(fleet.agents[0].chat(false).await.text(), ANSWER);
        }
        fleet.dying.requests() - before
    };
    until("its full share", share, |share| *share >= 10).await;
    let answers = callers.stop().await;
    assert!(answers > 300 && fleet.healthy.requests() > fleet.dying.requests());
}

#[tokio::test]
async fn without_the_control_plane_agents_go_on_and_find_out_by_themselves_but_seldom() {
    let fleet = fleet("open_base: 1s, open_max: 2s").await;
    let callers = Callers::start(&fleet.agents);
    callers.answer(60).await;
    fleet.dying.fail(Fault::status(502));
    fleet.verdict_is(&[BreakerState::Open, BreakerState::HalfOpen]).await;
    fleet.all_keep_away().await;

    let Fleet { dying, agents, control_plane, .. } = fleet;
    let killed = Instant::now();
    let away = control_plane.kill();
    // One lease may still be used; all else waits until the control plane counts as gone.
    let before = dying.requests();
    while dying.requests() <= before + 1 {
        assert!(killed.elapsed() < LIVENESS * 2, "nobody ever tried");
        sleep(Duration::from_millis(10)).await;
    }
    // The last word was at most a heartbeat, 5 s, old when it was killed.
    assert!(killed.elapsed() >= LIVENESS.saturating_sub(Duration::from_secs(6)), "{:?}", killed.elapsed());
    // Then each agent probes once in one to three times the open time, of a second at least.
    let (before, since) = (dying.requests(), Instant::now());
    callers.answer(300).await;
    let (probes, passed) = (dying.requests() - before, since.elapsed());
    let most = (AGENTS as u64) * (passed.as_secs() + 2);
    assert!(probes <= most, "{probes} probes in {passed:?}");

    dying.fail(None);
    let shares = async || {
        let before = dying.requests();
        for _ in 0..20 {
            assert_eq!(agents[0].chat(false).await.text(), ANSWER);
        }
        dying.requests() - before
    };
    until("its full share", shares, |share| *share >= 10).await;
    callers.stop().await;
    drop(away);
}

#[tokio::test]
async fn poison_prompts_and_deadlines_that_nobody_can_meet_trip_nothing() {
    let fleet = fleet("open_base: 1s, open_max: 2s").await;
    let callers = Callers::start(&fleet.agents);
    for _ in 0..12 {
        for agent in &fleet.agents {
            let impatient = agent.request("/v1/chat/completions", &chat(false));
            let response = impatient.header("x-trunkline-timeout-ms", "1").send().await.unwrap();
            drop(response.bytes().await);
        }
    }
    callers.answer(60).await;
    let stop = callers.stop().await;
    assert!(stop >= 60);
    // A prompt that breaks whoever gets it: the lone retry, then the other one.
    for _ in 0..8 {
        for agent in &fleet.agents {
            fleet.dying.fail(Fault::status(500));
            fleet.healthy.fail(Fault::status(500));
            assert!(agent.chat(false).await.status.as_u16() >= 500);
            fleet.dying.fail(None);
            fleet.healthy.fail(None);
            for _ in 0..6 {
                assert_eq!(agent.chat(false).await.text(), ANSWER);
            }
        }
    }
    for deployment in ["dying/m", "healthy/m"] {
        let breaker = fleet.admin.breaker(deployment).await;
        assert_eq!(breaker.state(), BreakerState::Closed, "{breaker:?}");
        assert_eq!(breaker.generation, 0, "{breaker:?}");
    }
}
