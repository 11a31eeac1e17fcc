//! `database.url`: read once, for the store that opens it and for the key file beside it.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::SecretString;

/// What `database.url` takes.
pub(super) const TAKES_DATABASE: &str =
    "sqlite://FILE (in a folder: sqlite:///FOLDER/FILE), postgres://USER:PASSWORD@HOST/DATABASE or memory:";

/// What stays as it is in the path of an SQLite URL.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// Where everything is kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DatabaseUrl {
    /// In this process, which forgets it at its end.
    Memory,
    /// In a file.
    Sqlite(SqliteUrl),
    /// On a server.
    Postgres(SecretString),
}

/// A file of SQLite, and how it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteUrl {
    file: PathBuf,
    url: String,
}

impl SqliteUrl {
    /// The database.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The file of the secret key: `users.db` -> `users.key`.
    pub fn key_file(&self) -> PathBuf {
        self.file.with_extension("key")
    }

    /// The URL of exactly this file, for the store.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn parse(text: &str) -> Option<Self> {
        let (path, parameters) = match text.split_once('?') {
            Some((path, parameters)) => (path, Some(parameters)),
            None => (text, None),
        };
        let path = path.strip_prefix("//").unwrap_or(path);
        let file = percent_decode_str(path).decode_utf8().ok()?;
        // A fourth slash is a slip: some drivers open an absolute path then, and others a relative one.
        let is_file = !file.is_empty()
            && !file.starts_with("//")
            && !file.starts_with(':')
            && !file.ends_with(['/', '.'])
            && !file.chars().any(char::is_control);
        // Its key file would be the database itself.
        let is_key = Path::new(&*file).extension().is_some_and(|extension| extension == "key");
        if !is_file || is_key || !parameters.is_none_or(are_known) {
            return None;
        }
        let mut url = format!("sqlite://{}", utf8_percent_encode(&file, PATH));
        if let Some(parameters) = parameters {
            url.extend(["?", parameters]);
        }
        Some(Self { file: PathBuf::from(&*file), url })
    }
}

/// Whether the store takes these parameters. It writes, so a database that is only read is none.
fn are_known(parameters: &str) -> bool {
    url::form_urlencoded::parse(parameters.as_bytes()).all(|(name, value)| match &*name {
        "mode" => matches!(&*value, "rw" | "rwc"),
        "cache" => matches!(&*value, "private" | "shared"),
        "immutable" => matches!(&*value, "false" | "0"),
        "vfs" => !value.is_empty(),
        _ => false,
    })
}

/// Whether a text is a URL of PostgreSQL, as its driver reads it.
fn is_postgres(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    let parts = [url.username(), url.password().unwrap_or_default(), url.path()];
    let decodes = |part: &&str| percent_decode_str(part).decode_utf8().is_ok();
    let is_known = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| match &*name {
        "sslmode" | "ssl-mode" => ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
            .contains(&value.to_ascii_lowercase().as_str()),
        "port" => value.parse::<u16>().is_ok(),
        "hostaddr" => value.parse::<std::net::IpAddr>().is_ok(),
        _ => true,
    };
    url.fragment().is_none() && parts.iter().all(decodes) && url.query_pairs().all(is_known)
}

impl DatabaseUrl {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "memory:" {
            return Some(Self::Memory);
        }
        if let Some(rest) = text.strip_prefix("sqlite:") {
            return SqliteUrl::parse(rest).map(Self::Sqlite);
        }
        let has_scheme = text.starts_with("postgres://") || text.starts_with("postgresql://");
        (has_scheme && is_postgres(text)).then(|| Self::Postgres(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(text: &str) -> Option<SqliteUrl> {
        match DatabaseUrl::parse(text) {
            Some(DatabaseUrl::Sqlite(url)) => Some(url),
            _ => None,
        }
    }

    #[test]
    fn the_database_and_its_key_stand_in_one_folder() {
        for (text, file, key) in [
            ("sqlite://usermgr.db", "usermgr.db", "usermgr.key"),
            ("sqlite:usermgr.db", "usermgr.db", "usermgr.key"),
            ("sqlite:///srv/my%20data/users.db", "/srv/my data/users.db", "/srv/my data/users.key"),
            ("sqlite:///srv/my data/users.db?mode=rwc", "/srv/my data/users.db", "/srv/my data/users.key"),
            ("sqlite:///srv/a%3Fb%23c%25.db", "/srv/a?b#c%.db", "/srv/a?b#c%.key"),
            ("sqlite:///srv/100%/users", "/srv/100%/users", "/srv/100%/users.key"),
            ("sqlite:///srv/n%C3%BAmero.db", "/srv/número.db", "/srv/número.key"),
        ] {
            let url = sqlite(text).unwrap();
            assert_eq!((url.file(), url.key_file().as_path()), (Path::new(file), Path::new(key)), "{text}");
            assert_eq!(sqlite(url.url()).as_ref(), Some(&url), "it means the same when it is read again");
        }
    }

    #[test]
    fn what_no_store_can_open_or_keep_is_refused() {
        for text in [
            "",
            "sqlite",
            "sqlite:",
            "sqlite://",
            "sqlite:///",
            "sqlite://?mode=rwc",
            "sqlite::memory:",
            "sqlite://:memory:",
            "sqlite:////srv/users.db",
            "sqlite:///srv/data/",
            "sqlite://.",
            "sqlite:///srv/..",
            "sqlite://users.key",
            "sqlite://a%00b.db",
            "sqlite://a%FF.db",
            "sqlite://users.db?mode=ro",
            "sqlite://users.db?mode=memory",
            "sqlite://users.db?immutable=1",
            "sqlite://users.db?cache=maybe",
            "sqlite://users.db?busy_timeout=5",
            "postgres://h:99999/d",
            "postgres://h/d?sslmode=maybe",
            "postgres://u:%FF@h/d",
            "postgres://u:a#b@h/d",
            "postgres:",
            "mysql://h/d",
            "memory",
            "memory:x",
        ] {
            assert!(DatabaseUrl::parse(text).is_none(), "{text}");
        }
    }
}
