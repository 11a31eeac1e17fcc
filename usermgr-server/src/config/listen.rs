//! Where a listener listens: an address, a name, or every interface.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What the keys of listeners take.
pub(super) const TAKES_LISTEN: &str = "an address or name and a port, such as 127.0.0.1:8000, [::1]:8000 or localhost:8000; \
                                       :8000 is every interface";

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: ListenHost,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ListenHost {
    /// Every interface, of IPv4 and of IPv6 where there is one: `:8000`.
    Everywhere,
    Ip(IpAddr),
    Name(String),
}

/// The address to bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bind {
    /// Exactly this one.
    One(SocketAddr),
    /// This port of every interface, of IPv4 and of IPv6 where there is one.
    Everywhere(u16),
}

impl ListenAddress {
    /// Whether it is reached from this machine alone. A name may mean any address, unless it is `localhost`.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            ListenHost::Everywhere => false,
            ListenHost::Ip(ip) => ip.to_canonical().is_loopback(),
            ListenHost::Name(name) => is_localhost(name),
        }
    }

    /// Whether it is every interface of this machine.
    pub fn is_everywhere(&self) -> bool {
        match &self.host {
            ListenHost::Everywhere => true,
            ListenHost::Ip(ip) => ip.to_canonical().is_unspecified(),
            ListenHost::Name(_) => false,
        }
    }

    /// What to bind. A name is looked up; of its addresses the first of IPv4 is taken, else the first.
    ///
    /// # Errors
    /// The name has no address.
    pub(crate) async fn resolve(&self) -> io::Result<Bind> {
        let name = match &self.host {
            ListenHost::Everywhere => return Ok(Bind::Everywhere(self.port)),
            ListenHost::Ip(ip) => return Ok(Bind::One(SocketAddr::new(*ip, self.port))),
            ListenHost::Name(name) => name,
        };
        let unknown = |why: &dyn fmt::Display| {
            io::Error::new(io::ErrorKind::NotFound, format!("the name has no address: {why}"))
        };
        let found =
            tokio::net::lookup_host((name.as_str(), self.port)).await.map_err(|error| unknown(&error))?;
        let found: Vec<SocketAddr> = found.collect();
        let chosen = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
        chosen.copied().map(Bind::One).ok_or_else(|| unknown(&"none was found"))
    }
}

impl Bind {
    /// The address at which this machine reaches it.
    pub(crate) fn reachable(self) -> SocketAddr {
        match self {
            Self::Everywhere(port) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
            Self::One(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                SocketAddr::new(ip, address.port())
            }
        }
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a text is the name of a host: labels of letters, digits and hyphens. What looks like an address is none.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// A text that is no address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it takes {TAKES_LISTEN}")]
#[non_exhaustive]
pub struct InvalidListenAddress;

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, InvalidListenAddress> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: ListenHost::Ip(address.ip()), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or(InvalidListenAddress)?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or(InvalidListenAddress)?;
        match host {
            "" => Ok(Self { host: ListenHost::Everywhere, port }),
            name if is_host_name(name) => Ok(Self { host: ListenHost::Name(name.to_owned()), port }),
            _ => Err(InvalidListenAddress),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            ListenHost::Everywhere => write!(f, ":{}", self.port),
            ListenHost::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            ListenHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_a_name_or_every_interface_and_from_where_it_is_reached() {
        for (text, loopback, everywhere, reached) in [
            ("127.0.0.1:9000", true, false, "127.0.0.1:9000"),
            ("[::1]:9000", true, false, "[::1]:9000"),
            ("localhost:8000", true, false, "127.0.0.1:8000"),
            ("0.0.0.0:8000", false, true, "127.0.0.1:8000"),
            ("[::]:8000", false, true, "[::1]:8000"),
            (":8000", false, true, "127.0.0.1:8000"),
            ("192.0.2.7:80", false, false, "192.0.2.7:80"),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!((address.is_loopback(), address.is_everywhere()), (loopback, everywhere), "{text}");
            assert_eq!(address.resolve().await.unwrap().reachable(), reached.parse().unwrap(), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in [
            "",
            ":",
            "8000",
            "localhost",
            "localhost:",
            ":x",
            ":-1",
            ":+1",
            ":65536",
            "::1:80",
            "[::1]",
            "1.2.3:80",
            "256.1.1.1:80",
            "a b:80",
            "http://localhost:80",
            "-a:80",
            "a..b:80",
            "user@host:80",
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(InvalidListenAddress), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_told_in_one_line() {
        let error = "nobody.invalid:80".parse::<ListenAddress>().unwrap().resolve().await.unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with("the name has no address") && told.lines().count() == 1, "{told}");
    }
}
