//! TLS for listeners: a certificate and its key from PEM files. Replaced files are
//! picked up while connections go on; a broken new pair is logged and the old one stays.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::file::{Unreadable, Watched};

/// Longest handshake, the wait for its turn included. It takes a few round trips; whoever
/// needs longer is no client.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a client's first message: clients send it at once.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(3);

/// Handshakes under way of one listener. Each holds some 40 KB; a fleet of 1,000 agents
/// that comes back at once waits for a second, and a flood takes 20 MB at most.
pub const HANDSHAKES_MAX: usize = 512;

/// Clients of one listener whose handshake is not over: those that were silent so far,
/// those that wait for their turn, those that have it. Twice a fleet of 1,000 agents; each
/// silent one holds a socket and a few KB. More are closed at once.
pub const WAITING_MAX: usize = 2_048;

/// Why a certificate and its key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error(transparent)]
    Read(#[from] Unreadable),
    /// There is no certificate in the file.
    #[error("{path} has no certificate that can be read; it must be PEM, the server's own certificate first", path = .0.display())]
    NoCertificate(PathBuf),
    /// There is no key in the file.
    #[error("{path} has no private key that can be read; it must be PEM: PKCS #8, PKCS #1 or SEC 1, without a passphrase", path = .0.display())]
    NoKey(PathBuf),
    /// They are no pair, or of a kind that is not supported.
    #[error("{certificate} and {key} can't be used together: {error}", certificate = .certificate.display(), key = .key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        #[source]
        error: rustls::Error,
    },
    /// The cryptography that is built in lacks what TLS needs.
    #[error("set up TLS: {0}")]
    Setup(#[source] rustls::Error),
}

/// What a listener speaks inside TLS. It is announced by ALPN, and a client that offers
/// only others is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// gRPC.
    H2,
    /// Pages for operators.
    Http1,
    /// Both; h2 is preferred.
    H2AndHttp1,
}

impl Protocols {
    pub(crate) fn alpn(self) -> Vec<Vec<u8>> {
        let (h2, http1) = (b"h2".to_vec(), b"http/1.1".to_vec());
        match self {
            Self::H2 => vec![h2],
            Self::Http1 => vec![http1],
            Self::H2AndHttp1 => vec![h2, http1],
        }
    }
}

/// The certificate of a process, with its key. [`ServerTls::follow`] keeps it like its
/// files.
#[derive(Debug)]
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    watched: Watched,
    resolver: Arc<Newest>,
}

/// The newest pair that is good.
#[derive(Debug)]
struct Newest(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ServerTls {
    /// Loads a PEM chain, the server's own certificate first, and its key.
    ///
    /// # Errors
    /// If a file can't be read or used, or they are no pair.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let (watched, contents) = Watched::read(vec![certificate.to_owned(), key.to_owned()])?;
        let pair = pair(certificate, key, &contents)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            watched,
            resolver: Arc::new(Newest(ArcSwap::from_pointee(pair))),
        })
    }

    /// What makes a listener's connections TLS. Each listener needs its own, or clients of
    /// one could hold out those of another.
    ///
    /// # Errors
    /// If the cryptography that is built in lacks what TLS 1.2 and 1.3 need.
    pub fn acceptor(&self, protocols: Protocols) -> Result<Acceptor, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.resolver) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = protocols.alpn();
        Ok(Acceptor {
            config: Arc::new(config),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        })
    }

    /// Looks at the files every two seconds and uses new ones that are good, for ever:
    /// drop it to stop. New connections get the new certificate.
    pub async fn follow(mut self) {
        loop {
            let contents = self.watched.changed().await;
            match pair(&self.certificate, &self.key, &contents) {
                Ok(pair) => {
                    self.resolver.0.store(Arc::new(pair));
                    tracing::info!(certificate = %self.certificate.display(), "new TLS certificate in use");
                }
                Err(error) => {
                    tracing::warn!(%error, "the new TLS certificate is refused; the old one stays in use");
                }
            }
        }
    }
}

/// Makes a listener's connections TLS. Clones share its limits.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    waiting: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Shakes hands, once the client began and it is its turn.
    ///
    /// # Errors
    /// If the client does not speak TLS, does not begin within [`HELLO_TIMEOUT`] or end
    /// within [`HANDSHAKE_TIMEOUT`], or if [`WAITING_MAX`] others are at it.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err(io::Error::other("too many TLS handshakes at once; the client is turned away"));
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took more than 10 s");
        tokio::time::timeout(HANDSHAKE_TIMEOUT, self.shake_hands(stream)).await.map_err(late)?
    }

    // Silent clients cost their owner nothing, so they get no place.
    async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake began within 3 s");
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let begun = tokio::time::timeout(HELLO_TIMEOUT, hello).await.map_err(late)??;
        let _place = self.handshakes.acquire().await.map_err(io::Error::other)?;
        begun.into_stream(Arc::clone(&self.config)).await
    }
}

/// Whether the client chose HTTP/2. One that offers nothing speaks HTTP/1.1.
pub fn is_h2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// The only cryptography that is built in.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

// What a PEM parser says may quote the file, and so the key: it is not passed on.
fn pair(certificate: &Path, key: &Path, contents: &[Vec<u8>]) -> Result<CertifiedKey, TlsError> {
    let no_certificate = || TlsError::NoCertificate(certificate.to_owned());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&contents[0])
        .collect::<Result<_, _>>()
        .map_err(|_| no_certificate())?;
    if chain.is_empty() {
        return Err(no_certificate());
    }
    let private = PrivateKeyDer::from_pem_slice(&contents[1]).map_err(|_| TlsError::NoKey(key.to_owned()))?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| TlsError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests;
