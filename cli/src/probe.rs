//! `probe`: is a URL's answer good? For health checks where nothing else is installed.

use anyhow::{Context as _, anyhow};
use http_body_util::{BodyExt as _, Collected, Empty, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1::handshake,
    header::{AUTHORIZATION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use trunkline_transport::{
    bearer::{Bearer, BearerFile},
    client::Trust,
    tls::Protocols,
};

use crate::{args::ProbeArgs, client::may_carry, failure::Failure, terminal};

/// Of an answer's text. Readiness says its reason in a line.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Of what is shown of it.
const SHOWN_CHARS_MAX: usize = 500;

pub(crate) async fn run(args: ProbeArgs) -> Result<(), Failure> {
    let target = Target::of(&args)?;
    let asked = timeout(args.timeout, target.ask()).await;
    let (status, text) = asked
        .map_err(|_| anyhow!("no answer within {:?}", args.timeout))
        .and_then(|answered| answered)
        .with_context(|| format!("GET {}", args.url))?;
    let shown: String = text.trim().chars().take(SHOWN_CHARS_MAX).collect();
    if status.is_success() {
        return terminal::print_line(&format!("{status} {shown}"));
    }
    Err(Failure::failed(format!("GET {}: {status} {shown}", args.url)))
}

/// Where to ask, and how.
struct Target {
    uri: Uri,
    host: String,
    port: u16,
    bearer: Bearer,
    /// `None`: in the clear.
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    fn of(args: &ProbeArgs) -> Result<Self, Failure> {
        let wrong = |problem: String| Failure::wrong_input(format!("'{}': {problem}", args.url));
        let uri: Uri = args.url.parse().map_err(|error| wrong(format!("it is not a URL: {error}")))?;
        let host =
            uri.host().ok_or_else(|| wrong("it has no host; write http://host:port/readyz".to_owned()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| wrong(format!("no certificate can be for '{host}'")))?;
                let trust = Trust::file_or_public(args.ca_file.as_deref())
                    .map_err(|error| Failure::wrong_input(format!("--ca-file: {error}")))?;
                (Some((connector(&trust)?, name)), 443)
            }
            _ => return Err(wrong("write http:// or https://".to_owned())),
        };
        let bearer = match &args.token_file {
            None => Bearer::none(),
            Some(path) => BearerFile::load(path)
                .map_err(|error| Failure::wrong_input(format!("--token-file: {error}")))?
                .bearer(),
        };
        may_carry(&uri, &bearer)?;
        Ok(Self { port: uri.port_u16().unwrap_or(port), uri, host, bearer, tls })
    }

    /// Status and text of the answer.
    async fn ask(&self) -> anyhow::Result<(StatusCode, String)> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.context("connect")?;
        match &self.tls {
            None => self.exchange(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.context("shake hands")?;
                self.exchange(stream).await
            }
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> anyhow::Result<(StatusCode, String)> {
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.context("begin HTTP")?;
        let request = self.request()?;
        let answer = async move {
            let response = sender.send_request(request).await.context("ask")?;
            let status = response.status();
            let body = Limited::new(response.into_body(), TEXT_BYTES_MAX).collect().await;
            // The status is the answer; a text that is too long or cut off says no more.
            let text = body.map(Collected::to_bytes).unwrap_or_default();
            Ok((status, String::from_utf8_lossy(&text).into_owned()))
        };
        tokio::pin!(answer, connection);
        tokio::select! {
            biased; // What was answered counts, also if the connection ended with it.
            answer = &mut answer => answer,
            ended = &mut connection => match ended {
                // The rest of the answer is there already.
                Ok(()) => answer.await,
                Err(error) => Err(anyhow::Error::new(error).context("speak HTTP")),
            },
        }
    }

    fn request(&self) -> anyhow::Result<Request<Empty<Bytes>>> {
        let authority = self.uri.authority().map_or(self.host.as_str(), |authority| authority.as_str());
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path).header(HOST, authority);
        if let Some(token) = self.bearer.header() {
            let mut value = HeaderValue::from_bytes(token.as_bytes()).context("read the token")?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Empty::new()).context("write the request")
    }
}

fn connector(trust: &Trust) -> anyhow::Result<TlsConnector> {
    Ok(TlsConnector::from(trust.client_config(Protocols::Http1).context("set up TLS")?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    fn args(url: &str) -> ProbeArgs {
        ProbeArgs { url: url.to_owned(), token_file: None, ca_file: None, timeout: Duration::from_secs(30) }
    }

    /// Answers one request with `text`; what was asked.
    async fn answering(text: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(text.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        (url, asked)
    }

    #[tokio::test]
    async fn good_answer_is_good_and_the_token_is_presented() {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, "viewer secret-of-viewer-1234\n").unwrap();
        let (url, asked) = answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready").await;
        run(ProbeArgs { token_file: Some(token), ..args(&url) }).await.unwrap();
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("GET /readyz HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("authorization: Bearer secret-of-viewer-1234\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn bad_answer_fails_with_its_reason() {
        let (url, _) = answering("HTTP/1.1 503 no\r\nconnection: close\r\n\r\ndraining").await;
        let failure = run(args(&url)).await.unwrap_err();
        assert!(matches!(failure, Failure::Failed(_)));
        assert!(failure.to_string().contains("503 Service Unavailable draining"), "{failure}");
    }

    #[tokio::test]
    async fn what_does_not_answer_in_time_fails() {
        // Bound and never accepted: it connects, and nothing comes.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let failure = run(ProbeArgs { timeout: Duration::from_millis(1), ..args(&url) }).await.unwrap_err();
        assert!(failure.to_string().contains("no answer within"), "{failure}");
    }

    #[tokio::test]
    async fn what_is_no_url_is_wrong_input() {
        for url in ["", "readyz", "/readyz", "ftp://h/", "https://not a host/"] {
            let failure = run(args(url)).await.unwrap_err();
            assert!(matches!(failure, Failure::WrongInput(_)), "{url}: {failure}");
        }
    }
}
