//! The HTTP listener for operators: `/metrics`, `/healthz`, `/readyz`.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trunkline_transport::tls::Acceptor;

use crate::{
    access::{Access, Delay},
    metrics::Metrics,
    repository::{Repository, StoreHealth},
};

/// Enough for scrapers and probes; more wait in the accept queue.
const CONNECTIONS_MAX: usize = 128;

/// Longest wait for a request's head, so that silent clients give their place back.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What is shown, and to whom.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    pub(crate) repository: Arc<Repository>,
    pub(crate) metrics: Arc<Metrics>,
    /// Who may see metrics. None: whoever reaches the listener. Probes come without a
    /// token, and see the other pages.
    pub(crate) access: Option<Access>,
}

/// Serves until `shutdown`; then open exchanges end and it returns.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Acceptor>,
    pages: Pages,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let accepted = tokio::select! {
            biased; // A stop is heeded before more work is taken on.
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, address)) => (stream, address.ip()),
            Err(error) => {
                tracing::warn!(%error, "accept failed on the ops listener");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let (tls, pages, shutdown) = (tls.clone(), pages.clone(), shutdown.clone());
        connections.spawn(async move {
            let _place = place;
            match tls {
                None => exchange(stream, peer, pages, shutdown).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => exchange(stream, peer, pages, shutdown).await,
                    Err(error) => tracing::debug!(%error, "TLS handshake failed on the ops listener"),
                },
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: IpAddr,
    pages: Pages,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (response, delay) = match answer(&request, peer, &pages) {
            Ok(response) => (response, None),
            Err(delay) => (unauthorized(), Some(delay)),
        };
        async move {
            if let Some(delay) = delay {
                delay.over().await;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        biased; // A finished connection needs no shutdown.
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "ops connection ended early");
    }
}

/// The answer, or how long a refusal waits.
fn answer(request: &Request<Incoming>, peer: IpAddr, pages: &Pages) -> Result<Response<Full<Bytes>>, Delay> {
    let method = request.method();
    if method != Method::GET && method != Method::HEAD {
        let said = "only GET and HEAD are served here\n";
        return Ok(respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, said.into()));
    }
    Ok(match request.uri().path() {
        "/metrics" => {
            if let Some(access) = &pages.access {
                access.may_read(request.headers(), peer)?;
            }
            match pages.metrics.encode() {
                Ok(text) => respond(StatusCode::OK, OPENMETRICS, text),
                Err(error) => {
                    respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("encode metrics: {error}\n"))
                }
            }
        }
        // Both listeners are bound and the store is open before this is served at all.
        "/healthz" => respond(StatusCode::OK, TEXT, "ok\n".into()),
        "/readyz" => respond(StatusCode::OK, TEXT, ready(&pages.repository.health()).into()),
        _ => respond(StatusCode::NOT_FOUND, TEXT, "known paths: /metrics, /healthz, /readyz\n".into()),
    })
}

fn unauthorized() -> Response<Full<Bytes>> {
    let said = "a token of a viewer is required, as `authorization: Bearer TOKEN`\n";
    let mut response = respond(StatusCode::UNAUTHORIZED, TEXT, said.into());
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Reads, sync and telemetry go on whatever the store's health. What ails it names files
/// and agents, and probes come without a token: so that is in the log.
fn ready(store: &StoreHealth) -> &'static str {
    match store {
        StoreHealth::Ok => "ok\n",
        StoreHealth::Degraded { .. } => "ok\nstore: something was lost; the log says what\n",
        StoreHealth::ReadOnly { .. } => "ok\nstore: takes no writes of operators; the log says why\n",
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
