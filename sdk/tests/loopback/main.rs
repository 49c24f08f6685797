//! The client against a routing service on loopback.

mod calls;
mod fake;
mod redirect;
mod tls;
