//! Passwords as they are hashed, and which ones anybody would guess.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use crate::domain::email::Email;
use crate::domain::field::FieldFault;
use crate::domain::secret::Password;
use crate::domain::user::Username;

/// A password in NFC: what is hashed and compared, whole (NIST SP 800-63B-4 §3.1.1.2).
#[derive(Clone)]
pub struct NormalizedPassword(Zeroizing<String>);

impl fmt::Debug for NormalizedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NormalizedPassword([redacted])")
    }
}

impl NormalizedPassword {
    /// The most characters a password may have, counted after normalisation.
    pub const MAX_CHARS: usize = 256;
    /// The most bytes that are looked at before normalisation, which costs time.
    const MAX_RAW_BYTES: usize = 4096;

    /// Reads a password.
    ///
    /// # Errors
    /// `Required` when it is empty, `TooLong`, `ControlCharacter`.
    pub fn parse(password: &Password) -> Result<Self, FieldFault> {
        let typed = password.expose();
        if typed.is_empty() {
            return Err(FieldFault::Required);
        }
        if typed.len() > Self::MAX_RAW_BYTES {
            return Err(FieldFault::TooLong { max: Self::MAX_CHARS });
        }
        if typed.chars().any(char::is_control) {
            return Err(FieldFault::ControlCharacter);
        }
        let mut normal = Zeroizing::new(String::with_capacity(Self::MAX_RAW_BYTES));
        normal.extend(typed.nfc());
        if normal.chars().count() > Self::MAX_CHARS {
            return Err(FieldFault::TooLong { max: Self::MAX_CHARS });
        }
        Ok(Self(normal))
    }

    /// The number of characters.
    pub fn chars(&self) -> usize {
        self.0.chars().count()
    }

    /// The password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The common passwords of eight or more characters, in lower case, sorted, one a line.
const COMMON: &str = include_str!("common_passwords.txt");

/// Whether a password may be set: long enough, not among the common ones, not the address or name of its user.
///
/// # Errors
/// `TooShort`, `SameAsIdentity`, `TooCommon`.
pub fn check_strength(
    password: &NormalizedPassword,
    min: usize,
    email: Option<&Email>,
    username: Option<&Username>,
) -> Result<(), FieldFault> {
    if password.chars() < min {
        return Err(FieldFault::TooShort { min });
    }
    let folded = Zeroizing::new(password.expose().to_lowercase());
    let same = |text: &str| *folded == text.to_lowercase();
    let is_identity = email.is_some_and(|email| {
        same(email.as_str()) || same(email.local()) || same(email.domain()) || same(email.key().as_str())
    }) || username.is_some_and(|name| same(name.as_str()));
    if is_identity {
        return Err(FieldFault::SameAsIdentity);
    }
    if is_common(&folded) { Err(FieldFault::TooCommon) } else { Ok(()) }
}

fn is_common(folded: &str) -> bool {
    // Bisects the text itself: the list needs no memory beside the program's own.
    let (mut low, mut high) = (0, COMMON.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        let Some((before, after)) = COMMON.as_bytes().split_at_checked(middle) else { return false };
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let end = after.iter().position(|b| *b == b'\n').map_or(COMMON.len(), |at| middle + at);
        let line = COMMON.get(start..end).unwrap_or_default();
        match folded.cmp(line) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => high = start,
            std::cmp::Ordering::Greater => low = end + 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_password_is_found() {
        let mut lines: Vec<&str> = COMMON.lines().collect();
        assert!(lines.len() > 5_000, "{}", lines.len());
        assert!(lines.iter().all(|line| is_common(line)));
        assert!(!is_common("correct horse battery") && !is_common("") && !is_common("~~~~~~~~~"));
        let listed = lines.clone();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines, listed, "sorted, each once");
        assert!(lines.iter().all(|line| line.chars().count() >= 8 && *line == line.to_lowercase()));
    }

    #[test]
    fn a_huge_password_is_refused_before_it_costs_anything() {
        let huge = Password::new("e\u{301}".repeat(400_000));
        assert_eq!(NormalizedPassword::parse(&huge).unwrap_err(), FieldFault::TooLong { max: 256 });
    }
}
