//! The connections of a listener for tonic's server, with or without TLS. No failure of
//! one connection, and no lack of file descriptors, ends the listener.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::{
    places::{Limits, Peer, Place, Places},
    tls::{Acceptor, WAITING_MAX},
};

/// Wait after a failed accept, which is nearly always a lack of file descriptors:
/// connections that end help.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Between warnings of connections that are turned away. A flood must not fill the log.
const WARN_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// All connections of a listener, for `serve_with_incoming`. Without an acceptor they
/// are plain TCP. Those beyond the limits are closed at once, for waiting ones would hold
/// up all others. It never ends and never fails.
pub fn incoming(
    listener: TcpListener,
    acceptor: Option<Acceptor>,
    limits: Limits,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let places = Places::new(limits);
    let handshakes = JoinSet::new();
    let state = State { listener, acceptor, places, handshakes, accept_from: None, warned: None };
    stream::unfold(state, |mut state| async move {
        let connection = state.next().await;
        Some((Ok(connection), state))
    })
}

struct State {
    listener: TcpListener,
    acceptor: Option<Acceptor>,
    places: Arc<Places>,
    handshakes: JoinSet<io::Result<Connection>>,
    /// Not before, after accept failed.
    accept_from: Option<Instant>,
    /// When it was last said that connections are turned away.
    warned: Option<Instant>,
}

impl State {
    async fn next(&mut self) -> Connection {
        loop {
            let may_accept = self.handshakes.len() < WAITING_MAX;
            let accepted = tokio::select! {
                biased; // Who has shaken hands already comes before who may.
                Some(shaken) = self.handshakes.join_next() => match shaken {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "TLS handshake failed");
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(%error, "TLS handshake ended unexpectedly");
                        continue;
                    }
                },
                accepted = accept(&self.listener, self.accept_from), if may_accept => accepted,
            };
            self.accept_from = None;
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_the_client(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    self.accept_from = Some(Instant::now() + ACCEPT_AGAIN_AFTER);
                    continue;
                }
            };
            let Some(place) = self.place(address) else { continue };
            // It fails for a client that has gone again.
            let Ok(plain) = Connection::plain(stream, address, place) else { continue };
            let Some(acceptor) = self.acceptor.clone() else { return plain };
            self.handshakes.spawn(async move { plain.shake_hands(&acceptor).await });
        }
    }

    fn place(&mut self, address: SocketAddr) -> Option<Arc<Place>> {
        let reason = match self.places.take(address) {
            Ok(place) => return Some(place),
            Err(reason) => reason,
        };
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_AGAIN_AFTER) {
            self.warned = Some(Instant::now());
            tracing::warn!(%address, %reason, "connections are turned away");
        }
        None
    }
}

/// Whether accept failed for one connection only. Clients could slow down all others if
/// that made a pause.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | Interrupted)
}

async fn accept(listener: &TcpListener, from: Option<Instant>) -> io::Result<(TcpStream, SocketAddr)> {
    if let Some(from) = from {
        tokio::time::sleep_until(from).await;
    }
    listener.accept().await
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    address: SocketAddr,
    place: Arc<Place>,
    /// When it is closed, if nobody was let in on it by then.
    ends: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn plain(stream: TcpStream, address: SocketAddr, place: Arc<Place>) -> io::Result<Self> {
        // Without it each message of a stream could wait for an acknowledgement.
        stream.set_nodelay(true)?;
        let ends = ends(&place);
        Ok(Self { io: Io::Plain(stream), address, place, ends })
    }

    async fn shake_hands(self, acceptor: &Acceptor) -> io::Result<Self> {
        let io = match self.io {
            Io::Plain(stream) => Io::Tls(Box::new(acceptor.accept(stream).await?)),
            done @ Io::Tls(_) => done,
        };
        // The handshake has a limit of its own.
        let ends = ends(&self.place);
        Ok(Self { io, ends, ..self })
    }

    /// Fails once a stranger's time is over. Asked wherever the connection may wait: who
    /// neither sends nor reads would hold its place otherwise.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(ends) = &mut self.ends else { return Ok(()) };
        if !self.place.is_stranger() {
            self.ends = None;
            return Ok(());
        }
        match ends.as_mut().poll(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no call with a valid token came in time"))
            }
        }
    }
}

fn ends(place: &Place) -> Option<Pin<Box<Sleep>>> {
    place.lifetime().map(|lifetime| Box::pin(tokio::time::sleep(lifetime)))
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.place.peer(self.address)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(context),
            Io::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use super::*;
    use crate::places::{STRANGER_LIFETIME, Strangers};

    const LONG: Duration = Duration::from_secs(3_600);

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_is_disconnected_and_who_was_let_in_stays() {
        let (listener, address) = listen().await;
        let mut connections = Box::pin(incoming(listener, None, Limits::AUTHENTICATED));
        let (mut client, accepted) = tokio::join!(TcpStream::connect(address), connections.next());
        let mut stranger = accepted.unwrap().unwrap();
        let read = timeout(LONG, stranger.read_u8()).await.expect("it ends by itself");
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(stranger.write(b"x").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(stranger);
        assert_eq!(client.as_mut().unwrap().read(&mut [0]).await.unwrap(), 0);

        let (_client, accepted) = tokio::join!(TcpStream::connect(address), connections.next());
        let mut known = accepted.unwrap().unwrap();
        assert!(timeout(STRANGER_LIFETIME / 2, known.read_u8()).await.is_err());
        known.connect_info().admit();
        assert!(timeout(LONG, known.read_u8()).await.is_err(), "it waits as long as it likes");
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed_and_others_go_on() {
        let (listener, address) = listen().await;
        let strangers = Strangers { connections: 8, per_peer: 2, lifetime: STRANGER_LIFETIME };
        let limits = Limits { connections: 8, strangers: Some(strangers) };
        let mut connections = Box::pin(incoming(listener, None, limits));
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let first = connections.next().await.unwrap().unwrap();
        let mut second = connections.next().await.unwrap().unwrap();
        // The third one is closed while the listener waits for a fourth.
        let closed = tokio::select! {
            biased; // Only the waiting listener closes it.
            _ = connections.next() => panic!("there is no place for the third"),
            read = clients[2].read_u8() => read.unwrap_err().kind(),
        };
        assert!(matches!(closed, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{closed}");
        clients[1].write_u8(7).await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), 7);

        first.connect_info().admit();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), connections.next());
        accepted.unwrap().unwrap();
    }
}
