//! Whether browsers are told to come by TLS alone (HTTP Strict Transport Security, RFC 6797).

use http::HeaderValue;
use time::Duration;

/// What `Strict-Transport-Security` says.
///
/// ```
/// use usermgr_server::Hsts;
///
/// assert_eq!("off".parse(), Ok(Hsts::Off));
/// assert_eq!("host".parse(), Ok(Hsts::Host { max_age: Hsts::DEFAULT_AGE }));
/// assert_eq!("subdomains 365d".parse(), Ok(Hsts::Subdomains { max_age: time::Duration::days(365) }));
/// assert!("preload".parse::<Hsts>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Hsts {
    /// As [`Host`](Self::Host) with [`DEFAULT_AGE`](Self::DEFAULT_AGE) where the public URL begins with `https://`, else as
    /// [`Off`](Self::Off).
    #[default]
    WhereHttps,
    /// Nothing. What a browser was told before stays, until its age is over; an age of 0 takes it back.
    Off,
    /// This host comes by TLS alone.
    Host {
        /// For how long, from each answer on.
        max_age: Duration,
    },
    /// This host and all hosts under it do, also those that other programs serve.
    Subdomains {
        /// For how long, from each answer on.
        max_age: Duration,
    },
}

/// A text that says nothing about HSTS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it takes off, host or subdomains, the latter two with an age if you like, such as host 365d")]
#[non_exhaustive]
pub struct InvalidHsts;

impl Hsts {
    /// Two years: what lists of hosts that come by TLS alone ask for, and twice the least of OWASP ASVS 5 (3.4.1).
    pub const DEFAULT_AGE: Duration = Duration::days(730);
    /// The least age that protects: a year (ASVS 5, 3.4.1).
    pub const LEAST_AGE: Duration = Duration::days(365);
    /// The longest age: ten years. More is a slip of the pen.
    pub const MAX_AGE: Duration = Duration::days(3650);

    /// For how long browsers come by TLS alone; none where they are told nothing, whatever the public URL.
    pub const fn max_age(self) -> Option<Duration> {
        match self {
            Self::WhereHttps | Self::Off => None,
            Self::Host { max_age } | Self::Subdomains { max_age } => Some(max_age),
        }
    }

    pub(crate) fn value(self, public_url: &str) -> Option<HeaderValue> {
        let text = match self {
            Self::WhereHttps if public_url.starts_with("https://") => {
                return Self::Host { max_age: Self::DEFAULT_AGE }.value(public_url);
            }
            Self::WhereHttps | Self::Off => return None,
            Self::Host { max_age } => format!("max-age={}", max_age.whole_seconds()),
            Self::Subdomains { max_age } => format!("max-age={}; includeSubDomains", max_age.whole_seconds()),
        };
        HeaderValue::try_from(text).ok()
    }
}

impl std::str::FromStr for Hsts {
    type Err = InvalidHsts;

    fn from_str(text: &str) -> Result<Self, InvalidHsts> {
        let mut words = text.split_ascii_whitespace();
        let (word, age) = (words.next(), words.next());
        if words.next().is_some() {
            return Err(InvalidHsts);
        }
        let max_age = age.map_or(Some(Self::DEFAULT_AGE), parse_age);
        match (word, max_age) {
            (Some("off"), Some(_)) if age.is_none() => Ok(Self::Off),
            (Some("host"), Some(max_age)) => Ok(Self::Host { max_age }),
            (Some("subdomains"), Some(max_age)) => Ok(Self::Subdomains { max_age }),
            _ => Err(InvalidHsts),
        }
    }
}

/// `365d`, as durations of a configuration are written.
fn parse_age(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let seconds = number.parse::<i64>().ok()?.checked_mul(seconds)?;
    Some(Duration::seconds(seconds)).filter(|age| *age <= Hsts::MAX_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, public_url: &str) -> Option<String> {
        let hsts: Hsts = text.parse().unwrap();
        hsts.value(public_url).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn subdomains_are_told_of_only_where_it_is_asked_for() {
        for (text, header) in [
            ("host", Some("max-age=63072000")),
            ("subdomains", Some("max-age=63072000; includeSubDomains")),
            ("host 365d", Some("max-age=31536000")),
            ("  subdomains   24h ", Some("max-age=86400; includeSubDomains")),
            ("host 0s", Some("max-age=0")),
            ("host 3650d", Some("max-age=315360000")),
            ("off", None),
        ] {
            assert_eq!(told(text, "https://id.example.org").as_deref(), header, "{text}");
        }
    }

    #[test]
    fn by_default_it_is_told_where_the_public_url_is_https() {
        let told = |url| Hsts::default().value(url).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(told("https://id.example.org").as_deref(), Some("max-age=63072000"));
        assert_eq!(told("http://id.example.org"), None);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "on",
            "true",
            "HOST",
            "off 1d",
            "host,1d",
            "host 1",
            "host 1y",
            "host -1d",
            "host d",
            "host 1 d",
            "host 365d preload",
            "host 3651d",
            "host 99999999999999999999d",
            "max-age=1",
            "subdomains 1.5d",
            "host ٣d",
            "365d",
        ] {
            assert_eq!(text.parse::<Hsts>(), Err(InvalidHsts), "{text}");
        }
    }
}
