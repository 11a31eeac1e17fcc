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
    /// Revoked ones, for lists alone: their private parts are never opened.
    revoked: Vec<SigningKeyStatus>,
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
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

/// Why the stored keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
            let der: Pkcs8V1Der<'_> = RsaKeyPair::generate(rsa::KeySize::Rsa3072).ok()?.as_der().ok()?;
            Zeroizing::new(der.as_ref().to_vec())
        }
        SigningAlgorithm::Hs256 => Zeroizing::new(seed(random).to_vec()),
    };
    let sealed = keys.seal(&seal_name(id, algorithm.as_str()), &private, random)?;
    Some(SealedSigningKey {
        id,
        algorithm: algorithm.as_str().into(),
        created_at: now,
        signs_from,
        sealed,
        revoked_at: None,
    })
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

/// Opens the stored keys, in whatever order they come. A revoked key is not opened: it is in no key set, and what it
/// signed is refused.
///
/// # Errors
/// [`SigningKeysError::None`] without any that is not revoked; [`SigningKeysError::Sealed`] and [`SigningKeysError::Unknown`] name the key
/// that cannot be used. One such key fails all: tokens that it signed would be refused in silence.
pub fn open(sealed: &[SealedSigningKey], keys: &SecretKeys) -> Result<SigningKeys, SigningKeysError> {
    // A key that another secret key sealed keeps nobody from the others: while a new secret key is brought in, each server
    // goes on with those it opens, and learns of revoked ones.
    let (mut opened, mut fault) = (Vec::new(), None);
    for sealed in sealed.iter().filter(|sealed| sealed.revoked_at.is_none()) {
        match open_one(sealed, keys) {
            Ok(key) => opened.push(key),
            Err(error) => fault = fault.or(Some(error)),
        }
    }
    if let Some(fault) = fault {
        if opened.is_empty() {
            return Err(fault);
        }
        tracing::error!(error = %fault, "a signing key cannot be opened, the others serve");
    }
    opened.sort_by_key(|key| std::cmp::Reverse((key.signs_from, key.id)));
    // A key set names each key once (RFC 7517 §4.5).
    let mut seen = HashSet::new();
    opened.retain(|key| seen.insert(key.id));
    let revoked = sealed.iter().filter_map(revoked).filter(|key| !seen.contains(&key.id)).collect();
    if opened.is_empty() { Err(SigningKeysError::None) } else { Ok(SigningKeys { keys: opened, revoked }) }
}

fn revoked(sealed: &SealedSigningKey) -> Option<SigningKeyStatus> {
    let &SealedSigningKey { id, created_at, signs_from, revoked_at, .. } = sealed;
    let algorithm = sealed.algorithm.parse().ok()?;
    let revoked_at = Some(revoked_at?);
    Some(SigningKeyStatus { id, algorithm, created_at, signs_from, state: KeyState::Revoked, revoked_at })
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
    /// What this key is good for at this time; `None` when there is no such key, or it was revoked.
    pub fn state(&self, id: SigningKeyId, now: OffsetDateTime) -> Option<KeyState> {
        let key = self.keys.iter().find(|key| key.id == id)?;
        Some(match self.current(key.algorithm, now) {
            _ if key.signs_from > now => KeyState::Next,
            Some(current) if current.id == id => KeyState::Current,
            _ => KeyState::Retired,
        })
    }

    /// Every key, those that sign the latest first; revoked ones last.
    pub fn list(&self, now: OffsetDateTime) -> Vec<SigningKeyStatus> {
        let status = |key: &OpenKey| {
            let &OpenKey { id, algorithm, created_at, signs_from, .. } = key;
            let (state, revoked_at) = (self.state(id, now)?, None);
            Some(SigningKeyStatus { id, algorithm, created_at, signs_from, state, revoked_at })
        };
        self.keys.iter().filter_map(status).chain(self.revoked.iter().copied()).collect()
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
    Hs256(Box<hmac::Key>),
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
                Self::Hs256(Box::new(hmac::Key::new(hmac::HMAC_SHA256, private)))
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
impl SigningKeys {
    /// Signs any header and claims with the first key.
    pub(crate) fn forge(&self, header: &str, claims: &str) -> String {
        let message = message(header, claims);
        let signature = self.keys[0].signs.sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// What is signed of a token with this header and these claims.
#[cfg(test)]
pub(crate) fn message(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{SessionId, UserId};
    use crate::domain::secret::SecretKey;
    use crate::port::random::SystemRandom;
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
    use std::sync::OnceLock;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const ALL: [SigningAlgorithm; 4] = SigningAlgorithm::ALL;

    fn secrets(byte: u8) -> SecretKeys {
        SecretKeys::new(SecretKey::from_bytes([byte; 32]), Vec::new())
    }

    /// A new key under `secrets(7)`, which signs that many seconds from `NOW` on.
    fn made(algorithm: SigningAlgorithm, seconds: i64) -> SealedSigningKey {
        let id = SigningKeyId::new(NOW, &SystemRandom);
        generate(algorithm, id, NOW, NOW + Duration::seconds(seconds), &secrets(7), &SystemRandom).unwrap()
    }

    /// One key of each algorithm, made once: RSA takes its time.
    fn sealed() -> &'static [SealedSigningKey] {
        static SEALED: OnceLock<Vec<SealedSigningKey>> = OnceLock::new();
        SEALED.get_or_init(|| ALL.map(|algorithm| made(algorithm, -1)).to_vec())
    }

    fn sealed_of(algorithm: SigningAlgorithm) -> &'static SealedSigningKey {
        sealed().iter().find(|key| key.algorithm == algorithm.as_str()).unwrap()
    }

    fn opened(sealed: &[&SealedSigningKey]) -> SigningKeys {
        open(&sealed.iter().copied().cloned().collect::<Vec<_>>(), &secrets(7)).unwrap()
    }

    /// A set of the one key of this algorithm.
    fn only(algorithm: SigningAlgorithm) -> SigningKeys {
        opened(&[sealed_of(algorithm)])
    }

    fn claims() -> AccessClaims {
        let now = NOW.unix_timestamp();
        AccessClaims {
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
        }
    }

    fn at(seconds: i64) -> Expected<'static> {
        Expected {
            issuer: "https://app.example.org",
            audience: "usermgr",
            now: NOW + Duration::seconds(seconds),
            leeway: Duration::ZERO,
        }
    }

    fn header(keys: &SigningKeys) -> Value {
        json!({"alg": keys.keys[0].algorithm, "typ": "at+jwt", "kid": keys.keys[0].id})
    }

    /// Signs any header and claims with our own first key.
    fn forge(keys: &SigningKeys, header: &Value, claims: &Value) -> AccessToken {
        forge_text(keys, &header.to_string(), &claims.to_string())
    }

    fn forge_text(keys: &SigningKeys, header: &str, claims: &str) -> AccessToken {
        AccessToken::new(keys.forge(header, claims))
    }

    #[test]
    fn a_token_counts_from_its_first_second_to_its_last() {
        for algorithm in ALL {
            let (keys, claims) = (only(algorithm), claims());
            let token = keys.sign(&claims, algorithm, NOW).unwrap();
            for (seconds, counts) in [(-1, false), (0, true), (899, true), (900, false)] {
                assert_eq!(keys.verify(&token, &at(seconds)).is_ok(), counts, "{algorithm} {seconds}");
            }
            assert_eq!(keys.verify(&token, &at(0)), Ok(claims));
            let header = StrictHeader::read(token.expose()).unwrap();
            assert_eq!((header.alg, header.kid), (algorithm, sealed_of(algorithm).id.to_string()));
        }
    }

    #[test]
    fn the_leeway_stretches_both_ends() {
        let (keys, claims) = (only(SigningAlgorithm::EdDsa), claims());
        let sign = |claims: &AccessClaims| keys.sign(claims, SigningAlgorithm::EdDsa, NOW).unwrap();
        let token = sign(&claims);
        for (seconds, counts) in [(-6, false), (-5, true), (904, true), (905, false)] {
            let expected = Expected { leeway: Duration::seconds(5), ..at(seconds) };
            assert_eq!(keys.verify(&token, &expected).is_ok(), counts, "{seconds}");
        }
        for (exp, counts) in [(i64::MAX, true), (i64::MIN, false)] {
            let token = sign(&AccessClaims { exp, ..claims.clone() });
            for leeway in [Duration::ZERO, Duration::MAX] {
                let expected = Expected { leeway, ..at(0) };
                assert_eq!(keys.verify(&token, &expected).is_ok(), counts, "nothing overflows");
            }
        }
    }

    #[test]
    fn every_tampering_of_the_header_is_refused() {
        let claims = serde_json::to_value(claims()).unwrap();
        for algorithm in ALL {
            let keys = only(algorithm);
            let good = header(&keys);
            assert!(keys.verify(&forge(&keys, &good, &claims), &at(0)).is_ok(), "untouched it is good");
            let unknown = SigningKeyId::new(NOW, &SystemRandom).to_string();
            let mut tamperings = vec![
                ("typ", json!("JWT")),
                ("typ", json!("AT+JWT")),
                ("typ", Value::Null),
                ("alg", json!("none")),
                ("alg", json!("ES384")),
                ("alg", json!(algorithm.as_str().to_lowercase())),
                ("alg", json!([algorithm])),
                ("kid", json!(unknown)),
                ("kid", json!("")),
                ("kid", json!(0)),
                ("kid", json!("../../dev/null")),
                ("kid", json!("' OR 1=1")),
                ("crit", json!(["exp"])),
                ("crit", json!([])),
                ("jku", json!("http://127.0.0.1/keys")),
                ("jwk", only(SigningAlgorithm::EdDsa).jwks()["keys"][0].clone()),
                ("x5u", json!("http://127.0.0.1/cert")),
                ("x5c", json!(["AAAA"])),
                ("b64", json!(false)),
                ("zip", json!("DEF")),
            ];
            let others = ALL.into_iter().filter(|other| *other != algorithm);
            tamperings.extend(others.map(|other| ("alg", json!(other))));
            for (name, value) in tamperings {
                let mut header = good.clone();
                header[name] = value;
                assert!(keys.verify(&forge(&keys, &header, &claims), &at(0)).is_err(), "{header}");
            }
            for name in ["alg", "typ", "kid"] {
                let mut header = good.clone();
                header.as_object_mut().unwrap().remove(name);
                assert!(keys.verify(&forge(&keys, &header, &claims), &at(0)).is_err(), "{header}");
            }
        }
    }

    #[test]
    fn every_tampering_of_the_claims_is_refused() {
        let claims = serde_json::to_value(claims()).unwrap();
        let keys = only(SigningAlgorithm::EdDsa);
        let header = header(&keys);
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
        let keys = only(SigningAlgorithm::EdDsa);
        let claims = serde_json::to_string(&claims()).unwrap();
        let header = header(&keys).to_string();
        assert!(keys.verify(&forge_text(&keys, &header, &claims), &at(0)).is_ok());
        let twice = header.replacen('{', r#"{"typ":"at+jwt","#, 1);
        assert!(keys.verify(&forge_text(&keys, &twice, &claims), &at(0)).is_err());
        let twice = claims.replacen('{', r#"{"aud":"other","#, 1);
        assert!(keys.verify(&forge_text(&keys, &header, &twice), &at(0)).is_err());
    }

    #[test]
    fn no_bit_of_a_token_may_differ() {
        for algorithm in ALL {
            let keys = only(algorithm);
            let token = keys.sign(&claims(), algorithm, NOW).unwrap();
            for bit in 0..token.expose().len() * 8 {
                let mut bytes = token.expose().to_owned().into_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                if let Ok(text) = String::from_utf8(bytes) {
                    assert!(keys.verify(&text.into(), &at(0)).is_err(), "{algorithm} {bit}");
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
    }

    #[test]
    fn a_token_has_at_most_8_kib() {
        let (keys, claims) = (only(SigningAlgorithm::EdDsa), claims());
        let with_roles = |count: usize| AccessClaims { roles: vec!["r".repeat(64); count], ..claims.clone() };
        let token = keys.sign(&with_roles(80), SigningAlgorithm::EdDsa, NOW).unwrap();
        assert!(token.expose().len() <= MAX_TOKEN);
        assert!(keys.verify(&token, &at(0)).is_ok());
        assert!(keys.sign(&with_roles(100), SigningAlgorithm::EdDsa, NOW).is_none(), "not issued");
        let forged = forge(&keys, &header(&keys), &serde_json::to_value(with_roles(100)).unwrap());
        assert!(forged.expose().len() > MAX_TOKEN);
        assert!(keys.verify(&forged, &at(0)).is_err(), "nor taken");
    }

    #[test]
    fn an_hmac_with_a_public_key_is_no_signature() {
        let keys = opened(&sealed().iter().collect::<Vec<_>>());
        let claims = serde_json::to_string(&claims()).unwrap();
        for jwk in keys.jwks()["keys"].as_array().unwrap() {
            let mut secrets = vec![keys.jwks().to_string(), jwk.to_string(), String::new()];
            secrets.extend(
                ["n", "e", "x", "y"].into_iter().filter_map(|name| jwk[name].as_str()).map(Into::into),
            );
            let decoded = secrets.iter().filter_map(|text| URL_SAFE_NO_PAD.decode(text).ok());
            let secrets: Vec<Vec<u8>> =
                decoded.chain(secrets.iter().map(|text| text.clone().into_bytes())).collect();
            for secret in secrets {
                for alg in [&json!("HS256"), &jwk["alg"]] {
                    let header = json!({"alg": alg, "typ": "at+jwt", "kid": jwk["kid"]});
                    let message = message(&header.to_string(), &claims);
                    let secret = EncodingKey::from_secret(&secret);
                    let tag =
                        jsonwebtoken::crypto::sign(message.as_bytes(), &secret, Algorithm::HS256).unwrap();
                    assert!(keys.verify(&format!("{message}.{tag}").into(), &at(0)).is_err());
                }
            }
        }
    }

    #[test]
    fn a_key_verifies_nothing_that_another_of_the_set_signed() {
        let keys = opened(&sealed().iter().collect::<Vec<_>>());
        let claims = serde_json::to_value(claims()).unwrap();
        for algorithm in ALL {
            for other in ALL {
                for name in ALL {
                    let header = json!({"alg": name, "typ": "at+jwt", "kid": sealed_of(other).id});
                    let token = forge(&only(algorithm), &header, &claims);
                    let good = algorithm == other && algorithm == name;
                    assert_eq!(keys.verify(&token, &at(0)).is_ok(), good, "{algorithm} {other} {name}");
                }
            }
        }
    }

    #[test]
    fn the_signature_of_another_installation_is_none_here() {
        let claims = serde_json::to_value(claims()).unwrap();
        for algorithm in ALL {
            let (ours, theirs) = (only(algorithm), opened(&[&made(algorithm, -1)]));
            let header = header(&ours);
            assert!(ours.verify(&forge(&ours, &header, &claims), &at(0)).is_ok());
            assert!(ours.verify(&forge(&theirs, &header, &claims), &at(0)).is_err());
        }
    }

    #[test]
    fn the_state_of_a_key_follows_from_the_time() {
        use KeyState::{Current, Next, Retired};
        let algorithm = SigningAlgorithm::EdDsa;
        let (old, new, other) =
            (made(algorithm, -60), made(algorithm, 60), made(SigningAlgorithm::Es256, 30));
        let keys = opened(&[&new, &old, &other, &old]);
        let state = |key: &SealedSigningKey, seconds: i64| {
            keys.state(key.id, NOW + Duration::seconds(seconds)).unwrap()
        };
        for (seconds, expected) in [
            (-61, [Next, Next, Next]),
            (-60, [Current, Next, Next]),
            (-59, [Current, Next, Next]),
            (59, [Current, Next, Current]),
            (60, [Retired, Current, Current]),
            (61, [Retired, Current, Current]),
        ] {
            let states = [&old, &new, &other].map(|key| state(key, seconds));
            assert_eq!(states, expected, "{seconds}");
            let now = NOW + Duration::seconds(seconds);
            let listed: Vec<_> = keys.list(now).iter().map(|key| (key.id, key.state)).collect();
            let [of_old, of_new, of_other] = expected;
            assert_eq!(listed, [(new.id, of_new), (other.id, of_other), (old.id, of_old)], "each once");
            assert_eq!(keys.has_current(algorithm, now), seconds >= -60);
            assert!(!keys.has_current(SigningAlgorithm::Rs256, now));
            let signer = keys.sign(&claims(), algorithm, now);
            let signer = signer.map(|token| StrictHeader::read(token.expose()).unwrap().kid);
            let current = [&old, &new].into_iter().find(|key| state(key, seconds) == Current);
            assert_eq!(signer, current.map(|key| key.id.to_string()), "{seconds}");
        }
        assert_eq!(keys.state(SigningKeyId::new(NOW, &SystemRandom), NOW), None);
    }

    #[test]
    fn of_two_keys_of_one_time_the_larger_identifier_signs() {
        let algorithm = SigningAlgorithm::EdDsa;
        let (one, two) = (made(algorithm, 0), made(algorithm, 0));
        for order in [[&one, &two], [&two, &one]] {
            let keys = opened(&order);
            assert_eq!(keys.state(one.id.max(two.id), NOW), Some(KeyState::Current));
            assert_eq!(keys.state(one.id.min(two.id), NOW), Some(KeyState::Retired));
        }
    }

    #[test]
    fn a_rotation_is_due_once_the_current_key_has_signed_long_enough() {
        let algorithm = SigningAlgorithm::EdDsa;
        let every = Duration::days(90);
        let (old, new) = (made(algorithm, 0), made(algorithm, every.whole_seconds() + 600));
        let due = |keys: &SigningKeys, seconds| {
            keys.needs_rotation(algorithm, every, NOW + every + Duration::seconds(seconds))
        };
        let keys = opened(&[&old, &made(SigningAlgorithm::Es256, every.whole_seconds() + 600)]);
        assert_eq!([-1, 0, 1].map(|seconds| due(&keys, seconds)), [false, true, true]);
        let keys = opened(&[&old, &new]);
        assert_eq!([-1, 0, 599, 600].map(|seconds| due(&keys, seconds)), [false; 4], "one is waiting");
        assert!(due(&keys, 600 + every.whole_seconds()));
        assert!(!due(&opened(&[&made(SigningAlgorithm::Es256, 0)]), 0), "nothing to follow");
        assert!(!due(&opened(&[&new]), 0), "it is only waiting");
    }

    #[test]
    fn the_current_key_signs_and_every_other_still_verifies() {
        for algorithm in ALL {
            let (old, new) = (sealed_of(algorithm), made(algorithm, 60));
            let token = only(algorithm).sign(&claims(), algorithm, NOW).unwrap();
            let keys = opened(&[&new, old]);
            let late = keys.sign(&claims(), algorithm, NOW + Duration::seconds(60)).unwrap();
            for seconds in [0, 59, 60, 61] {
                assert!(keys.verify(&token, &at(seconds)).is_ok(), "{algorithm} {seconds}");
                assert!(keys.verify(&late, &at(seconds)).is_ok(), "{algorithm} {seconds}");
            }
            let later = opened(&[&new]);
            assert!(later.verify(&late, &at(0)).is_ok());
            assert!(later.verify(&token, &at(0)).is_err(), "a key that was removed verifies nothing");
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_is_named() {
        assert!(matches!(open(&[], &secrets(7)), Err(SigningKeysError::None)));
        for algorithm in ALL {
            let key = sealed_of(algorithm);
            let refused = |key: SealedSigningKey| open(&[key], &secrets(7)).unwrap_err();
            assert!(
                matches!(open(std::slice::from_ref(key), &secrets(8)), Err(SigningKeysError::Sealed(of)) if of == key.id)
            );
            let moved = SealedSigningKey { id: SigningKeyId::new(NOW, &SystemRandom), ..key.clone() };
            assert!(matches!(refused(moved), SigningKeysError::Sealed(_)), "bound to its identifier");
            for other in ALL.into_iter().filter(|other| *other != algorithm) {
                let swapped = SealedSigningKey { algorithm: other.as_str().into(), ..key.clone() };
                assert!(matches!(refused(swapped), SigningKeysError::Sealed(_)), "and to its algorithm");
            }
            for other in ["", "none", "eddsa", "ES384"] {
                let unknown = SealedSigningKey { algorithm: other.into(), ..key.clone() };
                let beside_a_good_one = [
                    key.clone(),
                    SealedSigningKey { id: SigningKeyId::new(NOW, &SystemRandom), ..unknown.clone() },
                ];
                assert_eq!(open(&beside_a_good_one, &secrets(7)).unwrap().keys.len(), 1, "the others serve");
                let error = open(&[unknown], &secrets(7)).unwrap_err();
                assert!(matches!(error, SigningKeysError::Unknown(of) if of == key.id));
                assert!(error.to_string().contains(&key.id.to_string()));
            }
            let name = seal_name(key.id, algorithm.as_str());
            let sealed = secrets(7).seal(&name, b"no key", &SystemRandom).unwrap();
            let garbage = SealedSigningKey { sealed, ..key.clone() };
            assert!(matches!(refused(garbage), SigningKeysError::Unknown(of) if of == key.id));
        }
    }

    #[test]
    fn a_key_sealed_anew_is_the_same_key_under_the_new_secret() {
        let rotated = SecretKeys::new(SecretKey::from_bytes([8; 32]), vec![SecretKey::from_bytes([7; 32])]);
        for algorithm in ALL {
            let key = sealed_of(algorithm);
            let anew = reseal(key, &rotated, &SystemRandom).unwrap();
            assert_eq!(anew, SealedSigningKey { sealed: anew.sealed.clone(), ..key.clone() });
            assert!(open(std::slice::from_ref(&anew), &secrets(7)).is_err());
            let keys = open(std::slice::from_ref(&anew), &secrets(8)).unwrap();
            let token = only(algorithm).sign(&claims(), algorithm, NOW).unwrap();
            assert!(keys.verify(&token, &at(0)).is_ok());
            assert!(reseal(key, &secrets(9), &SystemRandom).is_none(), "no key of ours opens it");
            let swapped = SealedSigningKey { algorithm: "other".into(), ..key.clone() };
            assert!(reseal(&swapped, &rotated, &SystemRandom).is_none(), "nor makes another of it");
        }
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
        let key = generate(SigningAlgorithm::EdDsa, id, NOW, NOW, &secrets, &Rfc8037).unwrap();
        let keys = open(&[key], &secrets).unwrap();
        let expected = json!({"keys": [{
            "kty": "OKP",
            "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "use": "sig",
            "alg": "EdDSA",
            "kid": id,
        }]});
        assert_eq!(keys.jwks(), expected, "the whole of it");
        assert_eq!(format!("{keys:?}"), format!("[{id} (EdDSA)]"), "no key is printed");
    }

    /// Gives the private key of RFC 7517, appendix A.2.
    #[derive(Debug)]
    struct Rfc7517;

    impl Random for Rfc7517 {
        fn fill(&self, bytes: &mut [u8]) {
            let d = URL_SAFE_NO_PAD.decode("870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE").unwrap();
            bytes.copy_from_slice(&d[..bytes.len()]);
        }
    }

    #[test]
    fn the_public_part_of_a_p_256_key_is_that_of_rfc_7517() {
        let (secrets, id) = (secrets(7), SigningKeyId::new(NOW, &SystemRandom));
        let key = generate(SigningAlgorithm::Es256, id, NOW, NOW, &secrets, &Rfc7517).unwrap();
        let jwk = &open(&[key], &secrets).unwrap().jwks()["keys"][0];
        assert_eq!(jwk["x"], "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4");
        assert_eq!(jwk["y"], "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
    }

    #[test]
    fn the_key_set_says_what_others_need_and_nothing_private() {
        let (next, retired) = (made(SigningAlgorithm::Es256, 60), made(SigningAlgorithm::Es256, -60));
        let keys: Vec<&SealedSigningKey> = sealed().iter().chain([&next, &retired]).collect();
        let keys = opened(&keys);
        let set = keys.jwks();
        let published = set["keys"].as_array().unwrap();
        assert_eq!(published.len(), 5, "every key but that of HMAC: the next and the retired one too");
        let public: &[(&str, &[&str])] = &[
            ("EdDSA", &["alg", "crv", "kid", "kty", "use", "x"]),
            ("ES256", &["alg", "crv", "kid", "kty", "use", "x", "y"]),
            ("RS256", &["alg", "e", "kid", "kty", "n", "use"]),
        ];
        for jwk in published {
            let members: Vec<_> = jwk.as_object().unwrap().keys().map(String::as_str).collect();
            let expected = public.iter().find(|(alg, _)| jwk["alg"] == *alg).unwrap().1;
            assert_eq!(members, expected, "not one member more");
            for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
                assert!(jwk.get(name).is_none(), "{name}");
            }
        }
        for algorithm in ALL {
            let token = keys.sign(&claims(), algorithm, NOW).unwrap();
            let kid = json!(StrictHeader::read(token.expose()).unwrap().kid);
            let jwk = published.iter().find(|jwk| jwk["kid"] == kid);
            assert_eq!(jwk.is_some(), algorithm.is_asymmetric(), "{algorithm}");
            let Some(jwk) = jwk else { continue };
            let jwk: Jwk = serde_json::from_value(jwk.clone()).unwrap();
            let mut validation = Validation::new(algorithm.as_str().parse().unwrap());
            validation.validate_exp = false;
            validation.set_audience(&["usermgr"]);
            let key = DecodingKey::from_jwk(&jwk).unwrap();
            jsonwebtoken::decode::<AccessClaims>(token.expose(), &key, &validation).unwrap();
        }
    }
}
