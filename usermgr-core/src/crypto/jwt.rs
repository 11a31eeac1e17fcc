//! Access tokens as JWTs (RFC 9068) signed by EdDSA (Ed25519, RFC 8037), and the keys that sign them.

use std::fmt;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::secret_keys::SecretKeys;
use crate::domain::id::{SessionId, SigningKeyId, UserId};
use crate::domain::secret::AccessToken;
use crate::port::random::Random;
use crate::port::store::key::SealedSigningKey;

/// The `typ` of an access token (RFC 9068 §2.1): a token of any other kind is refused.
const TYP: &str = "at+jwt";
/// The one algorithm that signs and verifies.
const ALGORITHM: &str = "EdDSA";
/// The most bytes of a token that is looked at, and that is issued.
const MAX_TOKEN: usize = 8 * 1024;

/// Bytes of an Ed25519 private key (RFC 8032 §5.1.5).
const SEED_BYTES: usize = 32;

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

/// Makes an Ed25519 key, sealed under the secret key and bound to its identifier. `None` when it cannot be computed.
pub fn generate(
    id: SigningKeyId,
    now: OffsetDateTime,
    keys: &SecretKeys,
    random: &dyn Random,
) -> Option<SealedSigningKey> {
    let mut seed = Zeroizing::new([0_u8; SEED_BYTES]);
    random.fill(seed.as_mut_slice());
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).ok()?;
    let private = pair.to_pkcs8v1().ok()?;
    let sealed = keys.seal(&seal_name(id), private.as_ref(), random)?;
    Some(SealedSigningKey { id, algorithm: ALGORITHM.into(), created_at: now, sealed })
}

/// Opens the stored keys, in whatever order they come.
///
/// # Errors
/// [`SigningKeysError::None`] without any; [`SigningKeysError::Sealed`] and [`SigningKeysError::Unknown`] name the key
/// that cannot be used. One such key fails all: tokens that it signed would be refused in silence.
pub fn open(sealed: &[SealedSigningKey], keys: &SecretKeys) -> Result<SigningKeys, SigningKeysError> {
    // Another crate of the build may have chosen another provider; whoever is first decides, and all of them work.
    let _already_installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let mut newest_first: Vec<&SealedSigningKey> = sealed.iter().collect();
    newest_first.sort_by_key(|key| std::cmp::Reverse((key.created_at, key.id)));
    let mut keys: Vec<OpenKey> =
        newest_first.into_iter().map(|sealed| open_one(sealed, keys)).collect::<Result<_, _>>()?;
    // A key set names each key once (RFC 7517 §4.5).
    keys.dedup_by(|one, other| one.id == other.id);
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
    /// Signs a token with the newest key. `None` when it cannot be computed, or says more than fits into 8 KiB: such a
    /// token would be refused wherever it is shown.
    pub fn sign(&self, claims: &AccessClaims) -> Option<AccessToken> {
        let key = self.keys.first()?;
        let header =
            Header { typ: Some(TYP.into()), kid: Some(key.id.clone()), ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, claims, &key.signs).ok()?;
        (token.len() <= MAX_TOKEN).then(|| AccessToken::new(token))
    }

    /// What a token says, if it is one of ours and counts now.
    ///
    /// The algorithm is pinned; key material in the header is never looked at (RFC 8725 §3.1, §3.10); every claim must
    /// be there and of its type; the signature is checked before any claim is.
    ///
    /// # Errors
    /// [`InvalidToken`], for every fault the same: who shows a bad token learns nothing from it.
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
