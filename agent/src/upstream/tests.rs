//! Over loopback, against servers that do exactly what the test wants.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    Arc::new(Endpoint::parse(&format!("http://{address}/v1"), true).unwrap())
}

fn upstream() -> Upstream {
    Upstream::new(client_config().unwrap())
}

fn request(endpoint: &Endpoint) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from_static(b"{}"));
    Request::post(endpoint.path("/chat/completions")).body(body).unwrap()
}

/// Reads one request whose body is `{}`.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n{}") {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "request was cut");
    }
    String::from_utf8(read).unwrap()
}

/// Waits until the other side has closed.
async fn read_close(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is a close too.
    timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("not closed").ok();
}

async fn send_whole(upstream: &Upstream, endpoint: &Arc<Endpoint>) -> Result<Bytes, SendError> {
    let response = upstream.send(endpoint, request(endpoint), LIMIT, |_| {}).await?;
    assert_eq!(response.status(), StatusCode::OK);
    Ok(response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut requests = Vec::new();
        for _ in 0..3 {
            requests.push(read_request(&mut stream).await);
            stream.write_all(OK).await.unwrap();
        }
        requests
    });
    let (upstream, endpoint) = (upstream(), endpoint(address));
    for _ in 0..3 {
        assert_eq!(send_whole(&upstream, &endpoint).await.unwrap(), "ok");
    }
    let requests = timeout(LIMIT, server).await.unwrap().unwrap();
    assert!(requests[2].starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{requests:?}");
    assert!(requests[2].contains(&format!("host: {address}\r\n")), "{requests:?}");
    timeout(LIMIT, upstream.close()).await.expect("connections end");
}

#[tokio::test]
async fn a_connection_that_died_while_idle_costs_no_request() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            // Closed while the agent keeps it for later.
        }
    });
    let (upstream, endpoint) = (upstream(), endpoint(address));
    send_whole(&upstream, &endpoint).await.unwrap();
    assert_eq!(send_whole(&upstream, &endpoint).await.unwrap(), "ok");
    server.await.unwrap();
}

#[tokio::test]
async fn a_request_that_a_dead_connection_gives_back_goes_out_on_a_fresh_one() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
    });
    let (upstream, endpoint) = (upstream(), endpoint(address));
    let pool = upstream.pools.of(&endpoint.origin);
    // Its task is gone, but the pool can't know yet.
    let (client, _server_side) = tokio::io::duplex(64);
    let io = hyper_util::rt::TokioIo::new(client);
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let task = tokio::spawn(async move {
        connection.await.ok();
    });
    let mut ready = Connection::new(sender, task.abort_handle());
    ready.sender.ready().await.unwrap();
    pool.give_back(ready);
    task.abort();
    assert_eq!(send_whole(&upstream, &endpoint).await.unwrap(), "ok");
    server.await.unwrap();
}

#[tokio::test]
async fn dropping_the_send_closes_the_connection() {
    let (listener, address) = listener().await;
    let (upstream, endpoint) = (upstream(), endpoint(address));
    let (_, mut stream) = {
        let sending = upstream.send(&endpoint, request(&endpoint), LIMIT, |_| {});
        let accepting = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            (read_request(&mut stream).await, stream)
        };
        tokio::select! {
            biased;
            _ = sending => unreachable!("the server never answers"),
            accepted = accepting => accepted,
        }
    };
    read_close(&mut stream).await;
}

#[tokio::test]
async fn dropping_the_body_early_closes_the_connection() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab").await.unwrap();
        read_close(&mut stream).await;
    });
    let (upstream, endpoint) = (upstream(), endpoint(address));
    let response = upstream.send(&endpoint, request(&endpoint), LIMIT, |_| {}).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    drop(body);
    timeout(LIMIT, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab").await.unwrap();
    });
    let (upstream, endpoint) = (upstream(), endpoint(address));
    let response = upstream.send(&endpoint, request(&endpoint), LIMIT, |_| {}).await.unwrap();
    let broken = response.into_body().collect().await.unwrap_err();
    assert!(matches!(broken, BodyError::Cut(_)), "{broken:?}");
    server.await.unwrap();
}

#[tokio::test]
async fn a_tls_handshake_that_never_ends_is_a_connect_timeout() {
    let (_listener, address) = listener().await;
    let endpoint = Arc::new(Endpoint::parse(&format!("https://{address}"), true).unwrap());
    let limit = Duration::from_millis(50);
    let error = upstream().send(&endpoint, request(&endpoint), limit, |_| {}).await.unwrap_err();
    assert!(matches!(error, SendError::ConnectTimeout), "{error:?}");
}

#[tokio::test]
async fn a_closed_port_is_a_refused_connection() {
    let (listener, address) = listener().await;
    drop(listener);
    let error = send_whole(&upstream(), &endpoint(address)).await.unwrap_err();
    assert!(matches!(error, SendError::Connect(ConnectFailure::Refused(_))), "{error:?}");
}

#[tokio::test]
async fn a_close_before_the_head_is_a_reset() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
    });
    let error = send_whole(&upstream(), &endpoint(address)).await.unwrap_err();
    assert!(matches!(error, SendError::Reset(_)), "{error:?}");
    server.await.unwrap();
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_error() {
    let check = async |answer: Vec<u8>| {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            // The agent may close before it has read all of it.
            stream.write_all(&answer).await.ok();
        });
        let error = send_whole(&upstream(), &endpoint(address)).await.unwrap_err();
        assert!(matches!(error, SendError::Protocol(_)), "{error:?}");
        server.await.unwrap();
    };
    check(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()).await;
    let huge = format!("HTTP/1.1 200 OK\r\nx-huge: {}\r\n\r\n", "x".repeat(70_000));
    check(huge.into_bytes()).await;
}

#[tokio::test]
async fn a_private_address_is_refused_where_it_is_dialled() {
    let (_listener, address) = listener().await;
    let endpoint = Arc::new(Endpoint::parse(&format!("https://{address}"), false).unwrap());
    let error = send_whole(&upstream(), &endpoint).await.unwrap_err();
    assert!(matches!(error, SendError::AddressRefused(ip) if ip == address.ip()), "{error:?}");
    // A name that leads to it is no way around.
    let named = format!("https://localhost:{}", address.port());
    let endpoint = Arc::new(Endpoint::parse(&named, false).unwrap());
    let error = send_whole(&upstream(), &endpoint).await.unwrap_err();
    assert!(matches!(error, SendError::AddressRefused(_)), "{error:?}");
}

/// Compiles only while the worker may be moved between threads.
#[test]
fn everything_may_be_sent_to_another_thread() {
    fn check<T: Send>(_: &T) {}
    let upstream = upstream();
    let endpoint = Arc::new(Endpoint::parse("https://example.com", false).unwrap());
    check(&upstream.send(&endpoint, request(&endpoint), LIMIT, |_| {}));
    check(&upstream);
}
