//! How many connections a listener has, and how many of them are strangers': those on
//! which nobody was let in yet. Strangers have few places and little time, so that they
//! can't take the places of who is known.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

/// Connections of a listener: 10,000 agents, and room for apps, people, probes, and the
/// old connections of agents that come back. Each takes a file descriptor and some 50 KB.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Strangers' connections together. A client is a stranger for a few round trips only.
pub const STRANGERS_MAX: usize = 2_048;

/// Strangers' connections of one address, or of one /64 of IPv6. A quarter of the
/// handshakes that run at a time, so that one address alone can't hold them all. Agents
/// behind one address that all come back at once are let in so many at a time.
pub const STRANGERS_PER_PEER_MAX: usize = 128;

/// How long a stranger may stay one, from the end of the TLS handshake.
pub const STRANGER_LIFETIME: Duration = Duration::from_secs(10);

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections.
    pub connections: usize,
    /// None: nobody is a stranger, for nobody is asked who they are.
    pub strangers: Option<Strangers>,
}

/// Bounds of connections on which nobody was let in yet.
#[derive(Clone, Copy, Debug)]
pub struct Strangers {
    /// Of all peers together.
    pub connections: usize,
    /// Of one peer.
    pub per_peer: usize,
    /// After it, such a connection is closed.
    pub lifetime: Duration,
}

impl Limits {
    /// For a listener that lets everybody in.
    pub const OPEN: Self = Self { connections: CONNECTIONS_MAX, strangers: None };

    /// For a listener that asks for tokens. Whoever lets a caller in says so with
    /// [`Peer::admit`].
    pub const AUTHENTICATED: Self = Self {
        connections: CONNECTIONS_MAX,
        strangers: Some(Strangers {
            connections: STRANGERS_MAX,
            per_peer: STRANGERS_PER_PEER_MAX,
            lifetime: STRANGER_LIFETIME,
        }),
    };
}

/// Whoever has one IPv6 address has the other 2^64 of its network too.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The other end of a connection. Services find it in a request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    address: SocketAddr,
    /// Requests that outlive their connection don't hold its place.
    place: Weak<Place>,
}

impl Peer {
    /// Where it comes from.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Somebody who is known calls on this connection: from now on it may stay.
    pub fn admit(&self) {
        if let Some(place) = self.place.upgrade() {
            place.admit();
        }
    }
}

/// The places of one listener.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    strangers: usize,
    /// No more entries than strangers.
    strangers_by_peer: HashMap<IpAddr, usize>,
}

/// Why a connection is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error("the listener has {0} connections, and takes no more")]
    Full(usize),
    #[error("{0} connections wait for a valid token, and no more may")]
    Strangers(usize),
    #[error("{0} connections of this address wait for a valid token, and no more may")]
    Peer(usize),
}

/// One connection's place. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    network: IpAddr,
    is_stranger: AtomicBool,
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    pub(crate) fn take(self: &Arc<Self>, address: SocketAddr) -> Result<Arc<Place>, NoPlace> {
        let network = network(address.ip());
        let mut taken = self.taken.lock();
        if taken.all >= self.limits.connections {
            return Err(NoPlace::Full(self.limits.connections));
        }
        if let Some(limits) = self.limits.strangers {
            if taken.strangers >= limits.connections {
                return Err(NoPlace::Strangers(limits.connections));
            }
            let of_peer = taken.strangers_by_peer.get(&network).copied().unwrap_or_default();
            if of_peer >= limits.per_peer {
                return Err(NoPlace::Peer(limits.per_peer));
            }
            taken.strangers += 1;
            taken.strangers_by_peer.insert(network, of_peer + 1);
        }
        taken.all += 1;
        let is_stranger = AtomicBool::new(self.limits.strangers.is_some());
        Ok(Arc::new(Place { places: Arc::clone(self), network, is_stranger }))
    }
}

impl Place {
    pub(crate) fn peer(self: &Arc<Self>, address: SocketAddr) -> Peer {
        Peer { address, place: Arc::downgrade(self) }
    }

    /// How long it may stay. None: for ever, or somebody was let in.
    pub(crate) fn lifetime(&self) -> Option<Duration> {
        self.places.limits.strangers.filter(|_| self.is_stranger()).map(|limits| limits.lifetime)
    }

    pub(crate) fn is_stranger(&self) -> bool {
        self.is_stranger.load(Ordering::Relaxed)
    }

    fn admit(&self) {
        if self.is_stranger() && self.is_stranger.swap(false, Ordering::Relaxed) {
            self.places.taken.lock().no_stranger(self.network);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let was_stranger = self.is_stranger();
        let mut taken = self.places.taken.lock();
        taken.all -= 1;
        if was_stranger {
            taken.no_stranger(self.network);
        }
    }
}

impl Taken {
    fn no_stranger(&mut self, network: IpAddr) {
        self.strangers -= 1;
        if let Some(of_peer) = self.strangers_by_peer.get_mut(&network) {
            *of_peer -= 1;
            if *of_peer == 0 {
                self.strangers_by_peer.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 1)
    }

    fn places(connections: usize, strangers: usize, per_peer: usize) -> Arc<Places> {
        let strangers = Strangers { connections: strangers, per_peer, lifetime: STRANGER_LIFETIME };
        Places::new(Limits { connections, strangers: Some(strangers) })
    }

    #[test]
    fn one_address_has_few_strangers_and_any_number_of_those_who_are_known() {
        let places = places(100, 50, 2);
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        let mut known = Vec::new();
        for _ in 0..10 {
            let place = places.take(one).unwrap();
            place.peer(one).admit();
            place.peer(one).admit();
            known.push(place);
        }
        let _first = places.take(one).unwrap();
        let second = places.take(one).unwrap();
        assert_eq!(places.take(one).unwrap_err(), NoPlace::Peer(2));
        places.take(other).unwrap();
        drop(second);
        places.take(one).unwrap();
    }

    #[test]
    fn strangers_from_everywhere_leave_room_for_nobody_but_themselves() {
        let places = places(6, 4, 4);
        let known: Vec<_> = (0..2)
            .map(|_| {
                let place = places.take(address("10.0.0.1")).unwrap();
                place.admit();
                place
            })
            .collect();
        let strangers: Vec<_> =
            (0..4_u8).map(|last| places.take(SocketAddr::from(([10, 0, 1, last], 1))).unwrap()).collect();
        assert_eq!(places.take(address("10.0.0.9")).unwrap_err(), NoPlace::Full(6));
        drop(known);
        assert_eq!(places.take(address("10.0.0.9")).unwrap_err(), NoPlace::Strangers(4));
        drop(strangers);
        let taken = places.taken.lock();
        assert_eq!((taken.all, taken.strangers, taken.strangers_by_peer.len()), (0, 0, 0));
    }

    #[test]
    fn nobody_is_a_stranger_where_nobody_is_asked() {
        let places = Places::new(Limits { connections: 300, strangers: None });
        let all: Vec<_> = (0..300).map(|_| places.take(address("10.0.0.1")).unwrap()).collect();
        assert!(all.iter().all(|place| place.lifetime().is_none()));
        assert_eq!(places.take(address("10.0.0.1")).unwrap_err(), NoPlace::Full(300));
    }

    #[test]
    fn addresses_of_one_network_are_one_peer() {
        let places = places(100, 50, 1);
        let _one = places.take(address("2001:db8::1")).unwrap();
        assert_eq!(places.take(address("2001:db8::ffff:2")).unwrap_err(), NoPlace::Peer(1));
        let _mapped = places.take(address("::ffff:10.0.0.2")).unwrap();
        assert_eq!(places.take(address("10.0.0.2")).unwrap_err(), NoPlace::Peer(1));
    }
}
