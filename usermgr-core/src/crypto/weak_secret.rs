//! Secrets that anybody can guess: patterns, texts, digests of common words, and keys that stand in documentation.

use std::collections::HashSet;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Words whose SHA-256 is no secret, beside the list of common passwords, whose words have 8 characters or more.
const SHORT_WORDS: [&str; 16] = [
    "", "a", "abc", "admin", "changeme", "default", "dev", "hello", "hunter2", "key", "password", "secret",
    "test", "usermgr", "example", "foobar",
];
/// Secrets that stand in this project's documentation and examples, or in a standard.
const PUBLISHED: [&str; 5] = [
    "q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=",
    "7Vn1ZqjXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=",
    "aGVsbG8gd29ybGQsIHRoaXMgaXMgYSB0ZXN0IGtleS4=",
    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
];

/// Why a secret can be guessed. As text it completes "the secret is …".
#[cfg(feature = "manager")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretWeakness {
    /// Its bytes repeat, count up or down, or are few different ones.
    #[error("a pattern")]
    Pattern,
    /// Its bytes are a text that somebody typed.
    #[error("a text, not random bytes")]
    Text,
    /// It stands in a documentation, or is the SHA-256 of a common word.
    #[error("publicly known")]
    Known,
}

/// Why these bytes can be guessed; `None` when nothing is known against them. A random secret of 24 bytes or more is refused
/// less than once in 10^8 times.
#[cfg(feature = "manager")]
pub(crate) fn weakness(secret: &[u8]) -> Option<SecretWeakness> {
    if is_known(secret) {
        Some(SecretWeakness::Known)
    } else if std::str::from_utf8(secret).is_ok_and(|text| !text.contains(char::is_control)) {
        Some(SecretWeakness::Text)
    } else if is_pattern(secret) {
        Some(SecretWeakness::Pattern)
    } else {
        None
    }
}

/// Of n random bytes nearly n are different, and so are nearly all steps from one to the next. Half and a quarter of that are
/// never reached by chance.
pub(crate) fn is_pattern(secret: &[u8]) -> bool {
    let different: HashSet<u8> = secret.iter().copied().collect();
    let steps: HashSet<u8> =
        secret.iter().zip(secret.iter().skip(1)).map(|(one, next)| next.wrapping_sub(*one)).collect();
    let repeats =
        |period: usize| secret.iter().zip(secret.iter().skip(period)).all(|(one, other)| one == other);
    different.len() < secret.len() / 2
        || steps.len() < secret.len() / 4
        || (1..=secret.len() / 2).any(repeats)
}

/// Whether these bytes stand in a documentation or are the digest of a common word.
pub(crate) fn is_known(secret: &[u8]) -> bool {
    is_published(secret) || is_digest_of_a_word(secret)
}

fn is_published(secret: &[u8]) -> bool {
    PUBLISHED.iter().any(|known| STANDARD.decode(known).is_ok_and(|known| known == secret))
}

fn is_digest_of_a_word(secret: &[u8]) -> bool {
    #[cfg(feature = "manager")]
    let common = super::password_text::common_passwords();
    // Receivers of webhooks alone have no list of passwords.
    #[cfg(not(feature = "manager"))]
    let common = std::iter::empty();
    let mut words = SHORT_WORDS.into_iter().chain(common);
    secret.len() == 32 && words.any(|word| digest(&SHA256, word.as_bytes()).as_ref() == secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::SecretKey;
    use crate::port::random::{Random as _, SystemRandom};

    #[test]
    fn a_secret_that_anybody_can_guess_is_weak() {
        use SecretWeakness::{Known, Pattern, Text};
        let bytes = |of: fn(u8) -> u8| (0..32).map(of).collect::<Vec<u8>>();
        let sha256 = |word: &str| digest(&SHA256, word.as_bytes()).as_ref().to_vec();
        let decoded = |text: &str| STANDARD.decode(text).unwrap();
        for (secret, expected) in [
            (bytes(|_| 0), Pattern),
            (bytes(|_| 7), Pattern),
            (bytes(|n| n), Pattern),
            (bytes(|n| 31 - n), Pattern),
            (bytes(|n| n * 8), Pattern),
            (bytes(|n| n.wrapping_mul(17)), Pattern),
            (bytes(|n| n / 2), Pattern),
            (b"changeme".repeat(4), Text),
            (decoded("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=")[..16].repeat(2), Pattern),
            (b"0123456789abcdef0123456789abcdef".to_vec(), Text),
            (b"correct horse battery staple, so".to_vec(), Text),
            ("пароль по-русски!".as_bytes().to_vec(), Text),
            (sha256(""), Known),
            (sha256("changeme"), Known),
            (sha256("password123"), Known),
            (decoded("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k="), Known),
            (decoded("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Known),
        ] {
            assert_eq!(weakness(&secret), Some(expected), "{secret:?}");
        }
    }

    #[test]
    fn a_random_secret_is_not_weak() {
        for length in [24, 32, 64] {
            let mut secret = vec![0; length];
            for _ in 0..100 {
                SystemRandom.fill(&mut secret);
                assert!(!is_pattern(&secret), "{secret:?}");
            }
            assert_eq!(weakness(&secret), None);
            if let Ok(secret) = secret.try_into() {
                assert_eq!(SecretKey::from_bytes(secret).weakness(), None);
            }
        }
    }
}
