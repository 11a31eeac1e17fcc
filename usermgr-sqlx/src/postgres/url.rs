//! The URL of a database on PostgreSQL: what the driver would misread or pass over is refused by name.

use sqlx::postgres::PgConnectOptions;

/// The parameters that the driver reads. It passes over all others with a warning.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Parameters of libpq that the driver passes over. An error names only these: after a `?` that stands unescaped in a password,
/// the rest of the password looks like the name of a parameter.
const OTHER_PARAMETERS: [&str; 15] = [
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "passfile",
    "search_path",
    "service",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// A URL that would not mean what it says.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum UnfitUrl {
    #[error("the parameter {0} is not known; known are {list}", list = PARAMETERS.join(", "))]
    Parameter(&'static str),
    #[error(
        "a parameter is not known (is a ? in the password written as %3F?); known are {list}",
        list = PARAMETERS.join(", ")
    )]
    SomeParameter,
    #[error("several hosts are not taken: name one that leads to the primary")]
    SeveralHosts,
}

/// Reads the URL.
///
/// # Errors
/// [`sqlx::Error::Configuration`] says what is wrong; the password is not repeated.
pub(super) fn parse(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let unfit = |error: UnfitUrl| sqlx::Error::Configuration(Box::new(error));
    if let Some((_, parameters)) = url.split_once('?') {
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
            // `options[search_path]=app` and what URLs make of the brackets.
            if !PARAMETERS.contains(&name) && !name.starts_with("options[") && !name.starts_with("options%5B")
            {
                let named = OTHER_PARAMETERS.into_iter().find(|other| *other == name);
                return Err(unfit(named.map_or(UnfitUrl::SomeParameter, UnfitUrl::Parameter)));
            }
        }
    }
    let options: PgConnectOptions = url.parse()?;
    let host = options.get_host().to_owned();
    if host.contains(',') {
        return Err(unfit(UnfitUrl::SeveralHosts));
    }
    // The driver keeps the brackets of an IPv6 address, and asks for a host of that name.
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => Ok(options.host(address)),
        None => Ok(options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_would_pass_over_is_refused_by_name() {
        for (url, said) in [
            ("postgres://h/d?target_session_attrs=read-write", "target_session_attrs"),
            ("postgres://h/d?sslmode=disable&connect_timeout=5", "connect_timeout"),
            ("postgres://h/d?keepalives_idle=10", "keepalives_idle"),
            ("postgres://h/d?search_path=app", "search_path"),
            ("postgres://h/d?SSLMODE=disable", "a parameter is not known"),
            ("postgres://u:12?secret@h/d", "%3F"),
            ("postgres://u:12?secret=x@h/d", "%3F"),
            ("postgres://h1,h2/d", "several hosts"),
            ("postgres://h1,h2:5433/d", "several hosts"),
            ("postgres://u:secret@h/d?host=h1,h2", "several hosts"),
        ] {
            let refused = parse(url).unwrap_err();
            let sqlx::Error::Configuration(reason) = refused else { panic!("{url}: {refused:?}") };
            let reason = reason.to_string();
            assert!(reason.contains(said) && !reason.contains("secret"), "{url}: {reason}");
        }
    }

    #[test]
    fn what_the_driver_reads_is_taken() {
        for (url, host) in [
            (
                "postgres://u:p@db.example.org:5433/d?sslmode=verify-full&sslrootcert=/etc/ca.pem",
                "db.example.org",
            ),
            ("postgresql://h/d?options=-csearch_path%3Dapp&application_name=x", "h"),
            ("postgres://h/d?options[search_path]=app", "h"),
            ("postgres://h/d?options%5Bsearch_path%5D=app&", "h"),
            ("postgres://[::1]:5433/d", "::1"),
            ("postgres://u@127.0.0.1/d", "127.0.0.1"),
        ] {
            assert_eq!(parse(url).unwrap().get_host(), host, "{url}");
        }
    }
}
