//! What all listeners and clients of Trunkline share: TLS from files that may be
//! replaced, bearer tokens from files, and the rule for listening beyond loopback.
//! Nothing here knows a service.

pub mod exposure;
