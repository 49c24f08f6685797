//! Accepts connections and serves a provider on them over HTTP/1.1.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    faults::ErrorBody,
    plan::Plan,
    play::{self, Body, Order},
    provider::LiveProvider,
};

/// Open connections; more wait in the listener's backlog. Under the usual limit of
/// 1,024 files per process there are fewer anyway.
const CONNECTIONS_MAX: usize = 8192;

/// As large as the largest request a hosted provider takes.
const REQUEST_BODY_MAX: usize = 32 * 1024 * 1024;

/// How long answers may go on after the shutdown signal.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Pause after a failed accept, which usually means no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// One order ends a connection, so one is enough.
const ORDERS_MAX: usize = 1;

/// Serves `provider` until `shutdown`: then no new connections, idle ones are closed,
/// and running answers get one second. Dropping the future closes every connection
/// at once, as a dying provider would.
pub async fn serve(listener: TcpListener, provider: Arc<LiveProvider>, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    let stop = CancellationToken::new();
    // Declared after the set, so dropped before it: guards see that we did it.
    let _stopping = stop.clone().drop_guard();
    loop {
        // The end first, then finished connections, which make room for new ones.
        tokio::select! { biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&provider), shutdown.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, provider = provider.model().name, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_err() {
        tracing::debug!(provider = provider.model().name, "closed connections with answers still running");
    }
}

async fn connection(
    stream: TcpStream,
    provider: Arc<LiveProvider>,
    shutdown: CancellationToken,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY");
    }
    let (orders, mut ordered) = mpsc::channel(ORDERS_MAX);
    let service = service_fn(move |request| {
        let (provider, orders, stop) = (Arc::clone(&provider), orders.clone(), stop.clone());
        Box::pin(async move { Ok::<_, Infallible>(answer(request, &provider, orders, stop).await) })
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut closing = false;
    loop {
        // Orders first: a reset must not wait for bytes to flow.
        tokio::select! { biased;
            Some(order) = ordered.recv() => match order {
                Order::Reset => return reset(connection.into_parts().io.into_inner()),
                Order::CloseAfterAnswer => std::pin::Pin::new(&mut connection).graceful_shutdown(),
            },
            () = shutdown.cancelled(), if !closing => {
                closing = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
            ended = &mut connection => {
                if let Err(error) = ended {
                    // Clients that leave and planned cuts end here; both are counted already.
                    tracing::trace!(%error, "connection ended");
                }
                return;
            }
        }
    }
}

/// Closes with RST.
fn reset(stream: TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "set SO_LINGER to 0");
    }
    drop(stream);
}

async fn answer(
    request: Request<Incoming>,
    provider: &Arc<LiveProvider>,
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let (body, refusal) = match read(body).await {
        Ok(body) => (body, None),
        Err(refusal) => (Bytes::new(), Some(refusal)),
    };
    let (number, call) = provider.open(&head, &body, stop);
    let plan = refusal.unwrap_or_else(|| provider.plan(number, &head, &body));
    let request_id = format!("req_{}_{number}", provider.model().name);
    play::play(plan, &request_id, call, orders).await
}

/// The whole body, or what to answer instead.
async fn read(body: Incoming) -> Result<Bytes, Plan> {
    match Limited::new(body, REQUEST_BODY_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Plan::refusal(413, ErrorBody::usual(413))),
        Err(error) => {
            tracing::debug!(error = %io::Error::other(error), "read request body");
            Err(Plan::refusal(400, ErrorBody::usual(400)))
        }
    }
}
