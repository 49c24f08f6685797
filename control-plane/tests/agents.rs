//! Sync and StreamReports over real sockets, with a scripted agent.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failure of the test")]

mod support;

use support::{DOCUMENT, PATIENCE, Plane, apply, config};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use trunkline_proto::{
    admin::v1::{
        AgentState, GetStatsRequest, ListAgentsRequest, ListBreakersRequest, SetBreakerRequest, StatsRow,
    },
    agent::v1::{
        Ack, Heartbeat, Hello, ProtectionStates, Publication, SyncRequest, SyncResponse, Update,
        agent_service_client::AgentServiceClient, sync_request, sync_response::Message,
    },
    convert::sync,
    telemetry::v1::{
        OutcomeCount, StreamReportsRequest, StreamReportsResponse, TargetStats,
        telemetry_service_client::TelemetryServiceClient,
    },
    types::v1::{BreakerState, LocalBreaker, OutcomeClass, Protection, Version, protection::Kind},
};

struct Agent {
    outbox: mpsc::Sender<SyncRequest>,
    inbound: Streaming<SyncResponse>,
}

impl Agent {
    async fn connect(plane: &Plane, applied: Option<Version>) -> Self {
        let (outbox, messages) = mpsc::channel(8);
        let hello = Hello {
            agent_id: "a".into(),
            incarnation: "i".into(),
            advertise: "http://127.0.0.1:1".into(),
            applied,
            ..Hello::default()
        };
        let first = SyncRequest { message: Some(sync_request::Message::Hello(hello)) };
        outbox.send(first).await.unwrap();
        let mut client = AgentServiceClient::new(plane.channel.clone());
        let inbound = client.sync(ReceiverStream::new(messages)).await.unwrap().into_inner();
        let mut agent = Self { outbox, inbound };
        assert!(matches!(agent.next().await.unwrap(), Message::Welcome(_)));
        agent
    }

    async fn next(&mut self) -> Result<Message, Status> {
        let message =
            tokio::time::timeout(PATIENCE, self.inbound.message()).await.expect("a message in time")?;
        Ok(message.expect("the stream is open").message.expect("every response has a message"))
    }

    async fn update(&mut self) -> Update {
        loop {
            if let Message::Update(update) = self.next().await.unwrap() {
                return update;
            }
        }
    }

    async fn publication(&mut self) -> Publication {
        loop {
            if let Message::Publication(publication) = self.next().await.unwrap() {
                return publication;
            }
        }
    }

    async fn say(&self, message: sync_request::Message) {
        self.outbox.send(SyncRequest { message: Some(message) }).await.unwrap();
    }

    async fn ack(&self, update: &Update, error: Option<&str>) {
        let error_detail =
            error.map(|message| tonic_types::pb::Status { message: message.into(), ..Default::default() });
        let applied = if error.is_none() { update.version.clone() } else { update.base.clone() };
        self.say(sync_request::Message::Ack(Ack { nonce: update.nonce.clone(), applied, error_detail }))
            .await;
    }
}

/// The only agent, once `condition` holds for it.
async fn listed(plane: &mut Plane, condition: impl Fn(&trunkline_proto::admin::v1::Agent) -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let agents = plane.admin.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents;
        if agents.len() == 1 && condition(&agents[0]) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{agents:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_agent_gets_a_snapshot_and_then_deltas() {
    let mut plane = Plane::configured().await;
    let mut agent = Agent::connect(&plane, None).await;
    let snapshot = agent.update().await;
    assert!(snapshot.full && !snapshot.more);
    let held = sync::apply(&trunkline_proto::admin::v1::Config::default(), snapshot.upserts.clone(), &[]);
    assert_eq!(held, plane.running.repository.state().config);
    agent.ack(&snapshot, None).await;

    let changed = config(&DOCUMENT.replace("weight: 70", "weight: 60"));
    plane.admin.apply_config(apply(changed)).await.unwrap();
    let delta = agent.update().await;
    assert_eq!((delta.full, delta.upserts.len(), &delta.base), (false, 1, &snapshot.version));
    let held = sync::apply(&held, delta.upserts.clone(), &delta.removals);
    assert_eq!(sync::state_sha256(&held).as_slice(), &delta.state_sha256[..]);
    agent.ack(&delta, None).await;
    listed(&mut plane, |agent| agent.applied == delta.version).await;
    drop(agent);
    listed(&mut plane, |agent| agent.state() == AgentState::Disconnected).await;
    plane.stop().await;
}

#[tokio::test]
async fn an_agent_that_returns_gets_only_what_it_missed() {
    let mut plane = Plane::configured().await;
    let version = plane.running.repository.state().version.clone();
    let held = Version { epoch: version.epoch, revision: version.revision };
    plane.admin.apply_config(apply(config(&DOCUMENT.replace("weight: 30", "weight: 40")))).await.unwrap();
    let mut agent = Agent::connect(&plane, Some(held.clone())).await;
    let delta = agent.update().await;
    assert_eq!((delta.full, delta.base), (false, Some(held)));
    drop(agent);
    let foreign = Version { epoch: "another".into(), revision: 1 };
    let mut agent = Agent::connect(&plane, Some(foreign)).await;
    assert!(agent.update().await.full);
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn a_refused_update_is_shown_and_the_next_revision_still_comes() {
    let mut plane = Plane::configured().await;
    let mut agent = Agent::connect(&plane, None).await;
    let refused = agent.update().await;
    agent.ack(&refused, Some("does not fit")).await;
    listed(&mut plane, |agent| agent.last_nack == "does not fit").await;
    plane.admin.apply_config(apply(config(&DOCUMENT.replace("weight: 70", "weight: 60")))).await.unwrap();
    let next = agent.update().await;
    assert!(next.full);
    assert_eq!(next.version.as_ref().unwrap().revision, refused.version.unwrap().revision + 1);
    agent.ack(&next, None).await;
    listed(&mut plane, |agent| agent.last_nack.is_empty()).await;
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn verdicts_reach_agents_at_once_and_whole() {
    let mut plane = Plane::configured().await;
    let mut agent = Agent::connect(&plane, None).await;
    assert!(agent.publication().await.verdicts.is_empty());
    let state = BreakerState::ForcedOpen.into();
    let request = SetBreakerRequest { deployment: "one/small".into(), state, ..Default::default() };
    plane.admin.set_breaker(request).await.unwrap();
    let publication = agent.publication().await;
    assert_eq!((publication.seq, publication.verdicts.len()), (2, 1));
    let verdict = &publication.verdicts[0];
    assert_eq!(
        (verdict.deployment.as_str(), verdict.state(), verdict.generation),
        ("one/small", BreakerState::ForcedOpen, 1)
    );
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn breakers_of_agents_are_listed() {
    let mut plane = Plane::configured().await;
    let agent = Agent::connect(&plane, None).await;
    let breaker = LocalBreaker { state: BreakerState::Open.into(), openings: 1, ..Default::default() };
    let protection = Protection { subject: "two/small".into(), kind: Some(Kind::Breaker(breaker)) };
    agent.say(sync_request::Message::Protections(ProtectionStates { protections: vec![protection] })).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let request = ListBreakersRequest { active_only: true };
        let breakers = plane.admin.list_breakers(request).await.unwrap().into_inner().breakers;
        if let [breaker] = breakers.as_slice() {
            assert_eq!((breaker.deployment.as_str(), breaker.state()), ("two/small", BreakerState::Open));
            assert_eq!(breaker.agents[0].agent_id, "a");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    drop(agent);
    plane.stop().await;
}

#[tokio::test]
async fn heartbeats_are_answered_and_the_newest_stream_wins() {
    let mut plane = Plane::configured().await;
    let mut old = Agent::connect(&plane, None).await;
    old.say(sync_request::Message::Heartbeat(Heartbeat { seq: 7, in_flight: 3, ..Default::default() })).await;
    loop {
        if let Message::HeartbeatAck(ack) = old.next().await.unwrap() {
            assert_eq!((ack.seq, ack.current.unwrap().revision), (7, 1));
            break;
        }
    }
    listed(&mut plane, |agent| agent.in_flight == 3).await;
    let new = Agent::connect(&plane, None).await;
    let ended = loop {
        if let Err(status) = old.next().await {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::Aborted);
    listed(&mut plane, |agent| agent.state() == AgentState::Connected).await;
    drop((old, new));
    plane.stop().await;
}

struct Reporter {
    outbox: mpsc::Sender<StreamReportsRequest>,
    inbound: Streaming<StreamReportsResponse>,
}

impl Reporter {
    async fn connect(plane: &Plane) -> Self {
        let (outbox, messages) = mpsc::channel(8);
        let mut client = TelemetryServiceClient::new(plane.channel.clone());
        let inbound = client.stream_reports(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Self { outbox, inbound }
    }

    async fn report(&mut self, seq: u64) -> Result<StreamReportsResponse, Status> {
        self.outbox.send(report(seq)).await.unwrap();
        Ok(tokio::time::timeout(PATIENCE, self.inbound.message()).await.unwrap()?.unwrap())
    }
}

fn report(seq: u64) -> StreamReportsRequest {
    let outcome = |outcome: OutcomeClass, count| OutcomeCount { outcome: outcome.into(), count };
    let target = TargetStats {
        deployment: "one/small".into(),
        model: "chat".into(),
        outcomes: vec![outcome(OutcomeClass::Ok, 2), outcome(OutcomeClass::Timeout, 1)],
        input_tokens: 100,
        usage_from_provider: 2,
        ..Default::default()
    };
    StreamReportsRequest {
        agent_id: "a".into(),
        incarnation: "i".into(),
        seq,
        targets: vec![target],
        ..Default::default()
    }
}

async fn row(plane: &mut Plane, window: Option<i64>) -> StatsRow {
    let window = window.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let request = GetStatsRequest { window, virtual_model: "chat".into() };
    let rows = plane.admin.get_stats(request).await.unwrap().into_inner().rows;
    rows.into_iter().find(|row| row.deployment == "one/small").unwrap()
}

#[tokio::test]
async fn each_report_counts_once_and_gaps_are_asked_for() {
    let mut plane = Plane::configured().await;
    let mut reporter = Reporter::connect(&plane).await;
    let first = reporter.report(1).await.unwrap();
    assert_eq!((first.acked_seq, first.report_interval.is_some()), (1, true));
    let repeated = reporter.report(1).await.unwrap();
    assert_eq!((repeated.acked_seq, repeated.resend_from_first_unacked), (1, false));
    let gap = reporter.report(3).await.unwrap();
    assert_eq!((gap.acked_seq, gap.resend_from_first_unacked), (1, true));
    // On another stream it is the same sequence.
    let mut reporter = Reporter::connect(&plane).await;
    assert_eq!(reporter.report(2).await.unwrap().acked_seq, 2);
    assert_eq!(reporter.report(3).await.unwrap().acked_seq, 3);
    for window in [None, Some(600)] {
        let row = row(&mut plane, window).await;
        assert_eq!((row.attempts, row.successes, row.input_tokens), (9, 6, 300));
        assert_eq!(row.errors_by_class["timeout"], 3);
    }
    drop(reporter);
    plane.stop().await;
}

#[tokio::test]
async fn an_impossible_report_is_refused_by_field() {
    let plane = Plane::configured().await;
    let mut reporter = Reporter::connect(&plane).await;
    let error = reporter.report(0).await.unwrap_err();
    assert_eq!((error.code(), error.message().starts_with("seq:")), (Code::InvalidArgument, true));
    drop(reporter);
    plane.stop().await;
}

#[tokio::test]
async fn totals_and_sequences_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = || {
        let data_dir = Some(dir.path().to_owned());
        trunkline_control_plane::start::Options { data_dir, ..support::options() }
    };
    let mut plane = Plane::with(options()).await;
    plane.admin.apply_config(apply(config(DOCUMENT))).await.unwrap();
    let mut reporter = Reporter::connect(&plane).await;
    assert_eq!(reporter.report(1).await.unwrap().acked_seq, 1);
    drop(reporter);
    plane.stop().await;

    let mut plane = Plane::with(options()).await;
    let mut reporter = Reporter::connect(&plane).await;
    assert_eq!(reporter.report(1).await.unwrap().acked_seq, 1);
    assert_eq!(row(&mut plane, None).await.attempts, 3);
    assert_eq!(row(&mut plane, Some(600)).await.attempts, 0);
    drop(reporter);
    plane.stop().await;
}
