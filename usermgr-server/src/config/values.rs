//! The values in force as text, with secrets masked.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

use super::keys::{KEYS, Secrecy};

/// The text of every key and where it came from.
#[derive(Clone, Default)]
pub struct Values(pub(super) BTreeMap<&'static str, (SecretString, String)>);

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

pub(super) fn mask(value: &str, secrecy: Secrecy) -> String {
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
