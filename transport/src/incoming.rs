//! The connections of a listener for tonic's server, with or without TLS. No failure of
//! one connection, and no lack of file descriptors, ends the listener.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::tls::{Acceptor, HANDSHAKES_MAX};

/// Wait after a failed accept, which is nearly always a lack of file descriptors:
/// connections that end help.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// All connections of a listener, for `serve_with_incoming`. Without an acceptor they
/// are plain TCP. It never ends and never fails.
pub fn incoming(
    listener: TcpListener,
    acceptor: Option<Acceptor>,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let state = State { listener, acceptor, handshakes: JoinSet::new(), accept_from: None };
    stream::unfold(state, |mut state| async move {
        let connection = state.next().await;
        Some((Ok(connection), state))
    })
}

struct State {
    listener: TcpListener,
    acceptor: Option<Acceptor>,
    handshakes: JoinSet<io::Result<Connection>>,
    /// Not before, after accept failed.
    accept_from: Option<Instant>,
}

impl State {
    async fn next(&mut self) -> Connection {
        loop {
            let may_accept = self.handshakes.len() < HANDSHAKES_MAX;
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
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) if is_of_the_client(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    self.accept_from = Some(Instant::now() + ACCEPT_AGAIN_AFTER);
                    continue;
                }
            };
            // It fails for a client that has gone again.
            let Ok(plain) = Connection::plain(stream) else { continue };
            let Some(acceptor) = self.acceptor.clone() else { return plain };
            self.handshakes.spawn(async move { plain.shake_hands(&acceptor).await });
        }
    }
}

/// Whether accept failed for one connection only. Clients could slow down all others if
/// that made a pause.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | Interrupted)
}

async fn accept(listener: &TcpListener, from: Option<Instant>) -> io::Result<TcpStream> {
    if let Some(from) = from {
        tokio::time::sleep_until(from).await;
    }
    Ok(listener.accept().await?.0)
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    info: TcpConnectInfo,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn plain(stream: TcpStream) -> io::Result<Self> {
        // Without it each message of a stream could wait for an acknowledgement.
        stream.set_nodelay(true)?;
        let info = stream.connect_info();
        Ok(Self { io: Io::Plain(stream), info })
    }

    async fn shake_hands(self, acceptor: &Acceptor) -> io::Result<Self> {
        let io = match self.io {
            Io::Plain(stream) => Io::Tls(Box::new(acceptor.accept(stream).await?)),
            done @ Io::Tls(_) => done,
        };
        Ok(Self { io, info: self.info })
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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
