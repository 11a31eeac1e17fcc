//! The table of keys, and how their names are spelled.

/// A key, its default, and whether its value is a secret.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) secrecy: Secrecy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    Plain,
    /// A URL that may hold a password.
    Url,
    Secret,
}

const fn plain(name: &'static str, default: &'static str) -> Key {
    Key { name, default, secrecy: Secrecy::Plain }
}

pub(super) const KEYS: &[Key] = &[
    Key { name: "database.url", default: "sqlite://usermgr.db", secrecy: Secrecy::Url },
    plain("database.max_connections", "10"),
    plain("http.listen", "127.0.0.1:8000"),
    plain("http.base_path", "/v1"),
    plain("http.public_url", "http://localhost:8000"),
    plain("http.trusted_proxies", ""),
    plain("http.cors_origins", ""),
    plain("http.max_body", "64KiB"),
    Key { name: "mail.url", default: "console:", secrecy: Secrecy::Url },
    plain("mail.from", "usermgr <noreply@localhost>"),
    plain("mail.templates", ""),
    plain("mail.allow_plaintext", "false"),
    Key { name: "mail.callback_secret", default: "", secrecy: Secrecy::Secret },
    Key { name: "secret.key", default: "", secrecy: Secrecy::Secret },
    Key { name: "secret.previous_keys", default: "", secrecy: Secrecy::Secret },
    plain("codes.length", "6"),
    plain("codes.ttl", "10m"),
    plain("codes.attempts", "5"),
    plain("codes.resend_interval", "30s"),
    plain("codes.requests", "3"),
    plain("codes.window", "10m"),
    plain("registration.enabled", "true"),
    plain("registration.pending_ttl", "24h"),
    plain("registration.reveal_existing", "false"),
    plain("registration.welcome_mail", "true"),
    plain("passwords.memory_kib", "19456"),
    plain("passwords.iterations", "2"),
    plain("passwords.parallelism", "1"),
    plain("passwords.min_length", "8"),
    plain("passwords.hash_threads", ""),
    plain("passwords.hash_queue", ""),
    plain("passwords.sign_in_after_set", "true"),
    plain("throttle.enabled", "true"),
    plain("throttle.login_failures", "10"),
    plain("throttle.network_failures", "100"),
    plain("throttle.network_requests", "60"),
    plain("throttle.window", "15m"),
    plain("links.ttl", "30m"),
    plain("links.undo_ttl", "3d"),
    plain("tokens.format", "jwt"),
    plain("tokens.algorithm", "EdDSA"),
    plain("tokens.access_ttl", "15m"),
    plain("tokens.rotate_every", "90d"),
    plain("tokens.issuer", ""),
    plain("tokens.audience", "usermgr"),
    plain("sessions.idle_ttl", "14d"),
    plain("sessions.max_ttl", "90d"),
    plain("sessions.refresh_grace", "10s"),
    plain("sessions.step_up_age", "15m"),
    plain("outbox.concurrency", "8"),
    plain("outbox.max_attempts", "12"),
    plain("outbox.keep_sent", "7d"),
    Key { name: "events.url", default: "", secrecy: Secrecy::Url },
    Key { name: "events.secret", default: "", secrecy: Secrecy::Secret },
    plain("events.allow_plaintext", "false"),
    plain("events.keep", "30d"),
    plain("maintenance.enabled", "true"),
    plain("maintenance.interval", "1h"),
    plain("maintenance.daily_at", "00:00"),
    plain("audit.keep", "365d"),
    plain("users.deletion_grace", "30d"),
    plain("http.metrics_listen", ""),
    plain("http.docs", "true"),
    plain("http.pages", "true"),
    plain("log.format", ""),
    plain("log.level", "info"),
];

/// Keys that are read and do nothing in this version: a value of one's own is met with a warning.
pub(super) const LATER: &[&str] = &["http.metrics_listen", "http.docs", "http.pages"];

pub(super) fn variable_of(key: &str) -> String {
    format!("USERMGR_{}", key.replace('.', "_").to_uppercase())
}

/// What Kubernetes sets in every container for a service that is called `usermgr`, or begins so: nobody's setting.
pub(super) fn is_of_kubernetes(variable: &str, value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // `…_PORT` alone may be somebody's mistake for http.listen; there it is a URL.
    let of_port = variable.ends_with("_PORT") && value.contains("://");
    let of_one_port =
        variable.split_once("_PORT_").and_then(|(_, rest)| rest.split('_').next()).is_some_and(digits);
    variable.ends_with("_SERVICE_HOST") || variable.contains("_SERVICE_PORT") || of_port || of_one_port
}

/// The nearest name that there is, as a question; nothing when none is near.
pub(super) fn nearest(name: &str, spell: impl Fn(&str) -> String) -> String {
    let spelled = KEYS.iter().map(|key| spell(key.name));
    let near = spelled.map(|known| (distance(name, &known), known)).min();
    near.filter(|(edits, _)| *edits <= 4)
        .map(|(_, known)| format!("; did you mean {known}?"))
        .unwrap_or_default()
}

/// How many letters must be changed, added or removed to get from one name to the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let above = *cell;
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
