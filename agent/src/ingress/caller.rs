//! Who calls, and what they may use. HTTP and gRPC share it.

use std::sync::Arc;

use super::error::LocalError;
use crate::{
    shared::Shared,
    snapshot::{Goal, Snapshot},
};

/// A caller whose key was checked, with the table it will be served by.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) snapshot: Arc<Snapshot>,
    key: Option<usize>,
    tenant: Option<Arc<str>>,
}

/// A caller that named a model it may use.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) goal: Goal,
    pub(crate) tenant: Option<Arc<str>>,
}

impl Caller {
    /// Checks the key, where keys are configured.
    pub(crate) fn authenticate(shared: &Shared, presented: Option<&[u8]>) -> Result<Self, LocalError> {
        let snapshot = shared.snapshot().ok_or_else(LocalError::not_ready)?;
        if !snapshot.needs_key() && shared.apps_need_keys {
            return Err(LocalError::no_keys());
        }
        if !snapshot.needs_key() {
            return Ok(Self { snapshot, key: None, tenant: None });
        }
        let presented = presented.ok_or_else(|| LocalError::key(false))?;
        let (key, tenant) = snapshot.key(presented).ok_or_else(|| LocalError::key(true))?;
        Ok(Self { snapshot, key: Some(key), tenant: Some(tenant) })
    }

    /// Whether the caller's key allows `model`.
    pub(crate) fn allows(&self, model: &str) -> bool {
        self.key.is_none_or(|key| self.snapshot.table().api_keys[key].allows(model))
    }

    /// Whether keys are in use, and so pins are by permission.
    pub(crate) const fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The name of the key.
    pub(crate) fn tenant(self) -> Option<Arc<str>> {
        self.tenant
    }

    /// The caller that had this key, under the table of now. None: there is no such key
    /// any more, or only now there are keys.
    pub(crate) fn again(snapshot: Arc<Snapshot>, tenant: Option<&str>) -> Option<Self> {
        let key = match tenant {
            Some(name) => Some(snapshot.table().api_keys.iter().position(|key| *key.name == *name)?),
            None if snapshot.needs_key() => return None,
            None => None,
        };
        Some(Self { snapshot, key, tenant: tenant.map(Arc::from) })
    }

    /// What `model` stands for, if it is known and allowed, in this order.
    pub(crate) fn may_use(self, model: &str) -> Result<Admitted, LocalError> {
        let goal = self.snapshot.goal(model).ok_or_else(|| LocalError::unknown_model(model))?;
        if !self.allows(model) {
            return Err(LocalError::forbidden_model(model));
        }
        Ok(Admitted { snapshot: self.snapshot, goal, tenant: self.tenant })
    }
}
