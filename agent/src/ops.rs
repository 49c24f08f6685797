//! `/metrics`, `/healthz` and `/readyz` for operators.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::shared::Shared;

/// A client that takes longer to send its request head is no client.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `shutdown`.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
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
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&shared, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_WITHIN);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "ops connection ended");
            }
        });
    }
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => readiness(shared),
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
    shared.metrics.show_drills(&shared.drills.active(Instant::now()));
    match shared.metrics.encode() {
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
