//! A live provider on a free port, and clients for it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use trunkline_simulator::{
    OutputLength, ProviderModel, Tpot, Ttft,
    live::{Fault, LiveProvider, serve},
};

/// Longest that anything here waits for something that should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Words of every answer of the test model.
pub(crate) const TOKENS: u64 = 10;

pub(crate) struct Server {
    pub(crate) provider: Arc<LiveProvider>,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

/// No latency, ten tokens, no failures.
pub(crate) fn model() -> ProviderModel {
    ProviderModel {
        name: "test".to_owned(),
        ttft: Ttft { base_s: 0.0, per_1k_input_s: 0.0, sigma: 0.0, head_share: 0.0 },
        tpot: Tpot { median_s: 0.0, sigma: 0.0 },
        output: OutputLength { median_tokens: TOKENS as f64, sigma: 0.0, max_tokens: 100 },
        ..ProviderModel::default()
    }
}

pub(crate) async fn start(provider: LiveProvider) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (provider, shutdown) = (Arc::new(provider), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(serve(listener, Arc::clone(&provider), shutdown.clone()));
    Server { provider, address, shutdown, task }
}

pub(crate) async fn start_with(fault: Fault) -> Server {
    let server = start(LiveProvider::new(model(), 1)).await;
    server.provider.set_fault(Some(fault));
    server
}

impl Server {
    pub(crate) async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Response> {
        let url = format!("http://{}{path}", self.address);
        reqwest::Client::builder().timeout(PATIENCE).build()?.post(url).json(body).send().await
    }

    pub(crate) async fn chat(&self, stream: bool) -> reqwest::Result<Response> {
        self.post("/v1/chat/completions", &chat(stream)).await
    }

    /// The text of a stream as far as it came, and whether it ended properly.
    pub(crate) async fn stream(&self) -> (String, bool) {
        let mut chunks = self.chat(true).await.unwrap().bytes_stream();
        let mut text = String::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => text.push_str(std::str::from_utf8(&chunk).unwrap()),
                Err(_) => return (text, false),
            }
        }
        (text, true)
    }

    /// A raw connection with a request on it.
    pub(crate) async fn raw(&self, stream: bool) -> TcpStream {
        let body = chat(stream).to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all((head + &body).as_bytes()).await.unwrap();
        connection
    }
}

pub(crate) fn chat(stream: bool) -> Value {
    json!({"model": "m-1", "stream": stream, "messages": [{"role": "user", "content": "12345678"}]})
}

pub(crate) fn events(text: &str) -> Vec<Value> {
    let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

pub(crate) fn contents(text: &str) -> usize {
    let has_text =
        |event: &Value| event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty());
    events(text).into_iter().filter(has_text).count()
}

/// Reads until `text` was seen.
pub(crate) async fn read_until(connection: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let count = within(connection.read(&mut buffer)).await.unwrap();
        assert!(count > 0, "closed before {text:?}: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(seen).unwrap()
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}
