//! Addresses and URLs, good and bad.

use super::*;

fn class(ip: &str) -> &'static str {
    let ip = ip.parse().unwrap();
    match (check_address(ip, false), check_address(ip, true)) {
        (Ok(()), Ok(())) => "public",
        (Err(AddressRefused::Private(_)), Ok(())) => "private",
        (Err(_), Err(AddressRefused::Metadata(_))) => "metadata",
        (Err(_), Err(_)) => "never",
        (_, Ok(())) | (Ok(()), Err(_)) => "wrong: consent matters for private addresses only",
    }
}

#[test]
fn addresses_are_told_apart() {
    for ip in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
        assert_eq!(class(ip), "public", "{ip}");
    }
    for ip in [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "198.18.0.1",
        "::1",
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        "::ffff:127.0.0.1",
        "::ffff:10.1.2.3",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::1",
        "2002:c0a8:101::",
        "2001:0:102:304::f5ff:fffe",
    ] {
        assert_eq!(class(ip), "private", "{ip}");
    }
    for ip in [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "febf::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
    ] {
        assert_eq!(class(ip), "metadata", "{ip}");
    }
    for ip in ["0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "255.255.255.255", "ff02::1"] {
        assert_eq!(class(ip), "never", "{ip}");
    }
}

#[test]
fn good_urls_pass_without_their_trailing_slash() {
    for (url, expect) in [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("https://api.openai.com", "https://api.openai.com"),
        ("https://example.com:8443/a/b//", "https://example.com:8443/a/b"),
        ("https://1.1.1.1/", "https://1.1.1.1"),
        ("https://[2606:4700::1111]:443/v1", "https://[2606:4700::1111]:443/v1"),
    ] {
        assert_eq!(check_base_url(url, false), Ok(expect), "{url}");
    }
    for url in ["http://localhost:11434/v1", "http://127.0.0.1:1", "https://10.0.0.1/v1"] {
        assert_eq!(check_base_url(url, true), Ok(url), "{url}");
    }
}

#[test]
fn bad_urls_are_refused_with_the_reason() {
    for (url, allow_private, expect) in [
        ("", false, "is required, as in https://api.openai.com/v1"),
        ("http://api.openai.com", false, "must start with https://; http:// needs allow_private_network"),
        ("ftp://x", true, "must start with https://; http:// needs allow_private_network"),
        ("/v1", true, "must start with https://; http:// needs allow_private_network"),
        ("https://", true, "is not a URL such as https://api.openai.com/v1: it can't be parsed"),
        ("https://a b/", true, "is not a URL such as https://api.openai.com/v1: it can't be parsed"),
        ("https://me:secret@x.com", true, "must not hold user name or password; use credential"),
        ("https://x.com/v1?key=1", true, "must not hold a query (?...)"),
        ("https://x.com/v1#a", true, "must not hold a fragment (#...)"),
        (
            "https://x.com:0/",
            true,
            "is not a URL such as https://api.openai.com/v1: its port must be 1 to 65535",
        ),
        (
            "https://localhost",
            false,
            "host \"localhost\" is on loopback; set allow_private_network if the provider is there",
        ),
        (
            "https://a.LocalHost.",
            false,
            "host \"a.LocalHost.\" is on loopback; set allow_private_network if the provider is there",
        ),
        (
            "https://127.0.0.1",
            false,
            "host 127.0.0.1 is on loopback or a private network; set allow_private_network if the provider is there",
        ),
        (
            "http://169.254.169.254",
            true,
            "host 169.254.169.254 is a link-local or metadata address, which a provider never has",
        ),
        (
            "http://metadata.google.internal/",
            true,
            "host \"metadata.google.internal\" is a metadata server, which a provider never is",
        ),
        (
            "https://2130706433/",
            true,
            "host \"2130706433\" is an IPv4 address in an unusual spelling; write four decimal numbers",
        ),
        (
            "https://0177.0.0.1/",
            true,
            "host \"0177.0.0.1\" is an IPv4 address in an unusual spelling; write four decimal numbers",
        ),
        (
            "https://0x7f.0.0.1/",
            true,
            "host \"0x7f.0.0.1\" is an IPv4 address in an unusual spelling; write four decimal numbers",
        ),
        (
            "https://127.1/",
            true,
            "host \"127.1\" is an IPv4 address in an unusual spelling; write four decimal numbers",
        ),
        (
            "https://0x7f000001/",
            true,
            "host \"0x7f000001\" is an IPv4 address in an unusual spelling; write four decimal numbers",
        ),
        (
            "https://127.0.0.1./",
            true,
            "host \"127.0.0.1.\" is an IPv4 address in an unusual spelling; write four decimal numbers",
        ),
    ] {
        let refused = check_base_url(url, allow_private).unwrap_err().to_string();
        assert_eq!(refused, expect, "{url}");
    }
    for url in
        ["https://x.com:99999/", "https://x.com:/", "https://x..com", "https://[::1", "https://ex%61mple.com"]
    {
        assert!(check_base_url(url, true).is_err(), "{url}");
    }
}
