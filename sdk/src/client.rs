//! The client: one method per RPC, and following the control plane to its agents.

use std::{sync::Arc, time::Duration};

use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use trunkline_proto::{
    routing::v1::{
        CompleteRequest, CompleteResponse, ExplainDecisionRequest, ReportOutcomeRequest, RouteRequest,
        RouteResponse, StreamCompleteRequest, WatchRoutesRequest,
    },
    types::v1::Decision,
};

use crate::{
    ClientBuilder, CompletionStream, Error, RouteWatch,
    call::{Call, stub},
    directory::{Agent, Directory},
};

/// ErrorInfo reason of a control plane that was asked for a completion.
const AGENT_REQUIRED: &str = "AGENT_REQUIRED";

/// ErrorInfo metadata: addresses of agents, comma separated.
const AGENTS: &str = "agents";

/// Calls an agent, or the control plane. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where it was told to connect to.
    home: Agent,
    directory: Arc<Directory>,
    authorization: Option<MetadataValue<Ascii>>,
    deadline: Duration,
}

impl Client {
    /// Connects with default settings.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`], or [`Error::Unreachable`] when nothing listens.
    pub async fn connect(address: impl Into<String>) -> Result<Self, Error> {
        Self::builder(address).connect().await
    }

    /// The same, but dials with the first call.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`].
    pub fn connect_lazy(address: impl Into<String>) -> Result<Self, Error> {
        Self::builder(address).connect_lazy()
    }

    /// Sets up a client: key, deadline, names.
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(address.into())
    }

    pub(crate) fn new(
        address: String,
        channel: Channel,
        directory: Arc<Directory>,
        authorization: Option<MetadataValue<Ascii>>,
        deadline: Duration,
    ) -> Self {
        Self { home: Agent { address, channel }, directory, authorization, deadline }
    }

    pub(crate) fn with_home_channel(mut self, channel: Channel) -> Self {
        self.home.channel = channel;
        self
    }

    /// A client over the same connections with another deadline.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Decides for one request and tells the order of targets. Nothing is sent to a
    /// provider. Report what came of your own call with [`Client::report_outcome`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn route(&self, request: RouteRequest) -> Result<RouteResponse, Error> {
        let call = self.call();
        let mut stub = stub(&self.home.channel);
        call.unary(&self.home.address, stub.route(call.request(request))).await
    }

    /// Sends a chat completion, with failover, and returns the whole answer.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn complete(&self, request: CompleteRequest) -> Result<CompleteResponse, Error> {
        let call = &self.call();
        self.at_an_agent(|agent| {
            let request = request.clone();
            async move {
                let mut stub = stub(&agent.channel);
                call.unary(&agent.address, stub.complete(call.request(request))).await
            }
        })
        .await
    }

    /// The same, piece by piece. Returns when the first event is there, so that every
    /// failure before first content is an error here, not in the stream.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stream_complete(&self, request: CompleteRequest) -> Result<CompletionStream, Error> {
        let call = &self.call();
        let messages = self
            .at_an_agent(|agent| {
                let request = StreamCompleteRequest { request: Some(request.clone()) };
                async move {
                    let mut stub = stub(&agent.channel);
                    let answer = stub.stream_complete(call.request(request));
                    call.stream(&agent.address, answer).await
                }
            })
            .await?;
        Ok(CompletionStream::new(messages))
    }

    /// Tells what came of a call that the service made itself after
    /// [`Client::route`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn report_outcome(&self, outcome: ReportOutcomeRequest) -> Result<(), Error> {
        let call = self.call();
        let mut stub = stub(&self.home.channel);
        let answer = stub.report_outcome(call.request(outcome));
        call.unary(&self.home.address, answer).await.map(drop)
    }

    /// A decision with candidates, exclusions and attempts. Decisions stay with the
    /// process that made them: agents that this client was led to are asked as well.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::NotFound`] when it is too old.
    pub async fn explain_decision(&self, decision_id: impl Into<String>) -> Result<Decision, Error> {
        let request = ExplainDecisionRequest { decision_id: decision_id.into() };
        let call = self.call();
        let mut answer = explain(&call, &self.home, request.clone()).await;
        for agent in self.directory.agents() {
            if !matches!(answer, Err(Error::NotFound(_))) {
                break;
            }
            // An agent that is gone knows no decisions either.
            if let Ok(decision) = explain(&call, &agent, request.clone()).await {
                answer = Ok(decision);
            }
        }
        answer
    }

    /// Watches the distribution of virtual models; no names: of all. Watching again
    /// after the stream ended is up to the caller.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn watch_routes(
        &self,
        models: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<RouteWatch, Error> {
        let request = WatchRoutesRequest { models: models.into_iter().map(Into::into).collect() };
        let call = self.call();
        let mut stub = stub(&self.home.channel);
        // The deadline is for the first state, and kept on this side only: a server
        // that took it for the whole stream would end the watch.
        let answer = stub.watch_routes(call.request_without_deadline(request));
        Ok(RouteWatch::new(call.stream(&self.home.address, answer).await?))
    }

    fn call(&self) -> Call {
        Call::start(self.authorization.clone(), self.deadline)
    }

    /// Runs a call at a known agent, else where the client was told to connect to,
    /// and from there at the agents that a control plane names.
    async fn at_an_agent<T, F>(&self, run: impl Fn(Agent) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let known = self.directory.agents();
        if !known.is_empty() {
            match self.first_reachable(known, &run).await {
                Err(error) if moves_on(&error) => self.directory.clear(),
                settled => return settled,
            }
        }
        let listed = match run(self.home.clone()).await {
            Err(error) if error.reason() == Some(AGENT_REQUIRED) => agents_in(&error),
            settled => return settled,
        };
        let agents = self.directory.learn(&listed)?;
        if agents.is_empty() {
            return Err(Error::NoAgent { address: self.home.address.clone() });
        }
        self.first_reachable(agents, &run).await
    }

    /// The answer of the first agent that can be reached, or the last failure.
    async fn first_reachable<T, F>(&self, agents: Vec<Agent>, run: &impl Fn(Agent) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut last = Error::NoAgent { address: self.home.address.clone() };
        for agent in agents {
            let address = agent.address.clone();
            match run(agent).await {
                Err(error) if moves_on(&error) => last = error,
                settled => {
                    self.directory.prefer(&address);
                    return settled;
                }
            }
        }
        Err(last)
    }
}

async fn explain(call: &Call, at: &Agent, request: ExplainDecisionRequest) -> Result<Decision, Error> {
    let mut stub = stub(&at.channel);
    let answer = stub.explain_decision(call.request(request));
    let response = call.unary(&at.address, answer).await?;
    Ok(response.decision.unwrap_or_default())
}

/// Whether another agent may be asked: only if nothing was sent to this one, or if
/// it turned out to be no agent.
fn moves_on(error: &Error) -> bool {
    matches!(error, Error::Unreachable { .. }) || error.reason() == Some(AGENT_REQUIRED)
}

fn agents_in(error: &Error) -> String {
    let metadata = error.rejection().map(|rejection| &rejection.metadata);
    metadata.and_then(|metadata| metadata.get(AGENTS)).cloned().unwrap_or_default()
}
