//! Sends requests to providers over HTTP/1.1 with connections kept alive. One
//! [`Upstream`] per worker thread: its connections stay on that thread.
//!
//! It sends one request to one provider and says what happened. It never follows a
//! redirect, never reads proxy settings from the environment, never retries anything
//! that may have reached the provider: whether and where to try again is decided by the
//! caller.

mod body;
mod connect;
mod endpoint;
mod pool;
#[cfg(test)]
mod tests;
mod tls;

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header::HOST};
use http_body_util::Full;
use rustls::ClientConfig;
use thiserror::Error;
use tokio_util::task::TaskTracker;

pub use self::{
    body::{BodyError, UpstreamBody},
    connect::ConnectFailure,
    endpoint::{Endpoint, EndpointError},
    tls::client_config,
};
use self::{
    connect::Connector,
    pool::{Connection, Pool, Pools},
};

/// The provider connections of one worker thread.
#[derive(Debug)]
pub struct Upstream {
    connector: Connector,
    pools: Pools,
}

/// Why there is no response head.
#[derive(Debug, Error)]
pub enum SendError {
    /// There is no connection; nothing was sent.
    #[error("connect: {0}")]
    Connect(#[source] ConnectFailure),
    /// Connecting took too long; nothing was sent.
    #[error("connect: no connection within the time limit")]
    ConnectTimeout,
    /// The address is not one that this provider may be at; nothing was sent.
    #[error("connect: {0} is a private or reserved address; allow_private_network permits private ones")]
    AddressRefused(IpAddr),
    /// The connection ended after the request was written and before a response head.
    #[error("upstream closed the connection before answering")]
    Reset(#[source] hyper::Error),
    /// What arrived is no HTTP/1.1 response head, or one that is too large.
    #[error("upstream answered with something that is not HTTP/1.1")]
    Protocol(#[source] hyper::Error),
}

/// What came of a request on one connection.
enum Sent {
    Response(Response<hyper::body::Incoming>),
    /// The connection was gone before anything was written.
    Unwritten(Box<Request<Full<Bytes>>>),
    Failed(SendError),
}

impl Upstream {
    /// No connections yet. `tls` is shared by all workers.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { connector: Connector { tls, tasks: TaskTracker::new() }, pools: Pools::default() }
    }

    /// Sends `request` and waits for the response head. The request's URI is
    /// [`Endpoint::path`]; a Host header is added when absent. Only connecting is limited
    /// by `connect_timeout`. Dropping the future closes the connection at once. `sent` is
    /// told true when the request is about to be written, and false if it was not after all.
    ///
    /// # Errors
    /// Without a response head; the variant says whether the request may have arrived.
    pub async fn send(
        &self,
        endpoint: &Arc<Endpoint>,
        mut request: Request<Full<Bytes>>,
        connect_timeout: Duration,
        sent: impl Fn(bool),
    ) -> Result<Response<UpstreamBody>, SendError> {
        let pool = self.pools.of(&endpoint.origin);
        request.headers_mut().entry(HOST).or_insert_with(|| endpoint.host_header().clone());
        // Each turn uses up a pooled connection, so this ends.
        while let Some(mut connection) = pool.checkout() {
            sent(true);
            match exchange(&mut connection, request).await {
                Sent::Response(response) => return Ok(deliver(response, connection, pool)),
                Sent::Failed(error) => return Err(error),
                Sent::Unwritten(unsent) => request = *unsent,
            }
            sent(false);
        }
        let mut connection = self.connector.connect(endpoint, &pool, connect_timeout).await?;
        sent(true);
        match exchange(&mut connection, request).await {
            Sent::Response(response) => Ok(deliver(response, connection, pool)),
            Sent::Failed(error) => Err(error),
            Sent::Unwritten(_) => {
                sent(false);
                Err(SendError::Connect(ConnectFailure::Closed))
            }
        }
    }

    /// Closes connections that were idle for too long. Sending does so too, for the
    /// provider it sends to; call this now and then for the others.
    pub fn evict_idle(&self) {
        self.pools.evict();
    }

    /// Closes idle connections and waits until those in use have ended.
    pub async fn close(&self) {
        self.pools.close();
        self.connector.tasks.close();
        self.connector.tasks.wait().await;
    }
}

async fn exchange(connection: &mut Connection, request: Request<Full<Bytes>>) -> Sent {
    match connection.sender.try_send_request(request).await {
        Ok(response) => Sent::Response(response),
        Err(mut error) => {
            if let Some(unsent) = error.take_message() {
                return Sent::Unwritten(Box::new(unsent));
            }
            let error = error.into_error();
            Sent::Failed(if error.is_parse() { SendError::Protocol(error) } else { SendError::Reset(error) })
        }
    }
}

fn deliver(
    response: Response<hyper::body::Incoming>,
    connection: Connection,
    pool: Arc<Pool>,
) -> Response<UpstreamBody> {
    response.map(|incoming| UpstreamBody::new(incoming, connection, pool))
}
