//! Where a provider is, parsed once when a routing table loads, so that a request only
//! clones what is ready. Callers: the request engine, once per provider and table.

use std::sync::Arc;

use http::{HeaderValue, Uri, uri::PathAndQuery};
use rustls::pki_types::ServerName;
use thiserror::Error;

/// A parsed base URL.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(super) origin: Arc<str>,
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    pub(super) allow_private_network: bool,
    /// None: plain HTTP.
    pub(super) tls_name: Option<ServerName<'static>>,
    host_header: HeaderValue,
    prefix: Box<str>,
}

/// Why a base URL can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// It is no URL with a host.
    #[error("base_url is not a URL with a scheme and a host, such as https://api.example.com/v1")]
    NotAUrl,
    /// Another scheme than http and https.
    #[error("base_url has the scheme {0:?}; https, or http with allow_private_network, is needed")]
    Scheme(String),
    /// Holds user info, a query or the like.
    #[error("base_url must hold scheme, host, port and path only: no {0}")]
    Unexpected(&'static str),
    /// The host is neither a name nor an address.
    #[error("base_url has a host that is neither a DNS name nor an IP address")]
    Host,
}

impl Endpoint {
    /// Parses a provider's base URL. `allow_private_network` allows http:// and private
    /// addresses; the addresses themselves are checked when they are dialled.
    ///
    /// # Errors
    /// If the URL can't be one of a provider.
    pub fn parse(base_url: &str, allow_private_network: bool) -> Result<Self, EndpointError> {
        if base_url.contains('#') {
            return Err(EndpointError::Unexpected("fragment"));
        }
        let uri: Uri = base_url.parse().map_err(|_| EndpointError::NotAUrl)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(EndpointError::NotAUrl);
        };
        if authority.as_str().contains('@') {
            return Err(EndpointError::Unexpected("user info"));
        }
        if uri.query().is_some() {
            return Err(EndpointError::Unexpected("query"));
        }
        let default_port = match scheme {
            "https" => 443,
            "http" if allow_private_network => 80,
            other => return Err(EndpointError::Scheme(other.to_owned())),
        };
        // Brackets belong to URLs; the resolver and TLS want the bare address.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(EndpointError::NotAUrl);
        }
        let port = authority.port_u16().unwrap_or(default_port);
        let server_name = ServerName::try_from(host.to_owned()).map_err(|_| EndpointError::Host)?;
        let shown = if port == default_port {
            authority.host().to_owned()
        } else {
            format!("{}:{port}", authority.host())
        };
        Ok(Self {
            // Connections checked under different address rules are never shared.
            origin: format!("{scheme}://{}:{port} {allow_private_network}", authority.host()).into(),
            host: host.into(),
            port,
            allow_private_network,
            tls_name: (scheme == "https").then_some(server_name),
            host_header: HeaderValue::try_from(shown).map_err(|_| EndpointError::Host)?,
            prefix: uri.path().trim_end_matches('/').into(),
        })
    }

    /// The request target for `suffix`, such as `/chat/completions`, behind the base URL's
    /// own path.
    ///
    /// # Panics
    /// If `suffix` can't stand in a path: it is a constant of a dialect, never input.
    #[expect(clippy::expect_used, reason = "the prefix was parsed, suffixes are constants")]
    pub fn path(&self, suffix: &str) -> PathAndQuery {
        debug_assert!(suffix.starts_with('/'), "a suffix starts with a slash");
        let path = [&self.prefix, suffix].concat();
        PathAndQuery::from_maybe_shared(path).expect("a prefix and a suffix make a path")
    }

    /// The value of the Host header.
    pub fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_gives_host_header_and_paths() {
        let endpoint = Endpoint::parse("https://api.openai.com/v1", false).unwrap();
        assert_eq!(endpoint.host_header(), "api.openai.com");
        assert_eq!(endpoint.path("/chat/completions"), "/v1/chat/completions");
        assert_eq!(endpoint.port, 443);
        assert!(endpoint.tls_name.is_some());
    }

    #[test]
    fn ports_and_ipv6_hosts_are_kept() {
        let endpoint = Endpoint::parse("http://[::1]:8080", true).unwrap();
        assert_eq!(endpoint.host_header(), "[::1]:8080");
        assert_eq!(&*endpoint.host, "::1");
        assert_eq!(endpoint.path("/embeddings"), "/embeddings");
        assert!(endpoint.tls_name.is_none());
    }

    #[test]
    fn what_is_no_provider_address_is_refused() {
        let check = |url: &str, expected: EndpointError| {
            assert_eq!(Endpoint::parse(url, false).unwrap_err(), expected, "{url}");
        };
        check("", EndpointError::NotAUrl);
        check("/v1", EndpointError::NotAUrl);
        check("http://example.com", EndpointError::Scheme("http".to_owned()));
        check("ftp://example.com", EndpointError::Scheme("ftp".to_owned()));
        check("https://user:pw@example.com", EndpointError::Unexpected("user info"));
        check("https://example.com/v1?x=1", EndpointError::Unexpected("query"));
        check("https://example.com/v1#x", EndpointError::Unexpected("fragment"));
    }
}
