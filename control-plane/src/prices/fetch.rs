//! Gets a price list over HTTP: bounded in time and size, connected and redirected only
//! to where an operator could have sent it, and not sent again what has not changed. One
//! request in an hour, so each has a connection of its own.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode, Uri,
    header::{ACCEPT, ETAG, HOST, IF_NONE_MATCH, LOCATION, USER_AGENT},
};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use trunkline_proto::url::{check_address, check_base_url};
use trunkline_transport::{client::Trust, tls::Protocols};

use super::feed::FEED_BYTES_MAX;

/// Until the server has accepted, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For the whole answer, redirects included: megabytes over a slow line.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A list moves once or twice, not more.
const REDIRECTS_MAX: usize = 5;

/// Why a price list can't be polled at all.
#[derive(Debug, thiserror::Error)]
pub enum FeedUrlRefused {
    /// The URL is none that may be asked.
    #[error("--price-feed {0}")]
    Url(String),
    /// TLS can't be set up.
    #[error("--price-feed: set up TLS: {0}")]
    Tls(String),
}

/// What went wrong with one request.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0} took too long")]
    Timeout(&'static str),
    #[error("{0} failed: {1}")]
    Failed(&'static str, String),
    #[error("it is redirected to a URL that {0}")]
    Redirect(String),
    #[error("it is redirected more than {REDIRECTS_MAX} times")]
    Redirects,
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("the answer has more than {FEED_BYTES_MAX} bytes")]
    TooLong,
}

/// What the server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What there was is still right.
    Unchanged,
    Feed(Bytes),
}

/// Asks one URL again and again.
pub(super) struct Fetcher {
    url: Uri,
    allow_private: bool,
    tls: TlsConnector,
    /// Of the newest answer that was of use.
    etag: Option<HeaderValue>,
    /// Of the newest answer, until it turns out to be of use.
    newest: Option<HeaderValue>,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("url", &self.url).field("etag", &self.etag).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// `allow_private`: also on loopback and private networks, and without TLS.
    pub(super) fn new(url: &str, allow_private: bool) -> Result<Self, FeedUrlRefused> {
        check_base_url(url, allow_private).map_err(|refused| FeedUrlRefused::Url(refused.to_string()))?;
        let parsed: Uri =
            url.parse().map_err(|error: http::uri::InvalidUri| FeedUrlRefused::Url(error.to_string()))?;
        let config = Trust::public().client_config(Protocols::Http1);
        let config = config.map_err(|error| FeedUrlRefused::Tls(error.to_string()))?;
        Ok(Self { url: parsed, allow_private, tls: TlsConnector::from(config), etag: None, newest: None })
    }

    /// Asks once.
    pub(super) async fn fetch(&mut self) -> Result<Answer, FetchError> {
        let (status, headers, body) =
            timeout(TIMEOUT, self.follow()).await.map_err(|_| FetchError::Timeout("the answer"))??;
        match status {
            StatusCode::NOT_MODIFIED if self.etag.is_some() => Ok(Answer::Unchanged),
            StatusCode::OK => {
                self.newest = headers.get(ETAG).cloned();
                Ok(Answer::Feed(body))
            }
            other => Err(FetchError::Status(other)),
        }
    }

    /// The newest answer was of use: it need not come again.
    pub(super) fn keep(&mut self) {
        self.etag = self.newest.take();
    }

    /// Where each step leads must be where an operator could have sent it.
    async fn follow(&self) -> Result<(StatusCode, HeaderMap, Bytes), FetchError> {
        let mut url = self.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.get(&url).await?;
            let (status, headers, _) = &answer;
            let location = headers
                .get(LOCATION)
                .filter(|_| status.is_redirection() && *status != StatusCode::NOT_MODIFIED);
            let Some(location) = location else { return Ok(answer) };
            url = self.redirected(&url, location)?;
        }
        Err(FetchError::Redirects)
    }

    fn redirected(&self, from: &Uri, location: &HeaderValue) -> Result<Uri, FetchError> {
        let refused = |reason: String| FetchError::Redirect(reason);
        let text = location.to_str().map_err(|_| refused("is no text".to_owned()))?;
        let text = match (text.strip_prefix('/'), from.scheme_str(), from.authority()) {
            (Some(rest), Some(scheme), Some(authority)) if !rest.starts_with('/') => {
                format!("{scheme}://{authority}{text}")
            }
            _ => text.to_owned(),
        };
        // Signed links have queries, which say nothing of the place.
        let place = text.split('?').next().unwrap_or_default();
        check_base_url(place, self.allow_private).map_err(|error| refused(error.to_string()))?;
        text.parse().map_err(|error: http::uri::InvalidUri| refused(error.to_string()))
    }

    async fn get(&self, url: &Uri) -> Result<(StatusCode, HeaderMap, Bytes), FetchError> {
        let is_tls = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let request = self.request(url)?;
        let connecting = async {
            let stream = self.connect(&host, port).await?;
            if !is_tls {
                return Ok((Some(stream), None));
            }
            let name = ServerName::try_from(host.clone()).map_err(|error| failed("TLS", &error))?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| failed("TLS", &error))?;
            Ok((None, Some(stream)))
        };
        let connected = timeout(CONNECT_TIMEOUT, connecting).await;
        match connected.map_err(|_| FetchError::Timeout("connecting"))?? {
            (Some(plain), _) => exchange(plain, request).await,
            (None, Some(encrypted)) => exchange(encrypted, request).await,
            (None, None) => Err(FetchError::Failed("connecting", "no stream".to_owned())),
        }
    }

    /// The address is checked that is then dialled: what a name means may change.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let found = lookup_host((host, port)).await.map_err(|error| failed("the name's lookup", &error))?;
        let mut last = FetchError::Failed("the name's lookup", "no address".to_owned());
        let addresses: Vec<SocketAddr> = found.collect();
        for address in addresses {
            let dialled = match check_address(address.ip(), self.allow_private) {
                Ok(()) => TcpStream::connect(address).await.map_err(|error| failed("connecting", &error)),
                Err(refused) => Err(failed("connecting", &refused)),
            };
            match dialled {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn request(&self, url: &Uri) -> Result<Request<Empty<Bytes>>, FetchError> {
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path)
            .header(HOST, authority)
            .header(ACCEPT, "application/json, text/plain")
            .header(USER_AGENT, concat!("trunkline/", env!("CARGO_PKG_VERSION")));
        if let Some(etag) = &self.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        request.body(Empty::new()).map_err(|error| failed("the request", &error))
    }
}

fn failed(what: &'static str, error: &dyn std::error::Error) -> FetchError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    FetchError::Failed(what, text)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, HeaderMap, Bytes), FetchError> {
    let begun = handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = begun.map_err(|error| failed("HTTP", &error))?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(|error| failed("HTTP", &error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, FEED_BYTES_MAX).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { FetchError::TooLong } else { failed("HTTP", &*error) }
        })?;
        Ok((head.status, head.headers, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        biased; // What was answered counts, also if the connection ended with it.
        answer = &mut answer => answer,
        // The rest of the answer is there already, or its end says what is wrong.
        _ = &mut connection => answer.await,
    }
}
