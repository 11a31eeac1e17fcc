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
use crate::domain::id::{CodeId, RegistrationId, SessionId};
use crate::domain::secret::{
    Code, Digest, LinkToken, RefreshToken, RegistrationToken, SecretKey, SecretKeyId,
};
use crate::port::random::Random;

/// The secret key in force, and those before it, which still open and derive what was made under them.
#[derive(Clone)]
pub struct SecretKeys(Arc<Vec<Subkeys>>);

struct Subkeys {
    id: SecretKeyId,
    code: hmac::Key,
    link: hmac::Key,
    registration: hmac::Key,
    refresh: hmac::Key,
    throttle: hmac::Key,
    seal: LessSafeKey,
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKeys([redacted])")
    }
}

/// The first byte of what is sealed: its form.
const SEAL_VERSION: u8 = 1;
/// Bytes of a seal's nonce.
const NONCE: usize = 12;
/// Bytes of the MAC in a link's token: all of HMAC-SHA-256.
const LINK_MAC: usize = 32;
/// Bytes of the MAC in a registration's token, which only names something.
const REGISTRATION_MAC: usize = 16;
/// What a refresh token begins with.
const REFRESH_PREFIX: &str = "umr_";
/// Bytes of the MAC in a refresh token, which only tells our own tokens from others.
const REFRESH_MAC: usize = 16;
/// The characters of a refresh token behind its prefix: those of 64 bytes.
const REFRESH_CHARS: usize = 86;

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
        for counter in 0..=u32::MAX {
            let mut context = hmac::Context::with_key(&keys.code);
            context.update(purpose.as_str().as_bytes());
            context.update(&[0, length.digits()]);
            context.update(id.as_uuid().as_bytes());
            context.update(&counter.to_be_bytes());
            let tag = context.sign();
            let number = tag.as_ref().first_chunk::<8>().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
            if let Some(value) = fair_remainder(number, modulus) {
                return Some(Code::new(format!("{value:0width$}", width = usize::from(length.digits()))));
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
        Some(LinkToken::new(signed_id(&keys.link, id.as_uuid(), LINK_MAC)))
    }

    /// The identifier inside a link's token, if the token was made under one of the keys.
    pub fn open_link_token(&self, token: &LinkToken) -> Option<CodeId> {
        self.0
            .iter()
            .find_map(|keys| open_signed_id(&keys.link, token.expose(), LINK_MAC))
            .map(CodeId::from_uuid)
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

    /// The first refresh token of a session: the session, 256 random bits, and their MAC.
    pub fn refresh_token(&self, session: SessionId, random: &dyn Random) -> RefreshToken {
        let mut secret = Zeroizing::new([0_u8; 32]);
        random.fill(secret.as_mut_slice());
        let Some(keys) = self.0.first() else { return RefreshToken::new(String::new()) };
        keys.refresh_token(session, &secret)
    }

    /// The session that a refresh token names, and the tokens that may follow it: one for each key, that of the key in
    /// force first. `None` when the token was not made under one of the keys.
    ///
    /// # Security
    /// A token's successor is computed from the token and the secret key: of any number of callers that renew by the
    /// same token, all get the same one, and tables need hold no more than its digest.
    pub fn open_refresh_token(&self, token: &RefreshToken) -> Option<(SessionId, Vec<RefreshToken>)> {
        let text = token.expose().strip_prefix(REFRESH_PREFIX)?;
        if text.len() != REFRESH_CHARS {
            return None;
        }
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
        let (id, rest) = bytes.split_first_chunk::<16>()?;
        let (secret, mac) = rest.split_first_chunk::<32>()?;
        let session = SessionId::from_uuid(Uuid::from_bytes(*id));
        let genuine = |keys: &Subkeys| bool::from(keys.refresh_mac(session, secret).as_slice().ct_eq(mac));
        if !self.0.iter().any(genuine) {
            return None;
        }
        let next = |keys: &Subkeys| keys.refresh_token(session, &keys.next_refresh_secret(session, secret));
        Some((session, self.0.iter().map(next).collect()))
    }

    /// What a limit is counted under: the digest of its name and of what it is for. Each text goes in behind its
    /// length, so that no two lists of parts run together. A new key begins every count anew.
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

    /// Seals bytes under the key in force (AES-256-GCM). `aad` must be given again to open them. The form is a
    /// version byte, the key's identifier (8 bytes), the nonce (12 bytes), then the ciphertext and its tag.
    ///
    /// # Security
    /// The nonce is random: seal fewer than 2^32 values under one key (NIST SP 800-38D §8.3).
    pub fn seal(&self, aad: &[u8], plain: &[u8], random: &dyn Random) -> Option<Vec<u8>> {
        let keys = self.0.first()?;
        let mut nonce = [0_u8; NONCE];
        random.fill(&mut nonce);
        // Encrypted where it lies and wiped with its buffer: no copy of the plain bytes stays behind.
        let mut body = Zeroizing::new(plain.to_vec());
        let tag = keys
            .seal
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                body.as_mut_slice(),
            )
            .ok()?;
        let parts = [&[SEAL_VERSION], keys.id.as_bytes().as_slice(), &nonce, &body, tag.as_ref()];
        Some(parts.concat())
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
    fn refresh_token(&self, session: SessionId, secret: &[u8; 32]) -> RefreshToken {
        let mac = self.refresh_mac(session, secret);
        let bytes = Zeroizing::new([session.as_uuid().as_bytes().as_slice(), secret, &mac].concat());
        let mut token = Zeroizing::new(String::from(REFRESH_PREFIX));
        URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut token);
        RefreshToken::new(token.as_str())
    }

    fn refresh_mac(&self, session: SessionId, secret: &[u8; 32]) -> [u8; REFRESH_MAC] {
        let tag = self.refresh_tag(b"token", session, secret);
        tag.as_ref().first_chunk::<REFRESH_MAC>().copied().unwrap_or_default()
    }

    fn next_refresh_secret(&self, session: SessionId, secret: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let tag = self.refresh_tag(b"next", session, secret);
        Zeroizing::new(tag.as_ref().first_chunk::<32>().copied().unwrap_or_default())
    }

    fn refresh_tag(&self, what: &[u8], session: SessionId, secret: &[u8; 32]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.refresh);
        context.update(what);
        context.update(&[0]);
        context.update(session.as_uuid().as_bytes());
        context.update(secret);
        context.sign()
    }

    fn derive(key: &SecretKey) -> Option<Self> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"usermgr secret key v1").extract(key.expose());
        let mac = |label: &str| Some(hmac::Key::new(hmac::HMAC_SHA256, subkey(&root, label)?.as_slice()));
        let id = subkey(&root, "key id")?.first_chunk::<8>().copied()?;
        Some(Self {
            id: SecretKeyId::from_bytes(id),
            code: mac("code")?,
            link: mac("link")?,
            registration: mac("registration")?,
            refresh: mac("refresh")?,
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

/// The number cut to the modulus; `None` from the modulus's largest multiple on, where small remainders would be
/// likelier than great ones.
fn fair_remainder(number: u64, modulus: u64) -> Option<u64> {
    let fair = u64::MAX - u64::MAX % modulus;
    (number < fair).then(|| number % modulus)
}

/// An identifier and the first bytes of its MAC, as text.
fn signed_id(key: &hmac::Key, id: Uuid, mac_bytes: usize) -> String {
    let tag = hmac::sign(key, id.as_bytes());
    let mut bytes = id.as_bytes().to_vec();
    bytes.extend(tag.as_ref().iter().take(mac_bytes));
    URL_SAFE_NO_PAD.encode(bytes)
}

fn open_signed_id(key: &hmac::Key, text: &str, mac_bytes: usize) -> Option<Uuid> {
    // One token has one spelling: the decoder refuses padding and stray trailing bits. The length is looked at first,
    // so that nothing longer is decoded.
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

    /// Gives the same byte again and again.
    #[derive(Debug)]
    struct Constant(u8);

    impl Random for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn keys(byte: u8) -> SecretKeys {
        SecretKeys::new(SecretKey::from_bytes([byte; 32]), Vec::new())
    }

    /// The key of the byte 8, after that of the byte 7.
    fn rotated() -> SecretKeys {
        SecretKeys::new(SecretKey::from_bytes([8; 32]), vec![SecretKey::from_bytes([7; 32])])
    }

    fn id(n: u128) -> CodeId {
        CodeId::from_uuid(Uuid::from_u128(n))
    }

    fn registration(n: u128) -> RegistrationId {
        RegistrationId::from_uuid(Uuid::from_u128(n))
    }

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write as _;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    /// Every text that differs from this one in one bit, as far as it is a text.
    fn one_bit_off(text: &str) -> impl Iterator<Item = String> {
        (0..text.len() * 8).filter_map(move |bit| {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            String::from_utf8(bytes).ok()
        })
    }

    /// The expected values come from another implementation of HKDF, HMAC and AES-GCM.
    #[test]
    fn a_refresh_token_names_its_session_and_has_one_successor() {
        let (old, new) = (SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32]));
        let keys = SecretKeys::new(old.clone(), Vec::new());
        let session = SessionId::from_uuid(Uuid::from_u128(7));
        let token = keys.refresh_token(session, &Constant(5));
        assert_eq!(token.expose().len(), REFRESH_PREFIX.len() + REFRESH_CHARS);
        let (named, next) = keys.open_refresh_token(&token).unwrap();
        assert_eq!((named, next.len()), (session, 1));
        assert_eq!(keys.open_refresh_token(&token).unwrap().1[0].expose(), next[0].expose());
        assert_ne!(next[0].expose(), token.expose());
        assert!(keys.open_refresh_token(&next[0]).is_some());

        let rotated = SecretKeys::new(new.clone(), vec![old]);
        let successors = rotated.open_refresh_token(&token).unwrap().1;
        assert_eq!(successors.len(), 2, "under either key");
        assert_eq!(successors[1].expose(), next[0].expose());
        assert!(SecretKeys::new(new, Vec::new()).open_refresh_token(&token).is_none());
        let text = token.expose();
        for forged in [
            &text[1..],
            &text[..text.len() - 1],
            "umr_",
            "",
            &format!("{text}A"),
            &text.replace("umr_B", "umr_C"),
        ] {
            if forged != text {
                assert!(keys.open_refresh_token(&RefreshToken::new(forged)).is_none(), "{forged}");
            }
        }
        for at in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let forged = RefreshToken::new(String::from_utf8(bytes).unwrap());
            assert!(keys.open_refresh_token(&forged).is_none(), "byte {at}");
        }
    }

    #[test]
    fn what_was_derived_yesterday_is_derived_tomorrow() {
        let keys = keys(7);
        let why = "a change here voids what is in flight or at rest at an upgrade";
        assert_eq!(hex(keys.current_id().as_bytes()), "7697e66a0398e1cf", "{why}");
        for (purpose, digits, expected) in [
            (CodePurpose::ResetPassword, 6, "255628"),
            (CodePurpose::EmailVerification, 4, "1515"),
            (CodePurpose::ChangeEmail, 10, "5502218230"),
        ] {
            let length = CodeLength::new(digits).unwrap();
            let code = keys.code(keys.current_id(), purpose, id(42), length).unwrap();
            assert_eq!(code.expose(), expected, "{why}");
        }
        assert_eq!(
            keys.link_token(keys.current_id(), id(42)).unwrap().expose(),
            "AAAAAAAAAAAAAAAAAAAAKozHNZvnzwUg8VsPvQPG8MeM1fuQCgWF2d5idsXfI18p",
            "{why}"
        );
        assert_eq!(
            keys.registration_token(registration(42)).expose(),
            "AAAAAAAAAAAAAAAAAAAAKlMtn4Y3Vl5lRVBgmjTOICE",
            "{why}"
        );
        assert_eq!(
            hex(keys.throttle_key("login", &["ana@example.org", "192.0.2.1"]).as_bytes()),
            "1cf4921c0122e99b58ce7e3579d592ba3ce51d5322739e1174b584a040bbd707",
            "{why}"
        );
        assert_eq!(
            hex(&keys.seal(b"name", b"secret", &Constant(9)).unwrap()),
            "017697e66a0398e1cf090909090909090909090909bad90e95c0f155584e7b5204e6c7035691fc5038c131",
            "{why}"
        );
    }

    #[test]
    fn a_key_before_the_one_in_force_still_opens_and_derives() {
        let (old, new) = (keys(7), rotated());
        assert_ne!(new.current_id(), old.current_id());
        let code =
            |keys: &SecretKeys, key| keys.code(key, CodePurpose::ResetPassword, id(1), CodeLength::SIX);
        let before = code(&old, old.current_id()).unwrap();
        assert_eq!(code(&new, old.current_id()).unwrap().expose(), before.expose());
        assert!(code(&old, new.current_id()).is_none(), "an unknown key derives nothing");
        let link = old.link_token(old.current_id(), id(1)).unwrap();
        assert_eq!(new.open_link_token(&link), Some(id(1)));
        assert!(old.link_token(new.current_id(), id(1)).is_none());
        let pending = old.registration_token(registration(1));
        assert_eq!(new.open_registration_token(&pending), Some(registration(1)));
        let sealed = old.seal(b"", b"secret", &SystemRandom).unwrap();
        assert_eq!(new.open(b"", &sealed).unwrap().as_slice(), b"secret");
        let sealed = new.seal(b"", b"secret", &SystemRandom).unwrap();
        assert!(old.open(b"", &sealed).is_none(), "the key in force seals");
    }

    #[test]
    fn codes_are_even() {
        const IDS: u32 = 100_000;
        let keys = keys(7);
        let four = CodeLength::new(4).unwrap();
        let mut seen = vec![0_u32; 10_000];
        for n in 0..IDS {
            let code =
                keys.code(keys.current_id(), CodePurpose::EmailVerification, id(n.into()), four).unwrap();
            assert_eq!(code.expose().len(), 4);
            seen[code.expose().parse::<usize>().unwrap()] += 1;
        }
        let expected = f64::from(IDS) / 10_000.0;
        let chi: f64 = seen.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
        // 9999 degrees of freedom: a deviation of 141, so this is five of them either way.
        assert!((9_300.0..10_700.0).contains(&chi), "{chi}");
    }

    #[test]
    fn a_number_past_the_last_full_round_is_not_cut() {
        // 2^64 is 18446744073709551616: the last full round of ten thousand ends at …550000.
        let end = 18_446_744_073_709_550_000;
        assert_eq!(fair_remainder(end - 1, 10_000), Some(9_999));
        for number in [end, end + 1, u64::MAX] {
            assert_eq!(fair_remainder(number, 10_000), None, "{number}");
        }
        assert_eq!(fair_remainder(0, 10_000), Some(0));
    }

    #[test]
    fn codes_of_another_purpose_key_identifier_or_length_are_unrelated() {
        let new = rotated();
        let [eight, seven] = [new.current_id(), keys(7).current_id()];
        let ten = CodeLength::new(CodeLength::MAX).unwrap();
        let nine = CodeLength::new(9).unwrap();
        let mut codes: Vec<String> = CodePurpose::ALL
            .into_iter()
            .flat_map(|purpose| [(eight, purpose, 1), (seven, purpose, 1), (eight, purpose, 2)])
            .map(|(key, purpose, n)| new.code(key, purpose, id(n), ten).unwrap().expose().to_owned())
            .collect();
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all);
        let purpose = CodePurpose::ResetPassword;
        let shorter = new.code(eight, purpose, id(1), nine).unwrap();
        let longer = new.code(eight, purpose, id(1), ten).unwrap();
        assert!(
            !longer.expose().ends_with(shorter.expose()) && !longer.expose().starts_with(shorter.expose())
        );
    }

    #[test]
    fn a_guess_is_right_digit_for_digit_only() {
        let keys = keys(7);
        let matches = |purpose, n, guess: &str| {
            keys.code_matches(keys.current_id(), purpose, id(n), CodeLength::SIX, guess)
        };
        let purpose = CodePurpose::ResetPassword;
        assert!(matches(purpose, 42, "255628"));
        for wrong in ["", "2", "25562", "2556281", "255627", " 255628", "255628 ", "255628\0", "٢٥٥٦٢٨"]
        {
            assert!(!matches(purpose, 42, wrong), "{wrong:?}");
        }
        assert!(!matches(CodePurpose::ChangePassword, 42, "255628"));
        assert!(!matches(purpose, 43, "255628"));
        let unknown = rotated().current_id();
        assert!(!keys.code_matches(unknown, purpose, id(42), CodeLength::SIX, "255628"));
    }

    #[test]
    fn a_token_is_refused_when_any_bit_differs() {
        let keys = rotated();
        let link = keys.link_token(keys.current_id(), id(9)).unwrap();
        let pending = keys.registration_token(registration(9));
        assert_eq!(keys.open_link_token(&link), Some(id(9)));
        assert_eq!(keys.open_registration_token(&pending), Some(registration(9)));
        for forged in one_bit_off(link.expose()) {
            assert_eq!(keys.open_link_token(&forged.as_str().into()), None, "{forged}");
        }
        for forged in one_bit_off(pending.expose()) {
            assert_eq!(keys.open_registration_token(&forged.as_str().into()), None, "{forged}");
        }
        for tail in ["=", "==", "A", "AA", "AAAA", " ", "\n", "\0"] {
            assert_eq!(keys.open_link_token(&format!("{}{tail}", link.expose()).into()), None, "{tail:?}");
            let longer = format!("{}{tail}", pending.expose());
            assert_eq!(keys.open_registration_token(&longer.into()), None, "{tail:?}");
        }
        for length in 0..link.expose().len() {
            assert_eq!(keys.open_link_token(&link.expose()[..length].into()), None);
        }
        assert_eq!(super::tests::keys(9).open_link_token(&link), None);
        assert_eq!(super::tests::keys(9).open_registration_token(&pending), None);
    }

    #[test]
    fn a_token_of_one_kind_is_none_of_the_other() {
        let keys = keys(7);
        let link = keys.link_token(keys.current_id(), id(9)).unwrap();
        let pending = keys.registration_token(registration(9));
        assert_eq!(keys.open_link_token(&pending.expose().into()), None);
        assert_eq!(keys.open_registration_token(&link.expose().into()), None);
        // Nor when it is cut to the other's length: each kind has a subkey of its own.
        let cut = URL_SAFE_NO_PAD.encode(&URL_SAFE_NO_PAD.decode(link.expose()).unwrap()[..32]);
        assert_eq!(cut.len(), pending.expose().len());
        assert_eq!(keys.open_registration_token(&cut.into()), None);
    }

    #[test]
    fn what_is_sealed_opens_under_its_own_name_only() {
        let keys = keys(7);
        let sealed = keys.seal(b"name", b"secret", &SystemRandom).unwrap();
        assert_eq!(keys.open(b"name", &sealed).unwrap().as_slice(), b"secret");
        assert!(keys.open(b"other", &sealed).is_none());
        assert!(super::tests::keys(8).open(b"name", &sealed).is_none());
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(keys.open(b"name", &forged).is_none(), "{bit}");
        }
        for length in 0..sealed.len() {
            assert!(keys.open(b"name", &sealed[..length]).is_none(), "{length}");
        }
        assert!(keys.open(b"name", &[sealed.as_slice(), b"\0"].concat()).is_none());
        assert_ne!(keys.seal(b"name", b"secret", &SystemRandom).unwrap(), sealed, "never the same nonce");
        let empty = keys.seal(b"", b"", &SystemRandom).unwrap();
        assert!(keys.open(b"", &empty).unwrap().is_empty());
    }

    #[test]
    fn the_parts_of_a_limit_do_not_run_together() {
        let keys = keys(7);
        assert_eq!(keys.throttle_key("a", &["b"]), keys.throttle_key("a", &["b"]));
        assert_ne!(keys.throttle_key("a", &["bc", "d"]), keys.throttle_key("a", &["b", "cd"]));
        assert_ne!(keys.throttle_key("a", &["b"]), keys.throttle_key("ab", &[]));
        assert_ne!(keys.throttle_key("a", &["b"]), keys.throttle_key("a", &["b", ""]));
        assert_ne!(keys.throttle_key("a", &["b"]), super::tests::keys(8).throttle_key("a", &["b"]));
    }

    #[test]
    fn no_secret_is_printed() {
        assert_eq!(format!("{:?}", rotated()), "SecretKeys([redacted])");
    }
}
