//! From whom mails come.

use std::fmt;
use std::str::FromStr;

use lettre::Address;

use crate::phrase;

/// The sender of every mail: `Name <address@domain>` or `address@domain`.
///
/// Unlike a receiver's address it comes from the operator, so a domain without a dot (`localhost`) is fine.
///
/// ```
/// use usermgr_smtp::Sender;
///
/// let sender = Sender::parse("Example <noreply@example.org>")?;
/// assert_eq!(sender.name(), Some("Example"));
/// assert_eq!(sender.address(), "noreply@example.org");
/// # Ok::<_, usermgr_smtp::InvalidSender>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    name: Option<String>,
    address: Address,
}

/// A text that names no sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a sender of the form `Name <address@domain>` or `address@domain`")]
#[expect(clippy::exhaustive_structs, reason = "it holds nothing")]
pub struct InvalidSender;

impl Sender {
    /// The most bytes of the name.
    pub const MAX_NAME: usize = 200;

    /// Reads a sender. A name that holds `<`, `>`, `"` or `\` stands in quotes: `"Ana \"the admin\"" <ana@example.org>`.
    /// Any other may stand as it is, `Acme, Inc.` too.
    ///
    /// Refused: control characters in the name, and a local part beyond ASCII, because a server without SMTPUTF8 could
    /// then deliver no mail at all.
    ///
    /// # Errors
    /// [`InvalidSender`] when the text is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidSender> {
        let text = text.trim_matches(' ');
        let (name, address) = match text.strip_suffix('>') {
            Some(rest) => rest.rsplit_once('<').ok_or(InvalidSender)?,
            None => ("", text),
        };
        Ok(Self { name: parse_name(name)?, address: parse_address(address)? })
    }

    /// The name that mail programs show.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The bare address.
    pub fn address(&self) -> &str {
        self.address.as_ref()
    }

    /// The domain of the address, in ASCII.
    pub fn domain(&self) -> &str {
        self.address.domain()
    }

    pub(crate) const fn mail_address(&self) -> &Address {
        &self.address
    }
}

fn parse_name(name: &str) -> Result<Option<String>, InvalidSender> {
    let name = name.trim_matches(' ');
    let name = if name.starts_with('"') {
        phrase::unquote(name).ok_or(InvalidSender)?
    } else if name.contains(['<', '>', '"', '\\']) {
        return Err(InvalidSender);
    } else {
        name.to_owned()
    };
    let name = name.trim_matches(' ');
    if name.len() > Sender::MAX_NAME || name.chars().any(char::is_control) {
        return Err(InvalidSender);
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

fn parse_address(address: &str) -> Result<Address, InvalidSender> {
    let (local, domain) = address.rsplit_once('@').ok_or(InvalidSender)?;
    let atoms = !local.is_empty()
        && local.len() <= 64
        && local.split('.').all(|atom| {
            !atom.is_empty()
                && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
        });
    let plain = domain.chars().all(|c| !c.is_ascii() || c.is_ascii_alphanumeric() || c == '-' || c == '.');
    let Ok(url::Host::Domain(domain)) = url::Host::parse(domain) else {
        return Err(InvalidSender);
    };
    if !atoms || !plain || domain.len() > 189 {
        return Err(InvalidSender);
    }
    Address::new(local, domain).map_err(|_| InvalidSender)
}

impl FromStr for Sender {
    type Err = InvalidSender;

    fn from_str(text: &str) -> Result<Self, InvalidSender> {
        Self::parse(text)
    }
}

impl fmt::Display for Sender {
    /// As RFC 6532 writes it: a name that is more than words stands in quotes, one beyond ASCII is not encoded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} <{}>", phrase::quote(name), self.address()),
            None => f.write_str(self.address()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_a_name_and_an_address() {
        for (text, name, address) in [
            ("noreply@localhost", None, "noreply@localhost"),
            ("usermgr <noreply@localhost>", Some("usermgr"), "noreply@localhost"),
            ("<a@b.example>", None, "a@b.example"),
            ("\"Doe, Jane\" <a@b.example>", Some("Doe, Jane"), "a@b.example"),
            ("Müller & Söhne 🎉 <a@B.example>", Some("Müller & Söhne 🎉"), "a@b.example"),
            (r#""a \"b\" \\c" <a@b.example>"#, Some(r#"a "b" \c"#), "a@b.example"),
            (r#""<x@y.z>" <a@b.example>"#, Some("<x@y.z>"), "a@b.example"),
            ("Acme.io <a@b.example>", Some("Acme.io"), "a@b.example"),
            (
                "Acme Inc. (Support) <a+b@münchen.example>",
                Some("Acme Inc. (Support)"),
                "a+b@xn--mnchen-3ya.example",
            ),
        ] {
            let sender = Sender::parse(text).unwrap_or_else(|_| panic!("{text:?}"));
            assert_eq!((sender.name(), sender.address()), (name, address), "{text:?}");
            assert_eq!(sender.to_string().parse(), Ok(sender), "{text:?}");
        }
    }

    #[test]
    fn what_could_break_a_header_is_no_sender() {
        for text in [
            "",
            "@",
            "a",
            "a@",
            "@b.c",
            "Name a@b.c",
            "Name <a@b.c",
            "a@b.c>",
            "<a@b.c> Name",
            "A <a@b.c> <d@e.f>",
            "A\r\nBcc: x@y.z <a@b.c>",
            "A\nBcc: x@y.z <a@b.c>",
            "A\0 <a@b.c>",
            "a@b.c\r\nBcc: x@y.z",
            "a b@c.d",
            "A\" <x@y.z>, \" <a@b.c>",
            "\"A\" <x@y.z>, \"B\" <a@b.c>",
            "\"A <a@b.c>",
            "\"A\\\" <a@b.c>",
            "\"A\"B <a@b.c>",
            "A\\B <a@b.c>",
            "\"A\\\r\nBcc: x@y.z\" <a@b.c>",
            "ü@b.c",
            "a..b@c.d",
            "a@b c.d",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "A <a@b.c,d@e.f>",
        ] {
            assert_eq!(Sender::parse(text), Err(InvalidSender), "{text:?}");
        }
        assert!(Sender::parse(&format!("{} <a@b.c>", "x".repeat(201))).is_err());
    }
}
