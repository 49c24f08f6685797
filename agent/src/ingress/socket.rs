//! A client's socket with a clock: it fails when the client does not send its request
//! head, keeps an unused connection too long, or stops taking its answer. hyper's own
//! head timeout can't tell an idle connection from a slow head.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::limits::Limits;

/// Whose turn it is on an HTTP/1.1 connection: even, a request head is awaited; odd, a
/// request is served. Each turn has its own number, so no limit outlives its turn.
#[derive(Debug)]
pub(super) struct Turns {
    number: AtomicU64,
    started: Instant,
    /// When the last request was served, in milliseconds since the start.
    served_ms: AtomicU64,
}

/// A request is served until this is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Turns>);

impl Turns {
    /// The client's turn to send a request.
    pub(super) fn new() -> Self {
        Self { number: AtomicU64::new(0), started: Instant::now(), served_ms: AtomicU64::new(0) }
    }

    /// A request's head was read.
    pub(super) fn serve(self: &Arc<Self>) -> Turn {
        self.number.fetch_add(1, Ordering::Relaxed);
        Turn(Arc::clone(self))
    }

    fn idle_since(&self) -> Instant {
        self.started + Duration::from_millis(self.served_ms.load(Ordering::Relaxed))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let turns = &self.0;
        let served = turns.started.elapsed().as_millis();
        turns.served_ms.store(u64::try_from(served).unwrap_or(u64::MAX), Ordering::Relaxed);
        turns.number.fetch_add(1, Ordering::Relaxed);
    }
}

/// hyper may poll for a read while it serves and then not again until bytes come. So the
/// timer always runs, for no longer than the limit could be; fired, it is set to what
/// the limit is by then. That also spares most requests setting it.
#[derive(Debug)]
struct HeadClock {
    turns: Arc<Turns>,
    turn: u64,
    /// Until when the head must be whole, once its first byte came.
    head: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

/// Bytes with which an HTTP/2 client begins.
const PREFACE_BYTES: usize = 24;

/// What is still to come before HTTP/2 takes care of silent clients itself.
#[derive(Debug)]
struct Preface {
    missing: usize,
    timer: Pin<Box<Sleep>>,
}

/// The socket.
#[derive(Debug)]
pub(super) struct Socket<S> {
    inner: S,
    limits: Limits,
    /// None: HTTP/2, whose pings find dead clients once it has begun.
    head: Option<HeadClock>,
    /// None: HTTP/1.1, or HTTP/2 that has begun.
    preface: Option<Preface>,
    /// Runs while nothing can be written or flushed.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Socket<S> {
    /// An HTTP/1.1 connection whose first byte is there.
    pub(super) fn http1(inner: S, limits: Limits, turns: Arc<Turns>) -> Self {
        let head = Some(HeadClock::new(turns, &limits));
        Self { inner, limits, head, preface: None, stalled: None }
    }

    /// An HTTP/2 connection.
    pub(super) fn http2(inner: S, limits: Limits) -> Self {
        let preface = Preface { missing: PREFACE_BYTES, timer: Box::pin(sleep(limits.head)) };
        Self { inner, limits, head: None, preface: Some(preface), stalled: None }
    }

    fn poll_stall<T>(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let limit = self.limits.write;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer")))
    }
}

impl HeadClock {
    fn new(turns: Arc<Turns>, limits: &Limits) -> Self {
        let head = Instant::now() + limits.head;
        Self { turns, turn: 0, head: Some(head), timer: Box::pin(sleep_until(head)) }
    }

    /// Until when what is awaited must come. None: a request is served. `got`: bytes came.
    fn until(&mut self, limits: &Limits, got: bool) -> Option<Instant> {
        let turn = self.turns.number.load(Ordering::Relaxed);
        if turn % 2 == 1 {
            return None;
        }
        if self.turn != turn {
            self.turn = turn;
            self.head = None;
        }
        if got && self.head.is_none() {
            self.head = Some(Instant::now() + limits.head);
        }
        Some(self.head.unwrap_or_else(|| self.turns.idle_since() + limits.idle))
    }

    /// Ready: the client was silent too long.
    fn poll(&mut self, context: &mut Context<'_>, until: Option<Instant>, limits: &Limits) -> Poll<()> {
        if let Some(until) = until.filter(|until| *until < self.timer.deadline()) {
            self.timer.as_mut().reset(until);
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            let now = Instant::now();
            let until = until.unwrap_or(now + limits.idle);
            if until <= now {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(until);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(context, buffer);
        let got = buffer.filled().len() > before;
        if let Some(preface) = &mut this.preface {
            preface.missing = preface.missing.saturating_sub(buffer.filled().len() - before);
            if preface.missing == 0 {
                this.preface = None;
            } else if read.is_pending() && preface.timer.as_mut().poll(context).is_ready() {
                let late = io::Error::new(io::ErrorKind::TimedOut, "HTTP/2 did not begin in time");
                return Poll::Ready(Err(late));
            }
        }
        let Some(head) = this.head.as_mut().filter(|_| got || read.is_pending()) else { return read };
        let until = head.until(&this.limits, got);
        if !got && head.poll(context, until, &this.limits).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request head came in time")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.poll_stall(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.poll_stall(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    // TLS takes up to 64 KB before a write has to wait: the flush shows whether the client
    // takes them. A TCP socket's does nothing and is always ready; as hyper flushes only
    // after it wrote all, that ends no stall of a write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.poll_stall(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter, DuplexStream, duplex};

    use super::*;

    fn http1() -> (DuplexStream, Socket<DuplexStream>, Arc<Turns>) {
        let (client, server) = duplex(16);
        let turns = Arc::new(Turns::new());
        let socket = Socket::http1(server, Limits::default(), Arc::clone(&turns));
        (client, socket, turns)
    }

    async fn times_out_after(socket: &mut Socket<DuplexStream>, limit: Duration) {
        let started = Instant::now();
        let error = socket.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), limit.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn head_that_does_not_end_is_given_up() {
        let (mut client, mut socket, _turns) = http1();
        client.write_all(b"G").await.unwrap();
        socket.read_u8().await.unwrap();
        times_out_after(&mut socket, Limits::default().head).await;
    }

    #[tokio::test(start_paused = true)]
    async fn http2_that_does_not_begin_is_given_up_and_then_its_pings_rule() {
        let (mut client, server) = duplex(64);
        let mut socket = Socket::http2(server, Limits::default());
        client.write_all(b"PRI * HTTP/2").await.unwrap();
        socket.read_exact(&mut [0; 12]).await.unwrap();
        times_out_after(&mut socket, Limits::default().head).await;

        let (mut client, server) = duplex(64);
        let mut socket = Socket::http2(server, Limits::default());
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        socket.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        let quiet = tokio::time::timeout(Duration::from_secs(3600), socket.read_u8()).await;
        assert!(quiet.is_err(), "it waits on");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connection_is_kept_longer_than_a_head_may_take() {
        let (mut client, mut socket, turns) = http1();
        client.write_all(b"G").await.unwrap();
        socket.read_u8().await.unwrap();
        drop(turns.serve());
        times_out_after(&mut socket, Limits::default().idle).await;
    }

    #[tokio::test(start_paused = true)]
    async fn next_head_has_its_own_time() {
        let (mut client, mut socket, turns) = http1();
        drop(turns.serve());
        let late = async {
            tokio::time::sleep(Duration::from_secs(70)).await;
            client.write_all(b"G").await.unwrap();
        };
        let (read, ()) = tokio::join!(socket.read_u8(), late);
        read.unwrap();
        times_out_after(&mut socket, Limits::default().head).await;
    }

    #[tokio::test(start_paused = true)]
    async fn request_that_is_served_has_no_head_to_wait_for() {
        let (mut client, mut socket, turns) = http1();
        let turn = turns.serve();
        let late = async {
            tokio::time::sleep(Duration::from_secs(600)).await;
            client.write_all(b"G").await.unwrap();
        };
        let (read, ()) = tokio::join!(socket.read_u8(), late);
        assert_eq!(read.unwrap(), b'G');
        drop(turn);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_runs_though_nobody_polls_again_after_the_answer() {
        let (_client, mut socket, turns) = http1();
        let turn = turns.serve();
        let started = Instant::now();
        let serve = async {
            tokio::time::sleep(Duration::from_secs(33)).await;
            drop(turn);
        };
        // Only the timer polls the read after its first poll.
        let (read, ()) = tokio::join!(tokio::spawn(async move { socket.read_u8().await }), serve);
        assert_eq!(read.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 33 + Limits::default().idle.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn answer_that_is_not_taken_fails() {
        let (client, mut socket, _turns) = http1();
        let started = Instant::now();
        let error = socket.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), Limits::default().write.as_secs());
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn answer_that_is_not_taken_fails_though_a_buffer_holds_it() {
        // As TLS does: it takes what is written and shows by the flush that it stays.
        let (mut client, server) = duplex(16);
        let buffered = BufWriter::with_capacity(1_024, server);
        let mut socket = Socket::http1(buffered, Limits::default(), Arc::new(Turns::new()));
        let started = Instant::now();
        socket.write_all(&[0; 64]).await.unwrap();
        let slow = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            client.read_exact(&mut [0; 64]).await.unwrap();
        };
        let (flushed, ()) = tokio::join!(socket.flush(), slow);
        flushed.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;

        socket.write_all(&[0; 64]).await.unwrap();
        let error = socket.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 40 + Limits::default().write.as_secs());
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn answer_that_is_taken_slowly_does_not() {
        let (mut client, mut socket, _turns) = http1();
        let slow = async {
            for _ in 0..64 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                client.read_u8().await.unwrap();
            }
        };
        let (wrote, ()) = tokio::join!(socket.write_all(&[0; 64]), slow);
        wrote.unwrap();
    }
}
