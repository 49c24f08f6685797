//! What protects the listeners, and the way to the control plane: TLS and tokens, loaded
//! at the start and followed.

use std::{future::Future, net::SocketAddr, path::PathBuf};

use tokio_util::sync::CancellationToken;
use trunkline_transport::{
    bearer::{Bearer, BearerFile, TokenSet},
    client::{self, Trust},
    exposure::{self, Exposed, Protection},
    tls::{Acceptor, Protocols, ServerTls, TlsError},
};

use crate::{
    control::{self, ControlPlane},
    start::StartError,
};

/// What protects an agent. The default is nothing, which is for loopback.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// The certificate of both listeners and its key, PEM files.
    pub tls: Option<TlsFiles>,
    /// Authorities to trust for the control plane, a PEM file. None: the public ones.
    pub control_plane_ca: Option<PathBuf>,
    /// The file with the agent's token for the control plane.
    pub control_plane_token: Option<PathBuf>,
    /// Tokens for `/metrics`.
    pub ops_tokens: Option<PathBuf>,
    /// Allows listeners beyond loopback that lack TLS or authentication.
    pub insecure: bool,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// What was loaded.
pub(crate) struct Loaded {
    pub(crate) ops_tokens: Option<TokenSet<()>>,
    tls: Option<ServerTls>,
    token: Option<BearerFile>,
    trust: Trust,
    insecure: bool,
}

impl Security {
    /// Reads the files. Blocks for as long as that takes.
    pub(crate) fn load(self) -> Result<Loaded, StartError> {
        Ok(Loaded {
            tls: self.tls.map(|files| ServerTls::load(&files.certificate, &files.key)).transpose()?,
            token: self.control_plane_token.as_deref().map(BearerFile::load).transpose()?,
            trust: Trust::file_or_public(self.control_plane_ca.as_deref())?,
            ops_tokens: self.ops_tokens.map(|path| TokenSet::load(vec![((), path)])).transpose()?,
            insecure: self.insecure,
        })
    }
}

impl Loaded {
    /// Whether apps may be served at `address`. Their keys come with the configuration;
    /// until then all of them are turned away.
    pub(crate) fn check_apps(&self, address: SocketAddr) -> Result<(), Exposed> {
        exposure::check("agent", address, self.protection(true), "--tls-cert and --tls-key")
    }

    /// Whether pages for operators may be served at `address`.
    pub(crate) fn check_ops(&self, address: SocketAddr) -> Result<(), Exposed> {
        let protection = self.protection(self.ops_tokens.is_some());
        let remedy = "--tls-cert, --tls-key and --ops-token-file";
        exposure::check("agent-ops", address, protection, remedy)
    }

    /// Whether apps are turned away from `address` while no keys are configured: they
    /// could be anybody.
    pub(crate) fn apps_need_keys(&self, address: SocketAddr) -> bool {
        !address.ip().is_loopback() && !self.insecure
    }

    /// What the listeners speak, as in their URLs.
    pub(crate) const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What makes connections TLS, if they are.
    pub(crate) fn acceptor(&self, protocols: Protocols) -> Result<Option<Acceptor>, TlsError> {
        self.tls.as_ref().map(|tls| tls.acceptor(protocols)).transpose()
    }

    /// The way to the control plane. It is not dialled yet.
    pub(crate) fn channel(&self, address: &str) -> Result<ControlPlane, StartError> {
        let bearer = self.token.as_ref().map_or_else(Bearer::none, BearerFile::bearer);
        let endpoint = client::endpoint(address, &self.trust).map_err(StartError::ControlPlane)?;
        if bearer.is_some() && !self.insecure && !client::keeps_secrets(endpoint.uri()) {
            return Err(StartError::TokenInTheClear(address.to_owned()));
        }
        Ok(control::channel(endpoint, bearer))
    }

    /// Uses certificates and tokens that are replaced, until `shutdown`.
    pub(crate) async fn follow(self, shutdown: CancellationToken) {
        tokio::select! {
            biased; // A stop is heeded first; the others never end.
            () = shutdown.cancelled() => {}
            () = or_never(self.tls.map(ServerTls::follow)) => {}
            () = or_never(self.token.map(BearerFile::follow)) => {}
            () = or_never(self.ops_tokens.map(TokenSet::follow)) => {}
        }
    }

    fn protection(&self, authenticated: bool) -> Protection {
        Protection { tls: self.tls.is_some(), authenticated, insecure: self.insecure }
    }
}

async fn or_never(following: Option<impl Future<Output = ()>>) {
    match following {
        Some(following) => following.await,
        None => std::future::pending().await,
    }
}
