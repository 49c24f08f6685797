//! Agents and control planes of different builds: an older one on either side works,
//! and what it does not know does no harm.

mod control_plane;

use std::time::Duration;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use trunkline_proto::admin::v1::{DrainAgentRequest, InjectFaultRequest};
use trunkline_proto::types::v1::{Fault, fault::Effect};
use trunkline_tests::{
    agent::Agent,
    control_plane::ControlPlane,
    document::Document,
    older::{
        agent::v1::{
            Ack, Hello, Resource, SyncRequest, SyncResponse, Update,
            agent_service_client::AgentServiceClient, resource, sync_request, sync_response,
        },
        telemetry::v1::{
            OutcomeCount, StreamReportsRequest, TargetStats, telemetry_service_client::TelemetryServiceClient,
        },
        types::v1::OutcomeClass,
    },
    patience::{until, within},
    provider::{ANSWER, Provider},
};

use self::control_plane::OlderControlPlane;

/// An agent of the older build, as far as its stream goes.
struct OlderAgent {
    requests: mpsc::Sender<SyncRequest>,
    responses: Streaming<SyncResponse>,
    held: Vec<Resource>,
}

impl OlderAgent {
    async fn connect(control_plane: &ControlPlane) -> Self {
        let mut client = AgentServiceClient::connect(control_plane.url.clone()).await.unwrap();
        let (requests, outbound) = mpsc::channel(4);
        let hello = Hello {
            agent_id: "older".to_owned(),
            incarnation: "1".to_owned(),
            build_version: "0.1.0".to_owned(),
            ..Hello::default()
        };
        requests.send(SyncRequest { message: Some(sync_request::Message::Hello(hello)) }).await.unwrap();
        let responses = client.sync(ReceiverStream::new(outbound)).await.unwrap().into_inner();
        Self { requests, responses, held: Vec::new() }
    }

    /// Takes messages until an update, applies it as that build did, and acknowledges.
    async fn update(&mut self) -> Update {
        loop {
            let message = within("a message", self.responses.message()).await.unwrap().unwrap();
            let Some(sync_response::Message::Update(update)) = message.message else { continue };
            assert!(!update.more, "these tables are small");
            self.apply(&update);
            let ack =
                Ack { nonce: update.nonce.clone(), applied: update.version.clone(), error_detail: None };
            self.requests.send(SyncRequest { message: Some(sync_request::Message::Ack(ack)) }).await.unwrap();
            return update;
        }
    }

    fn apply(&mut self, update: &Update) {
        assert!(update.removals.is_empty(), "this test removes nothing");
        if update.full {
            self.held.clear();
        }
        for upsert in &update.upserts {
            self.held.retain(|held| key(held) != key(upsert));
            self.held.push(upsert.clone());
        }
        self.held.sort_by_key(key);
        assert_eq!(update.state_sha256, state_sha256(&self.held), "the older build would refuse this");
    }
}

/// Kind and name, in the order in which they are hashed.
fn key(resource: &Resource) -> (u8, String) {
    match resource.resource.as_ref().unwrap() {
        resource::Resource::Provider(one) => (0, one.name.clone()),
        resource::Resource::VirtualModel(one) => (1, one.name.clone()),
        resource::Resource::ApiKey(one) => (2, one.name.clone()),
    }
}

/// As the older build computed it: over what it decoded, encoded again.
fn state_sha256(resources: &[Resource]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for resource in resources {
        hash.update(resource.encode_length_delimited_to_vec());
    }
    hash.finalize().to_vec()
}

#[tokio::test]
async fn an_older_agent_follows_this_control_plane() {
    let (alpha, beta) = (Provider::start("alpha").await, Provider::start("beta").await);
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    admin.apply(&Document::even(&[&alpha])).await;
    let mut agent = OlderAgent::connect(&control_plane).await;
    assert!(agent.update().await.full);

    // A delta, in the midst of what that build has never heard of.
    let fault =
        Fault { name: "drill".to_owned(), effect: Some(Effect::ErrorStatus(503)), ..Fault::default() };
    let ttl = Some(Duration::from_secs(60).try_into().unwrap());
    let inject = InjectFaultRequest { fault: Some(fault), ttl, ..InjectFaultRequest::default() };
    admin.client.clone().inject_fault(inject).await.unwrap();
    let drain = DrainAgentRequest { agent_id: "older".to_owned(), ..DrainAgentRequest::default() };
    admin.client.clone().drain_agent(drain).await.unwrap();
    admin.apply(&Document::even(&[&alpha, &beta])).await;
    assert!(!agent.update().await.full);
    admin.agents_hold(1, 2).await;

    let mut telemetry = TelemetryServiceClient::connect(control_plane.url.clone()).await.unwrap();
    let target = TargetStats {
        deployment: alpha.deployment(),
        model: "chat".to_owned(),
        outcomes: vec![OutcomeCount { outcome: OutcomeClass::Ok.into(), count: 7 }],
        ..TargetStats::default()
    };
    let report = StreamReportsRequest {
        agent_id: "older".to_owned(),
        incarnation: "1".to_owned(),
        seq: 1,
        targets: vec![target],
        ..StreamReportsRequest::default()
    };
    let (reports, outbound) = mpsc::channel(1);
    reports.send(report).await.unwrap();
    let mut answers = telemetry.stream_reports(ReceiverStream::new(outbound)).await.unwrap().into_inner();
    let answer = within("an acknowledgement", answers.message()).await.unwrap().unwrap();
    assert_eq!(answer.acked_seq, 1);
    assert_eq!(admin.stats_count(7).await["alpha/m"].attempts, 7);
}

#[tokio::test]
async fn this_agent_follows_an_older_control_plane() {
    let provider = Provider::start("alpha").await;
    let control_plane = OlderControlPlane::start(&provider.base_url()).await;
    let agent = Agent::following(&control_plane.url);
    agent.ready().await;
    assert_eq!(agent.chat(false).await.text(), ANSWER);
    assert_eq!(agent.chat(true).await.text(), ANSWER);
    assert_eq!(control_plane.applied().await, 1, "the update was not acknowledged");
    let counted = until("the report", async || control_plane.successes(), |count| *count >= 2).await;
    assert_eq!(counted, 2);
    // And again from its disk.
    agent.table_kept().await;
    let agent = agent.restart();
    agent.ready().await;
    assert_eq!(agent.chat(false).await.text(), ANSWER);
}
