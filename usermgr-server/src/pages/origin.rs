//! Whether a form was sent by one of our own pages.

use http::{HeaderMap, Method, header};
use url::Url;

/// The origin that forms are taken from.
#[derive(Debug, Clone)]
pub(super) struct OwnOrigin {
    origin: String,
    loopback: bool,
}

impl OwnOrigin {
    pub(super) fn of(public_url: &str) -> Self {
        let url = Url::parse(public_url).ok();
        let origin = url.as_ref().map(|url| url.origin().ascii_serialization()).unwrap_or_default();
        Self { origin, loopback: url.as_ref().is_some_and(is_plain_loopback) }
    }

    /// Whether the public URL is plain HTTP on the machine itself, as when somebody tries the program.
    pub(super) const fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Whether a request may change something: it comes from a page of this server.
    ///
    /// # Security
    /// OWASP: cross-site request forgery. A browser tells by `Sec-Fetch-Site` and `Origin` where a form stands, and
    /// scripts cannot set either; what tells neither is not believed. `none` is a request that a person made without any
    /// page. `SameSite` of the cookies stands beside it.
    pub(super) fn allows(&self, method: &Method, headers: &HeaderMap) -> bool {
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return true;
        }
        let mut sites = headers.get_all("sec-fetch-site").iter();
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let (site, origin) = (sites.next(), origins.next());
        if sites.next().is_some() || origins.next().is_some() {
            return false;
        }
        let site_fits = site.is_none_or(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
        let origin_fits = origin.is_none_or(|origin| origin.to_str().is_ok_and(|o| self.is_own(o, headers)));
        (site.is_some() || origin.is_some()) && site_fits && origin_fits
    }

    fn is_own(&self, origin: &str, headers: &HeaderMap) -> bool {
        if origin == self.origin {
            return true;
        }
        // Tried on the machine itself, the pages are open under each of its names.
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let same_host = host.is_some_and(|host| origin == format!("http://{host}"));
        self.loopback && same_host && Url::parse(origin).is_ok_and(|url| is_plain_loopback(&url))
    }
}

fn is_plain_loopback(url: &Url) -> bool {
    let of_this_machine = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && of_this_machine
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(public_url: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>();
        OwnOrigin::of(public_url).allows(&Method::POST, &headers)
    }

    const OURS: &str = "https://id.example.org";

    #[test]
    fn only_our_own_pages_send_forms() {
        let own = ("origin", "https://id.example.org");
        let host = ("host", "id.example.org");
        assert!(allows(OURS, &[own]));
        assert!(allows(OURS, &[own, ("sec-fetch-site", "same-origin")]));
        assert!(allows(OURS, &[("sec-fetch-site", "same-origin")]));
        assert!(allows(OURS, &[own, ("sec-fetch-site", "none")]));
        assert!(!allows(OURS, &[host]), "who tells nothing is not believed");
        for site in ["cross-site", "same-site", "", "Same-Origin", "same-origin, cross-site"] {
            assert!(!allows(OURS, &[own, ("sec-fetch-site", site)]), "{site}");
        }
        for origin in [
            "null",
            "http://id.example.org",
            "https://id.example.org:8443",
            "https://id.example.org.evil.example",
            "https://evil.example",
            "https://www.id.example.org",
            "",
        ] {
            assert!(!allows(OURS, &[("origin", origin), host]), "{origin}");
            assert!(!allows(OURS, &[("origin", origin), ("sec-fetch-site", "same-origin")]), "{origin}");
        }
        assert!(!allows(OURS, &[own, ("origin", "https://evil.example")]), "two origins are none");
    }

    #[test]
    fn on_the_machine_itself_any_of_its_names_will_do() {
        const HERE: &str = "http://localhost:8000";
        assert!(allows(HERE, &[("origin", HERE)]));
        assert!(allows(HERE, &[("origin", "http://127.0.0.1:9000"), ("host", "127.0.0.1:9000")]));
        assert!(allows(HERE, &[("origin", "http://[::1]:8000"), ("host", "[::1]:8000")]));
        assert!(!allows(HERE, &[("origin", "http://127.0.0.1:3000"), ("host", "127.0.0.1:8000")]));
        assert!(!allows(HERE, &[("origin", "http://evil.example"), ("host", "evil.example")]));
        assert!(!allows(OURS, &[("origin", "http://127.0.0.1:8000"), ("host", "127.0.0.1:8000")]));
    }
}
