//! Configuration: a table of keys, a TOML file, and environment variables over it.
//!
//! `keys` is the one place that names a key. Whatever is wrong is told at once, a line for each fault.

mod database;
mod explain;
mod keys;
mod listen;
mod read;
mod sample;
mod text;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use usermgr_core::SecretKey;
use usermgr_core::crypto::webhook::WebhookSecret;
use usermgr_core::policy::Policies;
use usermgr_smtp::{PlaintextPolicy, Sender};

pub use database::{DatabaseUrl, SqliteUrl};
pub(crate) use listen::Bind;
pub use listen::{InvalidListenAddress, ListenAddress};
pub use sample::sample;
pub use values::Values;

use keys::KEYS;
use read::Reader;

use crate::http::{ForwardedHeader, Hsts};
use crate::pages::PagesOptions;

/// The configuration in force.
#[derive(Debug)]
#[expect(missing_docs, reason = "each field is the key it names")]
#[non_exhaustive]
pub struct Config {
    pub database_url: DatabaseUrl,
    pub max_connections: u32,
    pub database_timeout: std::time::Duration,
    pub listen: ListenAddress,
    pub base_path: String,
    pub trusted_proxies: Vec<IpNet>,
    pub forwarded_header: ForwardedHeader,
    pub hsts: Hsts,
    pub keep_alive: Duration,
    /// `http.max_connections`; [`max_connections`](Self::max_connections) are those to the database.
    pub http_connections: usize,
    /// `http.max_connections_per_network`.
    pub http_connections_per_network: usize,
    pub cors_origins: Vec<String>,
    pub max_body: usize,
    pub docs: bool,
    /// How the pages look; none where they are switched off.
    pub pages: Option<PagesOptions>,
    pub tls: Option<TlsFiles>,
    pub metrics_listen: Option<ListenAddress>,
    pub otlp_url: Option<SecretString>,
    pub mail_url: SecretString,
    pub mail_from: Sender,
    pub mail_templates: Option<PathBuf>,
    pub mail_plaintext: PlaintextPolicy,
    pub extra_ca: Option<PathBuf>,
    pub events: EventTarget,
    pub mail_callback_secrets: Vec<WebhookSecret>,
    pub secret_key: Option<SecretKey>,
    pub previous_keys: Vec<SecretKey>,
    pub policies: Policies,
    pub log_format: Option<LogFormat>,
    pub log_level: String,
    /// Whether `NO_COLOR` asks for none.
    pub no_color: bool,
    /// Every value as text and where it came from, for `config`.
    pub values: Values,
}

/// The files of a server that speaks TLS itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The certificates, the server's own first, in PEM.
    pub certificates: PathBuf,
    /// The private key of the first, in PEM.
    pub key: PathBuf,
}

/// Where events go, beside the feed.
#[derive(Debug)]
#[non_exhaustive]
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
#[non_exhaustive]
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

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    let path = path.display();
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("{path}: there is no such file; usermgr-server config sample > {path} makes one")
        }
        _ => format!("{path}: {error}"),
    }
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
        let variable = environment.get("USERMGR_CONFIG").map(|path| text::trimmed(path));
        let named = file
            .map(Path::to_path_buf)
            .or_else(|| variable.filter(|path| !path.is_empty()).map(PathBuf::from));
        let file = named.or_else(|| beside.exists().then(|| beside.to_path_buf()));
        let text = match &file {
            None => String::new(),
            Some(path) => {
                std::fs::read_to_string(path).map_err(|error| ConfigError(vec![unreadable(path, &error)]))?
            }
        };
        let origin = file.map_or_else(|| "file".to_owned(), |path| path.display().to_string());
        Self::read(&text, &origin, &environment)
    }

    fn read(file: &str, origin: &str, environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        for key in KEYS {
            reader.set(key, key.default, "default");
        }
        reader.file(file, origin);
        reader.environment(environment);
        let no_color = environment.get("NO_COLOR").is_some_and(|value| !value.is_empty());
        let config = reader.config().map(|config| Config { no_color, ..config });
        if reader.faults.is_empty() {
            config.ok_or_else(|| ConfigError(vec!["the configuration cannot be read".into()]))
        } else {
            Err(ConfigError(reader.faults))
        }
    }
}

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod tests;
