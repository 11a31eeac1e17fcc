//! Mail addresses: one parser decides everywhere.

use std::fmt;
use std::str::FromStr;

use unicode_normalization::UnicodeNormalization as _;

use super::fold::fold;

/// A mail address as it was typed, with the domain in lower case and in ASCII form.
///
/// Two addresses are the same account when their [`key`](Self::key)s are equal; mail always goes to the address
/// as it is stored, never to a look-alike that was typed later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    address: String,
    key: EmailKey,
}

/// The form of an address that accounts are looked up by: the local part folded as [`Username::folded`] does, the domain in
/// ASCII.
///
/// [`Username::folded`]: crate::domain::user::Username::folded
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EmailKey(String);

/// A text that is no mail address we deliver to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a mail address of the form name@domain.example")]
pub struct InvalidEmail;

impl Email {
    /// The most bytes of the part before the `@` (RFC 5321 §4.5.3.1.1).
    pub const MAX_LOCAL: usize = 64;
    /// The most bytes of a whole address (RFC 5321 §4.5.3.1.3, less the angle brackets).
    pub const MAX: usize = 254;

    /// Reads one bare address (RFC 5322 `dot-atom`, with RFC 6531's characters beyond ASCII).
    ///
    /// Refused, on purpose: quoted local parts, address literals such as `[192.0.2.1]`, comments, display names,
    /// lists, encoded words and domains without a dot. Mail software disagrees about them, and such disagreement
    /// is how a code reaches the wrong mailbox.
    ///
    /// # Errors
    /// [`InvalidEmail`] when the text is anything else.
    ///
    /// ```
    /// use usermgr_core::Email;
    ///
    /// let email = Email::parse("Ana@Exámple.ORG")?;
    /// assert_eq!(email.as_str(), "Ana@xn--exmple-qta.org");
    /// assert_eq!(email.key(), Email::parse("ana@xn--exmple-qta.org")?.key());
    /// # Ok::<_, usermgr_core::InvalidEmail>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        // Bounded before anything that costs more than a look at each byte.
        if text.len() > 4 * Self::MAX {
            return Err(InvalidEmail);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail)?;
        let local: String = local.nfc().collect();
        check_local(&local)?;
        let domain = ascii_domain(domain)?;
        let address = format!("{local}@{domain}");
        if address.len() > Self::MAX {
            return Err(InvalidEmail);
        }
        let key = EmailKey(format!("{}@{domain}", fold(&local)));
        Ok(Self { address, key })
    }

    /// The address as mail is sent to it.
    pub fn as_str(&self) -> &str {
        &self.address
    }

    /// Whether it is the same mailbox for any mail server: the same letters, but for the case of ASCII. Two addresses of one
    /// key may still be two mailboxes ("straße" and "strasse").
    pub fn is_spelt_as(&self, other: &Self) -> bool {
        self.as_str().eq_ignore_ascii_case(other.as_str())
    }

    /// What accounts are looked up by.
    pub const fn key(&self) -> &EmailKey {
        &self.key
    }

    /// The part before the `@`.
    pub fn local(&self) -> &str {
        self.address.rsplit_once('@').map_or("", |(local, _)| local)
    }

    /// The domain, in ASCII.
    pub fn domain(&self) -> &str {
        self.address.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

fn check_local(local: &str) -> Result<(), InvalidEmail> {
    let fits = !local.is_empty()
        && local.len() <= Email::MAX_LOCAL
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && !local.starts_with("=?")
        && local.chars().all(is_atom);
    if fits { Ok(()) } else { Err(InvalidEmail) }
}

/// RFC 5322 `atext` and the dot, and RFC 6531's characters beyond ASCII that are visible.
fn is_atom(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c)
    } else {
        c.is_alphanumeric() || unicode_normalization::char::is_combining_mark(c)
    }
}

fn ascii_domain(domain: &str) -> Result<String, InvalidEmail> {
    // Which characters a mailbox domain may have is stricter than what UTS 46 lets pass.
    let plain = domain.chars().all(|c| !c.is_ascii() || c.is_ascii_alphanumeric() || c == '-' || c == '.');
    if !plain || domain.is_empty() {
        return Err(InvalidEmail);
    }
    let ascii = idna::domain_to_ascii_cow(domain.as_bytes(), idna::AsciiDenyList::STD3)
        .map_err(|_| InvalidEmail)?
        .into_owned();
    let labels: Vec<&str> = ascii.split('.').collect();
    let label_fits =
        |label: &&str| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
    let top_is_a_name = labels.last().is_some_and(|top| !top.bytes().all(|b| b.is_ascii_digit()));
    if labels.len() >= 2 && labels.iter().all(label_fits) && top_is_a_name {
        Ok(ascii)
    } else {
        Err(InvalidEmail)
    }
}

impl FromStr for Email {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        Self::parse(text)
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl serde::Serialize for Email {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.address)
    }
}

impl<'de> serde::Deserialize<'de> for Email {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl EmailKey {
    /// Takes a key that [`Email::key`] made before, for example one read from a table. Folding may make it longer than
    /// an address may be, so it is not parsed again.
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key of the same address as this version makes it, for keys that an earlier version wrote to a table.
    #[must_use]
    pub fn renewed(&self) -> Self {
        match self.0.rsplit_once('@') {
            Some((local, domain)) => Self(format!("{}@{domain}", fold(local))),
            None => Self(fold(&self.0)),
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EmailKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mailbox_has_one_key() {
        let key = |text: &str| Email::parse(text).unwrap().key().clone();
        assert_eq!(key("Ana@Example.ORG"), key("ana@example.org"));
        assert_eq!(key("ana@münchen.de"), key("ana@xn--mnchen-3ya.de"));
        assert_eq!(key("jose\u{301}@example.org"), key("JOSÉ@example.org"));
        assert_ne!(key("a.na@example.org"), key("ana@example.org"));
        for spelling in ["νίκος.παππάς", "ΝΊΚΟΣ.ΠΑΠΠΆΣ", "νίκοσ.παππάσ"] {
            assert_eq!(key(&format!("{spelling}@example.org")), key("Νίκος.Παππάς@example.org"));
        }
        let before = EmailKey::from_stored("νίκος.παππάς@example.org");
        assert_eq!(before.renewed(), key("ΝΊΚΟΣ.ΠΑΠΠΆΣ@example.org"), "as it was written before");
    }

    #[test]
    fn what_mail_software_reads_differently_is_refused() {
        for text in [
            "",
            "@",
            "a",
            "a@",
            "@b.c",
            "a@b",
            "a@b@c.d",
            "a b@c.d",
            "a@b c.d",
            "a@b..c",
            "a@.b.c",
            "a@b.c.",
            ".a@b.c",
            "a.@b.c",
            "a..b@c.d",
            "\"a b\"@c.d",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a,b@c.d",
            "a;b@c.d",
            "<a@b.c>",
            "A <a@b.c>",
            "a@b.c\r\nRCPT TO:<x@y.z>",
            "a\0@b.c",
            "a@b.c\0",
            "a\u{202e}b@c.d",
            "=?utf-8?q?x?=@b.c",
            "a@-b.c",
            "a@b-.c",
            "a@xn--0049.c",
            "a@b_c.d",
            "a(x)@b.c",
            "a@b.c,d@e.f",
            " a@b.c",
            "a@b.c ",
            "a@b.1",
        ] {
            assert_eq!(Email::parse(text), Err(InvalidEmail), "{text:?}");
        }
    }

    #[test]
    fn a_key_has_one_at_sign() {
        let wrong: Vec<char> =
            ('\0'..=char::MAX).filter(|c| is_atom(*c) && fold(&c.to_string()).contains('@')).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn the_bounds_of_rfc_5321_hold() {
        let local = |n: usize| format!("{}@example.org", "a".repeat(n));
        assert!(Email::parse(&local(64)).is_ok());
        assert!(Email::parse(&local(65)).is_err());
        let whole = |n: usize| {
            let label = "b".repeat(60);
            let head = format!("{}@{label}.{label}.", "a".repeat(64));
            format!("{head}{}.org", "c".repeat(n - head.len() - 4))
        };
        assert!(Email::parse(&whole(250)).is_ok());
        assert!(Email::parse(&whole(255)).is_err());
        assert!(Email::parse(&format!("{}@b.c", "x".repeat(1_000_000))).is_err());
    }
}
