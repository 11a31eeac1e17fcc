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
//! keys that are there. A revoked key leaves the set, so the refresh is also how this service learns of it.
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
//! # let token = concat!(
//! #     "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSIsImtpZCI6IjAxOWI3OTUzLWM3YzAtNzAwMC04MDAwLTAwMDAwMD",
//! #     "AwMDAwMSJ9.eyJpc3MiOiJodHRwczovL2FwcC5leGFtcGxlLm9yZyIsInN1YiI6IjAxOWI3OTUzLWM3YzAtNzAwMC0",
//! #     "4MDAwLTAwMDAwMDAwMDAwMiIsImF1ZCI6InVzZXJtZ3IiLCJpYXQiOjE3NjcyNjg4MDAsIm5iZiI6MTc2NzI2ODc3M",
//! #     "CwiZXhwIjoxNzY3MjY5NzAwLCJqdGkiOiIxIiwic2lkIjoiMDE5Yjc5NTMtYzdjMC03MDAwLTgwMDAtMDAwMDAwMDA",
//! #     "wMDAzIiwicm9sZXMiOlsidXNlciJdLCJlbWFpbCI6ImFuYUBleGFtcGxlLm9yZyIsImF1dGhfdGltZSI6MTc2NzI2O",
//! #     "DgwMCwiYW1yIjpbInB3ZCJdfQ.yObk6ndE1sJ2PdqSWcp4oAFKAIXann0Uh8sTcEJBzYXh9e_H8YCpeZ6GG7cObqZT",
//! #     "JlCP9ve-85fjJpwBsQ2ADg",
//! # );
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
#[expect(clippy::exhaustive_structs, reason = "it holds nothing")]
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
#[non_exhaustive]
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

    /// Takes these keys in place of those before: a key that left the set, because it was revoked, verifies no more. What
    /// is being verified goes on with the keys it began with.
    ///
    /// # Errors
    /// [`JwksError`], and the keys before stay; but not after [`JwksError::NoKeys`], as a set without our keys says that
    /// each was taken out of it. Then every token is refused until another set comes.
    pub fn replace_jwks(&self, jwks: &str) -> Result<(), JwksError> {
        let read = read(jwks);
        let keys = match &read {
            Ok(keys) => Arc::clone(keys),
            Err(JwksError::NoKeys) => Arc::default(),
            Err(error) => return Err(*error),
        };
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        read.map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::jwt::{self, SigningKeys, message};
    use crate::crypto::secret_keys::SecretKeys;
    use crate::domain::id::{SessionId, SigningKeyId, UserId};
    use crate::domain::secret::SecretKey;
    use crate::domain::signing::SigningAlgorithm;
    use crate::port::random::SystemRandom;
    use crate::port::store::key::SealedSigningKey;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, EncodingKey};
    use serde_json::json;
    use std::sync::OnceLock;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const PUBLISHED: [SigningAlgorithm; 3] =
        [SigningAlgorithm::EdDsa, SigningAlgorithm::Es256, SigningAlgorithm::Rs256];

    fn secrets() -> SecretKeys {
        SecretKeys::new(SecretKey::from_bytes([7; 32]), Vec::new())
    }

    fn made(algorithm: SigningAlgorithm, seconds: i64) -> SealedSigningKey {
        let id = SigningKeyId::new(NOW, &SystemRandom);
        jwt::generate(algorithm, id, NOW, NOW + Duration::seconds(seconds), &secrets(), &SystemRandom)
            .unwrap()
    }

    fn opened(keys: &[&SealedSigningKey]) -> SigningKeys {
        jwt::open(&keys.iter().copied().cloned().collect::<Vec<_>>(), &secrets()).unwrap()
    }

    /// A set of one key of this algorithm, made once: RSA takes its time.
    fn only(algorithm: SigningAlgorithm) -> SigningKeys {
        static SEALED: OnceLock<Vec<SealedSigningKey>> = OnceLock::new();
        let sealed = SEALED.get_or_init(|| SigningAlgorithm::ALL.map(|each| made(each, 0)).to_vec());
        opened(&[sealed.iter().find(|key| key.algorithm == algorithm.as_str()).unwrap()])
    }

    fn settings() -> VerifierSettings {
        VerifierSettings::new("https://app.example.org", "usermgr")
    }

    fn verifier(jwks: &Value) -> Verifier {
        Verifier::from_jwks(&jwks.to_string(), settings()).unwrap()
    }

    fn refused(jwks: &Value) -> JwksError {
        Verifier::from_jwks(&jwks.to_string(), settings()).unwrap_err()
    }

    fn claims() -> AccessClaims {
        let now = NOW.unix_timestamp();
        AccessClaims {
            iss: "https://app.example.org".into(),
            sub: UserId::new(NOW, &SystemRandom),
            aud: "usermgr".into(),
            iat: now,
            nbf: now - 30,
            exp: now + 900,
            jti: "1".into(),
            sid: SessionId::new(NOW, &SystemRandom),
            roles: vec!["user".into()],
            email: "ana@example.org".into(),
            auth_time: now,
            amr: vec!["pwd".into()],
        }
    }

    fn later(seconds: i64) -> OffsetDateTime {
        NOW + Duration::seconds(seconds)
    }

    fn header(keys: &SigningKeys) -> Value {
        let key = keys.list(NOW)[0];
        json!({"alg": key.algorithm, "typ": "at+jwt", "kid": key.id})
    }

    #[test]
    fn a_token_of_each_published_algorithm_says_who_it_is() {
        for algorithm in PUBLISHED {
            let (keys, claims) = (only(algorithm), claims());
            let token = keys.sign(&claims, algorithm, NOW).unwrap();
            assert_eq!(verifier(&keys.jwks()).verify(token.expose(), NOW), Ok(claims), "{algorithm}");
        }
    }

    #[test]
    fn the_leeway_is_a_minute_unless_it_is_said_otherwise() {
        let keys = only(SigningAlgorithm::EdDsa);
        let token = keys.sign(&claims(), SigningAlgorithm::EdDsa, NOW).unwrap();
        for (leeway, first, last) in [(None, -90, 959), (Some(0), -30, 899), (Some(300), -330, 1199)] {
            let settings = match leeway {
                None => settings(),
                Some(seconds) => settings().with_leeway(Duration::seconds(seconds)).unwrap(),
            };
            let verifier = Verifier::from_jwks(&keys.jwks().to_string(), settings).unwrap();
            for (seconds, counts) in [(first - 1, false), (first, true), (last, true), (last + 1, false)] {
                let result = verifier.verify(token.expose(), later(seconds));
                assert_eq!(result.is_ok(), counts, "{leeway:?} {seconds}");
                assert_ne!(result, Err(VerifyError::UnknownKey));
            }
        }
        for leeway in [Duration::seconds(-1), Duration::seconds(301), Duration::MAX, Duration::MIN] {
            assert_eq!(settings().with_leeway(leeway).unwrap_err(), InvalidLeeway);
        }
    }

    /// Headers that are refused although the published key signed them.
    fn bad_headers(good: &Value, jwk: &Value) -> Vec<Value> {
        let with = |name: &str, value: Value| {
            let mut header = good.clone();
            header[name] = value;
            header
        };
        let without = |name: &str| {
            let mut header = good.clone();
            header.as_object_mut().unwrap().remove(name);
            header
        };
        let mut bad = vec![
            with("typ", json!("JWT")),
            with("typ", json!("application/at+jwt")),
            with("typ", Value::Null),
            without("typ"),
            with("alg", json!("none")),
            with("alg", json!("HS256")),
            with("alg", json!("RS512")),
            with("alg", json!("PS256")),
            with("alg", json!(good["alg"].as_str().unwrap().to_lowercase())),
            with("alg", json!([good["alg"]])),
            without("alg"),
            with("kid", json!([good["kid"]])),
            with("kid", Value::Null),
            without("kid"),
            with("crit", json!(["exp"])),
            with("crit", json!([])),
            with("jku", json!("https://evil.example/jwks.json")),
            with("jwk", jwk.clone()),
            with("x5u", json!("https://evil.example/cert")),
            with("x5c", json!(["AAAA"])),
            with("x5t", json!("AAAA")),
            with("b64", json!(false)),
            with("zip", json!("DEF")),
            with("cty", json!("JWT")),
            with("anything", json!(1)),
        ];
        let others = PUBLISHED.into_iter().filter(|other| *other.as_str() != good["alg"]);
        bad.extend(others.map(|other| with("alg", json!(other))));
        bad
    }

    #[test]
    fn every_tampering_of_the_header_is_refused() {
        let claims = serde_json::to_string(&claims()).unwrap();
        for algorithm in PUBLISHED {
            let keys = only(algorithm);
            let (verifier, good) = (verifier(&keys.jwks()), header(&keys));
            assert!(verifier.verify(&keys.forge(&good.to_string(), &claims), NOW).is_ok());
            for bad in bad_headers(&good, &keys.jwks()["keys"][0]) {
                let token = keys.forge(&bad.to_string(), &claims);
                assert_eq!(verifier.verify(&token, NOW), Err(VerifyError::Invalid), "{bad}");
            }
            let twice = good.to_string().replacen('{', r#"{"typ":"at+jwt","#, 1);
            assert_eq!(verifier.verify(&keys.forge(&twice, &claims), NOW), Err(VerifyError::Invalid));
        }
    }

    #[test]
    fn every_tampering_of_the_claims_is_refused() {
        let claims = serde_json::to_value(claims()).unwrap();
        let keys = only(SigningAlgorithm::EdDsa);
        let (verifier, header) = (verifier(&keys.jwks()), header(&keys).to_string());
        let verify = |claims: &Value| verifier.verify(&keys.forge(&header, &claims.to_string()), NOW);
        assert!(verify(&claims).is_ok());
        for (name, value) in [
            ("iss", json!("https://evil.example")),
            ("iss", json!("https://app.example.org/")),
            ("iss", json!(["https://app.example.org"])),
            ("aud", json!("other")),
            ("aud", json!(["usermgr"])),
            ("aud", json!("")),
            ("exp", json!(NOW.unix_timestamp() - 60)),
            ("exp", json!("9999999999")),
            ("exp", json!(9_999_999_999.5)),
            ("exp", Value::Null),
            ("nbf", json!(NOW.unix_timestamp() + 61)),
            ("nbf", json!("0")),
            ("nbf", Value::Null),
            ("iat", json!("0")),
            ("iat", Value::Null),
            ("sub", json!("ana")),
            ("sub", json!(1)),
            ("sid", json!("")),
            ("sid", Value::Null),
            ("jti", json!(1)),
            ("roles", json!("admin")),
        ] {
            let mut changed = claims.clone();
            changed[name] = value;
            assert_eq!(verify(&changed), Err(VerifyError::Invalid), "{changed}");
            changed.as_object_mut().unwrap().remove(name);
            assert_eq!(verify(&changed), Err(VerifyError::Invalid), "{name} missing");
        }
        let twice = claims.to_string().replacen('{', r#"{"aud":"usermgr","#, 1);
        assert_eq!(verifier.verify(&keys.forge(&header, &twice), NOW), Err(VerifyError::Invalid));
    }

    #[test]
    fn every_tampering_of_the_signature_is_refused() {
        let claims = claims();
        for algorithm in PUBLISHED {
            let (keys, theirs) = (only(algorithm), opened(&[&made(algorithm, 0)]));
            let (verifier, header) = (verifier(&keys.jwks()), header(&keys).to_string());
            let token = keys.sign(&claims, algorithm, NOW).unwrap().expose().to_owned();
            let (message_part, signature) = token.rsplit_once('.').unwrap();
            let admin = AccessClaims { roles: vec!["admin".into()], ..claims.clone() };
            let admin = message(&header, &serde_json::to_string(&admin).unwrap());
            let text = serde_json::to_string(&claims).unwrap();
            let mut bad = vec![
                format!("{admin}.{signature}"),
                format!("{message_part}."),
                message_part.to_owned(),
                format!("{token}."),
                format!("{token}="),
                format!("{token}\n"),
                format!(" {token}"),
                format!("Bearer {token}"),
                theirs.forge(&header, &text),
                token.repeat(20),
                String::new(),
            ];
            // Whoever takes the algorithm from the header would check these against what everybody knows.
            let jwk = keys.jwks()["keys"][0].clone();
            let parts = ["x", "y", "n", "e"].into_iter().filter_map(|name| jwk[name].as_str());
            let mut known: Vec<Vec<u8>> = parts.map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
            known.extend([Vec::new(), jwk.to_string().into_bytes(), keys.jwks().to_string().into_bytes()]);
            for secret in known {
                for alg in [json!("HS256"), json!(algorithm)] {
                    let header = json!({"alg": alg, "typ": "at+jwt", "kid": jwk["kid"]}).to_string();
                    let (message, secret) = (message(&header, &text), EncodingKey::from_secret(&secret));
                    let tag = jsonwebtoken::crypto::sign(message.as_bytes(), &secret, Algorithm::HS256);
                    bad.push(format!("{message}.{}", tag.unwrap()));
                }
            }
            for bad in bad {
                assert_eq!(verifier.verify(&bad, NOW), Err(VerifyError::Invalid), "{algorithm} {bad:?}");
            }
        }
    }

    #[test]
    fn a_key_that_left_the_set_verifies_no_more() {
        for algorithm in PUBLISHED {
            let (leaked, new) = (made(algorithm, -100), made(algorithm, 0));
            let revoked = SealedSigningKey { revoked_at: Some(NOW), ..leaked.clone() };
            let (before, after) = (opened(&[&leaked]), opened(&[&new, &revoked]));
            let forged = before.sign(&claims(), algorithm, NOW).unwrap();
            for (set, answer) in [(after.jwks(), Ok(())), (json!({"keys": []}), Err(JwksError::NoKeys))] {
                let verifier = verifier(&before.jwks());
                assert!(verifier.verify(forged.expose(), NOW).is_ok());
                assert_eq!(verifier.replace_jwks(&set.to_string()), answer);
                assert_eq!(verifier.verify(forged.expose(), NOW), Err(VerifyError::UnknownKey));
            }
            let fresh = after.sign(&claims(), algorithm, NOW).unwrap();
            assert!(verifier(&after.jwks()).verify(fresh.expose(), NOW).is_ok());
            assert!(after.verify(&forged, &at_now()).is_err(), "nor where it signs");
        }
    }

    fn at_now() -> Expected<'static> {
        Expected { issuer: "https://app.example.org", audience: "usermgr", now: NOW, leeway: Duration::ZERO }
    }

    #[test]
    fn a_rotation_refuses_nobody_whose_key_set_is_fresh() {
        for algorithm in PUBLISHED {
            let (old, new) = (made(algorithm, -100), made(algorithm, 600));
            let [before, during, after] = [opened(&[&old]), opened(&[&new, &old]), opened(&[&new])];
            let sign = |keys: &SigningKeys, seconds| {
                keys.sign(&claims(), algorithm, later(seconds)).unwrap().expose().to_owned()
            };
            let (of_old, of_new) = (sign(&during, 599), sign(&during, 600));
            let verifier = verifier(&before.jwks());
            let check = |expected: [Result<(), VerifyError>; 2]| {
                let results = [&of_old, &of_new].map(|token| verifier.verify(token, NOW).map(drop));
                assert_eq!(results, expected, "{algorithm}");
            };
            check([Ok(()), Err(VerifyError::UnknownKey)]);
            verifier.replace_jwks(&during.jwks().to_string()).unwrap();
            check([Ok(()), Ok(())]);
            for broken in ["", "{}", r#"{"keys":[{"kty":"oct","kid":"1","k":"AAAA"}]}"#] {
                assert!(verifier.replace_jwks(broken).is_err());
                check([Ok(()), Ok(())]);
            }
            verifier.replace_jwks(&after.jwks().to_string()).unwrap();
            check([Err(VerifyError::UnknownKey), Ok(())]);
        }
    }

    #[test]
    fn only_a_key_that_could_be_published_is_worth_fetching() {
        let keys = only(SigningAlgorithm::EdDsa);
        let text = serde_json::to_string(&claims()).unwrap();
        let verifier = verifier(&keys.jwks());
        let other = SigningKeyId::new(NOW, &SystemRandom);
        for (alg, expected) in [
            ("EdDSA", VerifyError::UnknownKey),
            ("ES256", VerifyError::UnknownKey),
            ("RS256", VerifyError::UnknownKey),
            ("HS256", VerifyError::Invalid),
            ("none", VerifyError::Invalid),
        ] {
            let header = json!({"alg": alg, "typ": "at+jwt", "kid": other}).to_string();
            assert_eq!(verifier.verify(&keys.forge(&header, &text), NOW), Err(expected), "{alg}");
        }
        let symmetric = only(SigningAlgorithm::Hs256).sign(&claims(), SigningAlgorithm::Hs256, NOW).unwrap();
        assert_eq!(verifier.verify(symmetric.expose(), NOW), Err(VerifyError::Invalid));
    }

    #[test]
    fn a_key_set_with_a_secret_is_refused() {
        let good = only(SigningAlgorithm::EdDsa).jwks()["keys"][0].clone();
        let private = |name: &str| {
            let mut jwk = good.clone();
            jwk[name] = json!("AAAA");
            jwk
        };
        for bad in [
            json!({"kty": "oct", "kid": "1", "k": "AAAA", "alg": "HS256"}),
            json!({"kty": "oct"}),
            private("d"),
            private("k"),
        ] {
            assert_eq!(refused(&json!({"keys": [good, bad]})), JwksError::Secret, "{bad}");
        }
        assert_eq!(refused(&only(SigningAlgorithm::Hs256).jwks()), JwksError::NoKeys, "ours publishes none");
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        for bad in ["", "null", "[]", "{}", "{\"keys\":{}}", "{\"keys\":null}", "<html>", "{\"keys\":[}"] {
            let error = Verifier::from_jwks(bad, settings()).unwrap_err();
            assert_eq!(error, JwksError::NotAKeySet, "{bad}");
        }
        let good = only(SigningAlgorithm::EdDsa).jwks()["keys"][0].clone();
        assert_eq!(verifier(&json!({"keys": vec![good.clone(); 64]})).keys().len(), 64);
        assert_eq!(refused(&json!({"keys": vec![good; 65]})), JwksError::TooManyKeys);
        assert_eq!(refused(&json!({"keys": vec![json!({"kty": "AKP"}); 65]})), JwksError::TooManyKeys);
    }

    #[test]
    fn an_entry_that_is_not_for_us_is_passed_over() {
        for algorithm in PUBLISHED {
            let keys = only(algorithm);
            let good = keys.jwks()["keys"][0].clone();
            let changed = |name: &str, value: Value| {
                let mut jwk = good.clone();
                jwk[name] = value;
                jwk
            };
            let without = |name: &str| {
                let mut jwk = good.clone();
                jwk.as_object_mut().unwrap().remove(name);
                jwk
            };
            let others = SigningAlgorithm::ALL.into_iter().filter(|other| *other != algorithm);
            let mut bad = vec![
                without("kid"),
                without("kty"),
                changed("kid", json!(1)),
                changed("kty", json!("AKP")),
                changed("kty", json!("okp")),
                changed("use", json!("enc")),
                changed("key_ops", json!(["sign"])),
                changed("key_ops", json!("verify")),
                changed("alg", json!("none")),
                changed("alg", json!("ML-DSA-44")),
                changed("alg", json!(["EdDSA"])),
                Value::Null,
                json!([good]),
                json!("key"),
            ];
            bad.extend(others.map(|other| changed("alg", json!(other))));
            let members: &[&str] = match algorithm {
                SigningAlgorithm::EdDsa => &["crv", "x"],
                SigningAlgorithm::Es256 => &["crv", "x", "y"],
                _ => &["n", "e"],
            };
            for name in members {
                bad.push(without(name));
                bad.extend(["", "AAAA", "P-384", "?"].map(|value| changed(name, json!(value))));
            }
            // Three bytes may be an exponent.
            bad.retain(|jwk| jwk["e"] != "AAAA" && jwk["e"] != "P-384");
            for bad in bad {
                assert_eq!(refused(&json!({"keys": [bad]})), JwksError::NoKeys, "{bad}");
                assert_eq!(verifier(&json!({"keys": [bad, good]})).keys().len(), 1, "{bad}");
            }
            // What is optional may be missing: the kind and the curve pin the algorithm as well.
            let token = keys.sign(&claims(), algorithm, NOW).unwrap();
            for jwk in [without("alg"), without("use"), changed("key_ops", json!(["verify"]))] {
                let verifier = verifier(&json!({"keys": [jwk]}));
                assert!(verifier.verify(token.expose(), NOW).is_ok(), "{jwk}");
                let mut header = header(&keys);
                for other in PUBLISHED.into_iter().filter(|other| *other != algorithm) {
                    header["alg"] = json!(other);
                    let claims = serde_json::to_string(&claims()).unwrap();
                    let forged = keys.forge(&header.to_string(), &claims);
                    assert_eq!(verifier.verify(&forged, NOW), Err(VerifyError::Invalid), "{header}");
                }
            }
        }
    }

    #[test]
    fn of_two_keys_of_one_name_the_first_counts() {
        let (ours, theirs) = (only(SigningAlgorithm::EdDsa), opened(&[&made(SigningAlgorithm::EdDsa, 0)]));
        let good = ours.jwks()["keys"][0].clone();
        let mut other = theirs.jwks()["keys"][0].clone();
        other["kid"] = good["kid"].clone();
        let token = ours.sign(&claims(), SigningAlgorithm::EdDsa, NOW).unwrap();
        for (keys, expected) in [([&good, &other], true), ([&other, &good], false)] {
            assert_eq!(verifier(&json!({ "keys": keys })).verify(token.expose(), NOW).is_ok(), expected);
        }
    }

    #[test]
    fn it_prints_which_keys_it_has() {
        let keys = only(SigningAlgorithm::EdDsa);
        let printed = format!("{:?}", verifier(&keys.jwks()));
        assert!(printed.contains(&keys.list(NOW)[0].id.to_string()), "{printed}");
        assert!(printed.contains("https://app.example.org"), "{printed}");
    }
}
