//! What an access token says (RFC 9068) and the one check of it, for the manager and for the verifier of other
//! services.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::domain::id::{SessionId, UserId};
use crate::domain::signing::SigningAlgorithm;

/// The `typ` of an access token (RFC 9068 §2.1): a token of any other kind is refused.
pub(super) const TYP: &str = "at+jwt";
/// The most bytes of a token that is looked at, and that is issued.
pub(super) const MAX_TOKEN: usize = 8 * 1024;

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Who issued it.
    pub iss: String,
    /// Whose it is.
    pub sub: UserId,
    /// For whom it is.
    pub aud: String,
    /// When it was issued, in seconds since 1970.
    pub iat: i64,
    /// From when it counts.
    pub nbf: i64,
    /// Until when it counts.
    pub exp: i64,
    /// Its own identifier.
    pub jti: String,
    /// The session.
    pub sid: SessionId,
    /// The user's roles when it was issued.
    pub roles: Vec<String>,
    /// The user's address when it was issued.
    pub email: String,
    /// When the user proved who they are.
    pub auth_time: i64,
    /// How (RFC 8176).
    pub amr: Vec<String>,
}

/// What a token must say to count here.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Who must have issued it.
    pub issuer: &'a str,
    /// For whom it must be.
    pub audience: &'a str,
    /// The time.
    pub now: OffsetDateTime,
    /// How far the clocks may be apart.
    pub leeway: Duration,
}

/// The token is not one of ours, was altered, is for somebody else, or does not count at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is not valid")]
pub struct InvalidToken;

/// The header of an access token: exactly these members. One with `crit`, `jku`, `jwk`, `x5u` or anything else is none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StrictHeader {
    pub(crate) typ: String,
    pub(crate) alg: SigningAlgorithm,
    pub(crate) kid: String,
}

impl StrictHeader {
    /// The header of a token, unless it is too long, not of three parts, or has any other header than ours.
    pub(crate) fn read(token: &str) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (header, rest) = token.split_once('.')?;
        if rest.matches('.').count() != 1 {
            return None;
        }
        let header: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        (header.typ == TYP).then_some(header)
    }
}

/// A key that verifies tokens of one algorithm and of no other (RFC 8725 §3.1).
pub(crate) struct VerifyingKey {
    id: String,
    algorithm: SigningAlgorithm,
    key: DecodingKey,
    signed: Mutex<Signed>,
}

/// How many tokens are remembered at least, and half of how many at most.
const REMEMBERED: usize = 1024;

/// What tokens say whose signature was found right lately, by the SHA-256 of all of the token: the signature is most of the
/// work of a check, and a token comes many times. It goes with the key.
#[derive(Default)]
struct Signed {
    recent: HashMap<[u8; 32], AccessClaims>,
    older: HashMap<[u8; 32], AccessClaims>,
}

impl Signed {
    fn claims(&mut self, token: &[u8; 32]) -> Option<AccessClaims> {
        if let Some(claims) = self.recent.get(token) {
            return Some(claims.clone());
        }
        let claims = self.older.remove(token)?;
        self.remember(*token, claims.clone());
        Some(claims)
    }

    fn remember(&mut self, token: [u8; 32], claims: AccessClaims) {
        if self.recent.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(token, claims);
    }
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.id, self.algorithm)
    }
}

/// Bytes of a coordinate of Ed25519 and of P-256.
const COORDINATE: usize = 32;
/// Bytes of an RSA modulus: 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
/// Bytes of an RSA exponent; usually 65537.
const EXPONENT: std::ops::RangeInclusive<usize> = 1..=4;

impl VerifyingKey {
    /// A public key out of a key set (RFC 7517). Its algorithm is the one that it names, and what its kind and curve
    /// make it otherwise. `None` when it has no `kid`, is not for signatures, or is of a kind that is not ours.
    pub(crate) fn from_jwk(jwk: &Value) -> Option<Self> {
        provider();
        let text = |name: &str| jwk.get(name).map_or(Some(None), |value| value.as_str().map(Some));
        let part = |name: &str| URL_SAFE_NO_PAD.decode(text(name)??).ok();
        let coordinate = |name: &str| part(name).filter(|bytes| bytes.len() == COORDINATE);
        let id = text("kid")??.to_owned();
        let not_for_signatures = text("use")?.is_some_and(|purpose| purpose != "sig")
            || jwk.get("key_ops").is_some_and(|ops| {
                !ops.as_array().is_some_and(|ops| ops.iter().any(|operation| operation == "verify"))
            });
        let (algorithm, key) = match (text("kty")??, text("crv")?) {
            ("OKP", Some("Ed25519")) => {
                (SigningAlgorithm::EdDsa, DecodingKey::from_ed_der(&coordinate("x")?))
            }
            ("EC", Some("P-256")) => {
                let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
                (SigningAlgorithm::Es256, DecodingKey::from_ec_der(&point))
            }
            ("RSA", _) => {
                let (n, e) = (part("n")?, part("e")?);
                let in_range =
                    MODULUS.contains(&n.len()) && n.first() != Some(&0) && EXPONENT.contains(&e.len());
                if !in_range {
                    return None;
                }
                (SigningAlgorithm::Rs256, DecodingKey::from_rsa_raw_components(&n, &e))
            }
            _ => return None,
        };
        let other_algorithm = text("alg")?.is_some_and(|name| name != algorithm.as_str());
        (!not_for_signatures && !other_algorithm).then(|| Self::new(id, algorithm, key))
    }

    /// A key of HMAC-SHA-256.
    #[cfg(feature = "manager")]
    pub(super) fn from_secret(id: String, secret: &[u8]) -> Self {
        provider();
        Self::new(id, SigningAlgorithm::Hs256, DecodingKey::from_secret(secret))
    }

    fn new(id: String, algorithm: SigningAlgorithm, key: DecodingKey) -> Self {
        Self { id, algorithm, key, signed: Mutex::default() }
    }

    /// The key's `kid`.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What a token says, if this key signed it and it counts. `header` is the token's own.
    ///
    /// The signature is checked before any claim is; then every claim must be there and of its type.
    pub(crate) fn check(
        &self,
        token: &str,
        header: &StrictHeader,
        expected: &Expected<'_>,
    ) -> Result<AccessClaims, InvalidToken> {
        if header.alg != self.algorithm || header.kid != self.id {
            return Err(InvalidToken);
        }
        let digest = digest_of(token);
        let known = self.signed().claims(&digest);
        let claims = if let Some(claims) = known {
            claims
        } else {
            let claims = self.check_signature(token)?;
            self.signed().remember(digest, claims.clone());
            claims
        };
        let (now, leeway) = (expected.now.unix_timestamp(), expected.leeway.whole_seconds());
        let counts = claims.iss == expected.issuer
            && claims.aud == expected.audience
            && claims.nbf <= now.saturating_add(leeway)
            && now < claims.exp.saturating_add(leeway);
        if counts { Ok(claims) } else { Err(InvalidToken) }
    }

    /// What a token says, if this key signed it, whenever and for whomever.
    fn check_signature(&self, token: &str) -> Result<AccessClaims, InvalidToken> {
        // The claims are checked by the caller, against our own clock and with their types.
        let mut signature_only = Validation::new(match self.algorithm {
            SigningAlgorithm::EdDsa => Algorithm::EdDSA,
            SigningAlgorithm::Es256 => Algorithm::ES256,
            SigningAlgorithm::Rs256 => Algorithm::RS256,
            SigningAlgorithm::Hs256 => Algorithm::HS256,
        });
        signature_only.required_spec_claims.clear();
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        Ok(jsonwebtoken::decode(token, &self.key, &signature_only).map_err(|_| InvalidToken)?.claims)
    }

    fn signed(&self) -> MutexGuard<'_, Signed> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest_of(token: &str) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref());
    digest
}

/// Another crate of the build may have chosen another provider; whoever is first decides, and all of them work.
fn provider() {
    let _already_installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(jti: usize) -> AccessClaims {
        serde_json::from_value(serde_json::json!({
            "iss": "i", "sub": uuid::Uuid::nil().to_string(), "aud": "a", "iat": 0, "nbf": 0, "exp": 0, "jti": jti.to_string(),
            "sid": uuid::Uuid::nil().to_string(), "roles": [], "email": "e", "auth_time": 0, "amr": [],
        }))
        .unwrap()
    }

    #[test]
    fn the_latest_tokens_are_remembered_and_no_more_than_twice_as_many() {
        let mut signed = Signed::default();
        let digest = |n: usize| digest_of(&n.to_string());
        for n in 0..10 * REMEMBERED {
            signed.remember(digest(n), claims(n));
            assert!(signed.recent.len() + signed.older.len() <= 2 * REMEMBERED);
            assert!(signed.claims(&digest(0)).is_some(), "one that comes again and again stays");
        }
        for n in 9 * REMEMBERED + 1..10 * REMEMBERED {
            assert_eq!(signed.claims(&digest(n)), Some(claims(n)));
        }
        assert_eq!(signed.claims(&digest(1)), None);
    }
}
