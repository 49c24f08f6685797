//! An agent over loopback, with clients and providers that do exactly what the test
//! wants.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};
use tonic::transport::{Channel, Endpoint};

use super::Limits;
use crate::{
    Options, Running,
    security::Security,
    start::{StartError, start_limited},
};

mod drain;
mod drills;
mod duty;
mod grpc;
mod http;
mod ordered;
mod spend;
mod start;
mod stream;
mod tls;

/// No test waits longer.
const LIMIT: Duration = Duration::from_secs(20);
const ANSWER: &str = r#"{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
const STREAM: &str = r#"{"model":"chat","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
/// A whole answer as events.
const WHOLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
const CHAT: &str = r#"{"model":"chat","messages":[{"role":"user","content":"hi"}]}"#;

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("not in time")
}

/// What a provider answers every request with.
#[derive(Clone, Copy)]
enum Play {
    Answer,
    Status(&'static str),
    /// Nothing.
    Silence,
    /// Events without end.
    Flood,
    /// These events, then the connection stays as it is.
    Events(&'static str),
    /// The head of a whole answer, and the body after so long.
    LateBody(Duration),
}

struct Provider {
    address: SocketAddr,
    /// Requests that came, and connections that ended.
    seen: watch::Receiver<(usize, usize)>,
    _serving: AbortOnDropHandle<()>,
}

impl Provider {
    async fn start(play: Play) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, seen) = watch::channel((0, 0));
        let serving = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let tell = tell.clone();
                connections.spawn(async move {
                    serve(stream, play, &tell).await;
                    tell.send_modify(|seen| seen.1 += 1);
                });
            }
        }));
        Self { address, seen, _serving: serving }
    }

    async fn until(&mut self, condition: impl Fn(&(usize, usize)) -> bool) {
        within(self.seen.wait_for(condition)).await.unwrap();
    }
}

async fn serve(mut stream: TcpStream, play: Play, tell: &watch::Sender<(usize, usize)>) {
    while read_message(&mut stream).await.is_some() {
        tell.send_modify(|seen| seen.0 += 1);
        let sent = match play {
            Play::Answer => {
                let length = ANSWER.len();
                stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{ANSWER}").as_bytes()).await
            }
            Play::Status(head) => stream.write_all(format!("HTTP/1.1 {head}\r\ncontent-type: application/json\r\ncontent-length: 32\r\n\r\n{{\"error\":{{\"message\":\"it is so\"}}}}").as_bytes()).await,
            Play::Silence => {
                // Ends when the agent hangs up.
                stream.read_u8().await.ok();
                return;
            }
            Play::Flood => flood(&mut stream).await,
            Play::Events(events) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
                stream.write_all(format!("{head}{events}").as_bytes()).await.ok();
                // Ends when the agent hangs up.
                stream.read_u8().await.ok();
                return;
            }
            Play::LateBody(late) => {
                let length = ANSWER.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.ok();
                sleep(late).await;
                stream.write_all(ANSWER.as_bytes()).await
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn flood(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await?;
    let event = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n",
        "x".repeat(4096)
    );
    loop {
        stream.write_all(event.as_bytes()).await?;
    }
}

/// One message with a content-length, or none; None: the connection ended.
async fn read_message(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        if let Some(head) = read.windows(4).position(|end| end == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
            let length =
                text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            if read.len() >= head + 4 + length.unwrap_or(0) {
                return String::from_utf8(read).ok();
            }
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

struct Agent {
    running: Running,
    _stop: DropGuard,
    shutdown: CancellationToken,
    _directory: tempfile::TempDir,
}

/// A document: `chat` over the providers in turn, and more sections.
fn document(providers: &[&Provider], more: &str) -> String {
    let mut text = "providers:\n".to_owned();
    let mut targets = Vec::new();
    for (at, Provider { address, .. }) in providers.iter().enumerate() {
        write!(text, "  - name: p{at}\n    dialect: DIALECT_OPENAI\n    base_url: http://{address}/v1\n    allow_private_network: true\n    deployments: [{{name: m}}]\n").unwrap();
        targets.push(format!("{{targets: [{{deployment: p{at}/m, weight: 1}}]}}"));
    }
    format!("{text}virtual_models:\n  - name: chat\n    tiers: [{}]\n{more}", targets.join(", "))
}

fn api_key(name: &str, secret: &str, allowed: &str) -> String {
    let hash = Sha256::digest(secret).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    format!("  - {{name: {name}, secret_sha256: \"{hash}\", allowed_models: [{allowed}]}}\n")
}

fn options(directory: &std::path::Path) -> Options {
    Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        ops_listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: directory.to_owned(),
        control_plane: None,
        agent_id: None,
        advertise: None,
        static_config: None,
        security: Security::default(),
        record: None,
        workers: 1,
    }
}

impl Agent {
    async fn start(document: &str, limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.yaml");
        std::fs::write(&config, document).unwrap();
        let options = Options { static_config: Some(config), ..options(directory.path()) };
        Self::with(options, directory, limits).await.unwrap()
    }

    async fn with(
        options: Options,
        directory: tempfile::TempDir,
        limits: Limits,
    ) -> Result<Self, StartError> {
        let shutdown = CancellationToken::new();
        let running = start_limited(options, limits, shutdown.clone()).await?;
        let stop = shutdown.clone().drop_guard();
        Ok(Self { running, _stop: stop, shutdown, _directory: directory })
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.running.listen).await.unwrap()
    }

    /// One request on its own connection.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        exchange(&mut stream, request).await
    }

    async fn grpc(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.running.listen)).unwrap().connect().await.unwrap()
    }

    /// Waits until `/metrics` has this line.
    async fn counted(&self, line: &str) {
        let mut metrics = String::new();
        let counted = async {
            loop {
                metrics = self.ops("/metrics").await;
                if metrics.lines().any(|one| one == line) {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let counted = timeout(LIMIT, counted).await;
        assert!(counted.is_ok(), "{line} is not in {metrics}");
    }

    /// An answer of the operators' port.
    async fn ops(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.running.ops_listen).await.unwrap();
        exchange(&mut stream, &format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await
    }

    async fn stopped(self) {
        self.shutdown.cancel();
        within(self.running.wait()).await;
    }
}

async fn exchange(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    within(read_message(stream)).await.expect("closed without an answer")
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// An answer in chunks, to its last one.
async fn chunks(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"0\r\n\r\n") {
        let some = within(stream.read_buf(&mut read)).await.unwrap();
        assert!(some > 0, "closed before the end: {}", String::from_utf8_lossy(&read));
    }
    String::from_utf8(read).unwrap()
}

/// Waits until the agent has closed.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is a close too.
    within(stream.read_to_end(&mut rest)).await.ok();
}
