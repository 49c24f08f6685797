//! One keep-alive connection that sends the same request again and again.

use std::{net::SocketAddr, time::SystemTime};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle};

/// The wall clock, which all processes of a machine share.
pub(crate) fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// A connection and what it sends.
#[derive(Debug)]
pub(crate) struct Caller {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
    host: HeaderValue,
    body: Bytes,
}

impl Caller {
    /// Connects to `address`.
    pub(crate) async fn connect(address: SocketAddr, stream: bool) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        let connection = tokio::spawn(async move {
            // Its end shows at the sender.
            connection.await.ok();
        });
        Ok(Self { sender, connection, host: address.to_string().parse()?, body: body(stream) })
    }

    /// Sends the request; returns with the head of a good answer.
    pub(crate) async fn send(&mut self) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/v1/chat/completions");
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer not-looked-at"));
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        ensure!(response.status() == StatusCode::OK, "answered {}", response.status());
        Ok(response)
    }

    /// Sends the request and reads the whole answer.
    pub(crate) async fn call(&mut self) -> anyhow::Result<Bytes> {
        Ok(self.send().await?.into_body().collect().await?.to_bytes())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// About a kilobyte, as an app would send it.
fn body(stream: bool) -> Bytes {
    let question = "Say in plain words what a load balancer for language models has to know that one for \
        web pages need not, and name the three mistakes that are made most. ";
    let body = serde_json::json!({
        "model": "chat",
        "messages": [
            {"role": "system", "content": "You answer briefly, without lists, and say so when you do not know."},
            {"role": "user", "content": question.repeat(5)},
        ],
        "temperature": 0.2,
        "max_tokens": 256,
        "stream": stream,
    });
    Bytes::from(body.to_string())
}
