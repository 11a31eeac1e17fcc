//! Access tokens as JWTs (RFC 9068) signed by EdDSA (Ed25519, RFC 8037), and the keys that sign them.

use std::fmt;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::secret_keys::SecretKeys;
use crate::domain::id::{SessionId, SigningKeyId, UserId};
use crate::domain::secret::AccessToken;
use crate::port::random::Random;
use crate::port::store::key::SealedSigningKey;

/// The `typ` of an access token (RFC 9068 §2.1): a token of any other kind is refused.
const TYP: &str = "at+jwt";
/// The one algorithm that signs and verifies.
const ALGORITHM: &str = "EdDSA";
/// The most bytes of a token that is looked at.
const MAX_TOKEN: usize = 8 * 1024;

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

/// The keys that sign and verify access tokens, opened.
pub struct SigningKeys {
    /// The newest first: it signs.
    keys: Vec<OpenKey>,
}

struct OpenKey {
    id: String,
    signs: EncodingKey,
    verifies: DecodingKey,
    public: Jwk,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

/// Why the stored keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeysError {
    /// There is none.
    #[error("there is no signing key")]
    None,
    /// It was sealed under a secret key that is not among ours, or was altered.
    #[error("signing key {0} does not open under the secret key")]
    Sealed(SigningKeyId),
    /// It is not of a kind that this version uses.
    #[error("signing key {0} is of an unknown algorithm or form")]
    Unknown(SigningKeyId),
}

/// Makes a key, sealed. `None` when the system gives no randomness.
pub fn generate(
    id: SigningKeyId,
    now: OffsetDateTime,
    keys: &SecretKeys,
    random: &dyn Random,
) -> Option<SealedSigningKey> {
    let pair = Ed25519KeyPair::generate().ok()?;
    let private = pair.to_pkcs8v1().ok()?;
    let sealed = keys.seal(&seal_name(id), private.as_ref(), random)?;
    Some(SealedSigningKey { id, algorithm: ALGORITHM.into(), created_at: now, sealed })
}

/// Opens the stored keys.
///
/// # Errors
/// [`SigningKeysError`] names the key that does not open.
pub fn open(sealed: &[SealedSigningKey], keys: &SecretKeys) -> Result<SigningKeys, SigningKeysError> {
    // Another crate of the build may have chosen another provider; whoever is first decides, and all of them work.
    let _already_installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let keys: Vec<OpenKey> = sealed.iter().map(|sealed| open_one(sealed, keys)).collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(SigningKeysError::None) } else { Ok(SigningKeys { keys }) }
}

fn open_one(sealed: &SealedSigningKey, keys: &SecretKeys) -> Result<OpenKey, SigningKeysError> {
    let unknown = || SigningKeysError::Unknown(sealed.id);
    if sealed.algorithm != ALGORITHM {
        return Err(unknown());
    }
    let private =
        keys.open(&seal_name(sealed.id), &sealed.sealed).ok_or(SigningKeysError::Sealed(sealed.id))?;
    let id = sealed.id.to_string();
    let signs = EncodingKey::from_ed_der(&private);
    let mut public = Jwk::from_encoding_key(&signs, Algorithm::EdDSA).map_err(|_| unknown())?;
    public.common.key_id = Some(id.clone());
    public.common.public_key_use = Some(PublicKeyUse::Signature);
    let verifies = DecodingKey::from_jwk(&public).map_err(|_| unknown())?;
    Ok(OpenKey { id, signs, verifies, public })
}

fn seal_name(id: SigningKeyId) -> Vec<u8> {
    [b"usermgr signing key ".as_slice(), id.as_uuid().as_bytes()].concat()
}

impl SigningKeys {
    /// Signs a token with the newest key.
    pub fn sign(&self, claims: &AccessClaims) -> Option<AccessToken> {
        let key = self.keys.first()?;
        let header =
            Header { typ: Some(TYP.into()), kid: Some(key.id.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &key.signs).ok().map(AccessToken::new)
    }

    /// What a token says, if it is one of ours and counts now.
    ///
    /// The algorithm is pinned; key material in the header is never looked at (RFC 8725 §3.1, §3.10); every claim must
    /// be there and of its type; the signature is checked before any claim is.
    ///
    /// # Errors
    /// [`InvalidToken`], for every fault the same.
    pub fn verify(&self, token: &AccessToken, expected: &Expected<'_>) -> Result<AccessClaims, InvalidToken> {
        let token = token.expose();
        if token.len() > MAX_TOKEN {
            return Err(InvalidToken);
        }
        let header = strict_header(token).ok_or(InvalidToken)?;
        let key = self.keys.iter().find(|key| key.id == header.kid).ok_or(InvalidToken)?;
        // The claims are checked below, against our own clock and with their types.
        let mut signature_only = Validation::new(Algorithm::EdDSA);
        signature_only.required_spec_claims.clear();
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        let claims: AccessClaims =
            jsonwebtoken::decode(token, &key.verifies, &signature_only).map_err(|_| InvalidToken)?.claims;
        let (now, leeway) = (expected.now.unix_timestamp(), expected.leeway.whole_seconds());
        let counts = claims.iss == expected.issuer
            && claims.aud == expected.audience
            && claims.nbf <= now.saturating_add(leeway)
            && now < claims.exp.saturating_add(leeway);
        if counts { Ok(claims) } else { Err(InvalidToken) }
    }

    /// The public keys as a JWK Set (RFC 7517).
    pub fn jwks(&self) -> serde_json::Value {
        let set = JwkSet { keys: self.keys.iter().map(|key| key.public.clone()).collect() };
        serde_json::to_value(set).unwrap_or_else(|_| serde_json::json!({ "keys": [] }))
    }
}

/// The header of an access token: exactly these members. One with `crit`, `jku`, `jwk`, `x5u` or anything else is none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictHeader {
    alg: String,
    typ: String,
    kid: String,
}

fn strict_header(token: &str) -> Option<StrictHeader> {
    let (header, rest) = token.split_once('.')?;
    if rest.matches('.').count() != 1 {
        return None;
    }
    let header: StrictHeader = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    (header.alg == ALGORITHM && header.typ == TYP).then_some(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::SecretKey;
    use crate::port::random::SystemRandom;
    use serde_json::{Value, json};
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn fixture() -> (SigningKeys, AccessClaims) {
        let secrets = SecretKeys::new(SecretKey::from_bytes([7; 32]), Vec::new());
        let id = SigningKeyId::new(NOW, &SystemRandom);
        let keys = open(&[generate(id, NOW, &secrets, &SystemRandom).unwrap()], &secrets).unwrap();
        let now = NOW.unix_timestamp();
        let claims = AccessClaims {
            iss: "https://app.example.org".into(),
            sub: UserId::new(NOW, &SystemRandom),
            aud: "usermgr".into(),
            iat: now,
            nbf: now,
            exp: now + 900,
            jti: "1".into(),
            sid: SessionId::new(NOW, &SystemRandom),
            roles: vec!["user".into()],
            email: "ana@example.org".into(),
            auth_time: now,
            amr: vec!["pwd".into()],
        };
        (keys, claims)
    }

    fn at(seconds: i64) -> Expected<'static> {
        Expected {
            issuer: "https://app.example.org",
            audience: "usermgr",
            now: NOW + Duration::seconds(seconds),
            leeway: Duration::ZERO,
        }
    }

    /// Signs any header and claims with our own key.
    fn forge(keys: &SigningKeys, header: &Value, claims: &Value) -> AccessToken {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &keys.keys[0].signs, Algorithm::EdDSA).unwrap();
        AccessToken::new(format!("{message}.{signature}"))
    }

    #[test]
    fn a_token_counts_from_its_first_second_to_its_last() {
        let (keys, claims) = fixture();
        let token = keys.sign(&claims).unwrap();
        for (seconds, counts) in [(-1, false), (0, true), (899, true), (900, false)] {
            assert_eq!(keys.verify(&token, &at(seconds)).is_ok(), counts, "{seconds}");
        }
        assert_eq!(keys.verify(&token, &at(0)), Ok(claims));
    }

    #[test]
    fn every_tampering_is_refused() {
        let (keys, claims) = fixture();
        let claims = serde_json::to_value(claims).unwrap();
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": keys.keys[0].id});
        assert!(keys.verify(&forge(&keys, &header, &claims), &at(0)).is_ok(), "untouched it is good");
        for (name, value) in [
            ("typ", json!("JWT")),
            ("typ", Value::Null),
            ("alg", json!("none")),
            ("alg", json!("HS256")),
            ("kid", json!("../../dev/null")),
            ("kid", json!("' OR 1=1")),
            ("crit", json!(["exp"])),
            ("jku", json!("http://127.0.0.1/keys")),
            ("jwk", json!({"kty": "OKP"})),
            ("x5u", json!("http://127.0.0.1/cert")),
        ] {
            let mut header = header.clone();
            header[name] = value;
            assert!(keys.verify(&forge(&keys, &header, &claims), &at(0)).is_err(), "{header}");
        }
        for (name, value) in [
            ("iss", json!("https://evil.example")),
            ("aud", json!("other")),
            ("aud", json!(["usermgr"])),
            ("exp", json!("99999999999")),
            ("exp", json!(1e300)),
            ("exp", Value::Null),
            ("nbf", json!("0")),
            ("sub", json!(1)),
            ("sid", json!("")),
        ] {
            let mut changed = claims.clone();
            changed[name] = value;
            assert!(keys.verify(&forge(&keys, &header, &changed), &at(0)).is_err(), "{name}");
            changed.as_object_mut().unwrap().remove(name);
            assert!(keys.verify(&forge(&keys, &header, &changed), &at(0)).is_err(), "{name} missing");
        }
    }

    #[test]
    fn no_bit_of_a_token_may_differ() {
        let (keys, claims) = fixture();
        let token = keys.sign(&claims).unwrap();
        for position in 0..token.expose().len() {
            let mut bytes = token.expose().to_owned().into_bytes();
            bytes[position] ^= 1;
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(keys.verify(&text.into(), &at(0)).is_err(), "{position}");
            }
        }
        for other in
            [String::new(), ".".into(), "..".into(), format!("{}.", token.expose()), "a".repeat(9000)]
        {
            assert!(keys.verify(&other.into(), &at(0)).is_err());
        }
    }

    #[test]
    fn an_hmac_with_the_public_key_is_no_signature() {
        let (keys, claims) = fixture();
        let public = serde_json::to_string(&keys.jwks()).unwrap();
        let header =
            Header { typ: Some(TYP.into()), kid: Some(keys.keys[0].id.clone()), ..Header::default() };
        let forged =
            jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(public.as_bytes())).unwrap();
        assert!(keys.verify(&forged.into(), &at(0)).is_err());
    }

    #[test]
    fn the_key_set_holds_public_members_only() {
        let (keys, _) = fixture();
        let set = keys.jwks();
        let key = set["keys"][0].as_object().unwrap();
        let mut members: Vec<_> = key.keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x"]);
    }
}
