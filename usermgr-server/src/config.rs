//! Configuration: a table of keys, a TOML file, and environment variables over it.
//!
//! `KEYS` is the one place that names a key. Whatever is wrong is told at once, a line for each fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use usermgr_core::SecretKey;
use usermgr_core::crypto::webhook::WebhookSecret;
use usermgr_core::domain::code::CodeLength;
use usermgr_core::domain::role::{Permission, Role};
use usermgr_core::policy::{
    CodePolicy, DeletionPolicy, HashPolicy, LinkPolicy, MailPolicy, MaintenancePolicy, OutboxPolicy,
    PasswordPolicy, Policies, RegistrationPolicy, RetentionPolicy, RolePolicy, SessionPolicy, ThrottlePolicy,
    TokenFormat, TokenPolicy,
};
use usermgr_smtp::{PlaintextPolicy, Sender};

use crate::pages::{Accent, PagesOptions, TAKES_ACCENT};

/// A key, its default, and whether its value is a secret.
struct Key {
    name: &'static str,
    default: &'static str,
    secrecy: Secrecy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    Plain,
    /// A URL that may hold a password.
    Url,
    Secret,
}

const fn plain(name: &'static str, default: &'static str) -> Key {
    Key { name, default, secrecy: Secrecy::Plain }
}

const KEYS: &[Key] = &[
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
    plain("pages.name", ""),
    plain("pages.logo", ""),
    plain("pages.accent", "#3450c8"),
    plain("pages.templates", ""),
    plain("log.format", ""),
    plain("log.level", "info"),
];

/// Keys that are read and do nothing in this version: a value of one's own is met with a warning.
const LATER: &[&str] = &["http.metrics_listen", "http.docs"];

/// The configuration in force.
#[derive(Debug)]
#[expect(missing_docs, reason = "each field is the key it names")]
pub struct Config {
    pub database_url: SecretString,
    pub max_connections: u32,
    pub listen: SocketAddr,
    pub base_path: String,
    pub trusted_proxies: Vec<IpNet>,
    pub cors_origins: Vec<String>,
    pub max_body: usize,
    /// How the pages look; none where they are switched off.
    pub pages: Option<PagesOptions>,
    pub mail_url: SecretString,
    pub mail_from: Sender,
    pub mail_templates: Option<PathBuf>,
    pub mail_plaintext: PlaintextPolicy,
    pub events: EventTarget,
    pub mail_callback_secrets: Vec<WebhookSecret>,
    pub secret_key: Option<SecretKey>,
    pub previous_keys: Vec<SecretKey>,
    pub policies: Policies,
    pub log_format: Option<LogFormat>,
    pub log_level: String,
    /// Every value as text and where it came from, for `config`.
    pub values: Values,
}

/// Where events go, beside the feed.
#[derive(Debug)]
pub enum EventTarget {
    /// Nowhere.
    Nowhere,
    /// Standard output.
    Console,
    /// A URL of the host's.
    Webhook {
        /// The URL.
        url: SecretString,
        /// What each is signed with, the secret in force first.
        secrets: Vec<WebhookSecret>,
        /// Whether it may travel unencrypted.
        plaintext: PlaintextPolicy,
    },
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Everything that is wrong with a configuration: a line for each fault.
#[derive(Debug)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// The text of every key and where it came from.
#[derive(Clone, Default)]
pub struct Values(BTreeMap<&'static str, (SecretString, String)>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.masked().map(|(name, value, _)| (name, value))).finish()
    }
}

impl Values {
    /// Key, value with secrets masked, and source, in the order of the table.
    pub fn masked(&self) -> impl Iterator<Item = (&'static str, String, &str)> {
        KEYS.iter().filter_map(|key| {
            let (value, source) = self.0.get(key.name)?;
            Some((key.name, mask(value.expose_secret(), key.secrecy), source.as_str()))
        })
    }
}

fn mask(value: &str, secrecy: Secrecy) -> String {
    match secrecy {
        Secrecy::Plain => value.to_owned(),
        Secrecy::Secret if value.is_empty() => String::new(),
        Secrecy::Secret => "********".to_owned(),
        Secrecy::Url => match url::Url::parse(value) {
            Ok(url) => masked_url(url),
            // Where the password ends cannot be told.
            Err(_) if value.contains('@') => "********".to_owned(),
            Err(_) => value.to_owned(),
        },
    }
}

fn masked_url(mut url: url::Url) -> String {
    const MASK: &str = "********";
    if url.password().is_some() {
        let _unchangeable = url.set_password(Some(MASK));
    } else if !url.username().is_empty() && url.scheme().starts_with("http") {
        let _unchangeable = url.set_username(MASK);
    }
    // A password with a stray `/` or `#` moves the rest of the credentials into the path or the fragment.
    if url.path().contains('@') || url.fragment().is_some() {
        return MASK.to_owned();
    }
    let is_secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["password", "token", "secret", "key"].iter().any(|word| name.contains(word))
    };
    if url.query_pairs().any(|(name, _)| is_secret(&name)) {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let shown = pairs.iter().map(|(name, value)| (name, if is_secret(name) { MASK } else { value }));
        url.query_pairs_mut().clear().extend_pairs(shown);
    }
    url.to_string()
}

impl Config {
    /// Reads the configuration of this process: `--config`, else `USERMGR_CONFIG`, else `./usermgr.toml` if there, and
    /// the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut environment = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => drop(environment.insert(name, value)),
                (Ok(name), Err(_)) if name.starts_with("USERMGR_") || name == "DATABASE_URL" => {
                    return Err(ConfigError(vec![format!("{name}: it takes text in UTF-8")]));
                }
                _ => {}
            }
        }
        let beside = Path::new("usermgr.toml");
        let named =
            file.map(Path::to_path_buf).or_else(|| environment.get("USERMGR_CONFIG").map(PathBuf::from));
        let file = named.or_else(|| beside.exists().then(|| beside.to_path_buf()));
        let text = match &file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| ConfigError(vec![format!("{}: {error}", path.display())]))?,
        };
        let origin = file.map_or_else(|| "file".to_owned(), |path| path.display().to_string());
        Self::read(&text, &origin, &environment)
    }

    fn read(file: &str, origin: &str, environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        for key in KEYS {
            reader.set(key.name, key.default.to_owned(), "default");
        }
        reader.file(file, origin);
        reader.environment(environment);
        let config = reader.config();
        if reader.faults.is_empty() {
            config.ok_or_else(|| ConfigError(vec!["the configuration cannot be read".into()]))
        } else {
            Err(ConfigError(reader.faults))
        }
    }

    /// What an operator should know about the rules in force.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self
            .values
            .masked()
            .filter(|(name, _, source)| LATER.contains(name) && *source != "default")
            .map(|(name, _, _)| format!("{name} is set and does nothing in this version"))
            .collect();
        let mut warn = |warning: &str| warnings.push(warning.to_owned());
        if self.policies.codes.length.digits() < CodeLength::MIN_FOR_PASSWORDS {
            warn(
                "codes.length is under 6: such codes are easy to guess; they count for e-mail verification only",
            );
        }
        if !self.policies.throttle.enabled {
            warn("throttle.enabled is false: nothing limits guessing and mail bombing; for load tests only");
        }
        if self.pages.as_ref().is_some_and(|pages| !pages.keeps_cookies()) {
            warn(
                "http.public_url is http:// and not this machine: browsers keep none of the pages' cookies, and nobody \
                 can sign in there; it takes https:// in front, or http.pages = false",
            );
        }
        if self.policies.registration.reveal_existing {
            warn("registration.reveal_existing is true: anybody can ask who has an account");
        }
        warnings
    }
}

#[derive(Default)]
struct Reader {
    values: Values,
    roles: BTreeMap<Role, BTreeSet<Permission>>,
    faults: Vec<String>,
}

impl Reader {
    fn set(&mut self, name: &'static str, value: String, source: &str) {
        self.values.0.insert(name, (value.into(), source.to_owned()));
    }

    fn file(&mut self, text: &str, origin: &str) {
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
                return self.faults.push(format!("{origin}, line {at}: {}", error.message()));
            }
        };
        for (section, value) in table {
            let toml::Value::Table(keys) = value else {
                self.faults.push(format!("{origin}: {section} stands outside of a [section]"));
                continue;
            };
            for (key, value) in keys {
                let name = format!("{section}.{key}");
                let text = match value {
                    toml::Value::String(text) => text,
                    toml::Value::Array(items) => {
                        let texts = items.into_iter().map(|item| match item {
                            toml::Value::String(text) => text,
                            other => other.to_string(),
                        });
                        texts.collect::<Vec<_>>().join(",")
                    }
                    other => other.to_string(),
                };
                if section == "roles" {
                    self.role(&key, &text, origin);
                    continue;
                }
                match KEYS.iter().find(|key| key.name == name) {
                    Some(key) => self.set(key.name, text, origin),
                    None => self
                        .faults
                        .push(format!("{origin}: {name} is not a key{}", nearest(&name, str::to_owned))),
                }
            }
        }
    }

    fn environment(&mut self, environment: &BTreeMap<String, String>) {
        if let Some(url) = environment.get("DATABASE_URL") {
            self.set("database.url", url.clone(), "DATABASE_URL");
        }
        for (variable, value) in environment.iter().filter(|(variable, _)| variable.starts_with("USERMGR_")) {
            if variable == "USERMGR_CONFIG" || variable.starts_with("USERMGR_TEST_") {
                continue;
            }
            if let Some(key) = KEYS.iter().find(|key| variable_of(key.name) == *variable) {
                self.set(key.name, value.clone(), variable);
                continue;
            }
            if let Some(role) = variable.strip_prefix("USERMGR_ROLES_") {
                self.role(&role.to_lowercase(), value, variable);
                continue;
            }
            if is_of_kubernetes(variable, value) {
                continue;
            }
            let of_file = variable.strip_suffix("_FILE");
            let key = of_file.and_then(|name| {
                KEYS.iter().find(|key| key.secrecy != Secrecy::Plain && variable_of(key.name) == *name)
            });
            let Some(key) = key else {
                self.faults.push(format!("{variable} is not a setting{}", nearest(variable, variable_of)));
                continue;
            };
            let direct = variable_of(key.name);
            if environment.contains_key(&direct) {
                self.faults.push(format!("{}: both {direct} and {variable} are set: it takes one", key.name));
                continue;
            }
            match std::fs::read_to_string(value) {
                Ok(text) => self.set(key.name, text.trim_end_matches(['\r', '\n']).to_owned(), variable),
                Err(error) => self.faults.push(format!("{variable}: {value}: {error}")),
            }
        }
    }

    /// A role beside the built-in ones: `[roles] support = ["users:read"]`.
    fn role(&mut self, name: &str, permissions: &str, source: &str) {
        let items = permissions.split(',').map(str::trim).filter(|item| !item.is_empty());
        match (name.parse(), items.map(str::parse).collect::<Result<_, _>>()) {
            (Ok(role), Ok(permissions)) => drop(self.roles.insert(role, permissions)),
            _ => self.faults.push(format!(
                "roles.{name} ({source}): it takes a name of a-z, 0-9, '_' and '-', and permissions such as {}",
                Permission::ALL.iter().map(Permission::as_str).collect::<Vec<_>>().join(", ")
            )),
        }
    }

    fn text(&self, name: &str) -> String {
        self.values.0.get(name).map(|(value, _)| value.expose_secret().to_owned()).unwrap_or_default()
    }

    /// Reads a value; what is wrong with it is noted with where it came from and what the key takes.
    fn value<T>(
        &mut self,
        name: &'static str,
        takes: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = read(&self.text(name));
        if value.is_none() {
            let source = self.values.0.get(name).map(|(_, source)| source.clone()).unwrap_or_default();
            let source = if source == "default" { String::new() } else { format!(" ({source})") };
            self.faults.push(format!("{name}{source}: it takes {takes}"));
        }
        value
    }

    fn duration(&mut self, name: &'static str) -> Option<time::Duration> {
        self.value(name, "a duration such as 60s, 10m, 24h or 30d", parse_duration)
    }

    fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.value(name, "true or false", |text| text.parse().ok())
    }

    fn number<T: std::str::FromStr>(&mut self, name: &'static str) -> Option<T> {
        self.value(name, "a whole number", |text| text.parse().ok())
    }

    #[expect(clippy::option_option, reason = "outside: could it be read; inside: is it set")]
    fn optional_number(&mut self, name: &'static str) -> Option<Option<usize>> {
        self.value(name, "a whole number", |text| {
            if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
        })
    }

    fn list<T>(
        &mut self,
        name: &'static str,
        takes: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.value(name, takes, |text| {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(read).collect()
        })
    }

    fn mail_callback_secrets(&mut self) -> Option<Vec<WebhookSecret>> {
        let takes = "whsec_ and 24 to 64 bytes in base64; two with a comma between while one is replaced";
        self.list("mail.callback_secret", takes, |text| text.parse().ok())
    }

    fn config(&mut self) -> Option<Config> {
        let policies = self.policies();
        let faults = policies.as_ref().map(Policies::faults).unwrap_or_default();
        self.faults
            .extend(faults.into_iter().map(|fault| format!("{}: it takes {}", fault.setting, fault.fault)));
        let database = self.value("database.url", "sqlite://…, postgres://… or memory:", |text| {
            let known =
                ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
            (known || text == "memory:").then(|| SecretString::from(text))
        });
        let max_connections = self.value("database.max_connections", "a whole number from 1 on", |text| {
            text.parse().ok().filter(|connections| *connections > 0)
        });
        let listen = self
            .value("http.listen", "an address and a port such as 127.0.0.1:8000", |text| text.parse().ok());
        let base_path = self.value("http.base_path", "a path such as /v1 or /", |text| {
            let path = text.trim_end_matches('/');
            let fits = path.is_empty() || path.starts_with('/');
            let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b));
            (fits && plain && !path.contains("//")).then(|| path.to_owned())
        });
        let trusted_proxies =
            self.list("http.trusted_proxies", "networks such as 10.0.0.0/8, or addresses", |text| {
                text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<std::net::IpAddr>().ok()?)))
            });
        let cors_origins =
            self.list("http.cors_origins", "origins such as https://app.example.org", |text| {
                let url = url::Url::parse(text).ok()?;
                (url.origin().ascii_serialization() == text && text.starts_with("http"))
                    .then(|| text.to_owned())
            });
        let max_body = self.value("http.max_body", "a size such as 64KiB", parse_size);
        let mail_from = self.value("mail.from", "an address such as App <noreply@example.org>", |text| {
            Sender::parse(text).ok()
        });
        let mail_templates = self.text("mail.templates");
        let plaintext = self.flag("mail.allow_plaintext");
        let plaintext =
            if plaintext == Some(true) { PlaintextPolicy::Allow } else { PlaintextPolicy::LoopbackOnly };
        let takes_key = "32 bytes in base64; make one with openssl rand -base64 32";
        let secret_key = self.value("secret.key", takes_key, |text| {
            if text.is_empty() { Some(None) } else { SecretKey::from_base64(text).ok().map(Some) }
        });
        let previous_keys =
            self.list("secret.previous_keys", "keys as secret.key, with commas between", |text| {
                SecretKey::from_base64(text).ok()
            });
        let pages = self.pages(policies.as_ref().map(|policies| &policies.mail));
        let events = self.event_target();
        let log_format = self.value("log.format", "pretty or json", |text| match text {
            "" => Some(None),
            "pretty" => Some(Some(LogFormat::Pretty)),
            "json" => Some(Some(LogFormat::Json)),
            _ => None,
        });
        let log_level = self.value("log.level", "trace, debug, info, warn or error", |text| {
            ["trace", "debug", "info", "warn", "error"].contains(&text).then(|| text.to_owned())
        });
        let is_postgres = database.as_ref().is_some_and(|url| url.expose_secret().starts_with("postgres"));
        if is_postgres && self.text("secret.key").is_empty() {
            self.faults
                .push(format!("secret.key: Postgres needs one, the same on every server: {takes_key}"));
        }
        Some(Config {
            database_url: database?,
            max_connections: max_connections?,
            listen: listen?,
            base_path: base_path?,
            trusted_proxies: trusted_proxies?,
            cors_origins: cors_origins?,
            max_body: max_body?,
            pages: pages?,
            mail_url: self.text("mail.url").into(),
            mail_from: mail_from?,
            mail_templates: (!mail_templates.is_empty()).then(|| PathBuf::from(mail_templates)),
            mail_plaintext: plaintext,
            events: events?,
            mail_callback_secrets: self.mail_callback_secrets()?,
            secret_key: secret_key?,
            previous_keys: previous_keys?,
            policies: policies?,
            log_format: log_format?,
            log_level: log_level?,
            values: self.values.clone(),
        })
    }

    #[expect(clippy::option_option, reason = "outside: could it be read; inside: are they on")]
    fn pages(&mut self, mail: Option<&MailPolicy>) -> Option<Option<PagesOptions>> {
        let accent = self.value("pages.accent", TAKES_ACCENT, Accent::parse);
        let (on, accent, mail) = (self.flag("http.pages")?, accent?, mail?);
        let (name, logo, templates) =
            (self.text("pages.name"), self.text("pages.logo"), self.text("pages.templates"));
        let path = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
        let pages = PagesOptions {
            name: if name.is_empty() { mail.service_name.clone() } else { name },
            logo: path(logo),
            accent,
            templates: path(templates),
            public_url: mail.public_url.clone(),
        };
        Some(on.then_some(pages))
    }

    fn event_target(&mut self) -> Option<EventTarget> {
        let takes =
            "whsec_ and 24 to 64 bytes in base64; while it is replaced, the new one, a comma and the old one";
        let secrets = self.list("events.secret", takes, |text| text.parse().ok());
        let plaintext = self.flag("events.allow_plaintext");
        let plaintext =
            if plaintext == Some(true) { PlaintextPolicy::Allow } else { PlaintextPolicy::LoopbackOnly };
        let url = self.text("events.url");
        match url.as_str() {
            "" | "none" => Some(EventTarget::Nowhere),
            "console:" => Some(EventTarget::Console),
            _ if !url.starts_with("https://") && !url.starts_with("http://") => {
                self.faults.push("events.url: it takes https://…, console: or none".into());
                None
            }
            _ => {
                let secrets = secrets?;
                if secrets.is_empty() {
                    self.faults.push(format!("events.secret: webhooks need one to be signed with: {takes}"));
                    return None;
                }
                Some(EventTarget::Webhook { url: url.into(), secrets, plaintext })
            }
        }
    }

    fn policies(&mut self) -> Option<Policies> {
        let takes_format = "jwt or opaque";
        let format = self.value("tokens.format", takes_format, |text| match text {
            "jwt" => Some(TokenFormat::Jwt),
            "opaque" => Some(TokenFormat::Opaque),
            _ => None,
        });
        let algorithm =
            self.value("tokens.algorithm", "EdDSA, ES256, RS256 or HS256", |text| text.parse().ok());
        let issuer = self.text("tokens.issuer");
        let codes = CodePolicy {
            length: self.value("codes.length", "4 to 10", |text| CodeLength::new(text.parse().ok()?))?,
            ttl: self.duration("codes.ttl")?,
            attempts: self.number("codes.attempts")?,
            resend_interval: self.duration("codes.resend_interval")?,
            requests: self.number("codes.requests")?,
            window: self.duration("codes.window")?,
        };
        Some(Policies {
            codes,
            registration: RegistrationPolicy {
                enabled: self.flag("registration.enabled")?,
                pending_ttl: self.duration("registration.pending_ttl")?,
                reveal_existing: self.flag("registration.reveal_existing")?,
                welcome_mail: self.flag("registration.welcome_mail")?,
            },
            passwords: PasswordPolicy {
                min_length: self.number("passwords.min_length")?,
                sign_in_after_set: self.flag("passwords.sign_in_after_set")?,
            },
            hashing: HashPolicy {
                memory_kib: self.number("passwords.memory_kib")?,
                iterations: self.number("passwords.iterations")?,
                parallelism: self.number("passwords.parallelism")?,
                threads: self.optional_number("passwords.hash_threads")?,
                queue: self.optional_number("passwords.hash_queue")?,
            },
            throttle: ThrottlePolicy {
                enabled: self.flag("throttle.enabled")?,
                login_failures: self.number("throttle.login_failures")?,
                network_failures: self.number("throttle.network_failures")?,
                network_requests: self.number("throttle.network_requests")?,
                window: self.duration("throttle.window")?,
            },
            links: LinkPolicy {
                ttl: self.duration("links.ttl")?,
                undo_ttl: self.duration("links.undo_ttl")?,
            },
            tokens: TokenPolicy {
                format: format?,
                algorithm: algorithm?,
                access_ttl: self.duration("tokens.access_ttl")?,
                rotate_every: self.duration("tokens.rotate_every")?,
                issuer: (!issuer.is_empty()).then_some(issuer),
                audience: self.text("tokens.audience"),
            },
            sessions: SessionPolicy {
                idle_ttl: self.duration("sessions.idle_ttl")?,
                max_ttl: self.duration("sessions.max_ttl")?,
                refresh_grace: self.duration("sessions.refresh_grace")?,
                step_up_age: self.duration("sessions.step_up_age")?,
            },
            outbox: OutboxPolicy {
                concurrency: self.number("outbox.concurrency")?,
                max_attempts: self.number("outbox.max_attempts")?,
                keep_sent: self.duration("outbox.keep_sent")?,
            },
            retention: RetentionPolicy {
                audit: self.duration("audit.keep")?,
                events: self.duration("events.keep")?,
            },
            mail: MailPolicy {
                public_url: self.text("http.public_url").trim_end_matches('/').to_owned(),
                service_name: Sender::parse(&self.text("mail.from"))
                    .ok()
                    .and_then(|sender| sender.name().map(str::to_owned))
                    .unwrap_or_else(|| "usermgr".to_owned()),
                ..MailPolicy::default()
            },
            roles: RolePolicy { defined: self.roles.clone() },
            deletion: DeletionPolicy { grace: self.duration("users.deletion_grace")? },
            maintenance: MaintenancePolicy {
                enabled: self.flag("maintenance.enabled")?,
                interval: self.duration("maintenance.interval")?,
                daily_at: self.value(
                    "maintenance.daily_at",
                    "a time of day in UTC such as 03:30",
                    parse_time_of_day,
                )?,
            },
        })
    }
}

fn variable_of(key: &str) -> String {
    format!("USERMGR_{}", key.replace('.', "_").to_uppercase())
}

/// What Kubernetes sets in every container for a service that is called `usermgr`, or begins so: nobody's setting.
fn is_of_kubernetes(variable: &str, value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // `…_PORT` alone may be somebody's mistake for http.listen; there it is a URL.
    let of_port = variable.ends_with("_PORT") && value.contains("://");
    let of_one_port =
        variable.split_once("_PORT_").and_then(|(_, rest)| rest.split('_').next()).is_some_and(digits);
    variable.ends_with("_SERVICE_HOST") || variable.contains("_SERVICE_PORT") || of_port || of_one_port
}

/// The nearest name that there is, as a question; nothing when none is near.
fn nearest(name: &str, spell: impl Fn(&str) -> String) -> String {
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

fn parse_duration(text: &str) -> Option<time::Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    // A hundred years are long enough for every limit here.
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds <= 36_525 * 86_400)?;
    Some(time::Duration::seconds(seconds))
}

/// `hh:mm`, both with two digits.
fn parse_time_of_day(text: &str) -> Option<time::Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    time::Time::from_hms(number(hour)?, number(minute)?, 0).ok()
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::read(file, "usermgr.toml", &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_the_policies_own() {
        let config = read("", &[]).unwrap();
        assert_eq!(format!("{:?}", config.policies), format!("{:?}", Policies::default()));
        assert_eq!(config.base_path, "/v1");
    }

    #[test]
    fn the_environment_stands_over_the_file_over_the_defaults() {
        let file =
            "[codes]\nttl = \"60s\"\nlength = 4\n[http]\ntrusted_proxies = [\"10.0.0.0/8\", \"192.0.2.1\"]\n";
        let config =
            read(file, &[("USERMGR_CODES_TTL", "90s"), ("DATABASE_URL", "sqlite://other.db")]).unwrap();
        assert_eq!(config.policies.codes.ttl, time::Duration::seconds(90));
        assert_eq!(config.policies.codes.length.digits(), 4);
        assert_eq!(config.trusted_proxies.len(), 2);
        assert_eq!(config.database_url.expose_secret(), "sqlite://other.db");
        assert_eq!(config.warnings().len(), 1);
    }

    #[test]
    fn every_fault_is_told_at_once_with_the_key_and_what_it_takes() {
        let file = "[codes]\nttl = \"soon\"\nlenght = 4\n[passwords]\nmin_length = 4\n";
        let said = read(file, &[("USERMGR_CODE_TTL", "1s"), ("USERMGR_HTTP_LISTEN", "nowhere")]).unwrap_err();
        for part in [
            "codes.ttl (usermgr.toml): it takes a duration",
            "codes.lenght is not a key; did you mean codes.length?",
            "USERMGR_CODE_TTL is not a setting; did you mean USERMGR_CODES_TTL?",
            "http.listen (USERMGR_HTTP_LISTEN): it takes an address",
        ] {
            assert!(said.contains(part), "{part:?} in {said}");
        }
        let said = read("[passwords]\nmin_length = 4\n", &[]).unwrap_err();
        assert!(said.contains("passwords.min_length: it takes 8 to 64"), "{said}");
        let said = read("", &[("USERMGR_DATABASE_URL", "postgres://h/d")]).unwrap_err();
        assert!(said.contains("secret.key: Postgres needs one"), "{said}");
    }

    #[test]
    fn a_secret_is_given_once_and_services_of_kubernetes_are_not_settings() {
        let both = [("USERMGR_MAIL_URL", "console:"), ("USERMGR_MAIL_URL_FILE", "/nowhere")];
        let said = read("", &both).unwrap_err();
        assert_eq!(said, "mail.url: both USERMGR_MAIL_URL and USERMGR_MAIL_URL_FILE are set: it takes one");
        let kubernetes = [
            ("USERMGR_SERVICE_HOST", "10.0.0.1"),
            ("USERMGR_SERVICE_PORT", "80"),
            ("USERMGR_SERVICE_PORT_HTTP", "80"),
            ("USERMGR_PORT", "tcp://10.0.0.1:80"),
            ("USERMGR_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("USERMGR_API_SERVICE_HOST", "10.0.0.1"),
        ];
        read("", &kubernetes).unwrap();
        assert!(read("", &[("USERMGR_HTTP_PORT", "9000")]).is_err(), "somebody means http.listen");
        assert!(
            KEYS.iter().all(|key| !is_of_kubernetes(&variable_of(key.name), "tcp://")),
            "a key would never be read"
        );
        let said = read("", &[("USERMGR_DATABASE_MAX_CONNECTIONS", "0")]).unwrap_err();
        assert!(said.contains("it takes a whole number from 1 on"), "{said}");
    }

    #[test]
    fn no_url_shows_its_password_however_it_is_written() {
        for url in [
            "postgres://app:hunter22@db/app",
            "postgres://db/app?user=app&password=hunter22",
            "postgres://db/app?sslkey=hunter22",
            "postgres://app:hun/hunter22@db/app",
            "smtp://me:hun#hunter22@mail.example.org:587",
            "smtp://me:hunter22@mail.example.org:99999",
            "https://hunter22@mail.example.org/send",
            "https://:hunter22@mail.example.org/send",
        ] {
            assert!(!mask(url, Secrecy::Url).contains("hunter22"), "{}", mask(url, Secrecy::Url));
        }
        for url in ["console:", "memory:", "sqlite://usermgr.db", "smtp://mail.example.org:587?tls=required"]
        {
            assert_eq!(mask(url, Secrecy::Url), url);
        }
    }

    #[test]
    fn a_time_of_day_has_two_digits_and_two_digits() {
        let config = read("[maintenance]\ndaily_at = \"03:30\"\n", &[]).unwrap();
        assert_eq!(config.policies.maintenance.daily_at, time::macros::time!(03:30));
        assert!(config.warnings().is_empty(), "it does something");
        for wrong in ["3:30", "24:00", "12:60", "12", "12:00:00", "+1:00", "noon", ""] {
            let said = read("", &[("USERMGR_MAINTENANCE_DAILY_AT", wrong)]).unwrap_err();
            assert!(said.contains("it takes a time of day in UTC"), "{said}");
        }
        let said = read("[maintenance]\ninterval = \"0s\"\n", &[]).unwrap_err();
        assert!(said.contains("maintenance.interval: it takes 1s or more"), "{said}");
    }

    #[test]
    fn roles_are_defined_by_what_they_permit() {
        let file = "[roles]\nsupport = [\"users:read\", \"audit:read\"]\n";
        let config = read(file, &[("USERMGR_ROLES_MAILROOM", "outbox:manage")]).unwrap();
        let names: Vec<_> = config.policies.roles.defined.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["mailroom", "support"]);
        let said = read("[roles]\nSupport = [\"everything\"]\nadmin = [\"users:read\"]\n", &[]).unwrap_err();
        assert!(said.contains("roles.Support (usermgr.toml): it takes a name"), "{said}");
    }

    #[test]
    fn webhooks_are_signed_or_not_sent() {
        const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let webhook = ("USERMGR_EVENTS_URL", "https://app.example.org/hooks");
        let said = read("", &[webhook]).unwrap_err();
        assert!(said.contains("events.secret: webhooks need one"), "{said}");
        let said = read("", &[webhook, ("USERMGR_EVENTS_SECRET", "secret")]).unwrap_err();
        assert!(said.contains("events.secret (USERMGR_EVENTS_SECRET): it takes whsec_"), "{said}");
        let said = read("", &[("USERMGR_EVENTS_URL", "ftp://app.example.org")]).unwrap_err();
        assert!(said.contains("events.url: it takes https://"), "{said}");
        let two = format!("{SECRET}, {SECRET}");
        let config = read("", &[webhook, ("USERMGR_EVENTS_SECRET", &two)]).unwrap();
        assert!(matches!(&config.events, EventTarget::Webhook { secrets, .. } if secrets.len() == 2));
        assert!(!format!("{config:?} {:?}", config.values).contains("MfKQ9r8"));
        for (url, is_console) in [("", false), ("none", false), ("console:", true)] {
            let config = read("", &[("USERMGR_EVENTS_URL", url)]).unwrap();
            assert_eq!(matches!(config.events, EventTarget::Console), is_console);
        }
    }

    #[test]
    fn pages_look_as_the_settings_say() {
        let config = read("[pages]\nname = \"Example\"\naccent = \"#0b6e4f\"\n", &[]).unwrap();
        assert!(config.warnings().is_empty());
        let pages = config.pages.unwrap();
        assert_eq!((pages.name.as_str(), pages.accent), ("Example", Accent::parse("#0b6e4f").unwrap()));
        let said = read("", &[("USERMGR_PAGES_ACCENT", "#ffcc00")]).unwrap_err();
        assert!(
            said.starts_with("pages.accent (USERMGR_PAGES_ACCENT): it takes a colour such as #3450c8"),
            "{said}"
        );
        let lan = ("USERMGR_HTTP_PUBLIC_URL", "http://192.0.2.7:8000");
        assert!(read("", &[lan]).unwrap().warnings()[0].contains("browsers keep none of the pages' cookies"));
        let off = read("", &[lan, ("USERMGR_HTTP_PAGES", "false")]).unwrap();
        assert!(off.pages.is_none() && off.warnings().is_empty());
    }

    #[test]
    fn no_secret_is_shown() {
        let key = "aGVsbG8gd29ybGQsIHRoaXMgaXMgYSB0ZXN0IGtleS4=";
        let environment = [
            ("USERMGR_SECRET_KEY", key),
            ("USERMGR_DATABASE_URL", "postgres://app:hunter22@db/app"),
            ("USERMGR_MAIL_URL", "smtp://me:hunter33@mail.example.org:587"),
        ];
        let config = read("", &environment).unwrap();
        let shown = format!("{config:?} {:?}", config.values.masked().collect::<Vec<_>>());
        for secret in [key, "hunter22", "hunter33"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
