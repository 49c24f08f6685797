//! What protects the listeners: TLS and tokens, loaded at the start and followed.

use std::{net::SocketAddr, path::PathBuf};

use tokio_util::sync::CancellationToken;
use trunkline_transport::{
    bearer::TokenSet,
    exposure::{self, Exposed, Protection},
    tls::{Acceptor, Protocols, ServerTls},
};

use crate::{access::Role, start::StartError};

/// What protects the listeners. The default is nothing, which is for loopback.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// The certificate of both listeners and its key, PEM files.
    pub tls: Option<TlsFiles>,
    /// Tokens of agents.
    pub agent_tokens: Option<PathBuf>,
    /// Tokens of admins.
    pub admin_tokens: Option<PathBuf>,
    /// Tokens of operators.
    pub operator_tokens: Option<PathBuf>,
    /// Tokens of viewers.
    pub viewer_tokens: Option<PathBuf>,
    /// Allows listeners beyond loopback that lack TLS or tokens.
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
    pub(crate) tls: Option<ServerTls>,
    pub(crate) tokens: Option<TokenSet<Role>>,
    insecure: bool,
}

impl Security {
    /// Reads the files. Blocks for as long as that takes.
    pub(crate) fn load(self) -> Result<Loaded, StartError> {
        let tls = self.tls.map(|files| ServerTls::load(&files.certificate, &files.key)).transpose()?;
        let files: Vec<_> = [
            (Role::Agent, self.agent_tokens),
            (Role::Admin, self.admin_tokens),
            (Role::Operator, self.operator_tokens),
            (Role::Viewer, self.viewer_tokens),
        ]
        .into_iter()
        .filter_map(|(role, path)| Some((role, path?)))
        .collect();
        let tokens = (!files.is_empty()).then(|| TokenSet::load(files)).transpose()?;
        Ok(Loaded { tls, tokens, insecure: self.insecure })
    }
}

impl Loaded {
    /// Whether gRPC may be served at `address`.
    pub(crate) fn check_grpc(&self, address: SocketAddr) -> Result<(), Exposed> {
        let authenticated = self.has(Role::Admin) && self.has(Role::Agent);
        let remedy = "--tls-cert and --tls-key, --admin-token-file and --agent-token-file";
        exposure::check("control-plane", address, self.protection(authenticated), remedy)
    }

    /// Whether pages for operators may be served at `address`.
    pub(crate) fn check_ops(&self, address: SocketAddr) -> Result<(), Exposed> {
        let authenticated =
            [Role::Viewer, Role::Operator, Role::Admin].into_iter().any(|role| self.has(role));
        let remedy = "--tls-cert and --tls-key, --viewer-token-file or --admin-token-file";
        exposure::check("control-plane-ops", address, self.protection(authenticated), remedy)
    }

    /// Whether apps are turned away from `address` while no keys are configured: they
    /// could be anybody.
    pub(crate) fn apps_need_keys(&self, address: SocketAddr) -> bool {
        !address.ip().is_loopback() && !self.insecure
    }

    /// What makes connections TLS, if they are.
    pub(crate) fn acceptor(&self, protocols: Protocols) -> Result<Option<Acceptor>, StartError> {
        Ok(self.tls.as_ref().map(|tls| tls.acceptor(protocols)).transpose()?)
    }

    /// What the listeners speak, as in their URLs.
    pub(crate) const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Uses certificates and tokens that are replaced, until `shutdown`.
    pub(crate) async fn follow(self, shutdown: CancellationToken) {
        let Self { tls, tokens, .. } = self;
        let tls = async {
            match tls {
                Some(tls) => tls.follow().await,
                None => std::future::pending().await,
            }
        };
        let tokens = async {
            match tokens {
                Some(tokens) => tokens.follow().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased; // A stop is heeded first; the others never end.
            () = shutdown.cancelled() => {}
            () = tls => {}
            () = tokens => {}
        }
    }

    fn has(&self, role: Role) -> bool {
        self.tokens.as_ref().is_some_and(|tokens| tokens.has(role))
    }

    fn protection(&self, authenticated: bool) -> Protection {
        Protection { tls: self.tls.is_some(), authenticated, insecure: self.insecure }
    }
}
