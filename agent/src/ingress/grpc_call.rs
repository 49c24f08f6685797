//! gRPC calls between the connection and tonic: counts requests, hurries slow bodies,
//! and ends streams that are no requests when the agent drains.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tower_service::Service as _;

use super::{answer::AgentBody, connection::Site, count::Counted, pace::Paced};

const ROUTING: &str = "/trunkline.routing.v1.RoutingService/";
static GRPC_STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");

/// When a call's head came in: deadlines count from there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived(pub(crate) Instant);

/// Answers one call.
pub(super) async fn handle(site: &Site, mut request: Request<Incoming>) -> Response<AgentBody> {
    request.extensions_mut().insert(Arrived(Instant::now()));
    let mut grpc = site.grpc.clone();
    let Some(method) = request.uri().path().strip_prefix(ROUTING) else {
        // Health and reflection: streams of them have no end of their own.
        let draining = &site.draining;
        let request = request.map(|body| tonic::body::Body::new(Until::drained(body, draining, None)));
        let Ok(response) = grpc.call(request).await;
        return response.map(|body| {
            let gone = Status::unavailable("the agent drains");
            let mut last = HeaderMap::new();
            gone.add_header(&mut last).ok();
            AgentBody::Grpc(tonic::body::Body::new(Until::drained(body, draining, Some(last))))
        });
    };
    let shared = &site.worker.shared;
    let route = match method {
        "Route" => Some("route"),
        "Complete" => Some("complete"),
        "StreamComplete" => Some("stream_complete"),
        _ => None,
    };
    let _in_flight = route.map(|_| shared.enter());
    let counted = route.map(|route| Counted::new(shared, route));
    let silence = site.limits.body;
    let request = request.map(|body| {
        let body = http_body_util::BodyExt::map_err(Paced::new(body, silence), |error| match error {
            super::pace::PaceError::Slow => Status::deadline_exceeded(error.to_string()),
            super::pace::PaceError::BrokeOff => Status::cancelled(error.to_string()),
        });
        tonic::body::Body::new(body)
    });
    let Ok(response) = grpc.call(request).await;
    let Some(counted) = counted else { return response.map(AgentBody::Grpc) };
    if response.headers().contains_key(&GRPC_STATUS) {
        counted.answered_grpc(response.headers());
        return response.map(AgentBody::Grpc);
    }
    response.map(|body| AgentBody::Grpc(tonic::body::Body::new(Ending { body, counted: Some(counted) })))
}

/// Counts the call by its trailers.
struct Ending {
    body: tonic::body::Body,
    counted: Option<Counted>,
}

impl Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Some(counted) = self.counted.take()
        {
            counted.answered_grpc(trailers);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that ends when the agent drains, after what is there already.
struct Until<B> {
    body: Option<B>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    last: Option<HeaderMap>,
}

impl<B> Until<B> {
    /// `last`: trailers of such an end.
    fn drained(body: B, draining: &CancellationToken, last: Option<HeaderMap>) -> Self {
        Self { body: Some(body), draining: Box::pin(draining.clone().cancelled_owned()), last }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Until<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if this.draining.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.body = None;
        Poll::Ready(this.last.take().map(|last| Ok(Frame::trailers(last))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
