//! Tells who calls, and whether it may.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};
use trunkline_transport::bearer::{Holder, TokenSet};

use super::{
    principal::Principal,
    refusal::Refusal,
    roles::{Allowed, Role, allowed},
};
use crate::repository::Repository;

static API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What calls are checked by.
#[derive(Clone)]
pub(crate) struct Access {
    /// None: authentication is off.
    pub(super) tokens: Option<TokenSet<Role>>,
    repository: Arc<Repository>,
    /// Whether apps are turned away while no keys are configured.
    apps_need_keys: bool,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Access {
    pub(crate) const fn new(
        tokens: Option<TokenSet<Role>>,
        repository: Arc<Repository>,
        apps_need_keys: bool,
    ) -> Self {
        Self { tokens, repository, apps_need_keys }
    }

    /// Who makes this call, if it may. `path` is the one that dispatches.
    pub(crate) fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Principal, Refusal> {
        let allowed = allowed(path);
        if allowed == Some(Allowed::Everybody) {
            return Ok(Principal::anybody());
        }
        let for_apps = matches!(allowed, Some(Allowed::Roles([Role::App])));
        let Some(tokens) = &self.tokens else {
            // Apps have keys of their own, which the routing service asks for.
            return Ok(Principal::anybody());
        };
        let presented = presented(headers)?;
        let Some(principal) = presented.and_then(|presented| self.principal(tokens, presented)) else {
            return match (for_apps && !self.has_app_keys(), presented) {
                (true, _) if self.apps_need_keys => Err(Refusal::NoAppKeys),
                (true, _) => Ok(Principal { role: Role::App, name: None }),
                (false, None) => Err(Refusal::Missing { app: for_apps }),
                (false, Some(_)) => Err(Refusal::Unknown { app: for_apps }),
            };
        };
        match allowed {
            Some(allowed) if allowed.role(principal.role) => Ok(principal),
            Some(allowed) => Err(Refusal::Forbidden { role: principal.role, allowed }),
            None => Err(Refusal::NoSuchCall),
        }
    }

    /// Whether a page for people may be shown: they need a token once there are any.
    pub(crate) fn may_read(&self, headers: &HeaderMap) -> bool {
        let Some(tokens) = &self.tokens else { return true };
        let presented = presented(headers).ok().flatten();
        let principal = presented.and_then(|presented| self.principal(tokens, presented));
        principal.is_some_and(|one| matches!(one.role, Role::Viewer | Role::Operator | Role::Admin))
    }

    /// Both are always looked up, so that nobody's being known takes another time.
    fn principal(&self, tokens: &TokenSet<Role>, presented: &[u8]) -> Option<Principal> {
        let app = self.app(presented);
        let holder = tokens.holder(presented).map(|Holder { role, name }| Principal { role, name });
        holder.or(app)
    }

    fn app(&self, presented: &[u8]) -> Option<Principal> {
        let digest = <[u8; 32]>::from(Sha256::digest(presented));
        let state = self.repository.state();
        // Only digests are compared, so timing tells nothing of a key.
        let key = state.table.api_keys.iter().find(|known| known.secret_sha256 == digest)?;
        Some(Principal { role: Role::App, name: Some(key.name.as_ref().into()) })
    }

    fn has_app_keys(&self) -> bool {
        !self.repository.state().table.api_keys.is_empty()
    }
}

/// The token or key that a call comes with.
pub(super) fn presented(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
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
