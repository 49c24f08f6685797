//! Listens: one socket per worker on the same port.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::connection::{self, Site};

/// Pending connections per socket; more than a burst of a whole fleet of app workers.
const BACKLOG: i32 = 1_024;
/// Pause after accept failed (too many open files): connections that end help.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

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

/// Serves until the agent drains, then returns when all connections are done.
pub(crate) async fn serve(site: Arc<Site>, listener: TcpListener) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            // No new connection once draining.
            () = site.draining.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection::serve(Arc::clone(&site), stream));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    for stream in pending(listener) {
        connections.spawn(connection::serve(Arc::clone(&site), stream));
    }
    connections.close();
    connections.wait().await;
}

/// Connections that the kernel took already. Closing the listener would reset them,
/// perhaps with a request on its way.
fn pending(listener: TcpListener) -> Vec<TcpStream> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let accept = || {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        TcpStream::from_std(stream).ok()
    };
    (0..BACKLOG).map_while(|_| accept()).collect()
}
