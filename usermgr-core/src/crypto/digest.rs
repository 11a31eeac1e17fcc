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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::random::SystemRandom;

    /// Counts up from the byte it holds.
    #[derive(Debug)]
    struct Counting(u8);

    impl Random for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            for (byte, value) in bytes.iter_mut().zip(self.0..) {
                *byte = value;
            }
        }
    }

    /// FIPS 180-2, appendix B.1.
    #[test]
    fn the_digest_is_sha_256() {
        let expected = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
            0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
        ];
        assert_eq!(token_digest("abc").as_bytes(), &expected);
    }

    #[test]
    fn a_token_is_its_prefix_and_256_bits_of_the_source() {
        let token = random_token("umr_", &Counting(0));
        assert_eq!(token.as_str(), "umr_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
        let [one, other] = [random_token("", &SystemRandom), random_token("", &SystemRandom)];
        assert_eq!(one.len(), 43);
        assert_ne!(one, other);
    }
}
