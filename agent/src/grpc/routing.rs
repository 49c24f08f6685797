//! RoutingService on the agent: all of it.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, metadata::MetadataMap};
use trunkline_proto::{
    convert::{check_tags, reported, route_profile, session},
    routing::v1::{
        CompleteRequest, CompleteResponse, ExplainDecisionRequest, ExplainDecisionResponse,
        ReportOutcomeRequest, ReportOutcomeResponse, RouteRequest, RouteResponse, StreamCompleteRequest,
        StreamCompleteResponse, WatchRoutesRequest, WatchRoutesResponse,
        routing_service_server::RoutingService,
    },
    status,
};

use super::{chat, convert, refuse, stream, watch};
use crate::{
    budgets::{self, OverBudget},
    decisions::DecisionRecord,
    engine::{self, Endpoint, Forwarded, Job, Refusal, Success, Trace, Worker},
    ingress::{Admitted, Arrived, Caller, Knobs, LocalError, api_key},
    openai::scan::scan,
};

/// An order of targets is good for about one round of telemetry.
const VALID_FOR: prost_types::Duration = prost_types::Duration { seconds: 1, nanos: 0 };

/// Reports on one decision: an app that tries every candidate twice stays below.
const REPORTS_MAX: usize = 32;

/// The service of one worker.
pub(crate) struct Routing {
    worker: Arc<Worker>,
}

impl Routing {
    pub(super) const fn new(worker: Arc<Worker>) -> Self {
        Self { worker }
    }

    /// Who calls, and what the model they name stands for.
    fn admit(&self, metadata: &MetadataMap, model: &str) -> Result<Admitted, Status> {
        let headers = metadata.clone().into_headers();
        let caller = Caller::authenticate(&self.worker.shared, api_key(&headers));
        let caller = caller.map_err(|error| refuse::local(&error))?;
        if model.is_empty() {
            return Err(status::invalid_field(
                "model",
                "is required: a virtual model, or provider/deployment",
            ));
        }
        caller.may_use(model).map_err(|error| refuse::local(&error))
    }

    fn job<T>(&self, call: &Request<T>, request: &CompleteRequest, stream: bool) -> Result<Arc<Job>, Status> {
        let metadata = call.metadata();
        // The caller has waited since its head was read.
        let waited = call.extensions().get::<Arrived>().map_or(Duration::ZERO, |arrived| arrived.0.elapsed());
        let caller = self.admit(metadata, &request.model)?;
        check_tags(request.tags.iter())
            .map_err(|(field, problem)| status::invalid_field(&field, &problem))?;
        let body = chat::body(request, stream)?;
        let body = Bytes::from(body.to_string());
        let scanned = scan(&body).map_err(|error| refuse::local(&LocalError::scan(&error)))?;
        let header = |name: &str| metadata.get(name).and_then(|value| value.as_bytes().try_into().ok());
        let clock = &self.worker.shared.clock;
        let at_unix_ms = clock.unix_ms(clock.now());
        let mut profile = engine::profile(Endpoint::ChatCompletions, &scanned, body.len(), at_unix_ms);
        let knobs = Knobs::read(metadata.as_ref()).map_err(|error| refuse::local(&error))?;
        knobs.narrow(&mut profile);
        let session = session(&request.affinity_key);
        profile.session =
            session.map_err(|why| status::invalid_field("affinity_key", &why))?.or(profile.session);
        Ok(Arc::new(Job {
            profile,
            goal: caller.goal,
            snapshot: caller.snapshot,
            tenant: caller.tenant,
            endpoint: Endpoint::ChatCompletions,
            input_bytes: body.len(),
            body,
            scanned,
            deadline: grpc_timeout(metadata).map(|timeout| timeout.saturating_sub(waited)),
            forwarded: Forwarded { traceparent: header("traceparent"), tracestate: header("tracestate") },
            tags: request.tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            budget: None,
        }))
    }
}

#[tonic::async_trait]
impl RoutingService for Routing {
    async fn route(&self, request: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        let caller = self.admit(request.metadata(), &request.get_ref().model)?;
        let request = request.into_inner();
        let shared = &self.worker.shared;
        let snapshot = &caller.snapshot;
        let at = shared.clock.now();
        let mut profile = route_profile(&request, shared.clock.unix_ms(at))
            .map_err(|(field, problem)| status::invalid_field(&field, &problem))?;
        let asked = profile;
        let looked =
            budgets::look(shared, caller.tenant.as_deref(), snapshot, caller.goal, &mut profile).await;
        if looked.is_err() {
            // What it would be but for the budget.
            profile = asked;
        }
        let at = shared.clock.now();
        let decision = {
            let mut registry = shared.registry.lock();
            match looked {
                Ok(()) => registry.take(snapshot, caller.goal, &profile, at),
                // It takes no turn.
                Err(_) => registry.decide(snapshot, caller.goal, &profile, at),
            }
        };
        let record = shared.decisions.keep(DecisionRecord {
            id: shared.next_decision_id(),
            snapshot: Arc::clone(snapshot),
            goal: caller.goal,
            at,
            tenant: caller.tenant,
            tags: request.tags.into_iter().collect(),
            decision,
            over_budget: looked.as_ref().err().map(OverBudget::message),
            profile,
            attempts: Vec::new(),
            chosen: None,
            reports: Some(Vec::new()),
        });
        if let Err(over) = &looked {
            return Err(refuse::over_budget(over, &record.lock().id));
        }
        let decision = convert::decision(shared, &record.lock());
        Ok(Response::new(RouteResponse { decision: Some(decision), valid_for: Some(VALID_FOR) }))
    }

    async fn complete(
        &self,
        request: Request<CompleteRequest>,
    ) -> Result<Response<CompleteResponse>, Status> {
        let job = self.job(&request, request.get_ref(), false)?;
        let done = engine::run(&self.worker, &job).await;
        let faults = done.trace.faults();
        let whole = match done.result {
            Ok(Success::Whole(whole)) => whole,
            Ok(Success::Stream(_)) => return Err(Status::internal("a stream came for a unary request")),
            Err(refusal) => return Err(refused(&refusal, &done.trace)),
        };
        let (message, finish_reason) =
            chat::whole(&whole.body).map_err(|chat::Unreadable| refuse::unreadable(&done.trace.id))?;
        let used = done.trace.winner().and_then(|attempt| attempt.tokens);
        let shared = &self.worker.shared;
        let decision =
            shared.decisions.get(&done.trace.id).map(|record| convert::decision(shared, &record.lock()));
        let mut response = Response::new(CompleteResponse {
            message: Some(message),
            finish_reason,
            usage: used.map(|(tokens, source)| convert::usage(tokens, source)),
            decision,
        });
        tell_faults(response.metadata_mut(), &faults);
        Ok(response)
    }

    type StreamCompleteStream = Pin<Box<dyn Stream<Item = Result<StreamCompleteResponse, Status>> + Send>>;

    async fn stream_complete(
        &self,
        request: Request<StreamCompleteRequest>,
    ) -> Result<Response<Self::StreamCompleteStream>, Status> {
        let wanted = request.get_ref().request.as_ref();
        let wanted = wanted.ok_or_else(|| status::invalid_field("request", "is required"))?;
        let job = self.job(&request, wanted, true)?;
        let done = engine::run(&self.worker, &job).await;
        match done.result {
            Ok(Success::Stream(tail)) => {
                let faults = done.trace.faults();
                let events: Self::StreamCompleteStream =
                    Box::pin(stream::events(Arc::clone(&self.worker), done.trace, tail));
                let mut response = Response::new(events);
                tell_faults(response.metadata_mut(), &faults);
                Ok(response)
            }
            Ok(Success::Whole(_)) => Err(Status::internal("a unary answer came for a stream")),
            Err(refusal) => Err(refused(&refusal, &done.trace)),
        }
    }

    async fn report_outcome(
        &self,
        request: Request<ReportOutcomeRequest>,
    ) -> Result<Response<ReportOutcomeResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let caller = Caller::authenticate(&self.worker.shared, api_key(&headers));
        let tenant = caller.map_err(|error| refuse::local(&error))?.tenant();
        let report = request.into_inner();
        let shared = &self.worker.shared;
        let record = find(&self.worker, &report.decision_id, tenant.as_deref())?;
        let said = reported(&report).map_err(|(field, problem)| status::invalid_field(field, problem))?;
        let digest = Sha256::digest(report.encode_to_vec()).into();
        let deployment = {
            let mut record = record.lock();
            let name = record.snapshot.table().deployment_by_name(&report.deployment);
            let known =
                |index| record.decision.candidates.iter().any(|candidate| candidate.deployment == index);
            let deployment = name.filter(|index| known(*index)).ok_or_else(|| {
                status::invalid_field("deployment", "is not one of the decision's candidates")
            })?;
            if !is_new_report(&mut record, digest)? {
                return Ok(Response::new(ReportOutcomeResponse {}));
            }
            deployment
        };
        engine::report(shared, &record, deployment, &said);
        Ok(Response::new(ReportOutcomeResponse {}))
    }

    async fn explain_decision(
        &self,
        request: Request<ExplainDecisionRequest>,
    ) -> Result<Response<ExplainDecisionResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let caller = Caller::authenticate(&self.worker.shared, api_key(&headers));
        let tenant = caller.map_err(|error| refuse::local(&error))?.tenant();
        let record = find(&self.worker, &request.get_ref().decision_id, tenant.as_deref())?;
        let decision = convert::decision(&self.worker.shared, &record.lock());
        Ok(Response::new(ExplainDecisionResponse { decision: Some(decision) }))
    }

    type WatchRoutesStream = Pin<Box<dyn Stream<Item = Result<WatchRoutesResponse, Status>> + Send>>;

    async fn watch_routes(
        &self,
        request: Request<WatchRoutesRequest>,
    ) -> Result<Response<Self::WatchRoutesStream>, Status> {
        let headers = request.metadata().clone().into_headers();
        let caller = Caller::authenticate(&self.worker.shared, api_key(&headers));
        let caller = caller.map_err(|error| refuse::local(&error))?;
        let models = watch::wanted(&caller, request.into_inner().models)?;
        Ok(Response::new(Box::pin(watch::routes(Arc::clone(&self.worker.shared), caller.tenant(), models))))
    }
}

/// A refusal of the engine, which names the drills that had a part in it.
fn refused(refusal: &Refusal, trace: &Trace) -> Status {
    let mut status = refuse::refusal(refusal, trace);
    tell_faults(status.metadata_mut(), &trace.faults());
    status
}

/// Names the drills that took hold of attempts.
fn tell_faults(metadata: &mut MetadataMap, faults: &str) {
    if !faults.is_empty()
        && let Ok(faults) = faults.parse()
    {
        metadata.insert("x-trunkline-fault", faults);
    }
}

type Kept = Arc<parking_lot::Mutex<DecisionRecord>>;

/// Notes a report. False: it was taken before, and its answer got lost.
fn is_new_report(record: &mut DecisionRecord, digest: [u8; 32]) -> Result<bool, Status> {
    let Some(reports) = &mut record.reports else {
        return Err(status::failed_precondition(
            "NOT_ROUTED",
            format!(
                "the agent made the attempts of decision {} itself; report on decisions of Route",
                record.id
            ),
            [],
        ));
    };
    if reports.contains(&digest) {
        return Ok(false);
    }
    if reports.len() >= REPORTS_MAX {
        let message = format!("decision {} has {REPORTS_MAX} reports; ask Route again", record.id);
        return Err(status::resource_exhausted("TOO_MANY_REPORTS", message, None));
    }
    reports.push(digest);
    Ok(true)
}

/// A decision of the caller; those of others are not there for it.
fn find(worker: &Worker, id: &str, tenant: Option<&str>) -> Result<Kept, Status> {
    if id.is_empty() {
        return Err(status::invalid_field("decision_id", "is required"));
    }
    let record = worker.shared.decisions.get(id);
    let record = record.filter(|record| tenant.is_none() || record.lock().tenant.as_deref() == tenant);
    record.ok_or_else(|| status::not_found("decision", id))
}

/// The caller's deadline, as gRPC writes it: digits and a unit.
fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_in_all_units() {
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            grpc_timeout(&metadata)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("123456789S"), None);
        assert_eq!(read("S"), None);
        assert_eq!(read("5x"), None);
    }
}
