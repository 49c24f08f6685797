//! `AgentService`: the stream on which agents get configuration and verdicts.

mod hello;
mod progress;
mod session;
mod update;

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use trunkline_proto::{
    agent::v1::{
        Hello, SyncRequest, SyncResponse, agent_service_server::AgentService, sync_request::Message,
    },
    status,
};

use self::{
    session::{End, Outbox, Session},
    update::Updates,
};
use super::Context;
use crate::access::Principal;

/// Messages on their way to the transport: a few parts of one update. The rest waits
/// in the session, where newer state overtakes it.
const OUTBOX: usize = 4;

/// An agent says Hello at once; others only hold a place.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// When an agent that found no room asks again.
const FULL_RETRY: Duration = Duration::from_secs(30);

/// Serves agents.
#[derive(Debug)]
pub(super) struct Agents {
    context: Arc<Context>,
    updates: Arc<Updates>,
}

impl Agents {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, updates: Arc::default() }
    }
}

#[tonic::async_trait]
impl AgentService for Agents {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<SyncResponse, Status>> + Send>>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let (context, updates) = (Arc::clone(&self.context), Arc::clone(&self.updates));
        let principal = Principal::of(&request);
        self.context.tasks.spawn(async move {
            let end = serve(context, updates, principal, request.into_inner(), outbox.clone()).await;
            if let End::Failed(status) = end {
                // Nobody may be left to read it.
                drop(outbox.try_send(Err(status)));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

async fn serve(
    context: Arc<Context>,
    updates: Arc<Updates>,
    principal: Principal,
    mut inbound: Streaming<SyncRequest>,
    outbox: Outbox,
) -> End {
    let hello = tokio::select! {
        biased; // A stop is heeded before more work is taken on.
        () = context.shutdown.cancelled() => return End::Done,
        hello = tokio::time::timeout(HELLO_TIMEOUT, first(&mut inbound)) => hello,
    };
    let hello = match hello {
        Ok(Ok(Some(hello))) => hello,
        Ok(Ok(None)) => return End::Done,
        Ok(Err(status)) => return End::Failed(status),
        Err(_) => {
            return End::Failed(Status::deadline_exceeded("no hello within 10 s of the stream's start"));
        }
    };
    if let Err(status) = principal.check_agent_id(&hello.agent_id) {
        return End::Failed(status);
    }
    let held = hello.applied.clone().unwrap_or_default();
    let agent_id = hello.agent_id.clone();
    let connection = match context.registry.connect(hello, SystemTime::now()) {
        Ok(connection) => connection,
        Err(full) => {
            return End::Failed(status::resource_exhausted(
                "TOO_MANY_AGENTS",
                full.to_string(),
                Some(FULL_RETRY),
            ));
        }
    };
    tracing::info!(agent_id, "agent connected");
    let end = Session::new(context, updates, connection, outbox, held).run(inbound).await;
    tracing::info!(agent_id, "agent disconnected");
    end
}

async fn first(inbound: &mut Streaming<SyncRequest>) -> Result<Option<Hello>, Status> {
    match inbound.message().await? {
        Some(SyncRequest { message: Some(Message::Hello(hello)) }) => {
            hello::check(&hello)?;
            Ok(Some(hello))
        }
        Some(_) => Err(status::invalid_field("message", "the first message must be hello")),
        None => Ok(None),
    }
}
