//! Listens: one socket per worker on the same port, HTTP/1.1 and HTTP/2 told apart by
//! the first bytes. On drain, connections finish what they serve and close.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response, header::CONTENT_TYPE};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tower_service::Service;

use super::{answer::AgentBody, http_api};
use crate::engine::Worker;

/// Pending connections per socket; more than a burst of a whole fleet of app workers.
const BACKLOG: i32 = 1_024;
/// A client that takes longer to send its request head is no client.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes and number of a request's header lines.
const HEADER_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 100;
/// Streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Bytes of an HTTP/2 header list.
const HEADER_LIST_MAX: u32 = 16 * 1024;
/// Pause after accept failed (too many open files): connections that end help.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// The sockets of all workers, bound to one address.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Vec<std::net::TcpListener>,
}

impl Listeners {
    /// Binds one socket per worker. Port 0 picks a free one.
    pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Self> {
        // Sockets that share a port would also share it with another agent of the same
        // user, unnoticed. One that does not share finds that out.
        let probe = listen(address, false)?;
        let address = probe.local_addr()?;
        drop(probe);
        let sockets = (0..workers).map(|_| listen(address, true)).collect::<io::Result<_>>()?;
        Ok(Self { address, sockets })
    }
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves until `draining`, then returns when all connections are done.
pub(crate) async fn serve(
    worker: Arc<Worker>,
    listener: TcpListener,
    grpc: Routes,
    draining: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            // No new connection once draining.
            () = draining.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(Arc::clone(&worker), stream, grpc.clone(), draining.clone());
                connections.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(worker: Arc<Worker>, stream: TcpStream, grpc: Routes, draining: CancellationToken) {
    // Without it each chunk of a stream could wait for an acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(Ok(is_http2)) = tokio::time::timeout(HEADER_WITHIN, speaks_http2(&stream)).await else { return };
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| dispatch(Arc::clone(&worker), grpc.clone(), request));
    let result = if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        builder.max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEADER_LIST_MAX);
        let mut serving = pin!(builder.serve_connection(io, service));
        tokio::select! {
            biased;
            result = serving.as_mut() => result,
            () = draining.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_WITHIN);
        builder.half_close(false).max_buf_size(HEADER_BYTES_MAX).max_headers(HEADERS_MAX);
        let mut serving = pin!(builder.serve_connection(io, service));
        tokio::select! {
            biased;
            result = serving.as_mut() => result,
            () = draining.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
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
    worker: Arc<Worker>,
    mut grpc: Routes,
    request: Request<Incoming>,
) -> Result<Response<AgentBody>, Infallible> {
    let is_grpc = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        let response = grpc.call(request.map(tonic::body::Body::new)).await?;
        return Ok(response.map(AgentBody::Grpc));
    }
    Ok(http_api::handle(worker, request).await)
}
