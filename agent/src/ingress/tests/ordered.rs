//! Orders on their whole way: from a control plane to readiness and answers.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use trunkline_proto::{
    agent::v1::{
        OutOfService, Publication, SyncRequest, SyncResponse, Welcome,
        agent_service_server::{AgentService, AgentServiceServer},
        sync_response::Message,
    },
    types::v1::{ActiveFault, Fault, fault::Effect},
};

use super::*;

/// Welcomes everybody, tells this, and says no more.
struct ControlPlane(Publication);

#[tonic::async_trait]
impl AgentService for ControlPlane {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<SyncResponse, Status>> + Send>>;

    async fn sync(&self, _: Request<Streaming<SyncRequest>>) -> Result<Response<Self::SyncStream>, Status> {
        let messages = [Message::Welcome(Welcome::default()), Message::Publication(self.0.clone())];
        let messages = messages.map(|message| Ok(SyncResponse { message: Some(message) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(messages).chain(tokio_stream::pending()))))
    }
}

#[tokio::test]
async fn orders_of_a_control_plane_reach_readiness_and_attempts() {
    let fault =
        Fault { name: "game-day".to_owned(), effect: Some(Effect::ErrorStatus(400)), ..Fault::default() };
    let remaining = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let publication = Publication {
        faults: vec![ActiveFault { fault: Some(fault), remaining }],
        out_of_service: Some(OutOfService { reason: "kernel upgrade".to_owned() }),
        ..Publication::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Server::builder()
        .add_service(AgentServiceServer::new(ControlPlane(publication)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let _control_plane = AbortOnDropHandle::new(tokio::spawn(async move { serving.await.unwrap() }));

    let provider = Provider::start(Play::Answer).await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.yaml");
    std::fs::write(&config, document(&[&provider], "")).unwrap();
    let control_plane = Some(format!("http://{address}"));
    let options = Options { static_config: Some(config), control_plane, ..options(directory.path()) };
    let agent = Agent::with(options, directory, Limits::default()).await.unwrap();
    agent.until_ready_says("\r\n\r\nout of service: kernel upgrade\n").await;
    let answer = agent.ask(&post("/v1/chat/completions", "", CHAT)).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("the drill 'game-day'"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(provider.seen.borrow().0, 0);
}
