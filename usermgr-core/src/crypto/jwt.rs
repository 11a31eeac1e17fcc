//! Access tokens as JWTs (RFC 9068), and the keys that sign them.

use std::collections::HashSet;
use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use aws_lc_rs::{agreement, hmac, rsa};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::access_token::{AccessClaims, Expected, InvalidToken, MAX_TOKEN, StrictHeader, TYP, VerifyingKey};
use super::secret_keys::SecretKeys;
use crate::domain::id::SigningKeyId;
use crate::domain::secret::AccessToken;
use crate::domain::signing::{KeyState, SigningAlgorithm};
use crate::port::random::Random;
use crate::port::store::key::SealedSigningKey;

/// Bytes of an Ed25519 private key (RFC 8032 §5.1.5), of a P-256 one, and of the secret of HMAC-SHA-256 (RFC 7518 §3.2).
const SEED_BYTES: usize = 32;
/// How often a P-256 key is drawn: one draw in 2^32 is none of the curve.
const DRAWS: u8 = 4;

/// The keys that sign and verify access tokens, opened.
pub struct SigningKeys {
    /// Those that sign the latest first.
    keys: Vec<OpenKey>,
}

struct OpenKey {
    id: SigningKeyId,
    algorithm: SigningAlgorithm,
    created_at: OffsetDateTime,
    signs_from: OffsetDateTime,
    signs: Signer,
    verifies: VerifyingKey,
    /// What the key set says of it; an HMAC key has nothing to say.
    public: Option<Value>,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.verifies)).finish()
    }
}

/// One signing key in a list: all about it but the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SigningKeyStatus {
    /// Its identifier, the `kid` of its tokens.
    pub id: SigningKeyId,
    /// How it signs.
    pub algorithm: SigningAlgorithm,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// From when it may sign.
    pub signs_from: OffsetDateTime,
    /// What it is good for now.
    pub state: KeyState,
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

/// Makes a key that signs from `signs_from` on, sealed under the secret key and bound to its identifier and its
/// algorithm. `None` when it cannot be computed.
///
/// RSA takes some tenths of a second of one core, and its chance from the cryptographic library, not from `random`.
pub fn generate(
    algorithm: SigningAlgorithm,
    id: SigningKeyId,
    now: OffsetDateTime,
    signs_from: OffsetDateTime,
    keys: &SecretKeys,
    random: &dyn Random,
) -> Option<SealedSigningKey> {
    let private = match algorithm {
        SigningAlgorithm::EdDsa => {
            let pair = Ed25519KeyPair::from_seed_unchecked(&*seed(random)).ok()?;
            Zeroizing::new(pair.to_pkcs8v1().ok()?.as_ref().to_vec())
        }
        SigningAlgorithm::Es256 => {
            let pair = (0..DRAWS).find_map(|_| {
                agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, &*seed(random)).ok()
            })?;
            let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
            Zeroizing::new(der.as_ref().to_vec())
        }
        SigningAlgorithm::Rs256 => {
            let der: Pkcs8V1Der<'_> = RsaKeyPair::generate(rsa::KeySize::Rsa2048).ok()?.as_der().ok()?;
            Zeroizing::new(der.as_ref().to_vec())
        }
        SigningAlgorithm::Hs256 => Zeroizing::new(seed(random).to_vec()),
    };
    let sealed = keys.seal(&seal_name(id, algorithm.as_str()), &private, random)?;
    Some(SealedSigningKey { id, algorithm: algorithm.as_str().into(), created_at: now, signs_from, sealed })
}

fn seed(random: &dyn Random) -> Zeroizing<[u8; SEED_BYTES]> {
    let mut seed = Zeroizing::new([0_u8; SEED_BYTES]);
    random.fill(seed.as_mut_slice());
    seed
}

/// The same key sealed anew under the secret key in force. `None` when none of the secret keys opens it.
pub fn reseal(key: &SealedSigningKey, keys: &SecretKeys, random: &dyn Random) -> Option<SealedSigningKey> {
    let name = seal_name(key.id, &key.algorithm);
    let private = keys.open(&name, &key.sealed)?;
    Some(SealedSigningKey { sealed: keys.seal(&name, &private, random)?, ..key.clone() })
}

/// Opens the stored keys, in whatever order they come.
///
/// # Errors
/// [`SigningKeysError::None`] without any; [`SigningKeysError::Sealed`] and [`SigningKeysError::Unknown`] name the key
/// that cannot be used. One such key fails all: tokens that it signed would be refused in silence.
pub fn open(sealed: &[SealedSigningKey], keys: &SecretKeys) -> Result<SigningKeys, SigningKeysError> {
    let mut opened: Vec<OpenKey> =
        sealed.iter().map(|sealed| open_one(sealed, keys)).collect::<Result<_, _>>()?;
    opened.sort_by_key(|key| std::cmp::Reverse((key.signs_from, key.id)));
    // A key set names each key once (RFC 7517 §4.5).
    let mut seen = HashSet::new();
    opened.retain(|key| seen.insert(key.id));
    if opened.is_empty() { Err(SigningKeysError::None) } else { Ok(SigningKeys { keys: opened }) }
}

fn open_one(sealed: &SealedSigningKey, keys: &SecretKeys) -> Result<OpenKey, SigningKeysError> {
    let &SealedSigningKey { id, created_at, signs_from, .. } = sealed;
    let unknown = || SigningKeysError::Unknown(id);
    let algorithm: SigningAlgorithm = sealed.algorithm.parse().map_err(|_| unknown())?;
    let name = seal_name(id, &sealed.algorithm);
    let private = keys.open(&name, &sealed.sealed).ok_or(SigningKeysError::Sealed(id))?;
    let signs = Signer::open(algorithm, &private).ok_or_else(unknown)?;
    let public = signs.public(id);
    let verifies = match &public {
        Some(jwk) => VerifyingKey::from_jwk(jwk).ok_or_else(unknown)?,
        None => VerifyingKey::from_secret(id.to_string(), &private),
    };
    Ok(OpenKey { id, algorithm, created_at, signs_from, signs, verifies, public })
}

/// What a seal is bound to: neither the identifier nor the algorithm beside it can be exchanged.
fn seal_name(id: SigningKeyId, algorithm: &str) -> Vec<u8> {
    [b"usermgr signing key ".as_slice(), id.as_uuid().as_bytes(), algorithm.as_bytes()].concat()
}

impl SigningKeys {
    /// What this key is good for at this time; `None` when there is no such key.
    pub fn state(&self, id: SigningKeyId, now: OffsetDateTime) -> Option<KeyState> {
        let key = self.keys.iter().find(|key| key.id == id)?;
        Some(match self.current(key.algorithm, now) {
            _ if key.signs_from > now => KeyState::Next,
            Some(current) if current.id == id => KeyState::Current,
            _ => KeyState::Retired,
        })
    }

    /// Every key, those that sign the latest first.
    pub fn list(&self, now: OffsetDateTime) -> Vec<SigningKeyStatus> {
        let status = |key: &OpenKey| {
            let &OpenKey { id, algorithm, created_at, signs_from, .. } = key;
            Some(SigningKeyStatus { id, algorithm, created_at, signs_from, state: self.state(id, now)? })
        };
        self.keys.iter().filter_map(status).collect()
    }

    /// Whether there is a key of this algorithm that signs now.
    pub fn has_current(&self, algorithm: SigningAlgorithm, now: OffsetDateTime) -> bool {
        self.current(algorithm, now).is_some()
    }

    /// Whether it is time to make the next key of this algorithm: the current one has signed for `every`, and none is
    /// waiting. Without a current key there is nothing to follow, see [`has_current`](Self::has_current).
    pub fn needs_rotation(&self, algorithm: SigningAlgorithm, every: Duration, now: OffsetDateTime) -> bool {
        let next = self.keys.iter().any(|key| key.algorithm == algorithm && key.signs_from > now);
        !next && self.current(algorithm, now).is_some_and(|current| now - current.signs_from >= every)
    }

    /// The key of this algorithm that began to sign last.
    fn current(&self, algorithm: SigningAlgorithm, now: OffsetDateTime) -> Option<&OpenKey> {
        self.keys.iter().find(|key| key.algorithm == algorithm && key.signs_from <= now)
    }

    /// Signs a token with the current key of this algorithm. `None` when there is no such key, when it cannot be
    /// computed, or when it says more than fits into 8 KiB: such a token would be refused wherever it is shown.
    pub fn sign(
        &self,
        claims: &AccessClaims,
        algorithm: SigningAlgorithm,
        now: OffsetDateTime,
    ) -> Option<AccessToken> {
        let key = self.current(algorithm, now)?;
        let header = StrictHeader { typ: TYP.into(), alg: algorithm, kid: key.id.to_string() };
        let part = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
        let header = part(serde_json::to_vec(&header).ok()?);
        let message = format!("{header}.{}", part(serde_json::to_vec(claims).ok()?));
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(key.signs.sign(message.as_bytes())?));
        (token.len() <= MAX_TOKEN).then(|| AccessToken::new(token))
    }

    /// What a token says, if it is one of ours and counts now. Any key of the set verifies, but each only tokens of
    /// its own algorithm.
    ///
    /// The algorithm is pinned; key material in the header is never looked at (RFC 8725 §3.1, §3.10); every claim must
    /// be there and of its type; the signature is checked before any claim is.
    ///
    /// # Errors
    /// [`InvalidToken`], for every fault the same: who shows a bad token learns nothing from it.
    pub fn verify(&self, token: &AccessToken, expected: &Expected<'_>) -> Result<AccessClaims, InvalidToken> {
        let token = token.expose();
        let header = StrictHeader::read(token).ok_or(InvalidToken)?;
        let key = self.keys.iter().find(|key| key.verifies.id() == header.kid).ok_or(InvalidToken)?;
        key.verifies.check(token, &header, expected)
    }

    /// The public keys as a JWK Set (RFC 7517): the next and the retired ones too, and never an HMAC key.
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.keys.iter().filter_map(|key| key.public.as_ref()).collect::<Vec<_>>() })
    }
}

/// A private key, opened once: taking an RSA key apart costs more than signing.
enum Signer {
    EdDsa(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
    Hs256(hmac::Key),
}

impl Signer {
    fn open(algorithm: SigningAlgorithm, private: &[u8]) -> Option<Self> {
        Some(match algorithm {
            SigningAlgorithm::EdDsa => Self::EdDsa(Ed25519KeyPair::from_pkcs8(private).ok()?),
            SigningAlgorithm::Es256 => {
                Self::Es256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private).ok()?)
            }
            SigningAlgorithm::Rs256 => Self::Rs256(RsaKeyPair::from_pkcs8(private).ok()?),
            SigningAlgorithm::Hs256 if private.len() == SEED_BYTES => {
                Self::Hs256(hmac::Key::new(hmac::HMAC_SHA256, private))
            }
            SigningAlgorithm::Hs256 => return None,
        })
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        // The library draws what these two need itself, for each signature anew.
        let random = SystemRandom::new();
        Some(match self {
            Self::EdDsa(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Es256(pair) => pair.sign(&random, message).ok()?.as_ref().to_vec(),
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                signature
            }
            Self::Hs256(key) => hmac::sign(key, message).as_ref().to_vec(),
        })
    }

    /// The public key, member by member; `None` where there is no such thing.
    fn public(&self, id: SigningKeyId) -> Option<Value> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (algorithm, mut jwk) = match self {
            Self::EdDsa(pair) => {
                let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()) });
                (SigningAlgorithm::EdDsa, jwk)
            }
            Self::Es256(pair) => {
                // The uncompressed point (SEC 1 §2.3.3): a 4, then both coordinates.
                let (x, y) = pair.public_key().as_ref().strip_prefix(&[4])?.split_at_checked(32)?;
                let jwk = json!({ "kty": "EC", "crv": "P-256", "x": text(x), "y": text(y) });
                (SigningAlgorithm::Es256, jwk)
            }
            Self::Rs256(pair) => {
                let RsaPublicKeyComponents { n, e } =
                    RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                (SigningAlgorithm::Rs256, json!({ "kty": "RSA", "n": text(&n), "e": text(&e) }))
            }
            Self::Hs256(_) => return None,
        };
        let members = jwk.as_object_mut()?;
        members.insert("alg".into(), algorithm.as_str().into());
        members.insert("use".into(), "sig".into());
        members.insert("kid".into(), id.to_string().into());
        Some(jwk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::SecretKey;
    use crate::port::random::SystemRandom;
    use serde_json::{Value, json};
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn secrets(byte: u8) -> SecretKeys {
        SecretKeys::new(SecretKey::from_bytes([byte; 32]), Vec::new())
    }

    fn fixture() -> (SigningKeys, AccessClaims) {
        let secrets = secrets(7);
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
        forge_text(keys, &header.to_string(), &claims.to_string())
    }

    fn forge_text(keys: &SigningKeys, header: &str, claims: &str) -> AccessToken {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
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
    fn the_leeway_stretches_both_ends() {
        let (keys, claims) = fixture();
        let token = keys.sign(&claims).unwrap();
        for (seconds, counts) in [(-6, false), (-5, true), (904, true), (905, false)] {
            let expected = Expected { leeway: Duration::seconds(5), ..at(seconds) };
            assert_eq!(keys.verify(&token, &expected).is_ok(), counts, "{seconds}");
        }
        for (exp, counts) in [(i64::MAX, true), (i64::MIN, false)] {
            let token = keys.sign(&AccessClaims { exp, ..claims.clone() }).unwrap();
            for leeway in [Duration::ZERO, Duration::MAX] {
                let expected = Expected { leeway, ..at(0) };
                assert_eq!(keys.verify(&token, &expected).is_ok(), counts, "nothing overflows");
            }
        }
    }

    #[test]
    fn every_tampering_is_refused() {
        let (keys, claims) = fixture();
        let claims = serde_json::to_value(claims).unwrap();
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": keys.keys[0].id});
        assert!(keys.verify(&forge(&keys, &header, &claims), &at(0)).is_ok(), "untouched it is good");
        let unknown = SigningKeyId::new(NOW, &SystemRandom).to_string();
        for (name, value) in [
            ("typ", json!("JWT")),
            ("typ", json!("AT+JWT")),
            ("typ", Value::Null),
            ("alg", json!("none")),
            ("alg", json!("HS256")),
            ("alg", json!("ES256")),
            ("alg", json!("eddsa")),
            ("alg", json!(["EdDSA"])),
            ("kid", json!(unknown)),
            ("kid", json!("")),
            ("kid", json!(0)),
            ("kid", json!("../../dev/null")),
            ("kid", json!("' OR 1=1")),
            ("crit", json!(["exp"])),
            ("crit", json!([])),
            ("jku", json!("http://127.0.0.1/keys")),
            ("jwk", keys.jwks()["keys"][0].clone()),
            ("x5u", json!("http://127.0.0.1/cert")),
            ("x5c", json!(["AAAA"])),
            ("b64", json!(false)),
            ("zip", json!("DEF")),
        ] {
            let mut header = header.clone();
            header[name] = value;
            assert!(keys.verify(&forge(&keys, &header, &claims), &at(0)).is_err(), "{header}");
        }
        for name in ["alg", "typ", "kid"] {
            let mut header = header.clone();
            header.as_object_mut().unwrap().remove(name);
            assert!(keys.verify(&forge(&keys, &header, &claims), &at(0)).is_err(), "{header}");
        }
        let late = NOW.unix_timestamp() + 900;
        for (name, value) in [
            ("iss", json!("https://evil.example")),
            ("iss", json!("https://app.example.org/")),
            ("aud", json!("other")),
            ("aud", json!("")),
            ("aud", json!(["usermgr"])),
            ("aud", json!(["usermgr", "other"])),
            ("exp", json!(late.to_string())),
            ("exp", json!(900.5)),
            ("exp", json!(1_800_000_000.0)),
            ("exp", json!(1e300)),
            ("exp", json!(u64::MAX)),
            ("exp", json!([late])),
            ("exp", Value::Null),
            ("nbf", json!("0")),
            ("nbf", json!(0.0)),
            ("iat", json!("0")),
            ("auth_time", json!(0.5)),
            ("jti", json!(1)),
            ("sub", json!(1)),
            ("sub", json!("somebody")),
            ("sid", json!("")),
            ("roles", json!("admin")),
            ("roles", json!([1])),
            ("email", Value::Null),
            ("amr", json!("pwd")),
        ] {
            let mut changed = claims.clone();
            changed[name] = value;
            assert!(keys.verify(&forge(&keys, &header, &changed), &at(0)).is_err(), "{changed}");
            changed.as_object_mut().unwrap().remove(name);
            assert!(keys.verify(&forge(&keys, &header, &changed), &at(0)).is_err(), "{name} missing");
        }
    }

    #[test]
    fn a_member_that_is_there_twice_is_refused() {
        let (keys, claims) = fixture();
        let claims = serde_json::to_string(&claims).unwrap();
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": keys.keys[0].id}).to_string();
        assert!(keys.verify(&forge_text(&keys, &header, &claims), &at(0)).is_ok());
        let twice = header.replacen('{', r#"{"typ":"at+jwt","#, 1);
        assert!(keys.verify(&forge_text(&keys, &twice, &claims), &at(0)).is_err());
        let twice = claims.replacen('{', r#"{"aud":"other","#, 1);
        assert!(keys.verify(&forge_text(&keys, &header, &twice), &at(0)).is_err());
    }

    #[test]
    fn no_bit_of_a_token_may_differ() {
        let (keys, claims) = fixture();
        let token = keys.sign(&claims).unwrap();
        for bit in 0..token.expose().len() * 8 {
            let mut bytes = token.expose().to_owned().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(keys.verify(&text.into(), &at(0)).is_err(), "{bit}");
            }
        }
        let text = token.expose();
        let unsigned = &text[..=text.rfind('.').unwrap()];
        for other in ["", ".", "..", "...", unsigned, unsigned.trim_end_matches('.')] {
            assert!(keys.verify(&other.into(), &at(0)).is_err(), "{other}");
        }
        for other in [format!("{text}."), format!("{text}="), format!(" {text}"), format!("{text}\n")] {
            assert!(keys.verify(&other.as_str().into(), &at(0)).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_token_has_at_most_8_kib() {
        let (keys, claims) = fixture();
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": keys.keys[0].id});
        let with_roles = |count: usize| AccessClaims { roles: vec!["r".repeat(64); count], ..claims.clone() };
        let token = keys.sign(&with_roles(80)).unwrap();
        assert!(token.expose().len() <= MAX_TOKEN);
        assert!(keys.verify(&token, &at(0)).is_ok());
        assert!(keys.sign(&with_roles(100)).is_none(), "not issued");
        let forged = forge(&keys, &header, &serde_json::to_value(with_roles(100)).unwrap());
        assert!(forged.expose().len() > MAX_TOKEN);
        assert!(keys.verify(&forged, &at(0)).is_err(), "nor taken");
    }

    #[test]
    fn an_hmac_with_the_public_key_is_no_signature() {
        let (keys, claims) = fixture();
        let jwk = keys.jwks()["keys"][0].clone();
        let raw = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
        for secret in [keys.jwks().to_string().into_bytes(), jwk.to_string().into_bytes(), raw, Vec::new()] {
            for alg in ["HS256", "EdDSA"] {
                let part = |value: String| URL_SAFE_NO_PAD.encode(value);
                let header = json!({"alg": alg, "typ": "at+jwt", "kid": keys.keys[0].id});
                let claims = serde_json::to_string(&claims).unwrap();
                let message = format!("{}.{}", part(header.to_string()), part(claims));
                let secret = EncodingKey::from_secret(&secret);
                let tag = jsonwebtoken::crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).unwrap();
                assert!(keys.verify(&format!("{message}.{tag}").into(), &at(0)).is_err());
            }
        }
    }

    #[test]
    fn the_signature_of_another_installation_is_none_here() {
        let ((ours, claims), (theirs, _)) = (fixture(), fixture());
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": ours.keys[0].id});
        let claims = serde_json::to_value(claims).unwrap();
        assert!(ours.verify(&forge(&ours, &header, &claims), &at(0)).is_ok());
        assert!(ours.verify(&forge(&theirs, &header, &claims), &at(0)).is_err());
    }

    #[test]
    fn the_newest_key_signs_and_the_others_still_verify() {
        let secrets = secrets(7);
        let made = |seconds: i64| {
            let then = NOW + Duration::seconds(seconds);
            generate(SigningKeyId::new(then, &SystemRandom), then, &secrets, &SystemRandom).unwrap()
        };
        let (old, new) = (made(-60), made(-1));
        let before = open(std::slice::from_ref(&old), &secrets).unwrap();
        let token = before.sign(&fixture().1).unwrap();
        for order in [[&new, &old, &new], [&old, &new, &old]] {
            let sealed: Vec<SealedSigningKey> = order.into_iter().cloned().collect();
            let keys = open(&sealed, &secrets).unwrap();
            assert!(keys.verify(&token, &at(0)).is_ok());
            let kid = strict_header(keys.sign(&fixture().1).unwrap().expose()).unwrap().kid;
            assert_eq!(kid, new.id.to_string());
            let set = keys.jwks();
            let kids: Vec<_> = set["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect();
            assert_eq!(kids, [json!(new.id), json!(old.id)], "each once");
        }
        let later = open(&[new], &secrets).unwrap();
        assert!(later.verify(&token, &at(0)).is_err(), "a key that was removed verifies nothing");
    }

    #[test]
    fn a_key_that_cannot_be_used_is_named() {
        let secrets = secrets(7);
        let id = SigningKeyId::new(NOW, &SystemRandom);
        let key = generate(id, NOW, &secrets, &SystemRandom).unwrap();
        assert!(matches!(open(&[], &secrets), Err(SigningKeysError::None)));
        let other_secret = super::tests::secrets(8);
        assert!(
            matches!(open(std::slice::from_ref(&key), &other_secret), Err(SigningKeysError::Sealed(of)) if of == id)
        );
        let rotated = SecretKeys::new(SecretKey::from_bytes([8; 32]), vec![SecretKey::from_bytes([7; 32])]);
        assert!(open(std::slice::from_ref(&key), &rotated).is_ok());
        let moved = SealedSigningKey { id: SigningKeyId::new(NOW, &SystemRandom), ..key.clone() };
        assert!(
            matches!(open(&[moved], &secrets), Err(SigningKeysError::Sealed(_))),
            "bound to its identifier"
        );
        let other = SealedSigningKey { algorithm: "ES256".into(), ..key.clone() };
        let error = open(&[key, other], &secrets).unwrap_err();
        assert!(matches!(error, SigningKeysError::Unknown(of) if of == id));
        assert!(error.to_string().contains(&id.to_string()));
        let sealed = secrets.seal(&seal_name(id), b"no key", &SystemRandom).unwrap();
        let garbage = SealedSigningKey { id, algorithm: ALGORITHM.into(), created_at: NOW, sealed };
        assert!(matches!(open(&[garbage], &secrets), Err(SigningKeysError::Unknown(of)) if of == id));
    }

    /// Gives the private key of RFC 8037, appendix A.1.
    #[derive(Debug)]
    struct Rfc8037;

    impl Random for Rfc8037 {
        fn fill(&self, bytes: &mut [u8]) {
            let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
            bytes.copy_from_slice(&seed[..bytes.len()]);
        }
    }

    #[test]
    fn the_key_set_is_that_of_rfc_8037_and_holds_public_members_only() {
        let secrets = secrets(7);
        let id = SigningKeyId::new(NOW, &SystemRandom);
        let keys = open(&[generate(id, NOW, &secrets, &Rfc8037).unwrap()], &secrets).unwrap();
        let expected = json!({"keys": [{
            "kty": "OKP",
            "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "use": "sig",
            "alg": "EdDSA",
            "kid": id,
        }]});
        assert_eq!(keys.jwks(), expected, "the whole of it");
        assert_eq!(format!("{keys:?}"), format!("[{:?}]", id.to_string()), "no key is printed");
    }
}
