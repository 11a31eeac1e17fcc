//! Everything that is derived from or sealed under the secret key. Each use has a subkey of its own (HKDF-SHA-256,
//! RFC 5869), so that nothing made for one is of any worth for another.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::domain::code::{CodeLength, CodePurpose};
use crate::domain::id::{CodeId, RegistrationId};
use crate::domain::secret::{Code, Digest, LinkToken, RegistrationToken, SecretKey, SecretKeyId};
use crate::port::random::Random;

/// The secret key in force, and those before it, which still open and derive what was made under them.
#[derive(Clone)]
pub struct SecretKeys(Arc<Vec<Subkeys>>);

struct Subkeys {
    id: SecretKeyId,
    code: hmac::Key,
    link: hmac::Key,
    registration: hmac::Key,
    throttle: hmac::Key,
    seal: LessSafeKey,
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKeys([redacted])")
    }
}

const SEAL_VERSION: u8 = 1;
const NONCE: usize = 12;
const SEAL_HEADER: usize = 1 + 8 + NONCE;
const REGISTRATION_MAC: usize = 16;

impl SecretKeys {
    /// The key in force, and the ones before it.
    pub fn new(current: SecretKey, previous: Vec<SecretKey>) -> Self {
        Self(Arc::new(
            std::iter::once(current).chain(previous).filter_map(|key| Subkeys::derive(&key)).collect(),
        ))
    }

    /// Which key is in force.
    pub fn current_id(&self) -> SecretKeyId {
        self.0.first().map_or(SecretKeyId::from_bytes([0; 8]), |keys| keys.id)
    }

    fn by_id(&self, id: SecretKeyId) -> Option<&Subkeys> {
        self.0.iter().find(|keys| keys.id == id)
    }

    /// The code of this identifier; `None` when the key is not known.
    pub fn code(
        &self,
        key: SecretKeyId,
        purpose: CodePurpose,
        id: CodeId,
        length: CodeLength,
    ) -> Option<Code> {
        let keys = self.by_id(key)?;
        let modulus = 10_u64.pow(u32::from(length.digits()));
        // The largest multiple of the modulus: numbers from there on would make small codes likelier.
        let fair = u64::MAX - u64::MAX % modulus;
        for counter in 0..=u32::MAX {
            let mut context = hmac::Context::with_key(&keys.code);
            context.update(purpose.as_str().as_bytes());
            context.update(&[0, length.digits()]);
            context.update(id.as_uuid().as_bytes());
            context.update(&counter.to_be_bytes());
            let tag = context.sign();
            let number = tag.as_ref().first_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
            if number < fair {
                return Some(Code::new(format!(
                    "{:0width$}",
                    number % modulus,
                    width = usize::from(length.digits())
                )));
            }
        }
        None
    }

    /// Whether a guess is the code of this identifier, in constant time.
    pub fn code_matches(
        &self,
        key: SecretKeyId,
        purpose: CodePurpose,
        id: CodeId,
        length: CodeLength,
        guess: &str,
    ) -> bool {
        self.code(key, purpose, id, length)
            .is_some_and(|code| bool::from(code.expose().as_bytes().ct_eq(guess.as_bytes())))
    }

    /// The token of this identifier's link; `None` when the key is not known.
    pub fn link_token(&self, key: SecretKeyId, id: CodeId) -> Option<LinkToken> {
        let keys = self.by_id(key)?;
        Some(LinkToken::new(signed_id(&keys.link, id.as_uuid(), 32)))
    }

    /// The identifier inside a link's token, if the token was made under one of the keys.
    pub fn open_link_token(&self, token: &LinkToken) -> Option<CodeId> {
        self.0.iter().find_map(|keys| open_signed_id(&keys.link, token.expose(), 32)).map(CodeId::from_uuid)
    }

    /// The token by which a client names a registration.
    pub fn registration_token(&self, id: RegistrationId) -> RegistrationToken {
        let token = self.0.first().map(|keys| signed_id(&keys.registration, id.as_uuid(), REGISTRATION_MAC));
        RegistrationToken::new(token.unwrap_or_default())
    }

    /// The identifier inside a registration's token, if the token was made under one of the keys.
    pub fn open_registration_token(&self, token: &RegistrationToken) -> Option<RegistrationId> {
        self.0
            .iter()
            .find_map(|keys| open_signed_id(&keys.registration, token.expose(), REGISTRATION_MAC))
            .map(RegistrationId::from_uuid)
    }

    /// What a limit is counted under: the digest of its name and of what it is for.
    pub fn throttle_key(&self, limit: &'static str, parts: &[&str]) -> Digest {
        let Some(keys) = self.0.first() else { return Digest::from_bytes([0; 32]) };
        let mut context = hmac::Context::with_key(&keys.throttle);
        for part in std::iter::once(&limit).chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let tag = context.sign();
        Digest::from_bytes(tag.as_ref().first_chunk::<32>().copied().unwrap_or_default())
    }

    /// Seals bytes under the key in force (AES-256-GCM). `aad` must be given again to open them.
    pub fn seal(&self, aad: &[u8], plain: &[u8], random: &dyn Random) -> Option<Vec<u8>> {
        let keys = self.0.first()?;
        let mut nonce = [0_u8; NONCE];
        random.fill(&mut nonce);
        let mut body = plain.to_vec();
        keys.seal
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut body)
            .ok()?;
        let mut sealed = Vec::with_capacity(SEAL_HEADER + body.len());
        sealed.push(SEAL_VERSION);
        sealed.extend_from_slice(keys.id.as_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Some(sealed)
    }

    /// Opens what was sealed under any of the keys.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (version, rest) = sealed.split_first()?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE>()?;
        if *version != SEAL_VERSION {
            return None;
        }
        let keys = self.by_id(SecretKeyId::from_bytes(*id))?;
        let mut plain = Zeroizing::new(body.to_vec());
        let length = keys
            .seal
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut plain)
            .ok()?
            .len();
        plain.truncate(length);
        Some(plain)
    }
}

impl Subkeys {
    fn derive(key: &SecretKey) -> Option<Self> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"usermgr secret key v1").extract(key.expose());
        let mac = |label: &str| Some(hmac::Key::new(hmac::HMAC_SHA256, subkey(&root, label)?.as_slice()));
        let id = subkey(&root, "key id")?.first_chunk::<8>().copied()?;
        Some(Self {
            id: SecretKeyId::from_bytes(id),
            code: mac("code")?,
            link: mac("link")?,
            registration: mac("registration")?,
            throttle: mac("throttle")?,
            seal: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, subkey(&root, "seal")?.as_slice()).ok()?),
        })
    }
}

fn subkey(root: &hkdf::Prk, label: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    root.expand(&[label.as_bytes()], hkdf::HKDF_SHA256).ok()?.fill(bytes.as_mut_slice()).ok()?;
    Some(bytes)
}

/// An identifier and the first bytes of its MAC, as text.
fn signed_id(key: &hmac::Key, id: Uuid, mac_bytes: usize) -> String {
    let tag = hmac::sign(key, id.as_bytes());
    let mut bytes = id.as_bytes().to_vec();
    bytes.extend(tag.as_ref().iter().take(mac_bytes));
    URL_SAFE_NO_PAD.encode(bytes)
}

fn open_signed_id(key: &hmac::Key, text: &str, mac_bytes: usize) -> Option<Uuid> {
    // One token has one spelling: its length is fixed, and the decoder refuses padding and stray trailing bits.
    if text.len() != (16 + mac_bytes).div_ceil(3) * 4 - (3 - (16 + mac_bytes) % 3) % 3 {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (id, mac) = bytes.split_first_chunk::<16>()?;
    let tag = hmac::sign(key, id);
    let expected = tag.as_ref().get(..mac_bytes)?;
    bool::from(expected.ct_eq(mac)).then(|| Uuid::from_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::random::SystemRandom;

    fn keys(byte: u8) -> SecretKeys {
        SecretKeys::new(SecretKey::from_bytes([byte; 32]), Vec::new())
    }

    fn id(n: u128) -> CodeId {
        CodeId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn what_was_derived_yesterday_is_derived_tomorrow() {
        let keys = keys(7);
        let code = keys.code(keys.current_id(), CodePurpose::ResetPassword, id(42), CodeLength::SIX).unwrap();
        let again = SecretKeys::new(SecretKey::from_bytes([8; 32]), vec![SecretKey::from_bytes([7; 32])]);
        let same =
            again.code(keys.current_id(), CodePurpose::ResetPassword, id(42), CodeLength::SIX).unwrap();
        assert_eq!(code.expose(), same.expose());
        assert_eq!(code.expose(), "255628", "a change here voids every code in flight at an upgrade");
        assert!(keys.code(again.current_id(), CodePurpose::ResetPassword, id(42), CodeLength::SIX).is_none());
    }

    #[test]
    fn codes_are_even_and_unrelated() {
        let keys = keys(7);
        let four = CodeLength::new(4).unwrap();
        let mut buckets = [0_u32; 100];
        for n in 0..20_000 {
            let code = keys.code(keys.current_id(), CodePurpose::EmailVerification, id(n), four).unwrap();
            assert_eq!(code.expose().len(), 4);
            buckets[code.expose().parse::<usize>().unwrap() / 100] += 1;
        }
        let chi: f64 = buckets.iter().map(|n| (f64::from(*n) - 200.0).powi(2) / 200.0).sum();
        assert!(chi < 170.0, "99 degrees of freedom: {chi}");
        let of = |purpose| {
            keys.code(keys.current_id(), purpose, id(1), CodeLength::SIX).unwrap().expose().to_owned()
        };
        assert_ne!(of(CodePurpose::ResetPassword), of(CodePurpose::ChangePassword));
    }

    #[test]
    fn a_token_is_refused_when_any_bit_differs() {
        let keys = keys(7);
        let token = keys.link_token(keys.current_id(), id(9)).unwrap();
        assert_eq!(keys.open_link_token(&token), Some(id(9)));
        for position in 0..token.expose().len() {
            let mut text = token.expose().to_owned().into_bytes();
            text[position] = if text[position] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(text).unwrap();
            if forged != token.expose() {
                assert_eq!(keys.open_link_token(&forged.as_str().into()), None, "{position}");
            }
        }
        for forged in [format!("{}=", token.expose()), format!("{}A", token.expose()), String::new()] {
            assert_eq!(keys.open_link_token(&forged.into()), None);
        }
        let registration = keys.registration_token(RegistrationId::from_uuid(Uuid::from_u128(9)));
        assert_eq!(keys.open_link_token(&registration.expose().into()), None);
        assert!(keys.open_registration_token(&registration).is_some());
        assert!(super::tests::keys(8).open_registration_token(&registration).is_none());
    }

    #[test]
    fn what_is_sealed_opens_under_its_own_name_only() {
        let keys = keys(7);
        let sealed = keys.seal(b"name", b"secret", &SystemRandom).unwrap();
        assert_eq!(keys.open(b"name", &sealed).unwrap().as_slice(), b"secret");
        assert!(keys.open(b"other", &sealed).is_none());
        assert!(super::tests::keys(8).open(b"name", &sealed).is_none());
        for position in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[position] ^= 1;
            assert!(keys.open(b"name", &forged).is_none(), "{position}");
        }
    }

    #[test]
    fn the_parts_of_a_limit_do_not_run_together() {
        let keys = keys(7);
        assert_ne!(keys.throttle_key("a", &["bc", "d"]), keys.throttle_key("a", &["b", "cd"]));
        assert_ne!(keys.throttle_key("a", &["b"]), keys.throttle_key("ab", &[]));
    }
}
