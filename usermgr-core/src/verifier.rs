//! Checks access tokens in another service: with the published keys alone, without a store.
//!
//! Switch on the feature `verifier`, and switch off the default features unless the service keeps users as well: then
//! nothing of the manager is compiled. It is the same check that the manager makes.
//!
//! # What a good token guarantees
//!
//! - One of the keys in the set signed it, by the one algorithm that this key is for: the key's `alg`, or what its kind
//!   and curve make it. `none`, HMAC and a key of another algorithm are refused (RFC 8725 §3.1).
//! - Its header has `typ` (`at+jwt`, RFC 9068), `alg`, `kid` and nothing else: no `crit`, no `b64`, no `zip`, and
//!   neither a key nor an address of one (`jwk`, `jku`, `x5c`, `x5u`).
//! - It is of this issuer and for this audience, and it counts now: `nbf` has come and `exp` has not, each give or take
//!   [`leeway`](VerifierSettings::with_leeway).
//! - `iss`, `sub`, `aud`, `exp`, `nbf`, `iat`, `jti`, `sid` and the other members of [`AccessClaims`] are there, each of
//!   its type and each once.
//!
//! # What it does not know
//!
//! No store is asked, so **a token outlives what ended it**: after somebody signed out, was disabled or lost a role, it
//! counts until it runs out. That is `access_ttl` at most, 15 minutes by default, and the leeway. Where that is too
//! long, ask the server for the session (`GET /users/me`) or call
//! `UserManager::sessions().authenticate`, which see every change at once: before money moves, before an address or a
//! password changes, for administrators. Opaque tokens are for these two only; there is nothing in them to verify.
//!
//! # The key set
//!
//! It stands at `/.well-known/jwks.json` of the issuer. Fetch it over TLS from the address in your configuration, never
//! from one in a token, and bound the answer's size and time. Its `Cache-Control` says `max-age=300`: fetch it again
//! every five minutes in the background, and hand it to [`Verifier::replace_jwks`]. A new key is published a while
//! before it signs, so whoever does this never misses one. When [`VerifyError::UnknownKey`] comes nevertheless, fetch at
//! once, but at most every half minute whatever comes: anybody can make up a `kid`. When fetching fails, go on with the
//! keys that are there.
//!
//! ```
//! use time::macros::datetime;
//! use usermgr_core::verifier::{Verifier, VerifierSettings, VerifyError};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The answer of https://app.example.org/.well-known/jwks.json
//! let jwks = r#"{"keys": [{
//!     "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
//!     "use": "sig", "alg": "EdDSA", "kid": "019b7953-c7c0-7000-8000-000000000001"
//! }]}"#;
//! let verifier = Verifier::from_jwks(jwks, VerifierSettings::new("https://app.example.org", "usermgr"))?;
//!
//! # let token = "TOKEN";
//! let now = datetime!(2026-01-01 12:00 UTC); // OffsetDateTime::now_utc() in a service
//! let claims = match verifier.verify(token, now) {
//!     Err(VerifyError::UnknownKey) => {
//!         verifier.replace_jwks(jwks)?; // fetched again, at most every half minute
//!         verifier.verify(token, now)?
//!     }
//!     other => other?,
//! };
//! assert_eq!(claims.email, "ana@example.org");
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use time::{Duration, OffsetDateTime};

pub use crate::crypto::access_token::AccessClaims;
use crate::crypto::access_token::{Expected, StrictHeader, VerifyingKey};

/// What a token must say to count in this service.
#[derive(Debug, Clone)]
pub struct VerifierSettings {
    issuer: String,
    audience: String,
    leeway: Duration,
}

/// A leeway of less than nothing or of more than five minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a leeway is between nothing and five minutes")]
pub struct InvalidLeeway;

impl VerifierSettings {
    /// How far clocks may be apart unless it is said otherwise: 60 seconds.
    pub const DEFAULT_LEEWAY: Duration = Duration::seconds(60);
    /// The most that clocks may be apart.
    pub const MAX_LEEWAY: Duration = Duration::minutes(5);

    /// Tokens of this issuer (`iss`) and for this audience (`aud`), both compared letter by letter.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), audience: audience.into(), leeway: Self::DEFAULT_LEEWAY }
    }

    /// How far this service's clock and the issuer's may be apart: a token counts this long before `nbf` and after
    /// `exp`.
    ///
    /// # Errors
    /// [`InvalidLeeway`] below nothing and above [`MAX_LEEWAY`](Self::MAX_LEEWAY).
    pub fn with_leeway(self, leeway: Duration) -> Result<Self, InvalidLeeway> {
        let valid = (Duration::ZERO..=Self::MAX_LEEWAY).contains(&leeway);
        if valid { Ok(Self { leeway, ..self }) } else { Err(InvalidLeeway) }
    }
}

/// Why a key set cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// It is not a JWK Set (RFC 7517 §5).
    #[error("this is not a JSON Web Key Set")]
    NotAKeySet,
    /// It has more than [`MAX_KEYS`](Verifier::MAX_KEYS) entries.
    #[error("the key set has more than 64 keys")]
    TooManyKeys,
    /// It holds a symmetric key, or the private part of another. Who has read that can sign.
    #[error("the key set holds a secret: a symmetric key or a private one")]
    Secret,
    /// None of its entries is a key that verifies our tokens.
    #[error("the key set holds no key that verifies access tokens")]
    NoKeys,
}

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It names a key that is not in the set. Perhaps the key is newer than the set: fetch the set again, at most every
    /// half minute.
    #[error("the token is signed by a key that is not known here")]
    UnknownKey,
    /// It is not of the issuer, was altered, is for somebody else, or does not count at this time.
    #[error("the token is not valid")]
    Invalid,
}

/// Checks access tokens against a set of public keys; see the [module](self). Share it: every call takes `&self`.
pub struct Verifier {
    keys: RwLock<Arc<[VerifyingKey]>>,
    settings: VerifierSettings,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys()).field("settings", &self.settings).finish()
    }
}

impl Verifier {
    /// The most entries that a key set may have.
    pub const MAX_KEYS: usize = 64;

    /// A verifier with the keys of this JWK Set (RFC 7517), given as JSON text.
    ///
    /// Entries without `kid`, for other uses, or of a kind or an algorithm that is not ours are passed over, so that a
    /// newer issuer can publish what this version does not know. Of two entries with one `kid` the first counts.
    ///
    /// # Errors
    /// [`JwksError`].
    pub fn from_jwks(jwks: &str, settings: VerifierSettings) -> Result<Self, JwksError> {
        Ok(Self { keys: RwLock::new(read(jwks)?), settings })
    }

    /// Takes these keys in place of those before. What is being verified goes on with the keys it began with.
    ///
    /// # Errors
    /// [`JwksError`], and the keys before stay.
    pub fn replace_jwks(&self, jwks: &str) -> Result<(), JwksError> {
        let keys = read(jwks)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn keys(&self) -> Arc<[VerifyingKey]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a token says, if it counts at this time: the text behind `Authorization: Bearer`, and the clock's time.
    ///
    /// # Errors
    /// [`VerifyError::UnknownKey`] when another key set could help, else [`VerifyError::Invalid`]. Answer both with 401
    /// and the same words.
    pub fn verify(&self, token: &str, now: OffsetDateTime) -> Result<AccessClaims, VerifyError> {
        let header = StrictHeader::read(token).ok_or(VerifyError::Invalid)?;
        // No key set holds such a key, so fetching it again would not help.
        if !header.alg.is_asymmetric() {
            return Err(VerifyError::Invalid);
        }
        let VerifierSettings { issuer, audience, leeway } = &self.settings;
        let expected = Expected { issuer, audience, now, leeway: *leeway };
        let keys = self.keys();
        let key = keys.iter().find(|key| key.id() == header.kid).ok_or(VerifyError::UnknownKey)?;
        key.check(token, &header, &expected).map_err(|_| VerifyError::Invalid)
    }
}

fn read(jwks: &str) -> Result<Arc<[VerifyingKey]>, JwksError> {
    let set: Value = serde_json::from_str(jwks).map_err(|_| JwksError::NotAKeySet)?;
    let entries = set.get("keys").and_then(Value::as_array).ok_or(JwksError::NotAKeySet)?;
    if entries.len() > Verifier::MAX_KEYS {
        return Err(JwksError::TooManyKeys);
    }
    let secret = |jwk: &Value| {
        jwk.get("kty").is_some_and(|kty| kty == "oct")
            || ["d", "k"].iter().any(|name| jwk.get(name).is_some())
    };
    if entries.iter().any(secret) {
        return Err(JwksError::Secret);
    }
    let keys: Arc<[VerifyingKey]> = entries.iter().filter_map(VerifyingKey::from_jwk).collect();
    if keys.is_empty() { Err(JwksError::NoKeys) } else { Ok(keys) }
}
