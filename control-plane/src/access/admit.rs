//! Tells who calls, and whether it may.

use std::{fmt, net::IpAddr, pin::Pin, sync::Arc};

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};
use trunkline_transport::{
    bearer::{Holder, TokenSet},
    places::Limits,
};

use super::{
    principal::Principal,
    refusal::Refusal,
    refusals::{Delay, Refusals, Refused},
    roles::{Allowed, Role, allowed},
};
use crate::repository::Repository;

static API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Who may see pages for people.
const PEOPLE: Allowed = Allowed::Roles(&[Role::Viewer, Role::Operator, Role::Admin]);

/// What calls are checked by.
#[derive(Clone)]
pub(crate) struct Access {
    /// None: authentication is off.
    tokens: Option<TokenSet<Role>>,
    repository: Arc<Repository>,
    /// Whether apps are turned away while no keys are configured.
    apps_need_keys: bool,
    /// Shared by all listeners.
    pub(super) refusals: Arc<Refusals>,
}

/// Ready when the token of a call is withdrawn.
pub(super) type Withdrawal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A call that goes to its service.
pub(super) struct Admitted {
    pub(super) principal: Principal,
    /// Whether its caller is more than anybody who reaches the listener.
    pub(super) is_known: bool,
    /// Of the very token that let it in. None: it came without, or with an app key, which
    /// routing looks at itself.
    pub(super) withdrawal: Option<Withdrawal>,
}

impl Admitted {
    const fn anybody(is_known: bool) -> Self {
        Self { principal: Principal::anybody(), is_known, withdrawal: None }
    }

    const fn app(name: Option<Arc<str>>) -> Self {
        Self { principal: Principal { role: Role::App, name }, is_known: true, withdrawal: None }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Access {
    pub(crate) fn new(
        tokens: Option<TokenSet<Role>>,
        repository: Arc<Repository>,
        apps_need_keys: bool,
        refused: Refused,
    ) -> Self {
        Self { tokens, repository, apps_need_keys, refusals: Arc::new(Refusals::new(refused)) }
    }

    /// Which connections a listener takes: without tokens nobody is a stranger.
    pub(crate) const fn limits(&self) -> Limits {
        if self.tokens.is_some() { Limits::AUTHENTICATED } else { Limits::OPEN }
    }

    /// Who makes this call, if it may. `path` is the one that dispatches.
    pub(super) fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Admitted, Refusal> {
        let allowed = allowed(path);
        if allowed == Some(Allowed::Everybody) {
            return Ok(Admitted::anybody(false));
        }
        let for_apps = matches!(allowed, Some(Allowed::Roles([Role::App])));
        let Some(tokens) = &self.tokens else {
            // Apps have keys of their own, which the routing service asks for.
            return Ok(Admitted::anybody(true));
        };
        let presented = presented(headers)?;
        let Some(admitted) = presented.and_then(|presented| self.known(tokens, presented)) else {
            return match (for_apps && !self.has_app_keys(), presented) {
                (true, _) if self.apps_need_keys => Err(Refusal::NoAppKeys),
                (true, _) => Ok(Admitted::app(None)),
                (false, None) => Err(Refusal::Missing { app: for_apps }),
                (false, Some(_)) => Err(Refusal::Unknown { app: for_apps }),
            };
        };
        match allowed {
            Some(allowed) if allowed.role(admitted.principal.role) => Ok(admitted),
            Some(allowed) => Err(Refusal::Forbidden { role: admitted.principal.role, allowed }),
            None => Err(Refusal::NoSuchCall),
        }
    }

    /// Whether a page for people may be shown: they need a token once there are any. The
    /// refusal is answered after the delay.
    pub(crate) fn may_read(&self, headers: &HeaderMap, peer: IpAddr) -> Result<(), Delay> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let refusal = match presented(headers) {
            Err(refusal) => refusal,
            Ok(None) => Refusal::Missing { app: false },
            Ok(Some(presented)) => match self.known(tokens, presented).map(|known| known.principal.role) {
                None => Refusal::Unknown { app: false },
                Some(role) if PEOPLE.role(role) => return Ok(()),
                Some(role) => Refusal::Forbidden { role, allowed: PEOPLE },
            },
        };
        Err(self.refusals.count(&refusal, Some(peer)))
    }

    /// Both are always looked up, so that nobody's being known takes another time.
    fn known(&self, tokens: &TokenSet<Role>, presented: &[u8]) -> Option<Admitted> {
        let app = self.app(presented).map(|name| Admitted::app(Some(name)));
        let holder = tokens.holder_until(presented).map(|(Holder { role, name }, withdrawn)| Admitted {
            principal: Principal { role, name },
            is_known: true,
            withdrawal: Some(Box::pin(withdrawn)),
        });
        holder.or(app)
    }

    fn app(&self, presented: &[u8]) -> Option<Arc<str>> {
        let digest = <[u8; 32]>::from(Sha256::digest(presented));
        let state = self.repository.state();
        // Only digests are compared, so timing tells nothing of a key.
        let key = state.table.api_keys.iter().find(|known| known.secret_sha256 == digest)?;
        Some(key.name.as_ref().into())
    }

    fn has_app_keys(&self) -> bool {
        !self.repository.state().table.api_keys.is_empty()
    }
}

/// The token or key that a call comes with.
fn presented(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let one = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Refusal::Twice),
            (value, None) => Ok(value.map(http::HeaderValue::as_bytes)),
        }
    };
    let bearer = one(&AUTHORIZATION)?.and_then(|value| value.strip_prefix(b"Bearer "));
    let key = one(&API_KEY)?;
    Ok(bearer.or(key))
}
