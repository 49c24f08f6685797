//! Connections kept alive between requests, one pool per origin and worker thread. The
//! newest is taken first, so that those not needed grow old and go.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::Instant};

/// Idle connections of one origin in one worker: what a burst of 64 callers needs next time.
pub(super) const IDLE_MAX: usize = 64;
/// Shorter than the keep-alive limit of common servers (60 s and more), so that we close first.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// After that a connection is replaced, so that changes in DNS take effect.
pub(super) const AGE_MAX: Duration = Duration::from_secs(600);

/// One upstream connection. Closes when dropped.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
    born: Instant,
}

impl Connection {
    pub(super) fn new(sender: SendRequest<Full<Bytes>>, task: AbortHandle) -> Self {
        Self { sender, task, born: Instant::now() }
    }
}

impl Drop for Connection {
    /// The task owns the socket: without it the provider sees the close at once, whatever
    /// phase the exchange is in.
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// Oldest first.
#[derive(Debug, Default)]
struct Shelf {
    connections: Vec<Idle>,
    /// Nothing is kept any more.
    closed: bool,
}

/// The connections of one origin, and where it was last reached.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Shelf>,
    /// What the name last resolved to; used when the resolver fails.
    last_good: Mutex<Option<IpAddr>>,
}

impl Pool {
    /// The connection used last that can take a request now.
    pub(super) fn checkout(&self) -> Option<Connection> {
        let now = Instant::now();
        let idle = &mut self.idle.lock().connections;
        for position in (0..idle.len()).rev() {
            if !idle[position].is_usable(now) {
                idle.remove(position);
            } else if idle[position].connection.sender.is_ready() {
                return Some(idle.remove(position).connection);
            }
            // One whose last exchange is not quite over: its turn comes later.
        }
        None
    }

    /// Takes back a connection whose exchange is over.
    pub(super) fn give_back(&self, connection: Connection) {
        let now = Instant::now();
        let returned = Idle { connection, since: now };
        if !returned.is_usable(now) {
            return;
        }
        let mut kept = self.idle.lock();
        if kept.closed {
            return;
        }
        let idle = &mut kept.connections;
        let stale = idle.iter().take_while(|one| !one.is_usable(now)).count();
        idle.drain(..stale);
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push(returned);
    }

    pub(super) fn last_good(&self) -> Option<IpAddr> {
        *self.last_good.lock()
    }

    pub(super) fn set_last_good(&self, address: IpAddr) {
        *self.last_good.lock() = Some(address);
    }

    fn evict(&self) {
        let now = Instant::now();
        self.idle.lock().connections.retain(|kept| kept.is_usable(now));
    }

    fn close(&self) {
        let mut kept = self.idle.lock();
        kept.closed = true;
        kept.connections.clear();
    }
}

impl Idle {
    fn is_usable(&self, now: Instant) -> bool {
        !self.connection.sender.is_closed()
            && now.duration_since(self.since) < IDLE_TIMEOUT
            && now.duration_since(self.connection.born) < AGE_MAX
    }
}

/// The pools of one worker, by origin.
#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<HashMap<Arc<str>, Arc<Pool>>>);

impl Pools {
    /// The pool of `origin`; it outlives routing tables.
    pub(super) fn of(&self, origin: &Arc<str>) -> Arc<Pool> {
        let mut pools = self.0.lock();
        if let Some(pool) = pools.get(origin) {
            return Arc::clone(pool);
        }
        // A new origin is rare and the moment to forget those no longer configured.
        pools.retain(|_, pool| {
            pool.evict();
            Arc::strong_count(pool) > 1 || !pool.idle.lock().connections.is_empty()
        });
        let pool = Arc::<Pool>::default();
        pools.insert(Arc::clone(origin), Arc::clone(&pool));
        pool
    }

    /// Closes what has been idle for too long.
    pub(super) fn evict(&self) {
        self.0.lock().values().for_each(|pool| pool.evict());
    }

    /// Closes everything idle and keeps nothing that comes back.
    pub(super) fn close(&self) {
        self.0.lock().values().for_each(|pool| pool.close());
    }
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// A connection that is ready, and its other end.
    async fn connection() -> (Connection, DuplexStream) {
        let (near, far) = duplex(64);
        let (mut sender, running) = http1::handshake(TokioIo::new(near)).await.unwrap();
        let task = tokio::spawn(async move { running.await.unwrap() });
        sender.ready().await.unwrap();
        (Connection::new(sender, task.abort_handle()), far)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_kept_for_half_a_minute() {
        let pool = Pool::default();
        let (connection, _far) = connection().await;
        pool.give_back(connection);
        tokio::time::advance(Duration::from_millis(29_999)).await;
        pool.give_back(pool.checkout().expect("still fresh"));
        tokio::time::advance(IDLE_TIMEOUT).await;
        assert!(pool.checkout().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_in_constant_use_ends_with_its_age() {
        let pool = Pool::default();
        let (connection, _far) = connection().await;
        pool.give_back(connection);
        let mut uses = 0;
        while let Some(connection) = pool.checkout() {
            uses += 1;
            tokio::time::advance(Duration::from_secs(10)).await;
            pool.give_back(connection);
        }
        assert_eq!(uses, 60);
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_is_used_first_and_the_oldest_goes_when_there_are_too_many() {
        let pool = Pool::default();
        let mut far_ends = Vec::new();
        for _ in 0..=IDLE_MAX {
            let (connection, far) = connection().await;
            tokio::time::advance(Duration::from_millis(1)).await;
            pool.give_back(connection);
            far_ends.push(far);
        }
        let kept: Vec<_> = std::iter::from_fn(|| pool.checkout()).collect();
        assert_eq!(kept.len(), IDLE_MAX);
        assert!(kept.is_sorted_by(|one, next| one.born > next.born));
    }
}
