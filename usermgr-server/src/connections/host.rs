//! Whether a request over HTTP/1 says which host it is for (RFC 9112, 3.2).

use std::net::Ipv6Addr;

use http::{HeaderMap, Version, header};

/// Whether there is exactly one host, and it is one. Only HTTP/1.0 may leave it out.
///
/// # Security
/// A proxy in front may take another of two hosts than we do.
pub(super) fn is_well_formed(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(only), None) => only.to_str().is_ok_and(is_host),
        (Some(_), Some(_)) => false,
    }
}

/// `host [":" port]` (RFC 3986, 3.2.2).
fn is_host(text: &str) -> bool {
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let is_end = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return is_end && address.parse::<Ipv6Addr>().is_ok();
    }
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&b);
    !name.is_empty() && name.len() <= 255 && name.bytes().all(is_name) && is_port(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(version: Version, hosts: &[&str]) -> bool {
        let hosts =
            hosts.iter().map(|host| (header::HOST, http::HeaderValue::from_bytes(host.as_bytes()).unwrap()));
        is_well_formed(version, &hosts.collect())
    }

    #[test]
    fn one_host_is_said_and_it_is_one() {
        for host in [
            "x",
            "id.example.org",
            "id.example.org:8443",
            "127.0.0.1:8000",
            "[::1]",
            "[::1]:8000",
            "a_b",
            "x:",
            "x%20y",
        ] {
            assert!(fits(Version::HTTP_11, &[host]), "{host}");
            assert!(fits(Version::HTTP_10, &[host]), "{host}");
        }
        assert!(fits(Version::HTTP_10, &[]));
        assert!(!fits(Version::HTTP_11, &[]));
        for hosts in [&["x", "x"][..], &["x", "y"]] {
            assert!(!fits(Version::HTTP_11, hosts) && !fits(Version::HTTP_10, hosts));
        }
        for host in [
            "", " ", "a b", "a/b", "http://x", "ana@x", "x:y", "x:80:80", "x:999999", "[::1", "::1", "[x]",
            "[::1]x", "x?y", "x#y", "x\\y", "é", "x,y z", ":80", "x\ty", "<x>", "\"x\"",
        ] {
            assert!(!fits(Version::HTTP_11, &[host]), "{host}");
        }
    }
}
