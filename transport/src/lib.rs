//! What all listeners and clients of Trunkline share: TLS from files that may be
//! replaced, bearer tokens from files, places for connections, and the rule for listening beyond
//! loopback.
//! Nothing here knows a service, and no secret is in an error, a log or `Debug`.

pub mod bearer;
pub mod client;
pub mod exposure;
mod file;
pub mod incoming;
pub mod places;
pub mod tls;

pub use file::Unreadable;
