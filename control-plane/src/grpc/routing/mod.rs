//! `RoutingService` on the control plane: decides, but sends nothing. Complete and
//! StreamComplete are refused with the agents that serve them.

mod afford;
mod brain;
mod caller;
mod decisions;
mod outcome;

use std::{
    collections::{BTreeSet, HashMap},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{Stream, stream};
use parking_lot::Mutex;
use tonic::{Request, Response, Status, metadata::MetadataMap};
use trunkline_proto::{
    convert::route_profile,
    routing::v1::{
        CompleteRequest, CompleteResponse, ExplainDecisionRequest, ExplainDecisionResponse,
        ReportOutcomeRequest, ReportOutcomeResponse, RouteRequest, RouteResponse, StreamCompleteRequest,
        StreamCompleteResponse, WatchRoutesRequest, WatchRoutesResponse,
        routing_service_server::RoutingService,
    },
    status,
    types::v1::{Decision, OutcomeClass},
};

use self::{brain::Brain, decisions::Decisions, outcome::Outcome};
use super::{Context, refuse, wire_version};

/// An order of targets is good for about one round of telemetry.
const VALID_FOR: prost_types::Duration = prost_types::Duration { seconds: 1, nanos: 0 };

/// Agents told to a caller that needs one; it tries a few at most.
const AGENTS_MAX: usize = 32;

/// Outcomes kept with a decision; a request has at most ten attempts.
const ATTEMPTS_MAX: usize = 16;

/// Models named in one watch, as many as a configuration has.
const WATCHED_MAX: usize = 10_000;

/// Time alone changes breakers; a change is looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The wall clock so long ago, in ms since 1970. Prices go by it.
fn unix_ms(ago: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(ago).as_millis()).unwrap_or(u64::MAX)
}

/// Serves apps.
#[derive(Debug)]
pub(super) struct Routing {
    context: Arc<Context>,
    brain: Arc<Mutex<Brain>>,
    decisions: Decisions,
}

impl Routing {
    pub(super) fn new(context: Arc<Context>) -> Self {
        let brain = Arc::new(Mutex::new(Brain::new(&context.learning)));
        Self { context, brain, decisions: Decisions::default() }
    }

    fn tenant(&self, metadata: &MetadataMap) -> Result<Option<String>, Status> {
        caller::authenticate(&self.context.repository.state().table, metadata)
    }

    /// A decision of the caller; those of others are not there for it.
    fn find(&self, id: &str, tenant: Option<String>) -> Result<Decision, Status> {
        if id.is_empty() {
            return Err(status::invalid_field("decision_id", "is required"));
        }
        let found = self.decisions.get(id);
        let found = found.filter(|decision| tenant.is_none_or(|tenant| decision.tenant == tenant));
        found.ok_or_else(|| status::not_found("decision", id))
    }

    fn agent_required(&self) -> Status {
        let agents = self.context.registry.advertised(AGENTS_MAX).join(",");
        let message = match agents.as_str() {
            "" => "the control plane sends no completions, and no agent is connected".to_owned(),
            agents => format!("the control plane sends no completions; call an agent: {agents}"),
        };
        status::failed_precondition("AGENT_REQUIRED", message, HashMap::from([("agents".to_owned(), agents)]))
    }
}

#[tonic::async_trait]
impl RoutingService for Routing {
    async fn route(&self, request: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        let tenant = self.tenant(request.metadata())?;
        let request = request.into_inner();
        if request.model.is_empty() {
            return Err(status::invalid_field(
                "model",
                "is required: a virtual model, or provider/deployment",
            ));
        }
        let profile = route_profile(&request, unix_ms(Duration::ZERO))
            .map_err(|(field, why)| status::invalid_field(&field, &why))?;
        let repository = &self.context.repository;
        caller::may_use(&repository.state().table, tenant.as_deref(), &request.model)?;
        let decision = self.brain.lock().route(
            repository,
            &self.context.budgets,
            tenant.as_deref(),
            &request.model,
            &profile,
        )?;
        let decision = Decision { tenant: tenant.unwrap_or_default(), tags: request.tags, ..decision };
        self.decisions.keep(decision.clone());
        Ok(Response::new(RouteResponse { decision: Some(decision), valid_for: Some(VALID_FOR) }))
    }

    async fn complete(
        &self,
        request: Request<CompleteRequest>,
    ) -> Result<Response<CompleteResponse>, Status> {
        self.tenant(request.metadata())?;
        Err(self.agent_required())
    }

    type StreamCompleteStream = Pin<Box<dyn Stream<Item = Result<StreamCompleteResponse, Status>> + Send>>;

    async fn stream_complete(
        &self,
        request: Request<StreamCompleteRequest>,
    ) -> Result<Response<Self::StreamCompleteStream>, Status> {
        self.tenant(request.metadata())?;
        Err(self.agent_required())
    }

    async fn report_outcome(
        &self,
        request: Request<ReportOutcomeRequest>,
    ) -> Result<Response<ReportOutcomeResponse>, Status> {
        let tenant = self.tenant(request.metadata())?;
        let request = request.into_inner();
        let decision = self.find(&request.decision_id, tenant)?;
        let repository = &self.context.repository;
        let outcome = Outcome::parse(&request, &decision, &repository.state().table)?;
        let opened =
            self.brain.lock().learn(repository, &request.deployment, &decision.tenant, &outcome.classified);
        self.context.reports.add(outcome.counts(opened)).await.map_err(|error| refuse::commit(&error))?;
        self.context.learning.teach(outcome.lesson());
        self.decisions.update(&request.decision_id, |decision| {
            if outcome.attempt.outcome() == OutcomeClass::Ok {
                decision.chosen.clone_from(&request.deployment);
            }
            if decision.attempts.len() < ATTEMPTS_MAX {
                decision.attempts.push(outcome.attempt);
            }
        });
        Ok(Response::new(ReportOutcomeResponse {}))
    }

    async fn explain_decision(
        &self,
        request: Request<ExplainDecisionRequest>,
    ) -> Result<Response<ExplainDecisionResponse>, Status> {
        let tenant = self.tenant(request.metadata())?;
        let decision = self.find(&request.get_ref().decision_id, tenant)?;
        Ok(Response::new(ExplainDecisionResponse { decision: Some(decision) }))
    }

    type WatchRoutesStream = Pin<Box<dyn Stream<Item = Result<WatchRoutesResponse, Status>> + Send>>;

    async fn watch_routes(
        &self,
        request: Request<WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchRoutesStream>, Status> {
        let tenant = self.tenant(request.metadata())?;
        let models = request.into_inner().models;
        if models.len() > WATCHED_MAX {
            return Err(status::invalid_field("models", &format!("must have at most {WATCHED_MAX} names")));
        }
        let watch = Watch {
            context: Arc::clone(&self.context),
            brain: Arc::clone(&self.brain),
            models: models.into_iter().collect(),
            tenant,
            sent: None,
        };
        let states = stream::unfold(watch, |mut watch| async move {
            let state = watch.next().await?;
            Some((Ok(state), watch))
        });
        Ok(Response::new(Box::pin(states)))
    }
}

/// One caller that watches. Nothing is queued: who is slow sees the newest.
struct Watch {
    context: Arc<Context>,
    brain: Arc<Mutex<Brain>>,
    models: BTreeSet<String>,
    tenant: Option<String>,
    sent: Option<WatchRoutesResponse>,
}

impl Watch {
    async fn next(&mut self) -> Option<WatchRoutesResponse> {
        let (mut config, mut verdicts) =
            (self.context.repository.subscribe(), self.context.repository.subscribe_verdicts());
        loop {
            let now = self.now();
            if self.sent.as_ref() != Some(&now) {
                self.sent = Some(now.clone());
                return Some(now);
            }
            tokio::select! {
                biased; // A stop first: the stream must not hold up a drain.
                () = self.context.shutdown.cancelled() => return None,
                changed = config.changed() => changed.ok()?,
                changed = verdicts.changed() => changed.ok()?,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn now(&self) -> WatchRoutesResponse {
        let table = &self.context.repository.state().table;
        let wanted = |name: &str| {
            let named = self.models.is_empty() || self.models.contains(name);
            named && caller::may_use(table, self.tenant.as_deref(), name).is_ok()
        };
        let (state, routes) = self.brain.lock().routes(&self.context.repository, wanted);
        WatchRoutesResponse { version: Some(wire_version(&state.version)), routes }
    }
}
