//! The layer before all gRPC services.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};
use tower_layer::Layer;
use tower_service::Service;
use trunkline_transport::places::Peer;

use super::{
    admit::{Access, Admitted, Withdrawal},
    refusal::{Refusal, withdrawn},
};

/// Puts a [`Guard`] before a service.
#[derive(Clone, Debug)]
pub(crate) struct GuardLayer(Arc<Access>);

impl GuardLayer {
    pub(crate) fn new(access: Access) -> Self {
        Self(Arc::new(access))
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { access: Arc::clone(&self.0), inner }
    }
}

/// Lets through who may, and ends streams whose token is withdrawn.
#[derive(Clone, Debug)]
pub(crate) struct Guard<S> {
    access: Arc<Access>,
    inner: S,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let admitted = match self.access.admit(request.uri().path(), request.headers()) {
            Ok(admitted) => admitted,
            Err(refusal) => return Box::pin(refuse(&self.access, &refusal, &request)),
        };
        let Admitted { principal, is_known, withdrawal } = admitted;
        if is_known && let Some(peer) = request.extensions().get::<Peer>() {
            peer.admit();
        }
        tracing::debug!(principal = %principal.audit_name(), path = request.uri().path(), "call admitted");
        request.extensions_mut().insert(principal);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(match withdrawal {
                Some(revoked) => {
                    response.map(|inner| Body::new(Revocable { inner, revoked, is_over: false }))
                }
                None => response,
            })
        })
    }
}

/// Counts and answers; late, for whoever does this often.
fn refuse<E>(
    access: &Access,
    refusal: &Refusal,
    request: &Request<Body>,
) -> impl Future<Output = Result<Response<Body>, E>> + Send + use<E> {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address().ip());
    tracing::debug!(peer = ?peer, path = request.uri().path(), reason = ?refusal.reason(), "call refused");
    let delay = access.refusals.count(refusal, peer);
    let response = refusal.status(request.uri().path()).into_http();
    async move {
        delay.over().await;
        Ok(response)
    }
}

/// An answer that ends when its caller's token does.
struct Revocable {
    inner: Body,
    revoked: Withdrawal,
    is_over: bool,
}

impl HttpBody for Revocable {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        // A withdrawn token ends also a stream that always has something to say.
        let is_last = matches!(&frame, Poll::Ready(None)) || is_trailers(&frame);
        if is_last || self.revoked.as_mut().poll(context).is_pending() {
            return frame;
        }
        self.is_over = true;
        self.inner = Body::default();
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(withdrawn().add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn is_trailers(frame: &Poll<Option<Result<Frame<Bytes>, Status>>>) -> bool {
    matches!(frame, Poll::Ready(Some(Ok(frame))) if frame.is_trailers())
}
