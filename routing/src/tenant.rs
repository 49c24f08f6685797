//! Whose request it is, as far as fairness between callers goes.

/// A key for one tenant: a hash of its name, never the name itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenant(u64);

impl Tenant {
    /// No tenants are configured, or the caller is not known.
    pub const NONE: Self = Self(0);

    /// The tenant whose name has this hash.
    pub const fn from_hash(hash: u64) -> Self {
        // 0 has a meaning of its own; two names that share a hash share their counts.
        Self(if hash == 0 { 1 } else { hash })
    }
}
