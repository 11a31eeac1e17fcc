//! The other end of a request: its address (the peer's, unless a trusted proxy says otherwise), agent and request id.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderName};
use http::request::Parts;
use ipnet::IpNet;
use usermgr_core::ClientContext;

use super::request_id;

/// The other end of the connection. A host that mounts the service puts it among the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a host makes it of the address of a connection")]
pub struct PeerAddr(pub SocketAddr);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What the outside knows of who sent a request, for calls that a host makes itself: the address of the [`PeerAddr`] (with
/// the feature `axum` also of the `ConnectInfo`), or what a trusted proxy says of it, the `User-Agent`, and the
/// `X-Request-Id`, or a new one.
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
    context(parts, trusted_proxies, &request_id(&parts.headers))
}

/// The same under a request id that is known already.
pub(super) fn context(parts: &Parts, trusted_proxies: &[IpNet], request_id: &str) -> ClientContext {
    let mut client = ClientContext::new().with_request_id(request_id);
    if let Some(ip) = address(parts, trusted_proxies) {
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

/// The right-most address that no trusted proxy has, going from the peer outwards.
fn address(parts: &Parts, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = peer(parts)?.ip().to_canonical();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(&ip));
    if !is_trusted(peer) {
        return Some(peer);
    }
    let nearest_stranger = |hops: Vec<Option<IpAddr>>| {
        let mut nearest = peer;
        for hop in hops.into_iter().rev() {
            // What cannot be read was not written by a proxy that we trust.
            let Some(ip) = hop else { break };
            nearest = ip;
            if !is_trusted(ip) {
                break;
            }
        }
        nearest
    };
    let forwarded = hops(parts, &header::FORWARDED, element_address).map(nearest_stranger);
    let x_forwarded_for = hops(parts, &X_FORWARDED_FOR, parse).map(nearest_stranger);
    Some(match (forwarded, x_forwarded_for) {
        // A proxy writes one of them and passes the other on as the client sent it, and nothing tells which.
        (Some(one), Some(other)) if one != other => peer,
        (Some(ip), _) | (None, Some(ip)) => ip,
        (None, None) => peer,
    })
}

/// The addresses that proxies noted in a header, the nearest last; nothing when there is no such header.
fn hops(
    parts: &Parts,
    name: &HeaderName,
    read: impl Fn(&str) -> Option<IpAddr>,
) -> Option<Vec<Option<IpAddr>>> {
    let values = parts.headers.get_all(name).iter();
    let lines = values.map(|value| value.to_str().unwrap_or_default());
    let hops: Vec<_> = lines.flat_map(|line| line.split(',')).map(read).collect();
    (!hops.is_empty()).then_some(hops)
}

/// The address in an element of `Forwarded` (RFC 7239 §4), such as `for="[2001:db8::1]:4711";proto=https`.
fn element_address(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| parse(value.trim().trim_matches('"')))?
    })
}

/// An address, bare, in brackets, or with a port.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let ip = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, headers: &[(&str, &str)]) -> String {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(PeerAddr(SocketAddr::new(peer.parse().unwrap(), 1)));
        address(&parts, &["10.0.0.0/8".parse().unwrap()]).unwrap().to_string()
    }

    #[test]
    fn a_stranger_cannot_choose_an_address() {
        let lie = ("x-forwarded-for", "198.51.100.1");
        assert_eq!(seen("203.0.113.5", &[lie]), "203.0.113.5");
        assert_eq!(seen("10.0.0.1", &[("x-forwarded-for", "198.51.100.1, 203.0.113.5")]), "203.0.113.5");
        assert_eq!(
            seen("10.0.0.1", &[("x-forwarded-for", "198.51.100.1, 203.0.113.5, 10.0.0.2")]),
            "203.0.113.5"
        );
        assert_eq!(seen("10.0.0.1", &[("x-forwarded-for", "198.51.100.1, unknown")]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
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

    #[test]
    fn where_both_headers_disagree_neither_is_believed() {
        let proxys = ("x-forwarded-for", "203.0.113.5");
        assert_eq!(seen("10.0.0.1", &[proxys, ("forwarded", "for=198.51.100.1")]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &[proxys, ("forwarded", "nonsense")]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &[proxys, ("forwarded", "for=203.0.113.5")]), "203.0.113.5");
    }

    #[test]
    fn forwarded_is_read_too() {
        assert_eq!(
            seen("10.0.0.1", &[("forwarded", "for=203.0.113.5;proto=https, for=10.0.0.2")]),
            "203.0.113.5"
        );
        assert_eq!(seen("10.0.0.1", &[("forwarded", "for=\"[2001:db8::1]:4711\"")]), "2001:db8::1");
        assert_eq!(seen("10.0.0.1", &[("x-forwarded-for", "::ffff:203.0.113.5")]), "203.0.113.5");
    }
}
