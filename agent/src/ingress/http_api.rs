//! The OpenAI-compatible HTTP API.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_LENGTH},
};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::json;

use super::{
    answer::{AgentBody, DECISION, REQUEST_ID, respond},
    caller::{Admitted, Caller},
    connection::Site,
    count::Counted,
    error::{LocalError, json_response},
    knobs::{self, Knobs},
    pace::{PaceError, Paced},
};
use crate::{
    engine::{self, Endpoint, Forwarded, Job, Worker},
    openai::scan::scan,
};

/// Largest request body. Long contexts with images are a few megabytes.
const BODY_MAX: usize = 16 * 1024 * 1024;
/// Of a refused body so much is read and thrown away, for so long at most.
const DISCARD_MAX: usize = 4 * BODY_MAX;
const DISCARD_WITHIN: Duration = Duration::from_secs(5);

/// What there is, by path.
#[derive(Clone, Copy)]
enum Resource<'a> {
    /// Takes POST.
    Completion(Endpoint),
    /// Takes GET: all of them, or the one of this name.
    Models(Option<&'a str>),
    Unknown,
}

impl<'a> Resource<'a> {
    fn of(path: &'a str) -> Self {
        match path {
            "/v1/chat/completions" => Self::Completion(Endpoint::ChatCompletions),
            "/v1/completions" => Self::Completion(Endpoint::Completions),
            "/v1/embeddings" => Self::Completion(Endpoint::Embeddings),
            "/v1/models" => Self::Models(None),
            path => path.strip_prefix("/v1/models/").map_or(Self::Unknown, |name| Self::Models(Some(name))),
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Completion(Endpoint::ChatCompletions) => "chat_completions",
            Self::Completion(Endpoint::Completions) => "completions",
            Self::Completion(Endpoint::Embeddings) => "embeddings",
            Self::Models(_) => "models",
            Self::Unknown => "other",
        }
    }

    const fn allowed(self) -> &'static str {
        match self {
            Self::Models(_) => "GET, HEAD",
            Self::Completion(_) | Self::Unknown => "POST",
        }
    }
}

/// Answers one HTTP request.
pub(super) async fn handle(site: &Site, request: Request<Incoming>) -> Response<AgentBody> {
    let worker = &site.worker;
    let _in_flight = worker.shared.enter();
    let (parts, body) = request.into_parts();
    let id = knobs::request_id(&parts.headers);
    let resource = Resource::of(parts.uri.path());
    let counted = Counted::new(&worker.shared, resource.label());
    let body = Paced::new(body, site.limits.body);
    let result = match (resource, &parts.method) {
        (Resource::Completion(endpoint), &Method::POST) => {
            complete(worker, endpoint, &parts.headers, body).await
        }
        (Resource::Models(one), &Method::GET | &Method::HEAD) => models(worker, &parts.headers, one),
        (Resource::Completion(_) | Resource::Models(_), _) => Err(LocalError::method(resource.allowed())),
        (Resource::Unknown, _) => Err(LocalError::unknown_path(parts.uri.path())),
    };
    let mut response = result.unwrap_or_else(|error| error.response());
    let id = id.or_else(|| {
        let decision = response.headers().get(&DECISION).cloned();
        decision.or_else(|| HeaderValue::from_str(&worker.shared.next_decision_id()).ok())
    });
    if let Some(id) = id {
        response.headers_mut().insert(&REQUEST_ID, id);
    }
    match response.status() {
        StatusCode::METHOD_NOT_ALLOWED if !response.headers().contains_key(&DECISION) => {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(resource.allowed()));
        }
        // The rest of the body may still come; it is no next request.
        StatusCode::REQUEST_TIMEOUT if !response.headers().contains_key(&DECISION) => {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    counted.answered(response.status().as_u16());
    if parts.method == Method::HEAD { without_body(response) } else { response }
}

/// The same headers, with the length that the body would have.
fn without_body(mut response: Response<AgentBody>) -> Response<AgentBody> {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response.map(|_| AgentBody::Full(Full::default()))
}

/// The order of checks is part of the contract: key, size, JSON, model named, model
/// known, model allowed, required field.
async fn complete(
    worker: &Arc<Worker>,
    endpoint: Endpoint,
    headers: &HeaderMap,
    mut incoming: Paced<Incoming>,
) -> Result<Response<AgentBody>, LocalError> {
    let arrived = Instant::now();
    let (caller, body) = match receive(worker, headers, &mut incoming).await {
        Ok(received) => received,
        Err(error) => {
            tokio::spawn(discard(incoming));
            return Err(error);
        }
    };
    let scanned = scan(&body).map_err(|error| LocalError::scan(&error))?;
    let model = scanned.model.as_ref().map(|model| model.name.as_str()).filter(|name| !name.is_empty());
    let model = model.ok_or_else(|| LocalError::missing("model"))?;
    let Admitted { snapshot, goal, tenant } = caller.may_use(model)?;
    let (field, there) = endpoint.required(&scanned);
    if !there {
        return Err(LocalError::missing(field));
    }
    let knobs = Knobs::read(headers)?;
    let clock = &worker.shared.clock;
    let mut profile = engine::profile(endpoint, &scanned, body.len(), clock.unix_ms(clock.now()));
    knobs.narrow(&mut profile);
    let job = Arc::new(Job {
        goal,
        endpoint,
        input_bytes: body.len(),
        body,
        scanned,
        profile,
        // The caller has waited since its head was read.
        deadline: knobs.timeout.map(|timeout| timeout.saturating_sub(arrived.elapsed())),
        forwarded: Forwarded::read(headers),
        tenant,
        tags: knobs.tags,
        budget: None,
        snapshot,
    });
    let done = engine::run(worker, &job).await;
    Ok(respond(&job, done))
}

/// Who calls, and the whole body: nobody's body is read before the key is known.
async fn receive(
    worker: &Worker,
    headers: &HeaderMap,
    incoming: &mut Paced<Incoming>,
) -> Result<(Caller, Bytes), LocalError> {
    let caller = Caller::authenticate(&worker.shared, knobs::api_key(headers))?;
    let body = collect(headers, incoming).await?;
    Ok((caller, body))
}

/// Reads on beside the refusal: a client that still writes when the connection closes
/// would never see why.
async fn discard(mut body: Paced<Incoming>) {
    let rest = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > DISCARD_MAX {
                return;
            }
        }
    };
    tokio::time::timeout(DISCARD_WITHIN, rest).await.ok();
}

async fn collect(headers: &HeaderMap, body: &mut Paced<Incoming>) -> Result<Bytes, LocalError> {
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > BODY_MAX) {
        return Err(LocalError::too_large(BODY_MAX));
    }
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error {
            PaceError::Slow => LocalError::body_too_slow(),
            PaceError::BrokeOff => LocalError::body_broke_off(),
        })?;
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
        let decoded = percent_decoded(wanted);
        // What can't be decoded is no model's name as it stands.
        let wanted = decoded.as_deref().unwrap_or(wanted);
        let known = caller.snapshot.goal(wanted).filter(|_| caller.allows(wanted));
        known.ok_or_else(|| LocalError::unknown_model(wanted))?;
        return Ok(json_response(StatusCode::OK, &entry(wanted)));
    }
    let data: Vec<_> = models.chain(pins).filter(|name| caller.allows(name)).map(entry).collect();
    Ok(json_response(StatusCode::OK, &json!({"object": "list", "data": data})))
}

/// Clients may write the slash of a pin as `%2F`.
fn percent_decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut decoded = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        decoded.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(decoded).ok()
}
