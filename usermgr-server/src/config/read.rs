//! Reading: the file, the environment over it, and what each value means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

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

use super::database::{DatabaseUrl, TAKES_DATABASE};
use super::keys::{KEYS, Key, Secrecy, Shape, is_of_kubernetes, nearest, variable_of};
use super::listen::TAKES_LISTEN;
use super::text::{
    TAKES_PUBLIC_URL, is_claim, is_http_url, parse_base_path, parse_duration, parse_origin, parse_public_url,
    parse_size, parse_time_of_day, trimmed,
};
use super::values::Values;
use super::{Config, EventTarget, LogFormat, TlsFiles};
use crate::http::Hsts;
use crate::pages::{Accent, PagesOptions, TAKES_ACCENT};

/// The most bytes of a value: lists of networks are long.
const MAX_VALUE: usize = 64 * 1024;
/// The most bytes of a path, as on Linux.
const MAX_PATH: usize = 4096;
/// The most bytes of a URL of another service.
const MAX_URL: usize = 8 * 1024;

#[derive(Default)]
pub(super) struct Reader {
    values: Values,
    roles: BTreeMap<Role, BTreeSet<Permission>>,
    pub(super) faults: Vec<String>,
}

impl Reader {
    /// Takes the text of a key, without the blanks around it: a file of variables with CRLF ends each value in a carriage
    /// return.
    pub(super) fn set(&mut self, key: &Key, value: &str, source: &str) {
        let value = trimmed(value);
        if value.chars().any(char::is_control) {
            self.faults
                .push(format!("{} ({source}): it takes one line without control characters", key.name));
        } else if value.len() > MAX_VALUE {
            self.faults.push(format!("{} ({source}): it takes at most {MAX_VALUE} bytes", key.name));
        } else {
            self.values.0.insert(key.name, (value.into(), source.to_owned()));
        }
    }

    pub(super) fn file(&mut self, text: &str, origin: &str) {
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
                let known = KEYS.iter().find(|key| key.name == name);
                let text = match value {
                    toml::Value::String(text) => text,
                    toml::Value::Table(_) => {
                        self.faults.push(format!("{origin}: {name} is a table, and no key is one"));
                        continue;
                    }
                    toml::Value::Array(_) if known.is_some_and(|key| key.shape == Shape::One) => {
                        self.faults.push(format!("{name} ({origin}): it takes one value, not a list"));
                        continue;
                    }
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
                match known {
                    Some(key) => self.set(key, &text, origin),
                    None => self
                        .faults
                        .push(format!("{origin}: {name} is not a key{}", nearest(&name, str::to_owned))),
                }
            }
        }
    }

    pub(super) fn environment(&mut self, environment: &BTreeMap<String, String>) {
        let is_set =
            |variable: &str| environment.get(variable).is_some_and(|value| !trimmed(value).is_empty());
        let database = KEYS.iter().find(|key| key.name == "database.url");
        if let (Some(url), Some(key)) = (environment.get("DATABASE_URL"), database)
            && is_set("DATABASE_URL")
        {
            self.set(key, url, "DATABASE_URL");
        }
        for (variable, value) in environment.iter().filter(|(variable, _)| variable.starts_with("USERMGR_")) {
            if variable == "USERMGR_CONFIG" || variable.starts_with("USERMGR_TEST_") {
                continue;
            }
            // An empty variable is one that is not set: so Compose and CI write those that nobody gave a value.
            let is_empty = !is_set(variable);
            if let Some(key) = KEYS.iter().find(|key| variable_of(key.name) == *variable) {
                if !is_empty {
                    self.set(key, value, variable);
                }
                continue;
            }
            if let Some(role) = variable.strip_prefix("USERMGR_ROLES_") {
                if !is_empty {
                    self.role(&role.to_lowercase(), value, variable);
                }
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
            if is_empty {
                continue;
            }
            let direct = variable_of(key.name);
            if is_set(&direct) {
                self.faults.push(format!("{}: both {direct} and {variable} are set: it takes one", key.name));
                continue;
            }
            let file = trimmed(value);
            match std::fs::read_to_string(file) {
                Ok(text) => self.set(key, &text, variable),
                Err(error) => self.faults.push(format!("{variable}: {file}: {error}")),
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

    /// Reads a value. What is wrong with it is noted, with where it came from and what the key takes; then the default
    /// stands in for it, so that what is wrong elsewhere is told too.
    fn value<T>(&mut self, name: &'static str, takes: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = read(&self.text(name));
        if value.is_some() {
            return value;
        }
        let source = self.values.0.get(name).map(|(_, source)| source.clone()).unwrap_or_default();
        let source = if source == "default" { String::new() } else { format!(" ({source})") };
        self.faults.push(format!("{name}{source}: it takes {takes}"));
        KEYS.iter().find(|key| key.name == name).and_then(|key| read(key.default))
    }

    /// A number within bounds.
    fn counted<T>(&mut self, name: &'static str, bounds: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let takes = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.value(name, &takes, |text| text.parse().ok().filter(|number| bounds.contains(number)))
    }

    /// What mailed links begin with, without the slash at its end.
    fn public_url(&mut self) -> Option<String> {
        let url = self.value("http.public_url", TAKES_PUBLIC_URL, parse_public_url)?;
        let path = url.splitn(4, '/').nth(3);
        if path.is_some() && self.text("http.pages") == "true" {
            self.faults.push(
                "http.public_url: it takes no path where http.pages is true: pages stand at the root of their host".into(),
            );
        }
        Some(url)
    }

    fn duration(&mut self, name: &'static str) -> Option<time::Duration> {
        self.value(name, "a duration such as 60s, 10m, 24h or 30d", parse_duration)
    }

    /// The path of a file or folder, if one is named.
    #[expect(clippy::option_option, reason = "outside: could it be read; inside: is it set")]
    fn path(&mut self, name: &'static str) -> Option<Option<PathBuf>> {
        self.value(name, "a path of at most 4096 bytes", |text| {
            let path = (!text.is_empty()).then(|| PathBuf::from(text));
            (text.len() <= MAX_PATH).then_some(path)
        })
    }

    /// A URL of another service, with its credentials.
    fn url(&mut self, name: &'static str, takes: &str, fits: impl Fn(&str) -> bool) -> Option<SecretString> {
        let read = |text: &str| (text.len() <= MAX_URL && fits(text)).then(|| SecretString::from(text));
        self.value(name, takes, read)
    }

    fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.value(name, "true or false", |text| text.parse().ok())
    }

    fn number<T: std::str::FromStr>(&mut self, name: &'static str) -> Option<T> {
        self.value(name, "a whole number", |text| text.parse().ok())
    }

    #[expect(clippy::option_option, reason = "outside: could it be read; inside: is it set")]
    fn optional<T: std::str::FromStr>(&mut self, name: &'static str, takes: &str) -> Option<Option<T>> {
        self.value(name, takes, |text| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) })
    }

    /// The certificate and the key, if both are named.
    fn tls(&mut self) -> Option<TlsFiles> {
        let (certificates, key) = (self.path("http.tls_cert")?, self.path("http.tls_key")?);
        let lacking = match (certificates, key) {
            (None, None) => return None,
            (Some(certificates), Some(key)) => return Some(TlsFiles { certificates, key }),
            (None, Some(_)) => ("http.tls_cert", "http.tls_key"),
            (Some(_), None) => ("http.tls_key", "http.tls_cert"),
        };
        self.faults
            .push(format!("{}: it takes a file, since {} names one: TLS needs both", lacking.0, lacking.1));
        None
    }

    fn hsts(&mut self) -> Option<Hsts> {
        let takes =
            "off, host or subdomains, the latter two with an age of ten years at most, such as host 365d";
        let hsts = self.value("http.hsts", takes, |text| {
            if text.is_empty() { Some(Hsts::WhereHttps) } else { text.parse().ok() }
        })?;
        if hsts.max_age().is_some() && !self.text("http.public_url").starts_with("https://") {
            self.faults.push(
                "http.hsts: it takes off where http.public_url does not begin with https://: browsers that were told \
                 would not come any more"
                    .into(),
            );
        }
        Some(hsts)
    }

    fn otlp_url(&mut self) -> Option<SecretString> {
        if self.text("traces.otlp_url").is_empty() {
            return None;
        }
        if !cfg!(feature = "otlp") {
            self.faults.push(
                "traces.otlp_url: this program was built without the feature otlp; take the key away".into(),
            );
            return None;
        }
        self.url("traces.otlp_url", "a URL such as http://localhost:4318/v1/traces", |text| {
            text.is_empty() || is_http_url(text)
        })
    }

    fn list<T>(
        &mut self,
        name: &'static str,
        takes: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.value(name, takes, |text| {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(&read).collect()
        })
    }

    fn mail_callback_secrets(&mut self) -> Option<Vec<WebhookSecret>> {
        let takes =
            "whsec_ and 24 to 64 random bytes in base64; two with a comma between while one is replaced";
        self.list("mail.callback_secret", takes, |text| text.parse().ok())
    }

    #[expect(clippy::too_many_lines, reason = "a line or two for each key")]
    pub(super) fn config(&mut self) -> Option<Config> {
        let policies = self.policies();
        let faults = policies.as_ref().map(Policies::faults).unwrap_or_default();
        self.faults
            .extend(faults.into_iter().map(|fault| format!("{}: it takes {}", fault.setting, fault.fault)));
        let database = self.value("database.url", TAKES_DATABASE, |text| {
            DatabaseUrl::parse(text).filter(|_| text.len() <= MAX_URL)
        });
        let max_connections = self.counted("database.max_connections", 1..=10_000);
        let database_timeout =
            self.value("database.timeout", "a duration from 1s to 1m such as 5s", |text| {
                let timeout = parse_duration(text)?;
                (time::Duration::SECOND..=time::Duration::MINUTE)
                    .contains(&timeout)
                    .then(|| timeout.unsigned_abs())
            });
        let listen = self.value("http.listen", TAKES_LISTEN, |text| text.parse().ok());
        let base_path = self.value("http.base_path", "a path such as /v1 or /", parse_base_path);
        let trusted_proxies =
            self.list("http.trusted_proxies", "networks such as 10.0.0.0/8, or addresses", |text| {
                text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<std::net::IpAddr>().ok()?)))
            });
        let forwarded_header =
            self.value("http.forwarded_header", "x-forwarded-for or forwarded", |text| text.parse().ok());
        let hsts = self.hsts();
        let keep_alive = self.value("http.keep_alive", "a duration from 1s to 1h such as 75s", |text| {
            let keep_alive = parse_duration(text)?.unsigned_abs();
            (1..=3600).contains(&keep_alive.as_secs()).then_some(keep_alive)
        });
        let http_connections = self.counted("http.max_connections", 1..=1_000_000);
        let per_network = self.counted("http.max_connections_per_network", 1..=1_000_000);
        let cors_origins =
            self.list("http.cors_origins", "origins such as https://app.example.org", parse_origin);
        let metrics_listen = self.optional(
            "http.metrics_listen",
            "as http.listen an address or name and a port, such as 127.0.0.1:9464",
        );
        let tls = self.tls();
        let otlp_url = self.otlp_url();
        let docs = self.flag("http.docs");
        let max_body = self.value("http.max_body", "a size from 1KiB to 64MiB such as 64KiB", |text| {
            parse_size(text).filter(|size| (1024..=64 * 1024 * 1024).contains(size))
        });
        let mail_from = self.value("mail.from", "an address such as App <noreply@example.org>", |text| {
            Sender::parse(text).ok()
        });
        let mail_templates = self.path("mail.templates");
        let extra_ca = self.path("tls.extra_ca");
        let takes_mail =
            "console:, file:///FOLDER, smtp://HOST:587, smtps://HOST, https://HOST/PATH or memory:";
        let mail_url = self.url("mail.url", takes_mail, |text| url::Url::parse(text).is_ok());
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
        if let Some(weakness) = secret_key.as_ref().and_then(|key| key.as_ref()?.weakness()) {
            let make = "make one with openssl rand -base64 32";
            self.faults.push(format!("secret.key: it is {weakness}, so anybody can guess it; {make}"));
        }
        let pages = self.pages(policies.as_ref().map(|policies| &policies.mail));
        let events = self.event_target();
        let mail_callback_secrets = self.mail_callback_secrets();
        let log_format = self.value("log.format", "pretty or json", |text| match text {
            "" => Some(None),
            "pretty" => Some(Some(LogFormat::Pretty)),
            "json" => Some(Some(LogFormat::Json)),
            _ => None,
        });
        let log_level = self.value("log.level", "trace, debug, info, warn or error", |text| {
            ["trace", "debug", "info", "warn", "error"].contains(&text).then(|| text.to_owned())
        });
        if matches!(database, Some(DatabaseUrl::Postgres(_))) && self.text("secret.key").is_empty() {
            self.faults
                .push(format!("secret.key: Postgres needs one, the same on every server: {takes_key}"));
        }
        Some(Config {
            database_url: database?,
            max_connections: max_connections?,
            database_timeout: database_timeout?,
            listen: listen?,
            base_path: base_path?,
            trusted_proxies: trusted_proxies?,
            forwarded_header: forwarded_header?,
            hsts: hsts?,
            keep_alive: keep_alive?,
            http_connections: http_connections?,
            http_connections_per_network: per_network?,
            cors_origins: cors_origins?,
            max_body: max_body?,
            docs: docs?,
            pages: pages?,
            tls,
            metrics_listen: metrics_listen?,
            otlp_url,
            mail_url: mail_url?,
            mail_from: mail_from?,
            mail_templates: mail_templates?,
            mail_plaintext: plaintext,
            extra_ca: extra_ca?,
            events: events?,
            mail_callback_secrets: mail_callback_secrets?,
            secret_key: secret_key?,
            previous_keys: previous_keys?,
            policies: policies?,
            log_format: log_format?,
            log_level: log_level?,
            no_color: false,
            values: self.values.clone(),
        })
    }

    #[expect(clippy::option_option, reason = "outside: could it be read; inside: are they on")]
    fn pages(&mut self, mail: Option<&MailPolicy>) -> Option<Option<PagesOptions>> {
        let accent = self.value("pages.accent", TAKES_ACCENT, Accent::parse);
        let name = self.value("pages.name", "a name of at most 200 bytes", |text| {
            (text.len() <= Sender::MAX_NAME).then(|| text.to_owned())
        });
        let (logo, templates) = (self.path("pages.logo"), self.path("pages.templates"));
        let (on, accent, mail, name) = (self.flag("http.pages")?, accent?, mail?, name?);
        let pages = PagesOptions {
            name: if name.is_empty() { mail.service_name.clone() } else { name },
            logo: logo?,
            accent,
            templates: templates?,
            public_url: mail.public_url.clone(),
        };
        Some(on.then_some(pages))
    }

    fn event_target(&mut self) -> Option<EventTarget> {
        let takes = "whsec_ and 24 to 64 random bytes in base64; while it is replaced, the new one, a comma and the old one";
        let secrets = self.list("events.secret", takes, |text| text.parse().ok());
        let plaintext = self.flag("events.allow_plaintext");
        let plaintext =
            if plaintext == Some(true) { PlaintextPolicy::Allow } else { PlaintextPolicy::LoopbackOnly };
        let url = self.url("events.url", "https://…, console: or none", |text| {
            matches!(text, "" | "none" | "console:") || is_http_url(text)
        })?;
        match url.expose_secret() {
            "" | "none" => Some(EventTarget::Nowhere),
            "console:" => Some(EventTarget::Console),
            _ => {
                if self.text("events.secret").is_empty() {
                    self.faults.push(format!("events.secret: webhooks need one to be signed with: {takes}"));
                    return None;
                }
                Some(EventTarget::Webhook { url, secrets: secrets?, plaintext })
            }
        }
    }

    fn outbox_policy(&mut self) -> Option<OutboxPolicy> {
        Some(OutboxPolicy {
            concurrency: self.number("outbox.concurrency")?,
            max_attempts: self.number("outbox.max_attempts")?,
            keep_sent: self.duration("outbox.keep_sent")?,
            keep_dead: self.duration("outbox.keep_dead")?,
        })
    }

    fn token_policy(&mut self) -> Option<TokenPolicy> {
        let takes_format = "jwt or opaque";
        let format = self.value("tokens.format", takes_format, |text| match text {
            "jwt" => Some(TokenFormat::Jwt),
            "opaque" => Some(TokenFormat::Opaque),
            _ => None,
        });
        let algorithm =
            self.value("tokens.algorithm", "EdDSA, ES256, RS256 or HS256", |text| text.parse().ok());
        let issuer = self.value("tokens.issuer", "a name without blanks, of at most 1024 bytes", |text| {
            (text.is_empty() || is_claim(text)).then(|| text.to_owned())
        });
        let audience = self.value(
            "tokens.audience",
            "one name without blanks or commas, of at most 1024 bytes",
            |text| (is_claim(text) && !text.contains(',')).then(|| text.to_owned()),
        );
        Some(TokenPolicy {
            format: format?,
            algorithm: algorithm?,
            access_ttl: self.duration("tokens.access_ttl")?,
            rotate_every: self.duration("tokens.rotate_every")?,
            issuer: issuer.map(|issuer| (!issuer.is_empty()).then_some(issuer))?,
            audience: audience?,
        })
    }

    fn policies(&mut self) -> Option<Policies> {
        let (tokens, public_url) = (self.token_policy(), self.public_url());
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
                threads: self.optional("passwords.hash_threads", "a whole number")?,
                queue: self.optional("passwords.hash_queue", "a whole number")?,
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
            tokens: tokens?,
            sessions: SessionPolicy {
                idle_ttl: self.duration("sessions.idle_ttl")?,
                max_ttl: self.duration("sessions.max_ttl")?,
                refresh_grace: self.duration("sessions.refresh_grace")?,
                step_up_age: self.duration("sessions.step_up_age")?,
            },
            outbox: self.outbox_policy()?,
            retention: RetentionPolicy {
                audit: self.duration("audit.keep")?,
                events: self.duration("events.keep")?,
            },
            mail: MailPolicy {
                public_url: public_url?,
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
