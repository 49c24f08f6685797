//! The fleet's breakers, with agents that say what a test tells them to.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};
use trunkline_proto::{
    admin::v1::{Breaker, ListBreakersRequest},
    agent::v1::{
        BreakerVerdict, Hello, ProbeLease, ProbeOutcome, ProbePurpose, ProbeResult, ProtectionStates,
        Publication, sync_request, sync_response::Message,
    },
    telemetry::v1::{
        OutcomeCount, StreamReportsRequest, StreamReportsResponse, TargetStats,
        telemetry_service_client::TelemetryServiceClient,
    },
    types::v1::{BreakerState, LocalBreaker, OutcomeClass, Protection, protection::Kind},
};

use crate::{
    scripted::{Agent, hello},
    support::{PATIENCE, Plane, apply, config},
};

/// As in `DOCUMENT`, with a breaker that does not stay open for long.
const QUICK: &str = r"
providers:
  - name: one
    dialect: DIALECT_OPENAI
    base_url: https://one.example.com/v1
    breaker: {open_base: 1s, open_max: 1s}
    deployments: [{name: small}]
  - name: two
    dialect: DIALECT_OPENAI
    base_url: https://two.example.com/v1
    deployments: [{name: small}]
virtual_models:
  - name: chat
    strategy: STRATEGY_WEIGHTED
    tiers:
      - targets: [{deployment: one/small, weight: 70}, {deployment: two/small, weight: 30}]
";

/// An agent with both of its streams.
struct Member {
    sync: Agent,
    reports: mpsc::Sender<StreamReportsRequest>,
    acks: Streaming<StreamReportsResponse>,
    agent_id: String,
    seq: u64,
    /// The newest publication.
    told: Publication,
}

impl Member {
    async fn join(plane: &Plane, agent_id: &str) -> Self {
        Self::with(plane.channel.clone(), hello(agent_id)).await
    }

    async fn with(channel: Channel, hello: Hello) -> Self {
        let agent_id = hello.agent_id.clone();
        let sync = Agent::try_open(channel.clone(), hello).await.unwrap();
        let (reports, messages) = mpsc::channel(8);
        let mut telemetry = TelemetryServiceClient::new(channel);
        let acks = telemetry.stream_reports(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Self { sync, reports, acks, agent_id, seq: 0, told: Publication::default() }
    }

    /// Reports attempts of the last second, and waits until they are merged.
    async fn report(&mut self, deployment: &str, outcomes: &[(OutcomeClass, u64)]) {
        self.seq += 1;
        let outcomes =
            outcomes.iter().map(|(class, count)| OutcomeCount { outcome: (*class).into(), count: *count });
        let target = TargetStats {
            deployment: deployment.into(),
            model: "chat".into(),
            outcomes: outcomes.collect(),
            ..TargetStats::default()
        };
        let report = StreamReportsRequest {
            agent_id: self.agent_id.clone(),
            incarnation: "i".into(),
            seq: self.seq,
            covered: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            targets: vec![target],
            ..StreamReportsRequest::default()
        };
        self.reports.send(report).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, self.acks.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.acked_seq, self.seq);
    }

    /// Its own breaker of `deployment` is open since it held `base`.
    async fn opens(&self, deployment: &str, base: u64) {
        let breaker = LocalBreaker {
            state: BreakerState::Open.into(),
            base_generation: base,
            ..LocalBreaker::default()
        };
        let protection = Protection { subject: deployment.into(), kind: Some(Kind::Breaker(breaker)) };
        let states = ProtectionStates { protections: vec![protection] };
        self.sync.say(sync_request::Message::Protections(states)).await;
    }

    /// Reads publications until one is as `wanted`.
    async fn until(&mut self, wanted: impl Fn(&Publication) -> bool) -> Publication {
        while !wanted(&self.told) {
            if let Message::Publication(told) = self.sync.next().await.unwrap() {
                self.told = told;
            }
        }
        self.told.clone()
    }

    /// Waits until it is told that state of `subject`.
    async fn told(&mut self, subject: &str, state: BreakerState) -> BreakerVerdict {
        let told = self.until(|told| verdict(told, subject).is_some_and(|one| one.state() == state)).await;
        verdict(&told, subject).unwrap().clone()
    }

    async fn answers(&self, lease: &ProbeLease, outcome: ProbeOutcome, class: OutcomeClass) {
        let result = ProbeResult {
            lease_id: lease.lease_id,
            deployment: lease.deployment.clone(),
            generation: lease.generation,
            outcome: outcome.into(),
            outcome_class: class.into(),
            cost_nano_usd: 0,
        };
        self.sync.say(sync_request::Message::ProbeResult(result)).await;
    }
}

fn verdict<'a>(told: &'a Publication, subject: &str) -> Option<&'a BreakerVerdict> {
    told.verdicts.iter().find(|verdict| verdict.deployment == subject)
}

async fn quick(plane: &mut Plane) {
    plane.admin.apply_config(apply(config(QUICK))).await.unwrap();
}

async fn three(plane: &Plane) -> [Member; 3] {
    [Member::join(plane, "a").await, Member::join(plane, "b").await, Member::join(plane, "c").await]
}

async fn breaker(plane: &mut Plane, name: &str) -> Breaker {
    let listed = plane.admin.list_breakers(ListBreakersRequest::default()).await.unwrap().into_inner();
    listed.breakers.into_iter().find(|breaker| breaker.deployment == name).unwrap()
}

/// Waits until one of `members` holds a lease, and answers who.
async fn holder(members: &mut [Member; 3]) -> (usize, ProbeLease) {
    let search = async {
        loop {
            for (at, member) in members.iter_mut().enumerate() {
                if let Some(lease) = member.told.probe_leases.first() {
                    return (at, lease.clone());
                }
                let next = tokio::time::timeout(std::time::Duration::from_millis(10), member.sync.next());
                if let Ok(Ok(Message::Publication(told))) = next.await {
                    member.told = told;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap()
}

#[tokio::test]
async fn failures_at_three_agents_open_it_for_all_and_a_restart_keeps_the_generation() {
    let dir = tempfile::tempdir().unwrap();
    let mut plane = Plane::on_disk(dir.path()).await;
    quick(&mut plane).await;
    let mut members = three(&plane).await;
    for member in &mut members {
        member.report("one/small", &[(OutcomeClass::Unavailable, 6), (OutcomeClass::Ok, 1)]).await;
    }
    for member in &mut members {
        let told = member.told("one/small", BreakerState::Open).await;
        assert_eq!((told.generation, told.openings), (1, 1), "{told:?}");
        let remaining = told.remaining.unwrap();
        assert!(remaining.seconds <= 1, "{told:?}");
        assert!(told.reason.contains("18 of 21 requests failed"), "{told:?}");
    }
    // Nobody but one gets the lease, of the generation that everybody holds.
    let (at, lease) = holder(&mut members).await;
    assert_eq!(
        (lease.deployment.as_str(), lease.generation, lease.purpose()),
        ("one/small", 2, ProbePurpose::HalfOpen)
    );
    let shown = breaker(&mut plane, "one/small").await;
    let fleet = shown.fleet.unwrap();
    assert_eq!((shown.generation, fleet.state()), (2, BreakerState::HalfOpen));
    assert_eq!(fleet.prober, members[at].agent_id);
    drop(members);
    plane.stop().await;

    let mut plane = Plane::on_disk(dir.path()).await;
    let mut member = Member::join(&plane, "a").await;
    let told = member.told("one/small", BreakerState::HalfOpen).await;
    assert_eq!(told.generation, 2);
    // The lease of before is void: its number does nothing, and the next one is larger.
    member.answers(&lease, ProbeOutcome::Failed, OutcomeClass::Timeout).await;
    let told = member.until(|told| !told.probe_leases.is_empty()).await;
    assert!(told.probe_leases[0].lease_id >= lease.lease_id + 500, "{told:?}");
    assert_eq!(breaker(&mut plane, "one/small").await.generation, 2);
    drop(member);
    plane.stop().await;
}

#[tokio::test]
async fn two_probes_that_succeed_begin_the_ramp_and_it_ends_closed() {
    let mut plane = Plane::empty().await;
    quick(&mut plane).await;
    let mut members = three(&plane).await;
    for member in &members {
        member.opens("one/small", 0).await;
    }
    for expected in 1..=2 {
        let (at, lease) = holder(&mut members).await;
        members[at].answers(&lease, ProbeOutcome::Succeeded, OutcomeClass::Ok).await;
        members[at].until(|told| told.probe_leases.iter().all(|held| held.lease_id != lease.lease_id)).await;
        assert!(expected == 2 || breaker(&mut plane, "one/small").await.generation == 2);
    }
    let [member, ..] = &mut members;
    let mut shares = Vec::new();
    loop {
        let told = member.until(|told| {
            verdict(told, "one/small").is_none_or(|one| {
                one.state() == BreakerState::Ramping && !shares.contains(&one.admit_percent)
            })
        });
        let Some(ramping) = verdict(&told.await, "one/small").cloned() else { break };
        shares.push(ramping.admit_percent);
        // Requests that go well are what a step is made of.
        member.report("one/small", &[(OutcomeClass::Ok, 20)]).await;
    }
    assert_eq!(shares, [10, 25, 50]);
    let shown = breaker(&mut plane, "one/small").await;
    assert_eq!((shown.generation, shown.fleet.unwrap().state()), (6, BreakerState::Closed));
    drop(members);
    plane.stop().await;
}

#[tokio::test]
async fn a_probe_that_fails_opens_it_again_and_only_its_holder_can_say_so() {
    let mut plane = Plane::empty().await;
    quick(&mut plane).await;
    let mut members = three(&plane).await;
    for member in &members {
        member.opens("one/small", 0).await;
    }
    let (at, lease) = holder(&mut members).await;
    let others: Vec<_> = (0..3).filter(|other| *other != at).collect();
    members[others[0]].answers(&lease, ProbeOutcome::Failed, OutcomeClass::Timeout).await;
    members[at].answers(&lease, ProbeOutcome::Failed, OutcomeClass::RateLimited).await;
    let told = members[at].told("one/small", BreakerState::Open).await;
    let told = if told.generation == 1 {
        let open_again =
            |told: &Publication| verdict(told, "one/small").is_some_and(|one| one.generation > 2);
        verdict(&members[at].until(open_again).await, "one/small").unwrap().clone()
    } else {
        told
    };
    assert_eq!((told.generation, told.openings), (3, 2), "{told:?}");
    assert!(told.reason.contains("rate_limited"), "{told:?}");
    drop(members);
    plane.stop().await;
}

#[tokio::test]
async fn a_lease_that_is_handed_back_goes_to_another_agent() {
    let mut plane = Plane::empty().await;
    quick(&mut plane).await;
    let mut members = three(&plane).await;
    for member in &members {
        member.opens("one/small", 0).await;
    }
    let (first, lease) = holder(&mut members).await;
    members[first].answers(&lease, ProbeOutcome::Unused, OutcomeClass::Unspecified).await;
    members[first].until(|told| told.probe_leases.is_empty()).await;
    let (second, next) = holder(&mut members).await;
    assert!(second != first && next.lease_id > lease.lease_id && next.generation == lease.generation);
    drop(members);
    plane.stop().await;
}

#[tokio::test]
async fn poison_prompts_rate_limits_and_short_deadlines_open_nothing() {
    let mut plane = Plane::empty().await;
    quick(&mut plane).await;
    let mut members = three(&plane).await;
    let harmless = [
        (OutcomeClass::ServerError, 50),
        (OutcomeClass::Empty, 50),
        (OutcomeClass::Cancelled, 500),
        (OutcomeClass::RateLimited, 500),
        (OutcomeClass::Overtaken, 500),
    ];
    for member in &mut members {
        member.report("one/small", &harmless).await;
    }
    let shown = breaker(&mut plane, "one/small").await;
    assert_eq!((shown.generation, shown.state()), (0, BreakerState::Closed), "{shown:?}");
    assert!(shown.fleet.unwrap().evidence.contains("0 of 300 requests failed"));
    drop(members);
    plane.stop().await;
}

#[tokio::test]
async fn the_last_target_of_a_virtual_model_is_never_taken_away() {
    let mut plane = Plane::empty().await;
    quick(&mut plane).await;
    let mut members = three(&plane).await;
    for deployment in ["one/small", "two/small"] {
        for member in &mut members {
            member.report(deployment, &[(OutcomeClass::Connect, 30)]).await;
        }
    }
    members[0].told("one/small", BreakerState::Open).await;
    let shown = breaker(&mut plane, "two/small").await;
    assert_eq!((shown.generation, shown.state()), (0, BreakerState::Closed), "{shown:?}");
    assert!(shown.fleet.unwrap().evidence.contains("90 of 90"));
    drop(members);
    plane.stop().await;
}

#[tokio::test]
async fn what_the_fleet_decides_is_in_the_audit_log_and_in_the_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let mut plane = Plane::on_disk(dir.path()).await;
    quick(&mut plane).await;
    let mut members = three(&plane).await;
    for member in &members {
        member.opens("one/small", 0).await;
    }
    members[0].told("one/small", BreakerState::Open).await;
    let request =
        trunkline_proto::admin::v1::QueryAuditRequest { principal: "trunkline".into(), ..Default::default() };
    let audit = plane.admin.query_audit(request).await.unwrap().into_inner();
    let opened = audit.entries.iter().find(|entry| entry.method == "fleet-breaker").unwrap();
    assert_eq!(opened.subject, "one/small");
    let page = plane.page("/metrics").await;
    assert!(page.contains("trunkline_control_plane_fleet_breaker_transitions_total"), "{page}");
    drop(members);
    plane.stop().await;
}

#[tokio::test]
async fn one_agent_checks_an_idle_deployment_and_its_failures_open_it_for_all() {
    let mut plane = Plane::empty().await;
    let active = QUICK.replacen(
        "    deployments:",
        "    health_check: {mode: HEALTH_CHECK_MODE_ACTIVE, interval: 5s, unhealthy_threshold: 2}\n    deployments:",
        1,
    );
    plane.admin.apply_config(apply(config(&active))).await.unwrap();
    let mut members = three(&plane).await;
    for _ in 0..2 {
        let (at, lease) = holder(&mut members).await;
        assert_eq!((lease.deployment.as_str(), lease.purpose()), ("one/small", ProbePurpose::HealthCheck));
        members[at].answers(&lease, ProbeOutcome::Failed, OutcomeClass::Connect).await;
        members[at].until(|told| told.probe_leases.iter().all(|held| held.lease_id != lease.lease_id)).await;
    }
    let told = members[0].told("one/small", BreakerState::Open).await;
    assert_eq!(told.reason, "2 health checks failed in a row");
    drop(members);
    plane.stop().await;
}
