//! One call to one target, up to the point where its answer is worth passing on: the
//! first content of a stream, or the whole of a unary answer.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, timeout};
use trunkline_routing::{
    classify::{
        BodyFault, Classified, ErrorFields, OutcomeClass, TransportFault, classify, classify_body,
        classify_transport,
    },
    hint::retry_hint,
    table::{DeploymentIndex, Timeouts},
};

use super::{Job, Worker, drilled, race::Heard};
use crate::{
    drills::Hold,
    openai::{
        answer::{self, Answer, AnswerFacts},
        error_body::{self, ApiError, ERROR_BODY_MAX},
        event::{self, EventFacts},
        rewrite::rewrite,
        sse::{Event, Splitter},
        usage::Usage,
    },
    upstream::{SendError, UpstreamBody},
};

/// A whole answer; the largest embeddings batches are about 30 MiB.
const ANSWER_MAX: usize = 64 * 1024 * 1024;
/// Lifecycle events held back until content comes. Real ones are a few hundred bytes.
const HELD_MAX: usize = 64 * 1024;
/// An error body that dawdles is not worth more.
const ERROR_BODY_WITHIN: Duration = Duration::from_secs(2);
/// What is sent at most, with Host and what hyper adds.
const HEADERS: usize = 10;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("trunkline/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum AttemptEnd {
    /// The whole answer.
    Whole { headers: HeaderMap, body: Bytes, facts: AnswerFacts, ttft: Duration },
    /// A stream with its first content.
    Stream(Box<Opened>),
    /// Nothing to pass on.
    Failed(Box<FailedAttempt>),
}

/// A stream that has begun.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) headers: HeaderMap,
    /// Events up to the first content, as they came.
    pub(super) held: BytesMut,
    pub(super) body: UpstreamBody,
    pub(super) splitter: Splitter,
    pub(super) progress: Progress,
    pub(super) timeouts: Timeouts,
    pub(super) started: Instant,
}

/// What a stream has told so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) usage: Option<Usage>,
    pub(super) finished: bool,
    pub(super) done: bool,
    pub(super) content: bool,
    pub(super) output_bytes: usize,
}

/// An attempt without an answer.
#[derive(Debug)]
pub(crate) struct FailedAttempt {
    pub(crate) classified: Classified,
    /// HTTP status. 0: there was none.
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// What the provider said, bounded.
    pub(crate) body: Bytes,
    pub(crate) error: ApiError,
    /// What was generated for nothing, as far as the provider told it.
    pub(crate) usage: Option<Usage>,
}

impl FailedAttempt {
    fn bare(classified: Classified, status: u16) -> AttemptEnd {
        AttemptEnd::Failed(Box::new(Self {
            classified,
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            error: ApiError::default(),
            usage: None,
        }))
    }

    /// An answer whose status says error.
    pub(super) fn refused(status: u16, headers: HeaderMap, body: Bytes) -> AttemptEnd {
        let error = error_body::parse(&body);
        let hint = retry_hint(status, &|name| headers.get(name)?.to_str().ok());
        let classified = classify(status, &error.fields(), hint);
        AttemptEnd::Failed(Box::new(Self { classified, status, headers, body, error, usage: None }))
    }

    /// Whether the provider may have generated something, and said nothing of it.
    pub(super) fn is_untold(&self) -> bool {
        let broken = matches!(
            self.classified.class,
            OutcomeClass::Reset | OutcomeClass::Timeout | OutcomeClass::Empty | OutcomeClass::Malformed
        );
        broken && self.status < 300 && self.usage.is_none() && self.error == ApiError::default()
    }

    fn unusable(fault: BodyFault, usage: Option<Usage>) -> AttemptEnd {
        let end = Self::bare(classify_body(fault), StatusCode::OK.as_u16());
        match end {
            AttemptEnd::Failed(failed) => AttemptEnd::Failed(Box::new(Self { usage, ..*failed })),
            end => end,
        }
    }
}

impl Progress {
    /// Takes note of an event.
    pub(super) fn note(&mut self, facts: &EventFacts) {
        self.content |= facts.has_content;
        self.finished |= facts.finish_reason.is_some();
        self.done |= facts.done;
        self.output_bytes += facts.output_bytes;
        // Some report usage more than once; the last one counts all.
        self.usage = facts.usage.or(self.usage);
    }
}

/// Runs an attempt. It has no time limit of its own but for connecting; dropping it
/// closes the upstream exchange.
pub(super) async fn run(
    worker: Arc<Worker>,
    job: Arc<Job>,
    deployment: DeploymentIndex,
    tier: usize,
    heard: Heard,
    hold: Option<Hold>,
) -> AttemptEnd {
    let started = Instant::now();
    let timeouts = job.snapshot.route(job.goal).model.tiers[tier].timeouts;
    if let Some(hold) = &hold
        && let Some(end) = drilled::before_sending(hold).await
    {
        return end;
    }
    let table = job.snapshot.table();
    let provider_index = table.deployment(deployment).provider;
    let provider = table.provider(provider_index);
    let Some(endpoint) = &job.snapshot.endpoints[provider_index.0 as usize] else {
        return FailedAttempt::bare(classify_transport(TransportFault::AddressRefused), 0);
    };
    let Ok(credential) = worker.shared.credentials.resolve(provider) else {
        // As if the provider had refused it: the same quarantine, the same remedy.
        return FailedAttempt::bare(classify(401, &ErrorFields::default(), None), 0);
    };
    let request = build(&job, endpoint, deployment, credential);
    let answer =
        worker.upstream.send(endpoint, request, timeouts.connect, |sent| heard.tell_sent(sent)).await;
    let answer = match hold {
        Some(hold) => answer.map(|answer| answer.map(|body| drilled::cut(body, hold))),
        None => answer,
    };
    match answer {
        Ok(response) if !response.status().is_success() => refused(response).await,
        Ok(response) if is_coded(response.headers()) => {
            tracing::debug!(provider = %provider.name, "answer is compressed, though identity was asked for");
            let fault = if job.scanned.stream { BodyFault::NotEventStream } else { BodyFault::NotJson };
            FailedAttempt::bare(classify_body(fault), response.status().as_u16())
        }
        Ok(response) if job.scanned.stream => open(response, started, timeouts).await,
        Ok(response) => {
            heard.tell();
            whole(response, started).await
        }
        Err(error) => {
            tracing::debug!(provider = %provider.name, error = %error, "no answer");
            FailedAttempt::bare(classify_transport(fault(&error)), 0)
        }
    }
}

const fn fault(error: &SendError) -> TransportFault {
    match error {
        SendError::Connect(_) => TransportFault::Connect,
        SendError::ConnectTimeout => TransportFault::ConnectTimeout,
        SendError::AddressRefused(_) => TransportFault::AddressRefused,
        SendError::Reset(_) | SendError::Protocol(_) => TransportFault::Reset,
    }
}

/// An allow-list: what is not named here does not travel upstream.
fn build(
    job: &Job,
    endpoint: &crate::upstream::Endpoint,
    deployment: DeploymentIndex,
    credential: Option<HeaderValue>,
) -> Request<Full<Bytes>> {
    let body = rewrite(&job.body, &job.scanned, job.upstream_model(deployment), job.injects_usage());
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.path(job.endpoint.path()).into();
    let headers = request.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(ACCEPT, if job.scanned.stream { EVENT_STREAM } else { JSON });
    headers.insert(ACCEPT_ENCODING, IDENTITY);
    headers.insert(USER_AGENT, AGENT);
    if let Some(credential) = credential {
        headers.insert(AUTHORIZATION, credential);
    }
    job.forwarded.write(headers);
    request
}

/// A status that says error (or a redirect, which is not followed).
async fn refused(response: Response<UpstreamBody>) -> AttemptEnd {
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    // A body that does not come leaves the status to speak.
    let body = timeout(ERROR_BODY_WITHIN, collect(body, ERROR_BODY_MAX)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    FailedAttempt::refused(status, parts.headers, body)
}

/// A whole answer.
async fn whole(response: Response<UpstreamBody>, started: Instant) -> AttemptEnd {
    let ttft = started.elapsed();
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    let body = match collect(body, ANSWER_MAX).await {
        Ok(body) => body,
        Err(fault) => return FailedAttempt::bare(classify_body(fault), status),
    };
    match answer::inspect(&body) {
        Answer::Good(facts) => AttemptEnd::Whole { headers: parts.headers, body, facts, ttft },
        Answer::Error(error) => in_success(parts.headers, body, error, None),
        Answer::Fault(fault) => FailedAttempt::bare(classify_body(fault), status),
    }
}

/// An error inside a 200, judged as the status it stands for.
fn in_success(headers: HeaderMap, body: Bytes, error: ApiError, usage: Option<Usage>) -> AttemptEnd {
    let hint = retry_hint(429, &|name| headers.get(name)?.to_str().ok());
    let classified = classify(200, &error.fields(), hint);
    AttemptEnd::Failed(Box::new(FailedAttempt { classified, status: 200, headers, body, error, usage }))
}

/// Reads all of a body of at most `limit` bytes.
async fn collect(mut body: UpstreamBody, limit: usize) -> Result<Bytes, BodyFault> {
    let mut all = BytesMut::new();
    let mut first = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyFault::Truncated)?.into_data() else { continue };
        if all.len() + first.as_ref().map_or(0, Bytes::len) + data.len() > limit {
            return Err(BodyFault::TooLarge);
        }
        // Most bodies are one frame, which then needs no copy.
        match (&first, all.is_empty()) {
            (None, true) => first = Some(data),
            (Some(_), _) => {
                all.extend_from_slice(&first.take().unwrap_or_default());
                all.extend_from_slice(&data);
            }
            (None, false) => all.extend_from_slice(&data),
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

/// A stream up to its first content. What comes before is held, so that another
/// target can still take over.
async fn open(response: Response<UpstreamBody>, started: Instant, timeouts: Timeouts) -> AttemptEnd {
    if !is_event_stream(response.headers()) {
        return not_a_stream(response).await;
    }
    let (parts, body) = response.into_parts();
    let mut opened = Opened {
        headers: parts.headers,
        held: BytesMut::new(),
        body,
        splitter: Splitter::new(),
        progress: Progress::default(),
        timeouts,
        started,
    };
    loop {
        loop {
            match opened.splitter.next_event() {
                Ok(Some(event)) => {
                    if let Some(end) = opened.take(&event) {
                        return opened.end(end);
                    }
                }
                Ok(None) => break,
                Err(_) => return FailedAttempt::bare(classify_body(BodyFault::TooLarge), 200),
            }
        }
        match pin!(opened.body.frame()).await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    opened.splitter.push(&data);
                }
            }
            Some(Err(_)) => return FailedAttempt::bare(classify_transport(TransportFault::Reset), 200),
            None => return opened.ended_without_content(),
        }
    }
}

/// What an event before content means.
enum Opening {
    Content,
    Error(ApiError),
    Empty,
}

impl Opened {
    fn take(&mut self, event: &Event) -> Option<Opening> {
        let facts = event::inspect(event);
        self.progress.note(&facts);
        if let Some(error) = facts.error {
            return Some(Opening::Error(error));
        }
        if facts.done && !self.progress.finished {
            return Some(Opening::Empty);
        }
        self.held.extend_from_slice(&event.raw);
        // A finish reason without content is an answer too: an empty one, but whole,
        // unless it says nothing but stop.
        let full = self.held.len() > HELD_MAX;
        if facts.finish_reason.is_some() {
            let empty = event::is_empty_answer(self.progress.content, facts.finish_reason.as_deref());
            return Some(if empty { Opening::Empty } else { Opening::Content });
        }
        (facts.has_content || full).then_some(Opening::Content)
    }

    fn end(self, end: Opening) -> AttemptEnd {
        match end {
            Opening::Content => AttemptEnd::Stream(Box::new(self)),
            Opening::Error(error) => in_success(self.headers, self.held.freeze(), error, self.progress.usage),
            Opening::Empty => FailedAttempt::unusable(BodyFault::Empty, self.progress.usage),
        }
    }

    /// Some end a stream with plain JSON that says what went wrong.
    fn ended_without_content(self) -> AttemptEnd {
        if let Some(error) = error_body::parse_in_success(self.splitter.leftover()) {
            return in_success(self.headers, Bytes::new(), error, self.progress.usage);
        }
        FailedAttempt::bare(classify_body(BodyFault::Truncated), 200)
    }
}

/// Whether the body is compressed: nothing in it could be read, here or by the app, which
/// gets no such header.
fn is_coded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    value.len() >= 17 && value[..17].eq_ignore_ascii_case(b"text/event-stream")
}

/// A stream was asked for and something else came: an error in JSON, or a page.
async fn not_a_stream(response: Response<UpstreamBody>) -> AttemptEnd {
    let (parts, body) = response.into_parts();
    let body = timeout(ERROR_BODY_WITHIN, collect(body, ERROR_BODY_MAX)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    if let Some(error) = error_body::parse_in_success(&body) {
        return in_success(parts.headers, body, error, None);
    }
    let fault = match answer::inspect(&body) {
        Answer::Fault(BodyFault::Html) => BodyFault::Html,
        Answer::Good(_) | Answer::Error(_) | Answer::Fault(_) => BodyFault::NotEventStream,
    };
    FailedAttempt::bare(classify_body(fault), StatusCode::OK.as_u16())
}
