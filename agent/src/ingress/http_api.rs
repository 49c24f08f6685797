//! The OpenAI-compatible HTTP API.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use super::{
    answer::{AgentBody, DECISION, REQUEST_ID, respond},
    caller::{Admitted, Caller},
    error::{LocalError, json_response},
    knobs::{self, Knobs},
};
use crate::{
    engine::{self, Endpoint, Forwarded, Job, Worker},
    metrics::RequestLabels,
    openai::scan::scan,
};

/// Largest request body. Long contexts with images are a few megabytes.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// Answers one HTTP request.
pub(super) async fn handle(worker: Arc<Worker>, request: Request<Incoming>) -> Response<AgentBody> {
    let _in_flight = worker.shared.enter();
    let (parts, body) = request.into_parts();
    let id = knobs::request_id(&parts.headers);
    let (name, result) = match (&parts.method, parts.uri.path()) {
        (&Method::POST, "/v1/chat/completions") => {
            ("chat_completions", complete(&worker, Endpoint::ChatCompletions, &parts.headers, body).await)
        }
        (&Method::POST, "/v1/completions") => {
            ("completions", complete(&worker, Endpoint::Completions, &parts.headers, body).await)
        }
        (&Method::POST, "/v1/embeddings") => {
            ("embeddings", complete(&worker, Endpoint::Embeddings, &parts.headers, body).await)
        }
        (&Method::GET, path) if path == "/v1/models" || path.starts_with("/v1/models/") => {
            ("models", models(&worker, &parts.headers, path.strip_prefix("/v1/models/")))
        }
        (_, "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings") => {
            ("other", Err(LocalError::method("POST")))
        }
        (_, path) => ("other", Err(LocalError::unknown_path(path))),
    };
    let mut response = result.unwrap_or_else(|error| error.response());
    let id = id.or_else(|| {
        let decision = response.headers().get(&DECISION).cloned();
        decision.or_else(|| HeaderValue::from_str(&worker.shared.next_decision_id()).ok())
    });
    if let Some(id) = id {
        response.headers_mut().insert(&REQUEST_ID, id);
    }
    let labels = RequestLabels { route: name, status: response.status().as_u16() };
    worker.shared.metrics.requests.get_or_create(&labels).inc();
    response
}

/// The order of checks is part of the contract: key, size, JSON, model named, model
/// known, model allowed, required field.
async fn complete(
    worker: &Arc<Worker>,
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<AgentBody>, LocalError> {
    let caller = Caller::authenticate(&worker.shared, knobs::api_key(headers))?;
    let body = collect(headers, body).await?;
    let scanned = scan(&body).map_err(|error| LocalError::scan(&error))?;
    let model = scanned.model.as_ref().map(|model| model.name.as_str()).filter(|name| !name.is_empty());
    let model = model.ok_or_else(|| LocalError::missing("model"))?;
    let Admitted { snapshot, goal, tenant } = caller.may_use(model)?;
    let (field, there) = endpoint.required(&scanned);
    if !there {
        return Err(LocalError::missing(field));
    }
    let knobs = Knobs::read(headers)?;
    let mut profile = engine::profile(endpoint, &scanned, body.len());
    profile.min_quality = knobs.min_quality;
    profile.max_cost = knobs.max_cost;
    let job = Arc::new(Job {
        goal,
        endpoint,
        input_bytes: body.len(),
        body,
        scanned,
        profile,
        deadline: knobs.timeout,
        forwarded: Forwarded::read(headers),
        tenant,
        tags: knobs.tags,
        snapshot,
    });
    let done = engine::run(worker, &job).await;
    Ok(respond(&job, done))
}

async fn collect(headers: &HeaderMap, mut body: Incoming) -> Result<Bytes, LocalError> {
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > BODY_MAX) {
        return Err(LocalError::too_large(BODY_MAX));
    }
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| LocalError::body_broke_off())?;
        let Ok(data) = frame.into_data() else { continue };
        if first.as_ref().map_or(0, Bytes::len) + all.len() + data.len() > BODY_MAX {
            return Err(LocalError::too_large(BODY_MAX));
        }
        match first.take() {
            None if all.is_empty() => first = Some(data),
            None => all.extend_from_slice(&data),
            Some(one) => {
                all.reserve(announced.unwrap_or(one.len() + data.len()));
                all.extend_from_slice(&one);
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

/// What the caller may use: virtual models, and the pins its key names.
fn models(
    worker: &Worker,
    headers: &HeaderMap,
    one: Option<&str>,
) -> Result<Response<AgentBody>, LocalError> {
    let caller = Caller::authenticate(&worker.shared, knobs::api_key(headers))?;
    let table = caller.snapshot.table();
    let models = table.virtual_models.iter().map(|model| model.name.as_ref());
    let pins = table.deployments.iter().map(|deployment| deployment.name.as_ref());
    let pins = pins.filter(|_| caller.has_key());
    let entry = |name: &str| json!({"id": name, "object": "model", "created": 0, "owned_by": "trunkline"});
    if let Some(wanted) = one {
        let known = caller.snapshot.goal(wanted).filter(|_| caller.allows(wanted));
        known.ok_or_else(|| LocalError::unknown_model(wanted))?;
        return Ok(json_response(StatusCode::OK, &entry(wanted)));
    }
    let data: Vec<_> = models.chain(pins).filter(|name| caller.allows(name)).map(entry).collect();
    Ok(json_response(StatusCode::OK, &json!({"object": "list", "data": data})))
}
