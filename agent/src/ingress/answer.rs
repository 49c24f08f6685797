//! From what the engine brought to what the app gets.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use http_body::{Body, Frame};
use http_body_util::Full;
use trunkline_routing::money::NanoUsd;

use super::error::{LocalError, upstream_response};
use crate::engine::{Done, Job, Refusal, Success, Tail, Trace};

/// Our own headers, two that are passed on, and what hyper adds.
const HEADERS: usize = 13;
// Checked and hashed at compile time, or once, not per request.
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) static DECISION: HeaderName = HeaderName::from_static("x-trunkline-decision");
static UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");
static ATTEMPTS: HeaderName = HeaderName::from_static("x-trunkline-attempts");
static STRATEGY: HeaderName = HeaderName::from_static("x-trunkline-strategy");
static REVISION: HeaderName = HeaderName::from_static("x-trunkline-revision");
static DEPLOYMENT: HeaderName = HeaderName::from_static("x-trunkline-deployment");
static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
static FAULT: HeaderName = HeaderName::from_static("x-trunkline-fault");
static COST: HeaderName = HeaderName::from_static("x-trunkline-cost-usd");

/// The body of an answer.
pub(crate) enum AgentBody {
    /// All at once.
    Full(Full<Bytes>),
    /// Piece by piece.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
    /// gRPC.
    Grpc(tonic::body::Body),
}

impl Body for AgentBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Full(body) => {
                Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(never)))
            }
            Self::Stream(stream) => {
                stream.as_mut().poll_next(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
            Self::Grpc(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.is_end_stream(),
            Self::Stream(_) => false,
            Self::Grpc(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Stream(_) => http_body::SizeHint::default(),
            Self::Grpc(body) => body.size_hint(),
        }
    }
}

fn never(error: Infallible) -> tonic::Status {
    match error {}
}

/// The response to a request that the engine ran.
pub(crate) fn respond(job: &Job, done: Done) -> Response<AgentBody> {
    let Done { trace, result } = done;
    let (mut response, upstream) = match result {
        Ok(Success::Whole(whole)) => {
            let mut response = Response::new(AgentBody::Full(Full::new(whole.body)));
            response.headers_mut().reserve(HEADERS);
            copy(&whole.headers, response.headers_mut(), CONTENT_TYPE);
            if let Some(cost) = trace.winner().and_then(|attempt| attempt.cost) {
                insert(response.headers_mut(), &COST, &usd(cost));
            }
            (response, Some(whole.headers))
        }
        Ok(Success::Stream(mut tail)) => {
            let headers = std::mem::take(&mut tail.headers);
            let mut response = Response::new(AgentBody::Stream(Box::pin(pieces(tail))));
            response.headers_mut().reserve(HEADERS);
            copy(&headers, response.headers_mut(), CONTENT_TYPE);
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            (response, Some(headers))
        }
        Err(Refusal::Upstream(failed)) => {
            let mut response = upstream_response(&failed);
            copy(&failed.headers, response.headers_mut(), RETRY_AFTER);
            if trace.attempts.len() > 1 {
                // We did.
                response.headers_mut().insert(&SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            (response, Some(failed.headers))
        }
        Err(refusal) => {
            let error = LocalError::refusal(&refusal);
            (
                error.map_or_else(
                    || Response::new(AgentBody::Full(Full::default())),
                    |error| error.response(),
                ),
                None,
            )
        }
    };
    describe(job, &trace, response.headers_mut());
    if let Some(id) = upstream.as_ref().and_then(|headers| headers.get(&REQUEST_ID)) {
        response.headers_mut().insert(&UPSTREAM_REQUEST_ID, id.clone());
    }
    response
}

fn pieces(tail: Box<Tail>) -> impl Stream<Item = Bytes> + Send {
    futures_util::stream::unfold(tail, |mut tail| async move {
        let piece = tail.next().await?;
        Some((piece, tail))
    })
}

fn describe(job: &Job, trace: &Trace, headers: &mut HeaderMap) {
    let route = job.snapshot.route(job.goal);
    insert(headers, &DECISION, &trace.id);
    insert(headers, &ATTEMPTS, &trace.attempts_header(job));
    insert(headers, &FAULT, &trace.faults());
    headers.insert(&STRATEGY, HeaderValue::from_static(route.model.strategy.name()));
    headers.insert(&REVISION, HeaderValue::from(job.snapshot.table().version.revision));
    if let Some(winner) = trace.winner() {
        insert(headers, &DEPLOYMENT, job.snapshot.deployment_name(winner.deployment));
    }
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, name: http::HeaderName) {
    if let Some(value) = from.get(&name) {
        to.insert(name, value.clone());
    }
}

/// Names and ids are visible ASCII; what is not is left out.
fn insert(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value)
        && !value.is_empty()
    {
        headers.insert(name, value);
    }
}

/// Nano-dollars as exact dollars without trailing zeros.
fn usd(cost: NanoUsd) -> String {
    let text = format!("{}.{:09}", cost.0 / 1_000_000_000, cost.0 % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_exact() {
        assert_eq!(usd(NanoUsd(1_234_500_000)), "1.2345");
        assert_eq!(usd(NanoUsd(7)), "0.000000007");
        assert_eq!(usd(NanoUsd(2_000_000_000)), "2");
        assert_eq!(usd(NanoUsd(0)), "0");
    }
}
