//! Which addresses a provider may have. The control plane checks the text of a base
//! URL here, the agent the address it is connected to. Resolves no names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tonic::codegen::http::Uri;

/// Longest base URL; what proxies and servers commonly take at least.
const MAX_BYTES: usize = 2_048;

/// Names that clouds give to their metadata servers.
const METADATA_NAMES: [&str; 3] = ["metadata.google.internal", "metadata.goog", "instance-data"];

/// Metadata servers outside of the link-local ranges: AWS, Google, Alibaba, Azure,
/// Oracle.
const METADATA_ADDRESSES: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Why an address may not be a provider's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefused {
    /// Reaches the machine's own identity and credentials.
    #[error("{0} is a link-local or metadata address, which a provider never has")]
    Metadata(IpAddr),
    /// Not an address of one machine.
    #[error("{0} is a multicast, broadcast or unspecified address, which a provider never has")]
    NotAHost(IpAddr),
    /// Needs the operator's consent.
    #[error("{0} is on loopback or a private network; set allow_private_network if the provider is there")]
    Private(IpAddr),
}

/// Why a base URL is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefused {
    /// There is none.
    #[error("is required, as in https://api.openai.com/v1")]
    Missing,
    /// No URL at all.
    #[error("is not a URL such as https://api.openai.com/v1: {0}")]
    Malformed(&'static str),
    /// Neither https nor permitted http.
    #[error("must start with https://; http:// needs allow_private_network")]
    Scheme,
    /// Something that a base URL does not have.
    #[error("must not hold {0}")]
    Holds(&'static str),
    /// An IPv4 address that could be read in several ways.
    #[error("host {0:?} is an IPv4 address in an unusual spelling; write four decimal numbers")]
    Spelling(String),
    /// A name of this machine or of a metadata server.
    #[error("host {0:?} is {1}")]
    Name(String, &'static str),
    /// The host is an address that may not be.
    #[error("host {0}")]
    Address(#[from] AddressRefused),
}

/// Whether a provider may be at `ip`. IPv4 addresses inside of IPv6 ones (mapped,
/// NAT64, 6to4, Teredo) count as what they lead to.
///
/// # Errors
/// If it may not.
pub fn check_address(ip: IpAddr, allow_private: bool) -> Result<(), AddressRefused> {
    if METADATA_ADDRESSES.contains(&ip) {
        return Err(AddressRefused::Metadata(ip));
    }
    let class = match ip {
        IpAddr::V4(v4) => class_of_v4(v4),
        IpAddr::V6(v6) => class_of_v6(v6),
    };
    match class {
        Class::Metadata => Err(AddressRefused::Metadata(ip)),
        Class::NotAHost => Err(AddressRefused::NotAHost(ip)),
        Class::Private if !allow_private => Err(AddressRefused::Private(ip)),
        Class::Private | Class::Public => Ok(()),
    }
}

/// Worst last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Public,
    Private,
    NotAHost,
    Metadata,
}

fn class_of_v4(ip: Ipv4Addr) -> Class {
    if METADATA_ADDRESSES.contains(&IpAddr::V4(ip)) || ip.is_link_local() {
        return Class::Metadata;
    }
    match ip.octets() {
        [0 | 224..=255, ..] => Class::NotAHost,
        // Among them carrier-grade NAT, protocol assignments, benchmarks, documentation.
        [127 | 10, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [192, 0, 0 | 2, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Class::Private,
        _ => Class::Public,
    }
}

fn class_of_v6(ip: Ipv6Addr) -> Class {
    let own = match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] | [0xff00..=0xffff, ..] => Class::NotAHost,
        [0xfe80..=0xfebf, ..] => Class::Metadata,
        [0, 0, 0, 0, 0, 0, 0, 1] => return Class::Private,
        // Unique local, the older site local, documentation, local NAT64.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x2001, 0xdb8, ..] | [0x64, 0xff9b, 1, ..] => {
            Class::Private
        }
        _ => Class::Public,
    };
    embedded(ip).into_iter().flatten().map(class_of_v4).fold(own, Class::max)
}

/// The IPv4 addresses that packets to `ip` may end at.
fn embedded(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        // Mapped and compatible; the unspecified address is no IPv4 address.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] if (high, low) != (0, 0) => [Some(join(high, low)), None],
        // Translated, NAT64, 6to4.
        [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, _, _, _, _, high, low]
        | [0x2002, high, low, ..] => [Some(join(high, low)), None],
        // Teredo: server, and the client with all bits flipped.
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            [Some(join(high, low)), Some(join(!client_high, !client_low))]
        }
        _ => [None, None],
    }
}

/// Checks the text of a base URL and gives it without trailing slashes.
///
/// # Errors
/// If it is not a URL that requests may be sent to.
pub fn check_base_url(text: &str, allow_private: bool) -> Result<&str, UrlRefused> {
    if text.is_empty() {
        return Err(UrlRefused::Missing);
    }
    if text.len() > MAX_BYTES {
        return Err(UrlRefused::Malformed("longer than 2,048 bytes"));
    }
    if text.contains('#') {
        return Err(UrlRefused::Holds("a fragment (#...)"));
    }
    let uri: Uri = text.parse().map_err(|_| UrlRefused::Malformed("it can't be parsed"))?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if allow_private => {}
        _ => return Err(UrlRefused::Scheme),
    }
    let authority = uri.authority().ok_or(UrlRefused::Malformed("it has no host"))?;
    if authority.as_str().contains('@') {
        return Err(UrlRefused::Holds("user name or password; use credential"));
    }
    if uri.query().is_some() {
        return Err(UrlRefused::Holds("a query (?...)"));
    }
    let host = authority.host();
    check_port(&authority.as_str()[host.len()..])?;
    check_host(host, allow_private)?;
    Ok(text.trim_end_matches('/'))
}

/// `rest` is what follows the host: nothing, or a colon and the port.
fn check_port(rest: &str) -> Result<(), UrlRefused> {
    const WRONG: UrlRefused = UrlRefused::Malformed("its port must be 1 to 65535");
    let Some(port) = rest.strip_prefix(':') else {
        return if rest.is_empty() { Ok(()) } else { Err(WRONG) };
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(1..) if digits => Ok(()),
        _ => Err(WRONG),
    }
}

fn check_host(host: &str, allow_private: bool) -> Result<(), UrlRefused> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let ip: Ipv6Addr =
            inner.parse().map_err(|_| UrlRefused::Malformed("its IPv6 address can't be parsed"))?;
        return Ok(check_address(ip.into(), allow_private)?);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if is_numeric(name) {
        // Resolvers also read 2130706433, 0177.0.0.1, 0x7f.1 and 127.1.
        let ip: Ipv4Addr = host.parse().map_err(|_| UrlRefused::Spelling(host.to_owned()))?;
        return Ok(check_address(ip.into(), allow_private)?);
    }
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() > 253 || !name.split('.').all(label_ok) {
        return Err(UrlRefused::Malformed("its host is not a DNS name or an address"));
    }
    let lower = name.to_ascii_lowercase();
    if METADATA_NAMES.contains(&lower.as_str()) {
        return Err(UrlRefused::Name(host.to_owned(), "a metadata server, which a provider never is"));
    }
    if !allow_private && (lower == "localhost" || lower.ends_with(".localhost")) {
        return Err(UrlRefused::Name(
            host.to_owned(),
            "on loopback; set allow_private_network if the provider is there",
        ));
    }
    Ok(())
}

/// Whether resolvers would read the name as an IPv4 address in some spelling: its
/// last label is a number.
fn is_numeric(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    hex.map_or_else(
        || !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
        |digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
    )
}

#[cfg(test)]
mod tests;
