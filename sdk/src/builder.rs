//! How a client is set up: address, key, time limits.
//!
//! Nothing is dialled here, so a builder fails on wrong input only.

use std::{fmt, sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use trunkline_transport::client::{self, AddressError, Trust};

use crate::{Client, Error, directory::Directory};

/// A whole completion, failover included; the default deadline of virtual models.
const DEFAULT_DEADLINE: Duration = Duration::from_mins(1);

/// An agent sits beside its app: slower than this, it is not there.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A dead peer under an idle watch is noticed within about this and the next.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// For the answer to a keep-alive ping.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Sets up a [`Client`].
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    address: String,
    api_key: Option<SecretString>,
    authorities: Option<Vec<u8>>,
    deadline: Duration,
    connect_timeout: Duration,
    user_agent: Option<String>,
}

impl ClientBuilder {
    pub(crate) fn new(address: String) -> Self {
        Self {
            address,
            api_key: None,
            authorities: None,
            deadline: DEFAULT_DEADLINE,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            user_agent: None,
        }
    }

    /// The app's key, sent as `authorization: Bearer …`. Not shown in any output.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(SecretString::from(key.into()));
        self
    }

    /// Trusts these certificate authorities, PEM, for `https://` addresses, and no others.
    /// Default: the public ones.
    pub fn ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities = Some(pem.into());
        self
    }

    /// Time for each call; for streams until the first event. It is sent along, so
    /// that the server stops too, and kept here, should the server not. Default 60 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Time for reaching one address, inside the deadline. Default 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Put before the library's own name in the `user-agent` header.
    pub fn user_agent(mut self, name: impl Into<String>) -> Self {
        self.user_agent = Some(name.into());
        self
    }

    /// A client that dials with its first call.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`] and [`Error::InvalidSetting`].
    pub fn connect_lazy(self) -> Result<Client, Error> {
        let (client, _) = self.build()?;
        Ok(client)
    }

    /// A client whose address has answered.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect_lazy`], and [`Error::Unreachable`].
    pub async fn connect(self) -> Result<Client, Error> {
        let address = self.address.clone();
        let (client, endpoint) = self.build()?;
        let channel = endpoint.connect().await.map_err(|error| Error::unreachable(&address, &error))?;
        Ok(client.with_home_channel(channel))
    }

    fn build(self) -> Result<(Client, Endpoint), Error> {
        let trust = match &self.authorities {
            None => Trust::public(),
            Some(pem) => Trust::pem(pem, "it").map_err(|error| Error::InvalidSetting {
                setting: "ca_certificate",
                problem: error.to_string(),
            })?,
        };
        let mut dialer = Dialer {
            trust,
            connect_timeout: self.connect_timeout,
            user_agent: self.user_agent,
            keeps_secrets: false,
        };
        let authorization = self.api_key.as_ref().map(bearer).transpose()?;
        let endpoint = dialer.endpoint(&self.address)?;
        dialer.keeps_secrets = endpoint.uri().scheme_str() == Some("https");
        let home = endpoint.connect_lazy();
        let directory = Arc::new(Directory::new(dialer));
        Ok((Client::new(self.address, home, directory, authorization, self.deadline), endpoint))
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("address", &self.address)
            .field("api_key", &self.api_key.as_ref().map(|_| "[hidden]"))
            .field("has_own_authorities", &self.authorities.is_some())
            .field("deadline", &self.deadline)
            .field("connect_timeout", &self.connect_timeout)
            .field("user_agent", &self.user_agent)
            .finish()
    }
}

/// The header value for a key, marked so that no layer prints it.
fn bearer(key: &SecretString) -> Result<MetadataValue<Ascii>, Error> {
    let mut value = MetadataValue::try_from(format!("Bearer {}", key.expose_secret())).map_err(|_| {
        Error::InvalidSetting {
            setting: "api_key",
            problem: "it has characters that a header can't carry; use visible ASCII".to_owned(),
        }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Makes channels to any address with the same settings.
#[derive(Debug)]
pub(crate) struct Dialer {
    trust: Trust,
    connect_timeout: Duration,
    user_agent: Option<String>,
    /// Whether nothing may leave this machine in the clear: the app chose TLS.
    keeps_secrets: bool,
}

impl Dialer {
    pub(crate) fn endpoint(&self, address: &str) -> Result<Endpoint, Error> {
        let invalid = |error: AddressError| Error::InvalidAddress {
            address: address.to_owned(),
            problem: match error {
                AddressError::NotAUrl { .. } => {
                    "it is not a URL; write https://host:port, or http://host:port on a trusted network"
                        .to_owned()
                }
                AddressError::Tls { error, .. } => format!("set up TLS: {error}"),
            },
        };
        let endpoint = client::endpoint(address, &self.trust).map_err(invalid)?;
        if self.keeps_secrets && !client::keeps_secrets(endpoint.uri()) {
            return Err(Error::InvalidAddress {
                address: address.to_owned(),
                problem: "prompts and the key would be sent in the clear, and the client was set up with https://; let the agent advertise https://host:port"
                    .to_owned(),
            });
        }
        let endpoint = endpoint
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let own = concat!("trunkline-sdk/", env!("CARGO_PKG_VERSION"));
        let name = match &self.user_agent {
            Some(app) => format!("{app} {own}"),
            None => own.to_owned(),
        };
        endpoint.user_agent(name).map_err(|_| Error::InvalidSetting {
            setting: "user_agent",
            problem: "it has characters that a header can't carry; use visible ASCII".to_owned(),
        })
    }

    pub(crate) fn dial_lazily(&self, address: &str) -> Result<Channel, Error> {
        Ok(self.endpoint(address)?.connect_lazy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_key_is_in_no_debug_output() {
        let builder = Client::builder("http://127.0.0.1:1").api_key("sk-very-secret");
        assert!(!format!("{builder:?}").contains("very-secret"));
        let value = bearer(&SecretString::from("sk-very-secret".to_owned())).unwrap();
        assert!(!format!("{value:?}").contains("very-secret"));
    }

    #[test]
    fn addresses_without_a_scheme_are_refused_with_the_right_form() {
        for address in ["127.0.0.1:7700", "ftp://x", "", "http://a b"] {
            let error = Client::builder(address).build().unwrap_err();
            let text = error.to_string();
            assert!(text.contains("http://host:port"), "{address}: {text}");
            assert!(!error.is_retryable());
        }
    }

    #[test]
    fn a_text_without_an_authority_is_refused() {
        let error = Client::builder("https://127.0.0.1:1").ca_certificate("hello").build().unwrap_err();
        assert!(matches!(error, Error::InvalidSetting { setting: "ca_certificate", .. }), "{error}");
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_refused_without_showing_it() {
        let error = Client::builder("http://127.0.0.1:1").api_key("bad\nkey").build().unwrap_err();
        assert!(matches!(error, Error::InvalidSetting { setting: "api_key", .. }));
        assert!(!error.to_string().contains("bad"));
    }
}
