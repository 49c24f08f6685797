//! A TCP proxy between an agent and its control plane that delays, falls silent, swallows
//! answers and cuts connections, also in the middle of a frame.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// Small reads, so that a cut meets the middle of a frame.
const CHUNK_BYTES: usize = 256;

/// What the link does to its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It works.
    None,
    /// So much time passes before each piece is passed on.
    Delay(Duration),
    /// Half-open: both ends are connected, and nothing is passed on.
    Silent,
    /// What the server answers is lost; what the client sends arrives. The client
    /// cannot know, and sends it again over the next connection.
    Deaf,
    /// New connections are closed at once.
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct State {
    trouble: Trouble,
    /// Grows with each cut; a connection ends when it is older.
    cuts: u64,
}

#[derive(Debug)]
struct Link {
    target: SocketAddr,
    state: watch::Sender<State>,
    /// Bytes from the client until all connections are cut; negative: no limit.
    bytes_left: AtomicI64,
}

/// The proxy. Dropping it ends it.
#[derive(Debug)]
pub struct FaultProxy {
    /// Where clients connect.
    pub url: String,
    link: Arc<Link>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// A working link to `url`.
    pub async fn start(url: &str) -> Self {
        let target = url.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = watch::Sender::new(State { trouble: Trouble::None, cuts: 0 });
        let link = Arc::new(Link { target, state, bytes_left: AtomicI64::new(-1) });
        let task = tokio::spawn(accept(listener, Arc::clone(&link)));
        Self { url, link, task }
    }

    /// What happens from now on, to connections that are open too.
    pub fn set(&self, trouble: Trouble) {
        self.link.state.send_modify(|state| state.trouble = trouble);
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.link.cut();
    }

    /// Cuts all connections after so many more bytes from the client.
    pub fn cut_after(&self, bytes: u32) {
        self.link.bytes_left.store(i64::from(bytes), Ordering::SeqCst);
    }

    /// Whether a [`Self::cut_after`] has happened, or none was asked for.
    pub fn is_cut(&self) -> bool {
        self.link.bytes_left.load(Ordering::SeqCst) < 0
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// How much of so many bytes may pass.
    fn allow(&self, bytes: usize) -> usize {
        let left = self.bytes_left.load(Ordering::SeqCst);
        if left < 0 {
            return bytes;
        }
        let allowed = bytes.min(usize::try_from(left).unwrap_or_default());
        self.bytes_left.fetch_sub(bytes.try_into().unwrap(), Ordering::SeqCst);
        allowed
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>) {
    // Aborted with this task.
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        if link.state.borrow().trouble != Trouble::Closed {
            connections.spawn(connect(client, Arc::clone(&link)));
        }
    }
}

async fn connect(client: TcpStream, link: Arc<Link>) {
    let Ok(server) = TcpStream::connect(link.target).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let cuts = link.state.borrow().cuts;
    let mut state = link.state.subscribe();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        biased; // A cut is a cut, whatever waits to be passed on.
        _ = state.wait_for(|state| state.cuts > cuts) => {}
        () = pump(from_client, to_server, &link, true) => {}
        () = pump(from_server, to_client, &link, false) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: &Link, up: bool) {
    let mut state = link.state.subscribe();
    let mut buffer = [0; CHUNK_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let trouble = state.borrow_and_update().trouble;
        match trouble {
            Trouble::Delay(time) => sleep(time).await,
            Trouble::Silent if state.wait_for(|state| state.trouble != Trouble::Silent).await.is_err() => {
                return;
            }
            Trouble::Deaf if !up => {
                // Bytes are missing from now on: the connection cannot go on after it.
                drop(state.wait_for(|state| state.trouble != Trouble::Deaf).await);
                return;
            }
            Trouble::None | Trouble::Silent | Trouble::Deaf | Trouble::Closed => {}
        }
        let allowed = if up { link.allow(read) } else { read };
        if to.write_all(&buffer[..allowed]).await.is_err() {
            return;
        }
        if allowed < read {
            link.cut();
            return;
        }
    }
}
