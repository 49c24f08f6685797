//! Whose request it is, as far as fairness between callers goes.

/// A key for one tenant: a hash of its name, never the name itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenant(u64);

impl Tenant {
    /// No tenants are configured, or the caller is not known.
    pub const NONE: Self = Self(0);

    /// The tenant of that name. None: no tenant.
    pub fn of(name: Option<&str>) -> Self {
        // FNV-1a: short, and the same everywhere. Names are an operator's, so nobody
        // chooses them to collide.
        name.map_or(Self::NONE, |name| {
            Self::from_hash(name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            }))
        })
    }

    /// The hash. 0: no tenant.
    pub const fn hash(self) -> u64 {
        self.0
    }

    /// The tenant whose name has this hash.
    pub const fn from_hash(hash: u64) -> Self {
        // 0 has a meaning of its own; two names that share a hash share their counts.
        Self(if hash == 0 { 1 } else { hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_told_apart_by_name_and_none_is_none() {
        assert_eq!(Tenant::of(None), Tenant::NONE);
        assert_ne!(Tenant::of(Some("")), Tenant::NONE);
        assert_ne!(Tenant::of(Some("red")), Tenant::of(Some("blue")));
        // The published test vector of FNV-1a.
        assert_eq!(Tenant::of(Some("foobar")), Tenant::from_hash(0x8594_4171_f739_67e8));
    }
}
