//! An agent that says what a test tells it to.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failure of the test")]

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use trunkline_proto::{
    agent::v1::{
        Ack, Hello, Publication, SyncRequest, SyncResponse, Update, agent_service_client::AgentServiceClient,
        sync_request, sync_response::Message,
    },
    types::v1::Version,
};

use crate::support::{PATIENCE, Plane};

/// Of an agent that holds nothing.
pub(crate) fn hello(agent_id: &str) -> Hello {
    Hello {
        agent_id: agent_id.into(),
        incarnation: "i".into(),
        advertise: "http://127.0.0.1:1".into(),
        ..Hello::default()
    }
}

pub(crate) struct Agent {
    pub(crate) outbox: mpsc::Sender<SyncRequest>,
    pub(crate) inbound: Streaming<SyncResponse>,
}

impl Agent {
    /// Agent `a`, which holds `applied`.
    pub(crate) async fn connect(plane: &Plane, applied: Option<Version>) -> Self {
        Self::open(plane, Hello { applied, ..hello("a") }).await
    }

    /// One that was welcomed.
    pub(crate) async fn open(plane: &Plane, hello: Hello) -> Self {
        Self::try_open(plane.channel.clone(), hello).await.unwrap()
    }

    pub(crate) async fn try_open(channel: Channel, hello: Hello) -> Result<Self, Status> {
        let (outbox, messages) = mpsc::channel(8);
        let first = SyncRequest { message: Some(sync_request::Message::Hello(hello)) };
        outbox.send(first).await.unwrap();
        let inbound =
            AgentServiceClient::new(channel).sync(ReceiverStream::new(messages)).await?.into_inner();
        let mut agent = Self { outbox, inbound };
        assert!(matches!(agent.next().await?, Message::Welcome(_)));
        Ok(agent)
    }

    pub(crate) async fn next(&mut self) -> Result<Message, Status> {
        let message =
            tokio::time::timeout(PATIENCE, self.inbound.message()).await.expect("a message in time")?;
        Ok(message.expect("the stream is open").message.expect("every response has a message"))
    }

    pub(crate) async fn update(&mut self) -> Update {
        loop {
            if let Message::Update(update) = self.next().await.unwrap() {
                return update;
            }
        }
    }

    pub(crate) async fn publication(&mut self) -> Publication {
        loop {
            if let Message::Publication(publication) = self.next().await.unwrap() {
                return publication;
            }
        }
    }

    pub(crate) async fn say(&self, message: sync_request::Message) {
        self.outbox.send(SyncRequest { message: Some(message) }).await.unwrap();
    }

    pub(crate) async fn ack(&self, update: &Update, error: Option<&str>) {
        let error_detail =
            error.map(|message| tonic_types::pb::Status { message: message.into(), ..Default::default() });
        let applied = if error.is_none() { update.version.clone() } else { update.base.clone() };
        self.say(sync_request::Message::Ack(Ack { nonce: update.nonce.clone(), applied, error_detail }))
            .await;
    }
}
