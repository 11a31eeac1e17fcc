//! Random tokens and their digests. A token has 256 random bits, so a plain hash of it is as good as a salted one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::domain::secret::Digest;
use crate::port::random::Random;

/// The SHA-256 digest of a token: what tables hold of it.
pub fn token_digest(token: &str) -> Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    Digest::from_bytes(digest.as_ref().first_chunk::<32>().copied().unwrap_or_default())
}

/// A token of 256 random bits behind a prefix that tells its kind.
pub fn random_token(prefix: &str, random: &dyn Random) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    random.fill(bytes.as_mut_slice());
    let mut token = Zeroizing::new(String::with_capacity(prefix.len() + 43));
    token.push_str(prefix);
    URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut token);
    token
}
