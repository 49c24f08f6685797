//! Who calls, once that is known.

use std::sync::Arc;

use super::{refusal, roles::Role};

/// Who makes a call. Services find it in the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(super) role: Role,
    /// The name beside its token or key. An agent's is its id.
    pub(super) name: Option<Arc<str>>,
}

impl Principal {
    /// Everybody, while authentication is off.
    pub(crate) const fn anybody() -> Self {
        Self { role: Role::Admin, name: None }
    }

    /// Who makes this call.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        // The layer puts one on every call that it lets through; without the layer
        // there is no authentication.
        request.extensions().get().cloned().unwrap_or_else(Self::anybody)
    }

    /// How the audit log names it: `admin`, or `operator:bob` with a named token.
    pub(crate) fn audit_name(&self) -> Arc<str> {
        match &self.name {
            Some(name) => format!("{}:{name}", self.role).into(),
            None => self.role.name().into(),
        }
    }

    /// Refuses an agent that says it is another than the one its token is for.
    pub(crate) fn check_agent_id(&self, agent_id: &str) -> Result<(), tonic::Status> {
        match self.agent_id() {
            Some(own) if own != agent_id => Err(refusal::other_agent(own, agent_id)),
            Some(_) | None => Ok(()),
        }
    }

    /// The only agent it may be. None: any.
    pub(crate) fn agent_id(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| self.role == Role::Agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_log_names_role_and_person() {
        let named = |role, name: Option<&str>| Principal { role, name: name.map(Arc::from) };
        assert_eq!(&*named(Role::Admin, None).audit_name(), "admin");
        assert_eq!(&*named(Role::Operator, Some("bob")).audit_name(), "operator:bob");
        assert_eq!(named(Role::Agent, Some("a-1")).agent_id(), Some("a-1"));
        assert_eq!(named(Role::Agent, None).agent_id(), None);
        let status = named(Role::Agent, Some("a-1")).check_agent_id("a-2").unwrap_err();
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert!(status.message().contains("\"a-1\"") && status.message().contains("\"a-2\""), "{status}");
        named(Role::Agent, Some("a-1")).check_agent_id("a-1").unwrap();
        named(Role::Agent, None).check_agent_id("a-2").unwrap();
        assert_eq!(named(Role::Admin, Some("alice")).agent_id(), None);
    }
}
