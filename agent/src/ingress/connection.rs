//! One connection: HTTP/1.1 and HTTP/2 told apart by the first bytes, each request
//! given to HTTP or gRPC. On drain it finishes what it serves and closes.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Request, Response,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE},
};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, service::Routes};
use trunkline_transport::tls::{self, Acceptor};

use super::{
    answer::AgentBody,
    error::LocalError,
    grpc_call, http_api,
    limits::Limits,
    socket::{Socket, Turn, Turns},
};
use crate::engine::Worker;

/// Bytes and number of a request's header lines.
const HEADER_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 100;
/// Streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Bytes of an HTTP/2 header list.
const HEADER_LIST_MAX: u32 = 16 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
static API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What every connection of a worker is served with.
pub(crate) struct Site {
    pub(crate) worker: Arc<Worker>,
    pub(crate) grpc: Routes,
    /// None: plain TCP.
    pub(crate) tls: Option<Acceptor>,
    pub(crate) limits: Limits,
    pub(crate) draining: CancellationToken,
}

/// What a connection runs on: TCP, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Serves it to its end.
pub(super) async fn serve(site: Arc<Site>, stream: TcpStream) {
    // Without it each chunk of a stream could wait for an acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    if let Some(tls) = &site.tls {
        return encrypted(&site, tls, stream).await;
    }
    let is_http2 = tokio::select! {
        biased;
        // Bytes that are there come before any limit.
        seen = speaks_http2(&stream) => seen,
        () = tokio::time::sleep(site.limits.head) => return,
        // A silent connection does not hold up the drain.
        () = silent_while_draining(&site) => return,
    };
    if let Ok(is_http2) = is_http2 {
        speak(&site, stream, is_http2).await;
    }
}

/// As before, in TLS. The protocol was agreed on in the handshake.
async fn encrypted(site: &Arc<Site>, tls: &Acceptor, stream: TcpStream) {
    let shaken = tokio::select! {
        biased;
        // It has its own limit.
        shaken = tls.accept(stream) => shaken,
        () = silent_while_draining(site) => return,
    };
    match shaken {
        Ok(stream) => {
            let is_http2 = tls::is_h2(&stream);
            speak(site, stream, is_http2).await;
        }
        Err(error) => tracing::debug!(%error, "TLS handshake failed"),
    }
}

async fn speak(site: &Arc<Site>, stream: impl Stream, is_http2: bool) {
    let result = if is_http2 { http2(site, stream).await } else { http1(site, stream).await };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

async fn silent_while_draining(site: &Site) {
    site.draining.cancelled().await;
    tokio::time::sleep(site.limits.first_bytes_draining).await;
}

async fn http1(site: &Arc<Site>, stream: impl Stream) -> hyper::Result<()> {
    let turns = Arc::new(Turns::new());
    let io = TokioIo::new(Socket::http1(stream, site.limits, Arc::clone(&turns)));
    let service = service_fn(move |request| {
        let served = dispatch(Arc::clone(site), Some(turns.serve()), request);
        async move {
            let mut response = served.await?;
            if site.worker.shared.duty.is_off() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    builder.half_close(false).max_buf_size(HEADER_BYTES_MAX).max_headers(HEADERS_MAX);
    let serving = pin!(builder.serve_connection(io, service));
    until_told(site.draining.cancelled(), serving, http1::Connection::graceful_shutdown).await
}

async fn http2(site: &Arc<Site>, stream: impl Stream) -> hyper::Result<()> {
    let io = TokioIo::new(Socket::http2(stream, site.limits));
    let site_of_request = Arc::clone(site);
    let leave = site.draining.child_token();
    let told = leave.clone();
    let service = service_fn(move |request| {
        if site_of_request.worker.shared.duty.is_off() {
            // This one is served; the next goes elsewhere.
            leave.cancel();
        }
        dispatch(Arc::clone(&site_of_request), None, request)
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(site.limits.ping)
        .keep_alive_timeout(site.limits.pong);
    builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEADER_LIST_MAX);
    let serving = pin!(builder.serve_connection(io, service));
    until_told(told.cancelled(), serving, http2::Connection::graceful_shutdown).await
}

/// Serves; once `leave` is there, `stop` tells the connection to take no more requests.
async fn until_told<C: Future>(
    leave: impl Future<Output = ()>,
    mut serving: Pin<&mut C>,
    stop: impl FnOnce(Pin<&mut C>),
) -> C::Output {
    tokio::select! {
        biased;
        // What is ready is served before the connection is told to stop.
        result = serving.as_mut() => result,
        () = leave => {
            stop(serving.as_mut());
            serving.await
        }
    }
}

/// Looks at the first bytes without taking them.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut start).await?;
        if seen == 0 || !PREFACE.starts_with(&start[..seen]) {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        // The rest of the preface is on its way; peeking again would spin.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn dispatch(
    site: Arc<Site>,
    turn: Option<Turn>,
    request: Request<Incoming>,
) -> Result<Response<Served>, Infallible> {
    let headers = request.headers();
    let is_grpc =
        headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    // Whoever checked the request before us may have looked at the other one.
    let twice =
        [&AUTHORIZATION, &API_KEY].into_iter().find(|name| headers.get_all(*name).iter().nth(1).is_some());
    let response = match (twice, is_grpc) {
        (None, false) => http_api::handle(&site, request).await,
        (None, true) => grpc_call::handle(&site, request).await,
        (Some(name), false) => {
            let mut response = LocalError::knob(name.as_str(), "is there more than once").response();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
        (Some(name), true) => Status::invalid_argument(format!("header '{name}': is there more than once"))
            .into_http()
            .map(AgentBody::Grpc),
    };
    Ok(response.map(|body| Served { body, _turn: turn }))
}

/// The body of an answer; while it lasts, the connection waits for no next request.
struct Served {
    body: AgentBody,
    _turn: Option<Turn>,
}

impl Body for Served {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
