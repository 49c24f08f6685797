//! Opens a connection to a provider: resolve, check the address, dial, TLS, HTTP/1.1.
//! Every step is inside one time limit that the caller chose.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;
use trunkline_proto::url::check_address;

use super::{
    Endpoint, SendError,
    pool::{Connection, Pool},
};

/// A response head with its headers (also of trailers), and what hyper reads ahead of
/// its consumer.
const BUFFER_MAX: usize = 64 * 1024;
/// Addresses of one name that are tried; more only eat the time limit.
const ADDRESSES_MAX: usize = 8;

/// Which step of connecting failed.
#[derive(Debug, Error)]
pub enum ConnectFailure {
    /// The host has no address, or the resolver doesn't answer.
    #[error("resolve the host name")]
    Dns(#[source] io::Error),
    /// Nobody listens there.
    #[error("{0} refused the connection")]
    Refused(SocketAddr),
    /// The address can't be reached.
    #[error("dial {0}")]
    Tcp(SocketAddr, #[source] io::Error),
    /// The TLS handshake failed; mostly the certificate.
    #[error("TLS handshake: {0}")]
    Tls(#[source] io::Error),
    /// HTTP could not start on the fresh connection.
    #[error("the fresh connection closed at once")]
    Closed,
}

/// What every connection of one worker shares.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) tls: Arc<ClientConfig>,
    pub(super) tasks: TaskTracker,
}

impl Connector {
    /// Connects to `endpoint` within `limit`.
    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        pool: &Pool,
        limit: Duration,
    ) -> Result<Connection, SendError> {
        let deadline = Instant::now() + limit;
        let opened = timeout_at(deadline, self.open(endpoint, pool, deadline)).await;
        opened.unwrap_or(Err(SendError::ConnectTimeout))
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        pool: &Pool,
        deadline: Instant,
    ) -> Result<Connection, SendError> {
        let addresses = resolve(endpoint, pool).await?;
        let stream = dial(endpoint, &addresses, deadline).await?;
        // Only latency is lost without it.
        stream.set_nodelay(true).ok();
        if let Ok(peer) = stream.peer_addr() {
            pool.set_last_good(peer.ip());
        }
        match &endpoint.tls_name {
            None => self.start(stream).await,
            Some(name) => {
                let connector = TlsConnector::from(Arc::clone(&self.tls));
                let tls = connector.connect(name.clone(), stream).await;
                self.start(tls.map_err(|error| SendError::Connect(ConnectFailure::Tls(error)))?).await
            }
        }
    }

    /// Puts HTTP on a stream. The connection's task is tracked, and ends with the
    /// [`Connection`].
    async fn start<S>(&self, stream: S) -> Result<Connection, SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The number of headers stays at hyper's 100: another one costs an allocation
        // per response.
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER_MAX)
            .max_header_size(BUFFER_MAX)
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|_| SendError::Connect(ConnectFailure::Closed))?;
        let task = self.tasks.spawn(async move {
            // Whoever waits for the response is told of the same error.
            connection.await.ok();
        });
        Ok(Connection::new(sender, task.abort_handle()))
    }
}

/// All addresses of the host; when the resolver fails, the one that worked last.
async fn resolve(endpoint: &Endpoint, pool: &Pool) -> Result<Vec<SocketAddr>, SendError> {
    if let Ok(address) = endpoint.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, endpoint.port)]);
    }
    let failure = match lookup_host((&*endpoint.host, endpoint.port)).await {
        Ok(found) => {
            let addresses: Vec<_> = found.take(ADDRESSES_MAX).collect();
            if !addresses.is_empty() {
                return Ok(addresses);
            }
            io::Error::new(io::ErrorKind::NotFound, "the name has no address")
        }
        Err(error) => error,
    };
    let last = pool.last_good().map(|address| vec![SocketAddr::new(address, endpoint.port)]);
    last.ok_or(SendError::Connect(ConnectFailure::Dns(failure)))
}

/// Tries the addresses in turn, each with its share of the time left, so that a silent
/// first one leaves time for the next.
async fn dial(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<TcpStream, SendError> {
    let mut failure = SendError::ConnectTimeout;
    for (index, address) in addresses.iter().enumerate() {
        if check_address(address.ip(), endpoint.allow_private_network).is_err() {
            failure = SendError::AddressRefused(address.ip());
            continue;
        }
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / (addresses.len() - index) as u32;
        failure = match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                SendError::Connect(ConnectFailure::Refused(*address))
            }
            Ok(Err(error)) => SendError::Connect(ConnectFailure::Tcp(*address, error)),
            Err(_) => SendError::ConnectTimeout,
        };
    }
    Err(failure)
}
