//! The other end of a request: its address (the peer's, unless a trusted proxy says otherwise), agent and request id.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{self, HeaderName};
use http::request::Parts;
use ipnet::IpNet;
use usermgr_core::ClientContext;

use super::request_id;

/// The other end of the connection. A host that mounts the service puts it among the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a host makes it of the address of a connection")]
pub struct PeerAddr(pub SocketAddr);

/// That a connection is one over the limits of its listener: it is for health checks alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OverLimit;

/// That a request over HTTP/1 does not say which host it is for, or not well: it is answered 400 (RFC 9112, 3.2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct MalformedHost;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header in which a trusted proxy writes whom it speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: 203.0.113.7, 10.0.0.2`, as most proxies write it.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=203.0.113.7;proto=https, for=10.0.0.2` (RFC 7239).
    Forwarded,
}

impl ForwardedHeader {
    const fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => X_FORWARDED_FOR,
            Self::Forwarded => header::FORWARDED,
        }
    }
}

/// A text that names neither header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it takes x-forwarded-for or forwarded")]
#[non_exhaustive]
pub struct InvalidForwardedHeader;

impl std::str::FromStr for ForwardedHeader {
    type Err = InvalidForwardedHeader;

    fn from_str(text: &str) -> Result<Self, InvalidForwardedHeader> {
        [Self::XForwardedFor, Self::Forwarded]
            .into_iter()
            .find(|header| text.eq_ignore_ascii_case(header.name().as_str()))
            .ok_or(InvalidForwardedHeader)
    }
}

/// What the outside knows of who sent a request, for calls that a host makes itself: the address of the [`PeerAddr`] (with
/// the feature `axum` also of the `ConnectInfo`), or what a trusted proxy says of it in `X-Forwarded-For`, the `User-Agent`,
/// and the `X-Request-Id` (else the `X-Correlation-Id`), or a new one. For proxies that write `Forwarded`: [`client_context_by`].
///
/// ```
/// use http::Request;
/// use usermgr_server::{PeerAddr, client_context};
///
/// let mut request = Request::get("/").header("x-forwarded-for", "203.0.113.7").body(())?;
/// request.extensions_mut().insert(PeerAddr("10.0.0.2:40000".parse()?));
/// let (parts, ()) = request.into_parts();
/// let proxies = ["10.0.0.0/8".parse()?];
/// assert_eq!(client_context(&parts, &proxies).ip, Some([203, 0, 113, 7].into()));
/// assert_eq!(client_context(&parts, &[]).ip, Some([10, 0, 0, 2].into()));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn client_context(parts: &Parts, trusted_proxies: &[IpNet]) -> ClientContext {
    client_context_by(parts, trusted_proxies, ForwardedHeader::default())
}

/// As [`client_context`], with the header that the proxies write. The other one is not read.
pub fn client_context_by(parts: &Parts, trusted_proxies: &[IpNet], header: ForwardedHeader) -> ClientContext {
    context(parts, trusted_proxies, header, &request_id(&parts.headers))
}

/// The same under a request id that is known already.
pub(super) fn context(
    parts: &Parts,
    trusted_proxies: &[IpNet],
    header: ForwardedHeader,
    request_id: &str,
) -> ClientContext {
    let mut client = ClientContext::new().with_request_id(request_id);
    if let Some(ip) = address(parts, trusted_proxies, header) {
        client = client.with_ip(ip);
    }
    if let Some(agent) = parts.headers.get(header::USER_AGENT) {
        client = client.with_user_agent(&String::from_utf8_lossy(agent.as_bytes()));
    }
    client
}

/// The other end of the connection, as the host or its framework noted it.
fn peer(parts: &Parts) -> Option<SocketAddr> {
    let noted = parts.extensions.get::<PeerAddr>().map(|peer| peer.0);
    #[cfg(feature = "axum")]
    let noted = noted.or_else(|| {
        let connect_info = parts.extensions.get::<axum::extract::ConnectInfo<SocketAddr>>();
        connect_info.map(|connect_info| connect_info.0)
    });
    noted
}

/// The client's address: going from the peer outwards, the first that no trusted proxy has.
///
/// Each trusted hop is believed about the one before it, and nobody else is. So elements are read from the right, as bytes,
/// and reading ends at the first that is no trusted proxy's: nothing left of it is looked at, for that is where a client
/// writes. An element without an address (`unknown`, `_hidden`, an empty one) ends it too: then the client is known as the
/// hop that wrote it.
fn address(parts: &Parts, trusted: &[IpNet], header: ForwardedHeader) -> Option<IpAddr> {
    let mut nearest = peer(parts)?.ip().to_canonical();
    let lines = parts.headers.get_all(header.name());
    // Several lines are one list, in their order (RFC 9110 5.3).
    let mut elements = lines.iter().rev().flat_map(|line| FromTheRight::of(line.as_bytes(), header));
    while is_trusted(nearest, trusted) {
        let Some(element) = elements.next() else { break };
        let read = match header {
            ForwardedHeader::XForwardedFor => node_address(element),
            ForwardedHeader::Forwarded => element_address(element),
        };
        let Some(ip) = read else { break };
        nearest = ip;
    }
    Some(nearest)
}

/// Whether an address is in one of the networks, also where a network of IPv4 is written as one of IPv6.
pub(crate) fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    let mapped = match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        IpAddr::V6(_) => ip,
    };
    trusted.iter().any(|network| network.contains(&ip) || network.contains(&mapped))
}

/// The elements of a list, the last first. Commas within quotes separate nothing.
struct FromTheRight<'a> {
    rest: Option<&'a [u8]>,
    quotes: bool,
}

impl<'a> FromTheRight<'a> {
    const fn of(line: &'a [u8], header: ForwardedHeader) -> Self {
        // There are no quotes in X-Forwarded-For: one that a client writes there is a byte like others.
        Self { rest: Some(line), quotes: matches!(header, ForwardedHeader::Forwarded) }
    }
}

impl<'a> Iterator for FromTheRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut in_quotes = false;
        for (at, byte) in rest.iter().enumerate().rev() {
            match byte {
                b'"' if self.quotes && !(in_quotes && is_escaped(rest, at)) => in_quotes = !in_quotes,
                b',' if !in_quotes => {
                    self.rest = rest.get(..at);
                    return rest.get(at + 1..);
                }
                _ => {}
            }
        }
        Some(rest)
    }
}

/// Whether an odd number of backslashes stands before a byte.
fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The address in an element of `Forwarded` (RFC 7239 §4), such as `for="[2001:db8::1]:4711";proto=https`. None where it
/// is said twice, or not at all.
fn element_address(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    let (mut start, mut in_quotes, mut escaped) = (0, false, false);
    let ends = element.iter().enumerate().filter_map(|(at, byte)| {
        let is_end = *byte == b';' && !in_quotes;
        if *byte == b'"' && !escaped {
            in_quotes = !in_quotes;
        }
        escaped = in_quotes && *byte == b'\\' && !escaped;
        is_end.then_some(at)
    });
    for end in ends.chain([element.len()]) {
        let pair = element.get(start..end).unwrap_or_default();
        start = end + 1;
        let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = pair.split_at(equals);
        if name.trim_ascii().eq_ignore_ascii_case(b"for") && found.replace(unquoted(&value[1..])).is_some() {
            return None;
        }
    }
    node_address(found?)
}

/// What stands in quotes. Nothing that is an address has a backslash in it.
fn unquoted(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// An address, bare, in brackets, or with a port.
fn node_address(node: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(node.trim_ascii()).ok()?;
    let ip = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ForwardedHeader::{Forwarded, XForwardedFor};

    const PROXY: &str = "10.0.0.1";

    /// The client's address, as seen behind proxies of 10.0.0.0/8 that write this header.
    fn seen_by(header: ForwardedHeader, peer: &str, lines: &[(&str, &[u8])]) -> String {
        let mut request = http::Request::builder();
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(PeerAddr(SocketAddr::new(peer.parse().unwrap(), 1)));
        let client = client_context_by(&parts, &["10.0.0.0/8".parse().unwrap()], header);
        client.ip.unwrap().to_string()
    }

    fn x_forwarded_for(text: &str) -> String {
        seen_by(XForwardedFor, PROXY, &[("x-forwarded-for", text.as_bytes())])
    }

    fn forwarded(text: &str) -> String {
        seen_by(Forwarded, PROXY, &[("forwarded", text.as_bytes())])
    }

    #[test]
    fn a_stranger_cannot_choose_an_address() {
        let lie: (&str, &[u8]) = ("x-forwarded-for", b"198.51.100.1");
        assert_eq!(seen_by(XForwardedFor, "203.0.113.5", &[lie]), "203.0.113.5");
        assert_eq!(x_forwarded_for("198.51.100.1, 203.0.113.5"), "203.0.113.5");
        assert_eq!(x_forwarded_for("198.51.100.1, 203.0.113.5, 10.0.0.2"), "203.0.113.5");
        assert_eq!(seen_by(XForwardedFor, PROXY, &[]), PROXY);
    }

    #[test]
    fn what_stands_left_of_the_client_does_not_matter() {
        for garbage in ["\u{fffd}é", "unknown", "\"", ",,", "_x", "[::1", "10.0.0.1, 198.51.100.1"] {
            assert_eq!(x_forwarded_for(&format!("{garbage}, 203.0.113.5")), "203.0.113.5", "{garbage}");
            assert_eq!(forwarded(&format!("for={garbage}, for=203.0.113.5")), "203.0.113.5", "{garbage}");
        }
        let lines: [(&str, &[u8]); 2] =
            [("x-forwarded-for", b"\xff\x80"), ("x-forwarded-for", b"203.0.113.5")];
        assert_eq!(seen_by(XForwardedFor, PROXY, &lines), "203.0.113.5", "lines are joined in their order");
        let lines: [(&str, &[u8]); 2] =
            [("x-forwarded-for", b"203.0.113.5"), ("x-forwarded-for", b"10.0.0.2")];
        assert_eq!(seen_by(XForwardedFor, PROXY, &lines), "203.0.113.5");
    }

    #[test]
    fn an_element_without_an_address_ends_at_the_hop_that_wrote_it() {
        for nobody in
            ["unknown", "_hidden", "", " ", "unix:", "é", "198.51.100.1 203.0.113.9", "fe80::1%eth0", "1.2.3"]
        {
            assert_eq!(x_forwarded_for(&format!("198.51.100.1, {nobody}")), PROXY, "{nobody}");
            assert_eq!(x_forwarded_for(&format!("198.51.100.1, {nobody}, 10.0.0.2")), "10.0.0.2", "{nobody}");
            let elements = format!("for=198.51.100.1, for=\"{nobody}\", for=10.0.0.2");
            assert_eq!(forwarded(&elements), "10.0.0.2", "{nobody}");
        }
        for nobody in
            ["for=203.0.113.5;for=198.51.100.1", "proto=https", "by=203.0.113.5", "203.0.113.5", "for"]
        {
            assert_eq!(forwarded(nobody), PROXY, "{nobody}");
        }
    }

    #[test]
    fn the_other_header_is_not_read() {
        let one: (&str, &[u8]) = ("x-forwarded-for", b"203.0.113.5");
        let other: (&str, &[u8]) = ("forwarded", b"for=198.51.100.1");
        assert_eq!(seen_by(XForwardedFor, PROXY, &[one, other]), "203.0.113.5");
        assert_eq!(seen_by(XForwardedFor, PROXY, &[one, ("forwarded", b"nonsense \xff")]), "203.0.113.5");
        assert_eq!(seen_by(Forwarded, PROXY, &[one, other]), "198.51.100.1");
        assert_eq!(seen_by(XForwardedFor, PROXY, &[other]), PROXY);
        assert_eq!(seen_by(Forwarded, PROXY, &[one]), PROXY);
    }

    #[test]
    fn every_form_of_an_address_is_read() {
        for (node, ip) in [
            ("203.0.113.5", "203.0.113.5"),
            ("203.0.113.5:4711", "203.0.113.5"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:203.0.113.5", "203.0.113.5"),
            ("[::ffff:203.0.113.5]:1", "203.0.113.5"),
        ] {
            assert_eq!(x_forwarded_for(&format!("198.51.100.1,\t{node} ")), ip);
            assert_eq!(forwarded(&format!("for=198.51.100.1, proto=https ; FOR=\"{node}\"")), ip);
            assert_eq!(forwarded(&format!("for={node};host=\"a,b;for=198.51.100.1\"")), ip);
            assert_eq!(forwarded(&format!(r#"for={node};host="a\",for=198.51.100.1;\\""#)), ip);
        }
    }

    #[test]
    fn a_network_of_ipv4_may_be_written_as_ipv6() {
        let trusted: [IpNet; 1] = ["::ffff:10.0.0.0/104".parse().unwrap()];
        assert!(is_trusted("10.1.2.3".parse().unwrap(), &trusted));
        assert!(!is_trusted("11.1.2.3".parse().unwrap(), &trusted));
    }

    /// Bytes that a header may have, those that lists, quotes and addresses are made of more often than others.
    fn hostile(random: &mut u64) -> Vec<u8> {
        const TELLING: &[u8] = b",,,\"\"\"\\\\;;==[]::..__for=unknown 0123456789abcdef\t";
        let mut next = || {
            // xorshift64: the same bytes in every run.
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            usize::try_from(*random >> 33).unwrap()
        };
        let length = next() % 40;
        let byte = |_| match next() % 4 {
            0 => u8::try_from(0x80 + next() % 0x80).unwrap(),
            1 => u8::try_from(0x20 + next() % 0x5f).unwrap(),
            _ => TELLING[next() % TELLING.len()],
        };
        (0..length).map(byte).collect()
    }

    /// Whatever bytes a client sends, on the same line or on lines before, the address is what the trusted proxy appended.
    #[test]
    fn whatever_a_client_sends_the_address_is_what_the_proxy_appended() {
        let random = &mut 0x9e37_79b9_7f4a_7c15;
        for round in 0..5_000 {
            let (one, other) = (hostile(random), hostile(random));
            for (header, name, appended) in [
                (XForwardedFor, "x-forwarded-for", &b"203.0.113.5"[..]),
                (XForwardedFor, "x-forwarded-for", b"[::ffff:203.0.113.5]:80, 10.9.9.9"),
                (Forwarded, "forwarded", b"for=203.0.113.5"),
                (
                    Forwarded,
                    "forwarded",
                    b"for=\"203.0.113.5:80\";host=\"a\\\",b\", for=10.9.9.9;proto=https",
                ),
            ] {
                let line = [&other, &b", "[..], appended].concat();
                let lines: [(&str, &[u8]); 2] = [(name, &one), (name, &line)];
                let seen = seen_by(header, PROXY, &lines);
                assert_eq!(seen, "203.0.113.5", "round {round}: {}", lines[1].1.escape_ascii());
                let lines: [(&str, &[u8]); 2] = [(name, &line), (name, b"10.8.8.8")];
                let lines: &[_] = if header == XForwardedFor { &lines } else { &lines[..1] };
                assert_eq!(seen_by(header, PROXY, lines), "203.0.113.5", "round {round}");
            }
        }
    }

    #[test]
    fn the_header_is_named_as_proxies_write_it() {
        assert_eq!("X-Forwarded-For".parse(), Ok(XForwardedFor));
        assert_eq!("forwarded".parse(), Ok(Forwarded));
        for text in ["", "x-real-ip", "forwarded, x-forwarded-for", "forwarded "] {
            assert_eq!(text.parse::<ForwardedHeader>(), Err(InvalidForwardedHeader));
        }
    }

    #[test]
    fn an_agent_of_any_bytes_is_kept_as_text() {
        let request = http::Request::builder().header("user-agent", &b"caf\xe9/1\xff"[..]);
        let request = request.header("x-request-id", &b"r\xff"[..]);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let client = client_context(&parts, &[]);
        assert_eq!(client.user_agent.as_deref(), Some("caf\u{fffd}/1\u{fffd}"));
        assert_ne!(client.request_id.as_deref(), Some("r"), "it is made anew");
    }

    #[cfg(feature = "axum")]
    #[test]
    fn the_address_that_axum_notes_counts_where_the_host_notes_none() {
        let request = http::Request::builder().header("x-request-id", "r-1").header("user-agent", "curl");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(client_context(&parts, &[]).ip, None);
        let noted: SocketAddr = "203.0.113.5:1".parse().unwrap();
        parts.extensions.insert(axum::extract::ConnectInfo(noted));
        let client = client_context(&parts, &[]);
        assert_eq!(client.ip, Some(noted.ip()));
        assert_eq!((client.user_agent.as_deref(), client.request_id.as_deref()), (Some("curl"), Some("r-1")));
        parts.extensions.insert(PeerAddr("198.51.100.1:1".parse().unwrap()));
        assert_eq!(client_context(&parts, &[]).ip, Some("198.51.100.1".parse().unwrap()));
    }
}
