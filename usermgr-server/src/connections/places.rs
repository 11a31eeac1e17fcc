//! Who gets a place: a bound for all connections, a share for each client network, and spare places for health checks.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use crate::http::client::is_trusted;

/// Spare places: enough for the probes of many networks, and few enough to cost nothing.
const SPARE: usize = 256;
/// Spare places of one network: one that floods takes no more of them from the probes of others.
const SPARE_PER_NETWORK: usize = 4;

/// How many connections there may be.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// All connections, the spare ones left out.
    pub(crate) connections: usize,
    /// Those of one client network. One network never gets more than three quarters of all.
    pub(crate) per_network: usize,
    /// Connections over a limit that are accepted all the same, for health checks only.
    pub(crate) spare: usize,
    /// Networks that have no share of their own to exceed: each proxy brings the connections of many clients.
    pub(crate) proxies: Vec<IpNet>,
}

impl Limits {
    /// Of the public listener: as configured, as far as the file descriptors of this process go.
    pub(crate) fn configured(connections: usize, per_network: usize, proxies: Vec<IpNet>) -> Self {
        let limits = Self { connections, per_network, spare: SPARE, proxies };
        let Some(descriptors) = open_files() else { return limits };
        let limits = limits.within(descriptors);
        if limits.connections < connections {
            tracing::warn!(
                "{descriptors} open files are allowed: {} connections are served at once, not {connections}; \
                 raise the limit (LimitNOFILE, ulimit -n)",
                limits.connections
            );
        }
        limits
    }

    /// As many as this number of file descriptors bears, beside what the process opens for itself.
    fn within(mut self, descriptors: usize) -> Self {
        /// Database connections, files, mails on their way, and the standard streams.
        const OWN: usize = 100;
        let left = descriptors.saturating_sub(OWN).max(8);
        self.spare = self.spare.min(left / 4);
        self.connections = self.connections.min(left - self.spare).max(1);
        self
    }

    fn share(&self) -> usize {
        self.per_network.min(self.connections.div_ceil(4) * 3).max(1)
    }
}

/// How many files this process may have open. Only Linux tells it without unsafe code.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Why a connection got no place of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// All places are taken.
    Full,
    /// Its network has its share.
    NetworkShare,
}

impl Refused {
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NetworkShare => "network_share",
        }
    }
}

/// What a place is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything.
    Full,
    /// Health checks only: the connection came over a limit.
    Spare,
}

/// The places of a listener.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    full: usize,
    spare: usize,
    networks: HashMap<IpAddr, Share>,
}

#[derive(Debug, Default)]
struct Share {
    full: usize,
    spare: usize,
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// A place for a connection from this address, and why it is a spare one or none.
    pub(crate) fn take(self: &Arc<Self>, peer: IpAddr) -> (Option<Place>, Option<Refused>) {
        let ip = peer.to_canonical();
        let network = (!is_trusted(ip, &self.limits.proxies)).then(|| network(ip));
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Taken { full, spare, networks } = &mut *taken;
        let share = network.map(|network| networks.entry(network).or_default());
        let refused = if share.as_ref().is_some_and(|share| share.full >= self.limits.share()) {
            Some(Refused::NetworkShare)
        } else {
            (*full >= self.limits.connections).then_some(Refused::Full)
        };
        let kind = if refused.is_none() {
            *full += 1;
            if let Some(share) = share {
                share.full += 1;
            }
            Kind::Full
        } else {
            let share_is_taken = share.as_ref().is_some_and(|share| share.spare >= SPARE_PER_NETWORK);
            if share_is_taken || *spare >= self.limits.spare {
                if let Some(network) = network {
                    forget(networks, network);
                }
                return (None, refused);
            }
            *spare += 1;
            if let Some(share) = share {
                share.spare += 1;
            }
            Kind::Spare
        };
        (Some(Place { places: Arc::clone(self), network, kind }), refused)
    }
}

/// Drops the count of a network that has no connection left: the map holds no more networks than there are connections.
fn forget(networks: &mut HashMap<IpAddr, Share>, network: IpAddr) {
    if networks.get(&network).is_some_and(|share| share.full == 0 && share.spare == 0) {
        networks.remove(&network);
    }
}

/// The network whose connections are counted together: the IPv4 address, or the /48 of an IPv6 address. One client may have
/// all of a /48, and its 65,536 networks of a /64 would take every place, the spare ones too.
fn network(ip: IpAddr) -> IpAddr {
    const WIDE: u32 = 128 - 48;
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> WIDE << WIDE).into(),
    }
}

/// A place; it is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    network: Option<IpAddr>,
    pub(crate) kind: Kind,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Taken { full, spare, networks } = &mut *taken;
        let share = self.network.and_then(|network| networks.get_mut(&network));
        match self.kind {
            Kind::Full => {
                *full -= 1;
                if let Some(share) = share {
                    share.full -= 1;
                }
            }
            Kind::Spare => {
                *spare -= 1;
                if let Some(share) = share {
                    share.spare -= 1;
                }
            }
        }
        if let Some(network) = self.network {
            forget(networks, network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections: usize, per_network: usize, spare: usize) -> Arc<Places> {
        let proxies = vec!["10.0.0.0/8".parse().unwrap(), "::ffff:172.16.0.0/108".parse().unwrap()];
        Places::new(Limits { connections, per_network, spare, proxies })
    }

    /// The kind of place that a new connection gets; it keeps it.
    fn take(places: &Arc<Places>, ip: &str, held: &mut Vec<Place>) -> (Option<Kind>, Option<Refused>) {
        let (place, refused) = places.take(ip.parse().unwrap());
        let kind = place.as_ref().map(|place| place.kind);
        held.extend(place);
        (kind, refused)
    }

    #[test]
    fn one_network_takes_its_share_and_no_more() {
        let (places, mut held) = (places(100, 8, 20), Vec::new());
        for _ in 0..8 {
            assert_eq!(take(&places, "192.0.2.1", &mut held), (Some(Kind::Full), None));
        }
        let over = Some(Refused::NetworkShare);
        for _ in 0..SPARE_PER_NETWORK {
            assert_eq!(take(&places, "192.0.2.1", &mut held), (Some(Kind::Spare), over));
        }
        assert_eq!(take(&places, "192.0.2.1", &mut held), (None, over));
        assert_eq!(
            take(&places, "192.0.2.2", &mut held),
            (Some(Kind::Full), None),
            "another one has its own"
        );
        held.remove(0);
        assert_eq!(take(&places, "192.0.2.1", &mut held), (Some(Kind::Full), None));
    }

    #[test]
    fn a_64_is_one_network_and_a_mapped_address_is_its_own() {
        let (places, mut held) = (places(100, 1, 0), Vec::new());
        assert_eq!(take(&places, "2001:db8:1:2::1", &mut held).0, Some(Kind::Full));
        assert_eq!(take(&places, "2001:db8:1:2:ffff::9", &mut held).1, Some(Refused::NetworkShare));
        assert_eq!(
            take(&places, "2001:db8:1:3::1", &mut held).1,
            Some(Refused::NetworkShare),
            "of the same /48"
        );
        assert_eq!(take(&places, "2001:db8:2:3::1", &mut held).0, Some(Kind::Full));
        assert_eq!(take(&places, "192.0.2.1", &mut held).0, Some(Kind::Full));
        assert_eq!(take(&places, "::ffff:192.0.2.1", &mut held).1, Some(Refused::NetworkShare));
    }

    #[test]
    fn a_trusted_proxy_has_no_share_to_exceed() {
        let (places, mut held) = (places(100, 4, 20), Vec::new());
        for _ in 0..90 {
            assert_eq!(take(&places, "10.0.0.2", &mut held), (Some(Kind::Full), None));
        }
        for _ in 0..10 {
            assert_eq!(take(&places, "172.16.0.2", &mut held), (Some(Kind::Full), None), "named as IPv6");
        }
        for _ in 0..20 {
            assert_eq!(take(&places, "10.0.0.2", &mut held), (Some(Kind::Spare), Some(Refused::Full)));
        }
        assert_eq!(take(&places, "10.0.0.2", &mut held), (None, Some(Refused::Full)));
    }

    #[test]
    fn spare_places_are_left_when_all_are_taken() {
        let (places, mut held) = (places(8, 1, 4), Vec::new());
        for host in 1..=8 {
            assert_eq!(take(&places, &format!("192.0.2.{host}"), &mut held).0, Some(Kind::Full));
        }
        assert_eq!(take(&places, "192.0.2.9", &mut held), (Some(Kind::Spare), Some(Refused::Full)));
        drop(held);
        assert_eq!(places.taken.lock().unwrap().networks.len(), 0, "what ended is forgotten");
        assert_eq!(take(&places, "192.0.2.9", &mut Vec::new()), (Some(Kind::Full), None));
    }

    #[test]
    fn no_network_gets_all_places_whatever_is_configured() {
        let (places, mut held) = (places(8, 1000, 4), Vec::new());
        for _ in 0..6 {
            assert_eq!(take(&places, "192.0.2.1", &mut held), (Some(Kind::Full), None));
        }
        assert_eq!(take(&places, "192.0.2.1", &mut held).1, Some(Refused::NetworkShare));
    }

    #[test]
    fn few_file_descriptors_make_few_places() {
        let limits = |descriptors| {
            let limits = Limits { connections: 10_000, per_network: 512, spare: SPARE, proxies: vec![] };
            let Limits { connections, spare, .. } = limits.within(descriptors);
            (connections, spare)
        };
        assert_eq!(limits(16_384), (10_000, 256));
        assert_eq!(limits(1024), (693, 231));
        assert_eq!(limits(0), (6, 2));
        assert!(open_files().is_none_or(|files| files > 0));
    }
}
