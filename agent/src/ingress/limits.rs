//! How long a client may take. Each limit frees what a stuck client would hold: a
//! connection, a target's slot, the drain.

use std::time::Duration;

/// The times of one listener. Tests shorten them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From a connection's start, or the first byte of a later head, to the head's end.
    pub(crate) head: Duration,
    /// Between requests. Clients' pools commonly keep connections for 60 seconds or less.
    pub(crate) idle: Duration,
    /// Without a byte of a request's body; after it, the body must keep a rate too.
    pub(crate) body: Duration,
    /// Without a byte of an answer being taken.
    pub(crate) write: Duration,
    /// Until a silent HTTP/2 client is pinged: one that is gone would hold its streams.
    pub(crate) ping: Duration,
    /// For its answer to that.
    pub(crate) pong: Duration,
    /// For the first bytes of a connection, once the agent drains.
    pub(crate) first_bytes_draining: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(10),
            write: Duration::from_secs(30),
            ping: Duration::from_secs(30),
            pong: Duration::from_secs(20),
            first_bytes_draining: Duration::from_secs(1),
        }
    }
}
