//! The layer before all gRPC services.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio::sync::Semaphore;
use tonic::{Status, body::Body, transport::server::TcpConnectInfo};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    admit::{Access, presented},
    limiter::{DELAY, Limiter},
    refusal::{Refusal, RefusalReason, withdrawn},
};

/// Answers that wait at a time. Beyond, they do not wait: a flood may not pile up.
const DELAYED_MAX: usize = 256;

/// Calls that were refused.
pub(crate) type Refused = Family<RefusedLabels, Counter>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusedLabels {
    reason: RefusalReason,
}

/// Puts a [`Guard`] before a service.
#[derive(Clone, Debug)]
pub(crate) struct GuardLayer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    access: Access,
    limiter: Limiter,
    delayed: Arc<Semaphore>,
    refused: Refused,
}

impl GuardLayer {
    pub(crate) fn new(access: Access, refused: Refused) -> Self {
        let delayed = Arc::new(Semaphore::new(DELAYED_MAX));
        Self(Arc::new(Shared { access, limiter: Limiter::default(), delayed, refused }))
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { shared: Arc::clone(&self.0), inner }
    }
}

/// Lets through who may, and ends streams whose token is withdrawn.
#[derive(Clone, Debug)]
pub(crate) struct Guard<S> {
    shared: Arc<Shared>,
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
        let principal = match self.shared.access.admit(request.uri().path(), request.headers()) {
            Ok(principal) => principal,
            Err(refusal) => return Box::pin(self.shared.refuse(&refusal, &request)),
        };
        tracing::debug!(principal = %principal.audit_name(), path = request.uri().path(), "call admitted");
        request.extensions_mut().insert(principal);
        let revoked = self.shared.revoked(request.headers());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(match revoked {
                Some(revoked) => {
                    response.map(|inner| Body::new(Revocable { inner, revoked, is_over: false }))
                }
                None => response,
            })
        })
    }
}

impl Shared {
    /// Counts and answers; late, for whoever does this often.
    fn refuse<E>(
        &self,
        refusal: &Refusal,
        request: &Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, E>> + Send + use<E> {
        self.refused.get_or_create(&RefusedLabels { reason: refusal.reason() }).inc();
        let peer = peer(request);
        let too_often = refusal.is_guess() && !self.limiter.allows(peer, Instant::now());
        tracing::debug!(peer = ?peer, path = request.uri().path(), reason = ?refusal.reason(), "call refused");
        let delay = too_often.then(|| Arc::clone(&self.delayed).try_acquire_owned().ok()).flatten();
        let response = refusal.status(request.uri().path()).into_http();
        async move {
            if let Some(_place) = &delay {
                tokio::time::sleep(DELAY).await;
            }
            Ok(response)
        }
    }

    /// Ready when the call's token is withdrawn. None: it came without, or with an app
    /// key, which routing looks at itself.
    fn revoked(&self, headers: &HeaderMap) -> Option<Withdrawal> {
        let tokens = self.access.tokens.as_ref()?;
        Some(Box::pin(tokens.withdrawn(presented(headers).ok()??)?))
    }
}

type Withdrawal = Pin<Box<dyn Future<Output = ()> + Send>>;

fn peer(request: &Request<Body>) -> Option<IpAddr> {
    Some(request.extensions().get::<TcpConnectInfo>()?.remote_addr()?.ip())
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
