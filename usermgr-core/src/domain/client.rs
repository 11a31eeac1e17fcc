//! Who is asking: what the outside knows of the other end of a request.

use std::net::{IpAddr, Ipv4Addr};

use super::visible::without_invisible;

/// The other end of a request. It is recorded with sessions and audit entries, and its address counts towards
/// limits; nothing in it is trusted as proof of anything.
///
/// ```
/// use usermgr_core::ClientContext;
///
/// let client = ClientContext::new()
///     .with_ip("::ffff:192.0.2.1".parse()?)
///     .with_user_agent("Mozilla/5.0 (X11; Linux x86_64)")
///     .with_request_id("3f1b9c0a");
/// assert_eq!(client.ip, Some([192, 0, 2, 1].into()));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientContext {
    /// The address of the client, not of a proxy in front of it. Requests without one share a single budget.
    pub ip: Option<IpAddr>,
    /// The `User-Agent`, kept as data: bounded, without control characters and invisible ones.
    pub user_agent: Option<String>,
    /// The id under which this request stands in the logs.
    pub request_id: Option<String>,
}

impl ClientContext {
    /// The most bytes of a `User-Agent` that are kept.
    pub const MAX_USER_AGENT: usize = 256;
    /// The most bytes of a request id that are kept.
    pub const MAX_REQUEST_ID: usize = 128;

    /// A context that knows nothing: for programs without a network in front of them.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the client's address. An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) counts as IPv4.
    #[must_use]
    pub fn with_ip(mut self, ip: IpAddr) -> Self {
        self.ip = Some(ip.to_canonical());
        self
    }

    /// With the client's `User-Agent`, cut to [`MAX_USER_AGENT`](Self::MAX_USER_AGENT) bytes.
    #[must_use]
    pub fn with_user_agent(mut self, agent: &str) -> Self {
        self.user_agent = Some(bounded(agent, Self::MAX_USER_AGENT));
        self
    }

    /// With the request's id, cut to [`MAX_REQUEST_ID`](Self::MAX_REQUEST_ID) bytes.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        self.request_id = Some(bounded(id, Self::MAX_REQUEST_ID));
        self
    }

    /// The network that limits are counted for: the IPv4 address, or the /64 of an IPv6 address.
    pub(crate) fn network(&self) -> String {
        match self.ip.map(counted_ip) {
            None => "unknown".into(),
            Some(IpAddr::V4(v4)) => v4.to_string(),
            Some(IpAddr::V6(v6)) => {
                let [a, b, c, d, ..] = v6.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        }
    }

    /// The /48 of an IPv6 address, which is what one customer of a provider has at most: 65,536 networks of
    /// [`network`](Self::network). None for IPv4, where one address is one network.
    pub(crate) fn wide_network(&self) -> Option<String> {
        match self.ip.map(counted_ip) {
            None | Some(IpAddr::V4(_)) => None,
            Some(IpAddr::V6(v6)) => {
                let [a, b, c, ..] = v6.segments();
                Some(format!("{a:x}:{b:x}:{c:x}::/48"))
            }
        }
    }
}

/// The address that limits count. An IPv6 address that only carries an IPv4 address counts as that one: otherwise all
/// of IPv4 shares one /64 (NAT64, Teredo), or one IPv4 address has a /48 of its own (6to4).
fn counted_ip(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip.to_canonical() else { return ip.to_canonical() };
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        // NAT64, the well-known prefix (RFC 6052), and 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => v4(high, low),
        // Teredo (RFC 4380) inverts each bit of the client's address.
        [0x2001, 0, _, _, _, _, high, low] => v4(!high, !low),
        _ => IpAddr::V6(v6),
    }
}

fn bounded(text: &str, bytes: usize) -> String {
    let mut kept = String::new();
    for c in without_invisible(text).chars() {
        if kept.len() + c.len_utf8() > bytes {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(ip: &str) -> String {
        ClientContext::new().with_ip(ip.parse().unwrap()).network()
    }

    #[test]
    fn all_addresses_of_one_ipv6_64_are_one_network() {
        assert_eq!(network("2001:db8:1:2::1"), network("2001:0db8:0001:0002:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }

    #[test]
    fn a_mapped_ipv4_address_is_that_ipv4_address() {
        assert_eq!(network("::ffff:192.0.2.7"), network("192.0.2.7"));
    }

    #[test]
    fn all_64_networks_of_one_48_are_one_wide_network() {
        let wide = |ip: &str| ClientContext::new().with_ip(ip.parse().unwrap()).wide_network();
        assert_eq!(wide("2001:db8:1:2::1").unwrap(), "2001:db8:1::/48");
        assert_eq!(wide("2001:db8:1:2::1"), wide("2001:0db8:0001:ffff::9"));
        assert_ne!(wide("2001:db8:1::1"), wide("2001:db8:2::1"));
        for narrow in ["192.0.2.7", "::ffff:192.0.2.7", "64:ff9b::192.0.2.7", "2002:c000:207::1"] {
            assert_eq!(wide(narrow), None, "{narrow}");
        }
        assert_eq!(ClientContext::new().wide_network(), None);
    }

    #[test]
    fn an_address_that_carries_an_ipv4_address_counts_as_that_one() {
        let own = network("192.0.2.7");
        for carrier in [
            "::ffff:c000:207",
            "64:ff9b::192.0.2.7",
            "2002:c000:207::1",
            "2002:c000:207:ffff::9",
            "2001:0:4136:e378:8000:63bf:3fff:fdf8",
        ] {
            assert_eq!(network(carrier), own, "{carrier}");
        }
        // These only look like one.
        for other in ["64:ff9b:1::c000:207", "2001:1::3fff:fdf8", "2003:c000:207::1"] {
            assert!(network(other).ends_with("::/64"), "{other}");
        }
    }

    #[test]
    fn an_agent_is_cut_at_a_character() {
        let agent = "é".repeat(200);
        assert_eq!(ClientContext::new().with_user_agent(&agent).user_agent.unwrap().len(), 256);
        assert_eq!(ClientContext::new().with_user_agent("a\r\nb").user_agent.unwrap(), "ab");
        assert_eq!(ClientContext::new().with_user_agent("a\u{202e}b\u{200b}").user_agent.unwrap(), "ab");
    }
}
