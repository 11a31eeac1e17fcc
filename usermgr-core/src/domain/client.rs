//! Who is asking: what the outside knows of the other end of a request.

use std::net::IpAddr;

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
        match self.ip.map(|ip| ip.to_canonical()) {
            None => "unknown".into(),
            Some(IpAddr::V4(v4)) => v4.to_string(),
            Some(IpAddr::V6(v6)) => {
                let [a, b, c, d, ..] = v6.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        }
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
    fn an_agent_is_cut_at_a_character() {
        let agent = "é".repeat(200);
        assert_eq!(ClientContext::new().with_user_agent(&agent).user_agent.unwrap().len(), 256);
        assert_eq!(ClientContext::new().with_user_agent("a\r\nb").user_agent.unwrap(), "ab");
        assert_eq!(ClientContext::new().with_user_agent("a\u{202e}b\u{200b}").user_agent.unwrap(), "ab");
    }
}
