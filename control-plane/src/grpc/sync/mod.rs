//! `AgentService`: the stream on which agents get configuration and verdicts.

mod admission;
mod fleet;
mod hello;
mod pace;
mod probe;
mod progress;
mod publication;
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
        HeldVerdict, Hello, SyncRequest, SyncResponse, agent_service_server::AgentService,
        sync_request::Message, sync_response,
    },
    status,
    types::v1::Version,
};

pub(super) use self::hello::check_agent_id;
use self::{
    fleet::Fleet,
    session::{End, Outbox, Session},
};
use super::Context;
use crate::access::Principal;

/// Messages on their way to the transport: a part of an update and something beside it.
/// The rest waits in the session, where newer state overtakes it.
const OUTBOX: usize = 2;

/// An agent says Hello at once; others only hold a place.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last message waits for those before it.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// When an agent that found no room asks again.
const FULL_RETRY: Duration = Duration::from_secs(30);

/// Serves agents.
#[derive(Debug)]
pub(super) struct Agents {
    context: Arc<Context>,
    fleet: Arc<Fleet>,
}

impl Agents {
    pub(super) fn new(context: Arc<Context>) -> Self {
        let fleet = Fleet::start(&context);
        Self { context, fleet }
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
        let (context, fleet) = (Arc::clone(&self.context), Arc::clone(&self.fleet));
        let principal = Principal::of(&request);
        self.context.tasks.spawn(async move {
            let end = serve(&context, &fleet, principal, request.into_inner(), outbox.clone()).await;
            let last = match end {
                End::Done | End::Unread => return,
                End::Failed(status) => Err(status),
                End::Stopping => {
                    let drain = sync_response::Message::Drain(fleet.drain(&context));
                    Ok(SyncResponse { message: Some(drain) })
                }
            };
            // Nobody may be left to read it, and one who does not read is not waited for.
            drop(tokio::time::timeout(LAST_WORD_TIMEOUT, outbox.send(last)).await);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

async fn serve(
    context: &Arc<Context>,
    fleet: &Arc<Fleet>,
    principal: Principal,
    mut inbound: Streaming<SyncRequest>,
    outbox: Outbox,
) -> End {
    let hello = tokio::select! {
        biased; // A stop is heeded before more work is taken on.
        () = context.shutdown.cancelled() => return End::Stopping,
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
    let (held, seen_sequence) = (hello.applied.clone().unwrap_or_default(), hello.seen_sequence);
    let held_verdicts = hello.held_verdicts.clone();
    let (agent_id, incarnation) = (hello.agent_id.clone(), hello.incarnation.clone());
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
    let seen_sequence = seen_sequence.max(seen_by_verdicts(context, &held, &held_verdicts));
    let ahead = is_ahead(context, &held, seen_sequence);
    // Held until the stream ends.
    let mut _claim = None;
    if ahead {
        connection.ahead();
        _claim = Some(context.repository.note_ahead(&agent_id, held.revision, seen_sequence).await);
    }
    let membership = context.fleet.connect(&agent_id, &incarnation);
    tracing::info!(agent_id, "agent connected");
    let connection = (connection, membership);
    let session = Session::new(Arc::clone(context), Arc::clone(fleet), connection, outbox, held, ahead);
    let end = session.run(inbound).await;
    tracing::info!(agent_id, "agent disconnected");
    end
}

/// A verdict that is newer than the store's was a commit that the store lost: then at
/// least the one after its last.
fn seen_by_verdicts(context: &Context, held: &Version, verdicts: &[HeldVerdict]) -> u64 {
    let known = context.repository.verdicts();
    let newer = |verdict: &HeldVerdict| verdict.generation > known.generation(&verdict.deployment);
    let same_store = held.epoch == context.repository.state().version.epoch;
    if same_store && verdicts.iter().any(newer) { context.repository.sequence() + 1 } else { 0 }
}

/// Whether the agent saw more of this store than the store holds.
fn is_ahead(context: &Context, held: &Version, seen_sequence: u64) -> bool {
    let current = &context.repository.state().version;
    // What was seen of another store says nothing of this one.
    held.epoch == current.epoch
        && (held.revision > current.revision || seen_sequence > context.repository.sequence())
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
