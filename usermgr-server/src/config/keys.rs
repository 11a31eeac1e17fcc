//! The table of keys, and how their names are spelled.

/// A key: its name, its default, and what it means.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) secrecy: Secrecy,
    pub(super) shape: Shape,
    /// A value, as it stands in the file, for a key that has no default or takes a list.
    pub(super) example: Option<&'static str>,
    /// What it means, for the sample file.
    pub(super) about: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    Plain,
    /// A URL that may hold a password.
    Url,
    Secret,
}

/// How many values a key has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    /// Any number: an array in the file, commas in a variable.
    List,
}

const fn plain(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, default, secrecy: Secrecy::Plain, shape: Shape::One, example: None, about }
}

const fn url(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { secrecy: Secrecy::Url, ..plain(name, default, about) }
}

const fn secret(name: &'static str, about: &'static str) -> Key {
    Key { secrecy: Secrecy::Secret, ..plain(name, "", about) }
}

impl Key {
    const fn such_as(self, example: &'static str) -> Self {
        Self { example: Some(example), ..self }
    }

    const fn list(self) -> Self {
        Self { shape: Shape::List, ..self }
    }
}

/// Every key. Those of one section stand together.
pub(super) const KEYS: &[Key] = &[
    url(
        "database.url",
        "sqlite://usermgr.db",
        "sqlite://FILE (sqlite:///FOLDER/FILE, with %20 for a blank and %3F for a ?), postgres://USER:PASSWORD@HOST/DATABASE, \
         or memory:, which forgets everything at the end. DATABASE_URL is read where USERMGR_DATABASE_URL is not set.",
    ),
    plain("database.max_connections", "10", "Connections of this process, 1 to 10000. Ten suffice for two cores."),
    plain(
        "database.timeout",
        "5s",
        "How long a command of the database may take, from 1s to 1m. Then its request is answered 503 and its connection is \
         closed. PostgreSQL only.",
    ),
    plain("http.listen", "127.0.0.1:8000", "Where it listens: 127.0.0.1:8000, [::1]:8000 or localhost:8000; :8000 is every interface, of IPv4 and of IPv6 where \
         there is one."),
    plain(
        "http.base_path",
        "/v1",
        "What every path begins with, except /health/… and /.well-known/….",
    ),
    plain(
        "http.public_url",
        "http://localhost:8000",
        "What mailed links begin with; never taken from a request. With https:// browsers are told to come by TLS alone. \
         A path is for servers without pages.",
    ),
    plain(
        "http.trusted_proxies",
        "",
        "Networks of proxies whose http.forwarded_header is believed. Behind a proxy that is not named here, every client \
         has the proxy's address and shares one budget.",
    )
    .such_as(r#"["10.0.0.0/8"]"#)
    .list(),
    plain(
        "http.forwarded_header",
        "x-forwarded-for",
        "The header in which those proxies write the client's address: x-forwarded-for or forwarded. The other one is \
         ignored.",
    ),
    plain("http.cors_origins", "", "Origins whose pages may call the interface.")
        .such_as(r#"["https://app.example.org"]"#)
    .list(),
    plain(
        "http.hsts",
        "",
        "Whether browsers are told to come by TLS alone (HSTS): off, host, or subdomains for all hosts under it too; the \
         latter two with an age if you like (host 365d), else for two years. Without it, host where http.public_url begins \
         with https://.",
    )
    .such_as(r#""subdomains""#),
    plain(
        "http.keep_alive",
        "75s",
        "How long a connection may be idle between two requests, 1s to 1h. Longer than a balancer in front keeps its own.",
    ),
    plain("http.max_connections", "10000", "Connections at once, 1 to 1000000. Over it, only health checks are answered."),
    plain(
        "http.max_connections_per_network",
        "512",
        "Those of one client network (an IPv4 address, a /48 of IPv6), three quarters of all at most. Proxies that are \
         trusted have no such bound.",
    ),
    plain("http.max_body", "64KiB", "Larger bodies are answered 413. 1KiB to 64MiB."),
    plain(
        "http.tls_cert",
        "",
        "The certificates of this server, its own first, in PEM. With it and the key the server speaks TLS itself; \
         without, it stands behind a proxy that does. Files that change are read again.",
    )
    .such_as(r#""/etc/usermgr/tls.crt""#),
    plain("http.tls_key", "", "The private key of the first certificate, in PEM, readable by this program alone.")
        .such_as(r#""/etc/usermgr/tls.key""#),
    plain(
        "http.metrics_listen",
        "",
        "Where GET /metrics answers in the format of Prometheus, and the health checks once more: an address of its own, \
         which nobody outside reaches.",
    )
    .such_as(r#""127.0.0.1:9464""#),
    plain("http.docs", "true", "Whether /docs and /openapi.json are served."),
    plain("http.pages", "true", "Whether the pages for people are served."),
    plain("pages.name", "", "What the pages call the service. Without it, the name in mail.from.").such_as(r#""Example""#),
    plain("pages.logo", "", "A picture for the pages: a file. Without it, the first letter of the name.")
        .such_as(r#""/etc/usermgr/logo.svg""#),
    plain("pages.accent", "#3450c8", "The colour of buttons and links; white text must be readable on it."),
    plain("pages.templates", "", "A folder whose templates replace those of the pages, one by one.")
        .such_as(r#""/etc/usermgr/pages""#),
    url(
        "mail.url",
        "console:",
        "console: (printed), file:///FOLDER (a file for each), smtp://USER:PASSWORD@HOST:587 (TLS is required, unless \
         ?tls=opportunistic or ?tls=none says otherwise), smtps://…, or https://HOST/PATH of a mail API.",
    ),
    plain("mail.from", "usermgr <noreply@localhost>", "The sender. Its name is the service's name in mails."),
    plain("mail.templates", "", "A folder of texts that replace the built-in ones.")
        .such_as(r#""/etc/usermgr/templates""#),
    plain("mail.allow_plaintext", "false", "Lets mail travel unencrypted to a host that is not this one."),
    secret("mail.callback_secret", "With which a mail service signs what it tells of bounces and complaints.")
        .such_as(r#""whsec_…""#)
        .list(),
    secret(
        "secret.key",
        "32 bytes in base64, the same for every server on one database: openssl rand -base64 32. With SQLite and none, \
         one is made and kept beside the file.",
    )
    .such_as(r#""…""#),
    secret("secret.previous_keys", "Keys that were the secret key before; what they sealed still opens.")
        .such_as(r#"["…"]"#)
    .list(),
    plain("codes.length", "6", "Digits of a mailed code, 4 to 10. Fewer than 6 count for the first verification alone."),
    plain("codes.ttl", "10m", "How long a code lives, from the hand-over of its mail."),
    plain("codes.attempts", "5", "How many wrong tries use a code up."),
    plain("codes.resend_interval", "30s", "The shortest time between two requests for one address."),
    plain("codes.requests", "3", "Requests for one address, purpose and network within the window."),
    plain("codes.window", "10m", "The window of requests."),
    plain("registration.enabled", "true", "Whether anybody may register."),
    plain("registration.pending_ttl", "24h", "How long a registration waits for its code."),
    plain(
        "registration.reveal_existing",
        "false",
        "Whether a registration says that the address has an account. It tells everybody who asks.",
    ),
    plain("registration.welcome_mail", "true", "Whether a new user gets a welcome mail."),
    plain(
        "passwords.memory_kib",
        "19456",
        "Memory of one password hash (Argon2id). usermgr-server hash calibrate measures what this machine bears.",
    ),
    plain("passwords.iterations", "2", "Passes over the memory."),
    plain("passwords.parallelism", "1", "Lanes."),
    plain("passwords.min_length", "8", "The fewest characters of a password, 8 to 64."),
    plain(
        "passwords.hash_threads",
        "",
        "Threads that hash, each with memory of its own for life. Without it, as many as there are cores.",
    )
    .such_as("4"),
    plain(
        "passwords.hash_queue",
        "",
        "Hashes that may wait; past it callers are refused at once. Without it, 64 for each thread.",
    )
    .such_as("256"),
    plain("passwords.sign_in_after_set", "true", "Whether setting a password by a code signs in."),
    plain(
        "throttle.enabled",
        "true",
        "Off only for load tests: then nothing limits guessing and mail bombing but a code's own tries.",
    ),
    plain("throttle.login_failures", "10", "Failed sign-ins of one address from one network within the window."),
    plain("throttle.network_failures", "100", "Failed sign-ins of one network within the window."),
    plain("throttle.network_requests", "60", "Requests for codes, links and registrations of one network within codes.window."),
    plain("throttle.window", "15m", "The window of failed sign-ins, recorded refusals, and writes of users to their accounts."),
    plain("links.ttl", "30m", "How long a mailed link lives, from the hand-over of its mail."),
    plain("links.undo_ttl", "7d", "How long the change of an address can be undone from the old one."),
    plain("tokens.format", "jwt", "jwt, which other services can verify, or opaque, which is looked up on every request."),
    plain("tokens.algorithm", "EdDSA", "EdDSA, ES256, RS256 or HS256."),
    plain("tokens.access_ttl", "15m", "How long an access token lives."),
    plain("tokens.rotate_every", "90d", "How old a signing key gets before another takes its place."),
    plain("tokens.issuer", "", "The issuer that tokens name, of 1024 bytes at most. Without it, http.public_url.")
        .such_as(r#""https://id.example.org""#),
    plain("tokens.audience", "usermgr", "The audience that tokens name: one, of 1024 bytes at most."),
    plain("sessions.idle_ttl", "14d", "How long a session lives without being renewed."),
    plain("sessions.max_ttl", "90d", "How long a session lives at most."),
    plain("sessions.refresh_grace", "10s", "How long the refresh token before still counts, for clients that ask twice."),
    plain(
        "sessions.step_up_age",
        "15m",
        "How long ago the last sign-in may be for changes of address and role and for deletion, unless the password \
         comes along.",
    ),
    plain("outbox.concurrency", "8", "Mails under way at once. One domain has a quarter of them at most."),
    plain("outbox.max_attempts", "12", "Attempts before a mail is given up; twelve take some three hours."),
    plain("outbox.keep_sent", "7d", "How long mails are kept that were sent, or whose code ended before."),
    plain("outbox.keep_dead", "30d", "How long mails are kept that failed for good; outbox retry works for this long."),
plain(
        "tls.extra_ca",
        "",
        "Certificates of private authorities, one or more in a PEM file. Mail, webhooks and spans trust them besides the \
         built-in ones. PostgreSQL has sslrootcert in its URL.",
    )
    .such_as(r#""/etc/usermgr/private-ca.pem""#),
    url("events.url", "", "Where events are told: https://… (signed webhooks), console: or none.")
        .such_as(r#""https://app.example.org/hooks/users""#),
    secret("events.secret", "With which webhooks are signed: whsec_ and 24 to 64 bytes in base64.").such_as(r#""whsec_…""#).list(),
    plain("events.allow_plaintext", "false", "Lets events travel unencrypted to a host that is not this one."),
    plain("events.keep", "30d", "How long events are kept, delivered or not."),
    plain(
        "maintenance.enabled",
        "true",
        "Whether this process runs the jobs of the upkeep. Of the processes on one database, one has to.",
    ),
    plain("maintenance.interval", "1h", "How often what is soon over is removed."),
    plain("maintenance.daily_at", "00:00", "The time of day, in UTC, at which is removed what was kept for days."),
    plain("audit.keep", "365d", "How long audit entries are kept; on PostgreSQL 30 days at least."),
    plain("users.deletion_grace", "30d", "How long a deleted user is kept, and can come back by signing in."),
    plain("log.format", "", "pretty or json. Without it, pretty on a terminal and json elsewhere.").such_as(r#""json""#),
    plain("log.level", "info", "trace, debug, info, warn or error."),
    url(
        "traces.otlp_url",
        "",
        "Where spans of requests are sent, by OTLP over HTTP. For programs that were built with the feature otlp.",
    )
    .such_as(r#""http://localhost:4318/v1/traces""#),
];

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
    let near = spelled.map(|known| (strsim::levenshtein(name, &known), known)).min();
    near.filter(|(edits, _)| *edits <= 4)
        .map(|(_, known)| format!("; did you mean {known}?"))
        .unwrap_or_default()
}
