//! Who may call what: tokens and app keys name a principal, one table says what its
//! role may call, and a layer before all services asks both once per call.
//!
//! Without any token file authentication is off: everybody is an admin, and listeners
//! stay on loopback. The rules are documented in `docs/guides/security.md`.

mod admit;
mod guard;
mod limiter;
mod principal;
mod refusal;
mod refusals;
mod roles;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    admit::Access,
    guard::GuardLayer,
    principal::Principal,
    refusals::{Delay, Refused},
    roles::Role,
};
