//! How clients reach a listener: whom they trust, and what they may send in the clear.

use std::{net::IpAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, TrustAnchor, pem::PemObject as _},
};
use tonic::transport::{ClientTlsConfig, Endpoint, Uri};

use crate::{
    file::{self, Unreadable},
    tls::{Protocols, provider},
};

/// Why certificate authorities can't be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file can't be read.
    #[error(transparent)]
    Read(#[from] Unreadable),
    /// No certificate in it.
    #[error(
        "{origin} has no certificate that can be read; it must be PEM, one or more certificate authorities"
    )]
    NoCertificate {
        /// Where it came from.
        origin: String,
    },
    /// One of them is no certificate of an authority.
    #[error("certificate {number} of {origin} can't be used: {error}")]
    Unusable {
        /// Where it came from.
        origin: String,
        /// From 1.
        number: usize,
        /// Why.
        #[source]
        error: rustls::Error,
    },
}

/// Why an address can't be dialled.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No URL.
    #[error("{address:?} is not a URL; write https://host:port, or http://host:port on a trusted network")]
    NotAUrl {
        /// What was given.
        address: String,
    },
    /// TLS can't be set up for it.
    #[error("{address}: set up TLS: {error}")]
    Tls {
        /// What was given.
        address: String,
        /// Why.
        #[source]
        error: tonic::transport::Error,
    },
}

/// The certificate authorities that a client trusts.
#[derive(Clone, Debug)]
pub struct Trust(Vec<TrustAnchor<'static>>);

impl Trust {
    /// The public ones that Mozilla trusts.
    pub fn public() -> Self {
        Self(webpki_roots::TLS_SERVER_ROOTS.to_vec())
    }

    /// Those in a PEM file, and no others.
    ///
    /// # Errors
    /// If it can't be read or has no usable certificate.
    pub fn file(path: &Path) -> Result<Self, TrustError> {
        Self::pem(&file::read(path)?, &path.display().to_string())
    }

    /// Those in a PEM text, and no others. `origin` is for errors.
    ///
    /// # Errors
    /// If it has no usable certificate.
    pub fn pem(pem: &[u8], origin: &str) -> Result<Self, TrustError> {
        let none = || TrustError::NoCertificate { origin: origin.to_owned() };
        let certificates: Vec<_> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| none())?;
        let mut roots = RootCertStore::empty();
        for (at, certificate) in certificates.into_iter().enumerate() {
            roots.add(certificate).map_err(|error| TrustError::Unusable {
                origin: origin.to_owned(),
                number: at + 1,
                error,
            })?;
        }
        if roots.is_empty() { Err(none()) } else { Ok(Self(roots.roots)) }
    }

    /// TLS for a client that is not tonic's.
    ///
    /// # Errors
    /// If the cryptography that is built in lacks what TLS 1.2 and 1.3 need.
    pub fn client_config(&self, protocols: Protocols) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore { roots: self.0.clone() })
            .with_no_client_auth();
        config.alpn_protocols = protocols.alpn();
        Ok(Arc::new(config))
    }

    /// The file's, or the public ones without one.
    ///
    /// # Errors
    /// As [`Trust::file`].
    pub fn file_or_public(path: Option<&Path>) -> Result<Self, TrustError> {
        path.map_or_else(|| Ok(Self::public()), Self::file)
    }
}

/// Where to dial: `https://` with TLS, `http://` without. Nothing is dialled here.
///
/// # Errors
/// If `address` is no URL of these.
pub fn endpoint(address: &str, trust: &Trust) -> Result<Endpoint, AddressError> {
    let wrong = || AddressError::NotAUrl { address: address.to_owned() };
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| wrong())?;
    match endpoint.uri().scheme_str() {
        Some("http") => Ok(endpoint),
        Some("https") => {
            let tls = ClientTlsConfig::new()
                .trust_anchors(trust.0.iter().cloned())
                .timeout(crate::tls::HANDSHAKE_TIMEOUT);
            let address = address.to_owned();
            endpoint.tls_config(tls).map_err(|error| AddressError::Tls { address, error })
        }
        _ => Err(wrong()),
    }
}

/// Whether what is sent there stays secret on its way: it is encrypted, or does not
/// leave this machine.
pub fn keeps_secrets(address: &Uri) -> bool {
    let host = address.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.scheme_str() == Some("https")
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_are_dialled() {
        for good in ["http://127.0.0.1:1", "https://host:1", "https://[::1]:1"] {
            endpoint(good, &Trust::public()).unwrap();
        }
        for wrong in ["host:1", "ftp://host", "", "http://a b"] {
            let error = endpoint(wrong, &Trust::public()).unwrap_err().to_string();
            assert!(error.contains("https://host:port"), "{error}");
        }
    }

    #[test]
    fn tokens_stay_secret_on_loopback_and_in_tls() {
        let keeps = |address: &str| keeps_secrets(&address.parse().unwrap());
        for good in ["https://host:1", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            assert!(keeps(good), "{good}");
        }
        for open in ["http://host:1", "http://10.0.0.1:1", "http://localhost.example:1"] {
            assert!(!keeps(open), "{open}");
        }
    }

    #[test]
    fn a_file_without_an_authority_is_refused() {
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = Trust::pem(text.as_bytes(), "ca.pem").unwrap_err().to_string();
            assert!(error.contains("ca.pem"), "{error}");
        }
    }
}
