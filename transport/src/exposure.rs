//! Who may reach a listener.

use std::net::SocketAddr;

/// How a listener is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// It speaks TLS only.
    pub tls: bool,
    /// It wants to know who calls.
    pub authenticated: bool,
    /// The operator accepts that it is not.
    pub insecure: bool,
}

/// A listener that anybody could use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {role} listener {address} is reachable beyond this machine without {missing}: \
     give {remedy}, listen on a loopback address, or give --insecure to accept that anybody who reaches it may use it"
)]
pub struct Exposed {
    role: &'static str,
    address: SocketAddr,
    missing: &'static str,
    remedy: &'static str,
}

/// Refuses a listener beyond loopback that lacks TLS or authentication. `remedy` names
/// the flags that would give them.
///
/// # Errors
/// If it may not listen there.
pub fn check(
    role: &'static str,
    address: SocketAddr,
    protection: Protection,
    remedy: &'static str,
) -> Result<(), Exposed> {
    let missing = match protection {
        _ if address.ip().is_loopback() => return Ok(()),
        Protection { insecure: true, .. } | Protection { tls: true, authenticated: true, .. } => {
            return Ok(());
        }
        Protection { tls: false, authenticated: false, .. } => "TLS and authentication",
        Protection { tls: false, .. } => "TLS",
        Protection { authenticated: false, .. } => "authentication",
    };
    Err(Exposed { role, address, missing, remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_both_are_needed() {
        let check = |address: &str, tls, authenticated, insecure| {
            let protection = Protection { tls, authenticated, insecure };
            check("gRPC", address.parse().unwrap(), protection, "--tls-cert").is_ok()
        };
        assert!(check("127.0.0.1:1", false, false, false));
        assert!(check("[::1]:1", false, false, false));
        assert!(!check("0.0.0.0:1", false, false, false));
        assert!(!check("0.0.0.0:1", true, false, false));
        assert!(!check("10.1.2.3:1", false, true, false));
        assert!(check("0.0.0.0:1", true, true, false));
        assert!(check("0.0.0.0:1", false, false, true));
    }
}
