//! Passwords as they are hashed, and which ones anybody would guess.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use crate::domain::email::Email;
use crate::domain::field::FieldFault;
use crate::domain::fold::fold;
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

    /// Reads a password: nothing is trimmed, cut or replaced, it is only brought to NFC, so that the same password
    /// typed on another keyboard is the same.
    ///
    /// # Errors
    /// [`FieldFault::Required`] when it is empty; [`FieldFault::TooLong`] past [`MAX_CHARS`](Self::MAX_CHARS), or past
    /// 4096 bytes as it came; [`FieldFault::ControlCharacter`] when it holds one (Unicode `Cc`).
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
        // NFC can grow a text. With room for one character too many it never moves, so no copy is left unwiped.
        let mut normal = Zeroizing::new(String::with_capacity((Self::MAX_CHARS + 1) * char::MAX.len_utf8()));
        for character in typed.nfc().take(Self::MAX_CHARS + 1) {
            normal.push(character);
        }
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
/// What it is made of is free: no rule asks for digits or capitals (NIST SP 800-63B-4 §3.1.1.2).
///
/// # Errors
/// [`FieldFault::TooShort`] under `min` characters; [`FieldFault::SameAsIdentity`] when it is the address, its local
/// part, its domain or the username; [`FieldFault::TooCommon`] when it is in the list. Case counts in none of them.
pub fn check_strength(
    password: &NormalizedPassword,
    min: usize,
    email: Option<&Email>,
    username: Option<&Username>,
) -> Result<(), FieldFault> {
    if password.chars() < min {
        return Err(FieldFault::TooShort { min });
    }
    let folded = Zeroizing::new(fold(password.expose()));
    let same = |text: &str| *folded == fold(text);
    let is_address = |email: &Email| {
        // The domain is kept in ASCII; who repeats the address as a password types it as it reads.
        let (domain, _) = idna::domain_to_unicode(email.domain());
        [email.as_str(), email.local(), email.domain(), &domain, &format!("{}@{domain}", email.local())]
            .into_iter()
            .any(same)
    };
    let is_identity = email.is_some_and(is_address) || username.is_some_and(|name| same(name.as_str()));
    if is_identity {
        return Err(FieldFault::SameAsIdentity);
    }
    if is_common(&folded) { Err(FieldFault::TooCommon) } else { Ok(()) }
}

/// The list of common passwords, folded.
pub(super) fn common_passwords() -> impl Iterator<Item = &'static str> {
    COMMON.lines()
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
        assert!(lines.iter().all(|line| line.chars().count() >= 8 && *line == fold(line)));
    }

    fn parse(text: &str) -> Result<NormalizedPassword, FieldFault> {
        NormalizedPassword::parse(&Password::new(text))
    }

    #[test]
    fn a_huge_password_is_refused_before_it_costs_anything() {
        let huge = Password::new("e\u{301}".repeat(400_000));
        assert_eq!(NormalizedPassword::parse(&huge).unwrap_err(), FieldFault::TooLong { max: 256 });
        // Bytes bound what is looked at, characters what is taken.
        assert_eq!(parse(&"\u{1F511}".repeat(256)).unwrap().chars(), 256);
        assert_eq!(parse(&"a".repeat(4096)).unwrap_err(), FieldFault::TooLong { max: 256 });
        assert_eq!(parse(&"\0".repeat(4097)).unwrap_err(), FieldFault::TooLong { max: 256 }, "length first");
    }

    #[test]
    fn length_is_counted_after_normalisation() {
        assert_eq!(
            parse(&"e\u{301}".repeat(256)).unwrap().chars(),
            256,
            "512 characters that compose to 256"
        );
        assert_eq!(parse(&"e\u{301}".repeat(257)).unwrap_err(), FieldFault::TooLong { max: 256 });
        // U+1D160 is three characters in NFC, the longest way in which a text grows.
        assert_eq!(parse(&"\u{1D160}".repeat(85)).unwrap().chars(), 255);
        assert_eq!(parse(&"\u{1D160}".repeat(86)).unwrap_err(), FieldFault::TooLong { max: 256 });
    }

    #[test]
    fn one_password_has_one_form_and_is_otherwise_kept_as_typed() {
        assert_eq!(
            parse("cafe\u{301} con leche").unwrap().expose(),
            parse("café con leche").unwrap().expose()
        );
        for kept in [" spaces count ", "ﬁne ligature", "Ⅸ lives", "mixed CASE", "😀😀😀😀😀😀😀😀"]
        {
            assert_eq!(parse(kept).unwrap().expose(), kept, "NFC, not NFKC, and nothing trimmed");
        }
    }

    #[test]
    fn nothing_and_control_characters_are_refused() {
        assert_eq!(parse("").unwrap_err(), FieldFault::Required);
        for control in ["\0", "\t", "\n", "\r", "\u{1b}", "\u{7f}", "\u{85}", "\u{9f}"] {
            let fault = parse(&format!("long enough{control}")).unwrap_err();
            assert_eq!(fault, FieldFault::ControlCharacter, "{control:?}");
        }
    }

    #[test]
    fn a_short_password_is_counted_in_characters() {
        let check = |text: &str, min| check_strength(&parse(text).unwrap(), min, None, None);
        assert_eq!(check("x7!kQ2v", 8), Err(FieldFault::TooShort { min: 8 }));
        assert_eq!(check("x7!kQ2vé", 8), Ok(()));
        assert_eq!(
            check("😀🔑😀🔑😀🔑😀", 8),
            Err(FieldFault::TooShort { min: 8 }),
            "28 bytes, 7 characters"
        );
        assert_eq!(check("x7!kQ2vé", 15), Err(FieldFault::TooShort { min: 15 }));
    }

    #[test]
    fn the_address_and_the_name_are_no_passwords() {
        let email = Email::parse("Ana.Jose\u{301}@münchen-mail.example").unwrap();
        let name = Username::parse("Rene\u{301} d'Example").unwrap();
        let check = |text: &str| check_strength(&parse(text).unwrap(), 8, Some(&email), Some(&name));
        for same in [
            email.as_str(),
            &email.as_str().to_uppercase(),
            "ana.josé@münchen-mail.example",
            "MÜNCHEN-MAIL.EXAMPLE",
            "ana.josé",
            "ana.jose\u{301}",
            email.domain(),
            "René d'Example",
            "RENÉ D'EXAMPLE",
        ] {
            assert_eq!(check(same), Err(FieldFault::SameAsIdentity), "{same}");
        }
        assert_eq!(check("ana.josé und mehr"), Ok(()), "only the whole is refused");
        assert_eq!(check_strength(&parse("ana.josé").unwrap(), 8, None, None), Ok(()));
    }

    #[test]
    fn a_common_password_is_refused_in_any_case() {
        for common in ["password", "PassWord", "12345678", "qwertyuiop"] {
            let fault = check_strength(&parse(common).unwrap(), 8, None, None);
            assert_eq!(fault, Err(FieldFault::TooCommon), "{common}");
        }
    }

    #[test]
    fn no_password_is_printed() {
        assert_eq!(format!("{:?}", parse("correct horse").unwrap()), "NormalizedPassword([redacted])");
    }
}
