//! A refusal in the host's own words.

use std::collections::BTreeMap;

use super::user::Locale;

/// Why the host refuses something: a stable word for programs, and a text for whoever is refused, in each language that
/// the host speaks.
///
/// ```
/// use usermgr_core::domain::refusal::Refusal;
///
/// let refusal = Refusal::new("invite_needed", "Sign-up is by invitation.")?
///     .also("es", "El registro es por invitación.")?;
/// assert_eq!(refusal.text("es-MX"), "El registro es por invitación.");
/// assert_eq!(refusal.text("de"), "Sign-up is by invitation.");
/// # Ok::<_, usermgr_core::domain::refusal::InvalidRefusal>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    reason: String,
    text: String,
    others: BTreeMap<String, String>,
}

/// Words that cannot be told to whoever is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRefusal {
    /// The reason is no word.
    #[error(
        "a reason is a word of a-z, 0-9 and '_' that begins with a letter, at most {} long",
        Refusal::MAX_REASON
    )]
    Reason,
    /// The text is blank, too long or has control characters.
    #[error("a text is a line of 1 to {} characters", Refusal::MAX_TEXT)]
    Text,
    /// The language is no language tag.
    #[error("a language is a tag such as en, es or es-MX")]
    Language,
}

impl Refusal {
    /// The most characters of a reason.
    pub const MAX_REASON: usize = 64;
    /// The most characters of a text.
    pub const MAX_TEXT: usize = 500;

    /// A reason, and the text for everybody for whom there is no other.
    ///
    /// # Errors
    /// [`InvalidRefusal`].
    pub fn new(reason: &str, text: impl Into<String>) -> Result<Self, InvalidRefusal> {
        let is_word = reason.len() <= Self::MAX_REASON
            && reason.starts_with(|c: char| c.is_ascii_lowercase())
            && reason.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !is_word {
            return Err(InvalidRefusal::Reason);
        }
        Ok(Self { reason: reason.to_owned(), text: line(text.into())?, others: BTreeMap::new() })
    }

    /// The text for those who speak a language.
    ///
    /// # Errors
    /// [`InvalidRefusal`].
    pub fn also(mut self, language: &str, text: impl Into<String>) -> Result<Self, InvalidRefusal> {
        let language = Locale::parse(language).map_err(|_| InvalidRefusal::Language)?.language();
        self.others.insert(language, line(text.into())?);
        Ok(self)
    }

    /// The reason, for programs.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The text for whoever speaks a language, given as a tag.
    pub fn text(&self, language: &str) -> &str {
        let language = Locale::parse(language).map(|tag| tag.language()).unwrap_or_default();
        self.others.get(&language).unwrap_or(&self.text)
    }
}

fn line(text: String) -> Result<String, InvalidRefusal> {
    let fits = !text.trim().is_empty()
        && text.chars().count() <= Refusal::MAX_TEXT
        && !text.chars().any(char::is_control);
    if fits { Ok(text) } else { Err(InvalidRefusal::Text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_word_and_a_text_a_line() {
        for reason in ["", "Invite", "1st", "_a", "a b", "a-b", "é", &"a".repeat(65)] {
            assert_eq!(Refusal::new(reason, "No."), Err(InvalidRefusal::Reason), "{reason:?}");
        }
        for text in ["", "  ", "a\nb", "a\u{7}", &"é".repeat(501)] {
            assert_eq!(Refusal::new("no", text), Err(InvalidRefusal::Text), "{text:?}");
        }
        let refusal = Refusal::new(&"a".repeat(64), "é".repeat(500)).unwrap();
        assert_eq!(refusal.clone().also("not a tag", "No."), Err(InvalidRefusal::Language));
        assert_eq!(refusal.also("es", ""), Err(InvalidRefusal::Text));
    }
}
