//! Breaker, rate gate and quarantine: three protections that work, are shown, and are
//! never mixed up; and what an operator can force.

use std::time::Duration;

use trunkline_proto::types::v1::{BreakerState, Protection, protection::Kind};
use trunkline_simulator::live::{ErrorBody, Fault};
use trunkline_tests::{
    admin::Admin,
    agent::Agent,
    control_plane::ControlPlane,
    document::Document,
    patience::until,
    provider::{ANSWER, Provider},
};

struct Fleet {
    alpha: Provider,
    beta: Provider,
    admin: Admin,
    agent: Agent,
    _control_plane: ControlPlane,
}

async fn fleet() -> Fleet {
    let (alpha, beta) = (Provider::start("alpha").await, Provider::start("beta").await);
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    let policy = "breaker: {consecutive_failures: 3, open_base: 500ms, open_max: 1s}";
    admin.apply(&Document::even(&[&alpha, &beta]).providers(policy)).await;
    let agent = Agent::following(&control_plane.url);
    agent.ready().await;
    Fleet { alpha, beta, admin, agent, _control_plane: control_plane }
}

impl Fleet {
    /// A few whole answers, whoever gives them.
    async fn answers(&self, count: usize) {
        for at in 0..count {
            let reply = self.agent.chat(at % 2 == 0).await;
            assert_eq!(reply.text(), ANSWER, "{reply:?}");
        }
    }

    /// Requests that alpha got of twenty.
    async fn share(&self) -> u64 {
        let before = self.alpha.requests();
        self.answers(20).await;
        self.alpha.requests() - before
    }

    /// Sends requests until alpha's breaker is shown in this state.
    async fn drive_until(&self, state: BreakerState) {
        let driven = async || {
            self.answers(4).await;
            self.admin.breaker("alpha/m").await.state()
        };
        until("the breaker's state to be shown", driven, |seen| *seen == state).await;
    }

    async fn protections(&self) -> Vec<Protection> {
        self.admin.breakers().await.protections.into_iter().filter_map(|one| one.protection).collect()
    }
}

#[tokio::test]
async fn failures_open_it_and_good_answers_close_it_by_ramp_for_all_to_see() {
    let fleet = fleet().await;
    fleet.alpha.fail(Fault::status(500));
    fleet.drive_until(BreakerState::Open).await;
    let breaker = fleet.admin.breaker("alpha/m").await;
    assert_eq!(breaker.agents.len(), 1, "{breaker:?}");
    assert_eq!(fleet.admin.breaker("beta/m").await.state(), BreakerState::Closed);

    fleet.alpha.fail(None);
    fleet.drive_until(BreakerState::Ramping).await;
    fleet.drive_until(BreakerState::Closed).await;
    until("the full share", async || fleet.share().await, |share| *share == 10).await;
}

#[tokio::test]
async fn forced_open_gets_no_traffic_until_it_is_given_back() {
    let fleet = fleet().await;
    fleet.admin.set_breaker("alpha/m", BreakerState::ForcedOpen, None).await;
    let forced = fleet.admin.breaker("alpha/m").await;
    assert_eq!((forced.state(), forced.reason.as_str()), (BreakerState::ForcedOpen, "drill"));
    until("traffic to be diverted", async || fleet.share().await, |share| *share == 0).await;
    assert_eq!(fleet.share().await, 0);

    fleet.admin.set_breaker("alpha/m", BreakerState::Closed, None).await;
    until("the full share", async || fleet.share().await, |share| *share == 10).await;
}

#[tokio::test]
async fn forced_open_ends_with_its_ttl() {
    let fleet = fleet().await;
    let ttl = Duration::from_secs(2);
    fleet.admin.set_breaker("alpha/m", BreakerState::ForcedOpen, Some(ttl)).await;
    let forced = fleet.admin.breaker("alpha/m").await;
    assert!(forced.expire_time.is_some(), "{forced:?}");
    until("the full share", async || fleet.share().await, |share| *share == 10).await;
    fleet.admin.breaker_is("alpha/m", &[BreakerState::Closed]).await;
}

#[tokio::test]
async fn forced_closed_gets_traffic_whatever_it_answers() {
    let fleet = fleet().await;
    fleet.admin.set_breaker("alpha/m", BreakerState::ForcedClosed, None).await;
    fleet.admin.breaker_is("alpha/m", &[BreakerState::ForcedClosed]).await;
    fleet.alpha.fail(Fault::status(502));
    // Long after three failures in a row it still has its share of first attempts.
    until("the breaker not to matter", async || fleet.share().await, |share| *share >= 10).await;
    assert!(fleet.share().await >= 10);
    assert!(fleet.share().await >= 10);
}

#[tokio::test]
async fn rate_limits_shut_the_gate_and_never_open_the_breaker() {
    let fleet = fleet().await;
    let body = ErrorBody::usual(429);
    fleet.alpha.fail(Fault::Status { code: 429, body, retry_after: Some("1".to_owned()) });
    let gated = async || {
        fleet.answers(10).await;
        fleet.protections().await
    };
    let is_gate = |one: &Protection| matches!(one.kind, Some(Kind::RateGate(_)));
    let shown = until("the gate to be shown", gated, |all| all.iter().any(is_gate)).await;
    assert!(shown.iter().all(|one| one.subject.starts_with("alpha") && is_gate(one)), "{shown:?}");

    // Many refusals later, still no failure in a row.
    let refused = async || {
        fleet.answers(10).await;
        fleet.alpha.live.counters().by_status.get(&429).copied().unwrap_or_default()
    };
    until("more refusals than the breaker would bear", refused, |count| *count >= 4).await;
    let breaker = fleet.admin.breaker("alpha/m").await;
    assert_eq!(breaker.state(), BreakerState::Closed, "{breaker:?}");
    let rows = fleet.admin.stats_count(fleet.alpha.requests() + fleet.beta.requests()).await;
    let classes: Vec<_> = rows["alpha/m"].errors_by_class.keys().collect();
    assert_eq!(classes, ["rate_limited"], "{rows:?}");
}

#[tokio::test]
async fn refused_key_is_quarantined_and_shown() {
    let fleet = fleet().await;
    fleet.alpha.fail(Fault::status(401));
    fleet.answers(10).await;
    assert_eq!(fleet.alpha.requests(), 1, "one refusal of a key is enough");
    let is_quarantine =
        |one: &Protection| one.subject.starts_with("alpha") && matches!(one.kind, Some(Kind::Quarantine(_)));
    let shown = async || fleet.protections().await;
    until("the quarantine to be shown", shown, |all| all.iter().any(is_quarantine)).await;
    assert_eq!(fleet.admin.breaker("alpha/m").await.state(), BreakerState::Closed);
    assert_eq!(fleet.agent.readiness().await.0, 200);
}
