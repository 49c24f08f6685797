//! Apps and operators over TLS, and who is let in beyond loopback.

use std::path::Path;

use rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use trunkline_transport::{
    client::{Trust, endpoint},
    tls::Protocols,
};

use super::*;
use crate::security::TlsFiles;

const TOKEN: &str = "ops-token-0123456789abcdef";

/// A certificate for 127.0.0.1 and a token for metrics.
fn security(directory: &Path) -> (Security, Trust) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let tls = TlsFiles {
        certificate: write("cert.pem", &made.cert.pem()),
        key: write("key.pem", &made.signing_key.serialize_pem()),
    };
    let ops_tokens = Some(write("ops.tokens", &format!("scraper {TOKEN}\n")));
    let security = Security { tls: Some(tls), ops_tokens, ..Security::default() };
    (security, Trust::pem(made.cert.pem().as_bytes(), "test").unwrap())
}

/// An agent with TLS at these addresses, with this document.
async fn agent(listen: &str, document: &str) -> (Agent, Trust) {
    let directory = tempfile::tempdir().unwrap();
    let (security, trust) = security(directory.path());
    let config = directory.path().join("config.yaml");
    std::fs::write(&config, document).unwrap();
    let address = || listen.parse().unwrap();
    let options = Options {
        listen: address(),
        ops_listen: address(),
        static_config: Some(config),
        security,
        ..options(directory.path())
    };
    (Agent::with(options, directory, Limits::default()).await.unwrap(), trust)
}

async fn shake_hands(port: u16, trust: &Trust, protocols: Protocols) -> TlsStream<TcpStream> {
    let connector = TlsConnector::from(trust.client_config(protocols).unwrap());
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap()
}

/// One HTTP/1.1 exchange after which the server closes.
async fn ask(port: u16, trust: &Trust, request: &str, headers: &str, body: &str) -> String {
    let mut stream = shake_hands(port, trust, Protocols::Http1).await;
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn apps_speak_http1_and_grpc_on_one_port_in_tls() {
    let provider = Provider::start(Play::Answer).await;
    let (agent, trust) = agent("127.0.0.1:0", &document(&[&provider], "")).await;
    let port = agent.running.listen.port();
    assert_eq!(agent.running.scheme, "https");
    let answer = ask(port, &trust, "POST /v1/chat/completions", "", CHAT).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let url = format!("https://127.0.0.1:{port}");
    let channel = endpoint(&url, &trust).unwrap().connect().await.unwrap();
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status, 1);

    // Who speaks no TLS, or says nothing, takes nothing from the others.
    let mut plain = agent.connect().await;
    plain.write_all(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    within(plain.read_to_end(&mut rest)).await.ok();
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
    let _silent = agent.connect().await;
    assert!(ask(port, &trust, "GET /v1/models", "", "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_http2_client_that_says_nothing_after_the_handshake_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let (security, trust) = security(directory.path());
    let config = directory.path().join("config.yaml");
    let provider = Provider::start(Play::Silence).await;
    std::fs::write(&config, document(&[&provider], "")).unwrap();
    let options = Options { static_config: Some(config), security, ..options(directory.path()) };
    let limits = Limits { head: Duration::from_millis(50), ..Limits::default() };
    let agent = Agent::with(options, directory, limits).await.unwrap();
    let mut silent = shake_hands(agent.running.listen.port(), &trust, Protocols::H2).await;
    let mut rest = Vec::new();
    // The server may say its settings first; then it closes.
    within(silent.read_to_end(&mut rest)).await.ok();
}

#[tokio::test]
async fn beyond_loopback_apps_need_a_key_and_there_must_be_one() {
    let provider = Provider::start(Play::Answer).await;
    let chat = "POST /v1/chat/completions";
    let (agent, trust) = agent("0.0.0.0:0", &document(&[&provider], "")).await;
    let port = agent.running.listen.port();
    for headers in ["", "authorization: Bearer any\r\n"] {
        let answer = ask(port, &trust, chat, headers, CHAT).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(answer.contains("api_keys") && answer.contains("no_api_keys"), "{answer}");
    }
    let models = ask(port, &trust, "GET /v1/models", "", "").await;
    assert!(models.starts_with("HTTP/1.1 401"), "{models}");
    assert_eq!(provider.seen.borrow().0, 0);

    let keys = format!("api_keys:\n{}", api_key("team-a", "right", "chat"));
    let (agent, trust) = self::agent("0.0.0.0:0", &document(&[&provider], &keys)).await;
    let port = agent.running.listen.port();
    let answer = ask(port, &trust, chat, "authorization: Bearer right\r\n", CHAT).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(ask(port, &trust, chat, "", CHAT).await.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn metrics_need_a_token_where_a_file_is_given_and_probes_do_not() {
    let provider = Provider::start(Play::Silence).await;
    for listen in ["0.0.0.0:0", "127.0.0.1:0"] {
        let (agent, trust) = agent(listen, &document(&[&provider], "")).await;
        let port = agent.running.ops_listen.port();
        for (path, headers, status) in [
            ("/healthz", String::new(), 200),
            ("/readyz", String::new(), 200),
            ("/metrics", String::new(), 401),
            ("/metrics", "authorization: Bearer wrong-0123456789abcdef\r\n".to_owned(), 401),
            ("/metrics", format!("authorization: Bearer {TOKEN}\r\n"), 200),
        ] {
            let answer = ask(port, &trust, &format!("GET {path}"), &headers, "").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{listen} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn what_would_be_open_to_all_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, _) = security(directory.path());
    let open = "0.0.0.0:0".parse().unwrap();
    let refused = async |options: Options| {
        let error = start_limited(options, Limits::default(), CancellationToken::new()).await.err().unwrap();
        assert!(error.is_input(), "{error}");
        error.to_string()
    };
    let base = options(directory.path());
    let said = refused(Options { listen: open, ..base.clone() }).await;
    assert!(said.contains("--tls-cert") && said.contains("--insecure"), "{said}");
    let security = Security { ops_tokens: None, ..whole.clone() };
    let said = refused(Options { ops_listen: open, security, ..base.clone() }).await;
    assert!(said.contains("--ops-token-file"), "{said}");

    let security = Security { control_plane_token: whole.ops_tokens.clone(), ..Security::default() };
    let control_plane = Some("http://control-plane.example.com:7600".to_owned());
    let said = refused(Options { control_plane, security, ..base }).await;
    assert!(said.contains("in the clear"), "{said}");
}
