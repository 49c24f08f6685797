//! `/metrics`, `/healthz` and `/readyz` for operators.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trunkline_transport::{bearer::TokenSet, tls::Acceptor};

use crate::shared::Shared;

/// A client that takes longer to send its request head is no client.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections at a time: enough for scrapers and probes. More wait in the accept queue.
const CONNECTIONS_MAX: usize = 128;

/// What is shown, and to whom.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    pub(crate) shared: Arc<Shared>,
    /// Who may see metrics. None: whoever reaches the listener. Probes come without a
    /// token, and see the other pages.
    pub(crate) tokens: Option<TokenSet<()>>,
}

impl Pages {
    fn may_see_metrics(&self, headers: &HeaderMap) -> bool {
        let Some(tokens) = &self.tokens else { return true };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        value.as_bytes().strip_prefix(b"Bearer ").is_some_and(|token| tokens.holder(token).is_some())
    }
}

/// Serves until `shutdown`.
pub(crate) async fn serve(
    pages: Pages,
    listener: TcpListener,
    tls: Option<Acceptor>,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = tokio::select! {
            biased;
            // Probes and scrapes end with the process.
            () = shutdown.cancelled() => return,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            biased;
            // Probes and scrapes end with the process.
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (pages, tls) = (pages.clone(), tls.clone());
        connections.spawn(async move {
            let _place = place;
            match tls {
                None => exchange(stream, pages).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => exchange(stream, pages).await,
                    Err(error) => tracing::debug!(%error, "TLS handshake failed on the ops listener"),
                },
            }
        });
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, pages: Pages) {
    let service = service_fn(move |request| {
        let response = answer(&pages, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_WITHIN);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "ops connection ended");
    }
}

fn answer(pages: &Pages, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let shared = &pages.shared;
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => readiness(shared),
        "/metrics" if !pages.may_see_metrics(request.headers()) => {
            let said = "a token is required, as `authorization: Bearer TOKEN`\n";
            let mut response = text(StatusCode::UNAUTHORIZED, said.to_owned());
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        "/metrics" => metrics(shared),
        path => text(
            StatusCode::NOT_FOUND,
            format!("nothing at {path}; there are /metrics, /healthz and /readyz\n"),
        ),
    }
}

/// Ready with a routing table, however it came, as long as it is in service and does not
/// drain. Drills are named below, one a line.
fn readiness(shared: &Shared) -> Response<Full<Bytes>> {
    if shared.draining.is_cancelled() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    if shared.snapshot().is_none() {
        let reason = "no routing table: none came from the control plane, none is on disk\n";
        return text(StatusCode::SERVICE_UNAVAILABLE, reason.to_owned());
    }
    if let Some(reason) = &*shared.duty.reason().borrow() {
        return text(StatusCode::SERVICE_UNAVAILABLE, format!("out of service: {reason}\n"));
    }
    let mut body = "ready\n".to_owned();
    let now = Instant::now();
    for drill in shared.drills.active(now) {
        let left = drill.ends.duration_since(now).as_secs();
        let (name, effect) = (&drill.name, drill.effect);
        // Writing to a string does not fail.
        writeln!(body, "drill {name}: {effect}, {left} s left").ok();
    }
    text(StatusCode::OK, body)
}

fn metrics(shared: &Shared) -> Response<Full<Bytes>> {
    shared.metrics.in_flight.set(shared.in_flight().into());
    if let Some(snapshot) = shared.snapshot() {
        let revision = snapshot.table().version.revision;
        shared.metrics.revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        let assumed = &snapshot.loaded.assumed;
        let assumed = assumed.iter().count() + assumed.dropped();
        shared.metrics.assumed.set(i64::try_from(assumed).unwrap_or(i64::MAX));
    }
    match shared.metrics.encode(&shared.drills.active(Instant::now())) {
        Ok(body) => {
            let mut response = text(StatusCode::OK, body);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("encode metrics: {error}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
