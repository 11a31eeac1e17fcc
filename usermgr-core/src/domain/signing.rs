//! What signs an access token: the algorithms, and what a key is good for at a time.

use std::fmt;
use std::str::FromStr;

/// How access tokens are signed. Each key has one algorithm for life, and verifies tokens of no other.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[non_exhaustive]
pub enum SigningAlgorithm {
    /// Ed25519 (RFC 8037): small, fast, the default.
    #[default]
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA over P-256 with SHA-256 (RFC 7518 §3.4), for services that know no Ed25519.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA of 3072 bits (128 bits of strength, NIST SP 800-57), PKCS #1 v1.5 with SHA-256 (RFC 7518 §3.3): understood
    /// everywhere, and the slowest to sign. Keys of earlier versions have 2048 bits until they rotate.
    #[serde(rename = "RS256")]
    Rs256,
    /// HMAC with SHA-256 (RFC 7518 §3.2). Who can verify can sign, so nobody but this installation can do either.
    #[serde(rename = "HS256")]
    Hs256,
}

impl SigningAlgorithm {
    /// Every algorithm, the default first.
    pub const ALL: [Self; 4] = [Self::EdDsa, Self::Es256, Self::Rs256, Self::Hs256];

    /// The JOSE name (`alg`), as in tokens, key sets, tables and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Hs256 => "HS256",
        }
    }

    /// Whether its keys have a public part, which a key set can publish.
    pub const fn is_asymmetric(self) -> bool {
        !matches!(self, Self::Hs256)
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no algorithm of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a signing algorithm; it takes EdDSA, ES256, RS256 or HS256")]
pub struct UnknownAlgorithm;

impl FromStr for SigningAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text).ok_or(UnknownAlgorithm)
    }
}

/// What a signing key is good for at a time. It follows from the time and the key's row, so all instances agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a key is one of these")]
pub enum KeyState {
    /// Published, so that services know it before its first token comes, but it does not sign yet.
    Next,
    /// It signs.
    Current,
    /// It signs no more, and still verifies what it signed.
    Retired,
    /// It was revoked: it is not published, and what it signed is refused.
    Revoked,
}

impl KeyState {
    /// The stable name, as in lists and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Current => "current",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_algorithm_has_one_spelling_everywhere() {
        for algorithm in SigningAlgorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
            assert_eq!(algorithm.to_string(), algorithm.as_str());
            assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.as_str());
            assert_eq!(
                serde_json::from_value::<SigningAlgorithm>(algorithm.as_str().into()).unwrap(),
                algorithm
            );
        }
        for other in ["", "none", "eddsa", "EdDSA ", "ES384", "RS512", "PS256", "HS512", "Ed25519"] {
            assert_eq!(other.parse::<SigningAlgorithm>(), Err(UnknownAlgorithm), "{other:?}");
        }
        assert_eq!(SigningAlgorithm::default(), SigningAlgorithm::EdDsa);
    }
}
