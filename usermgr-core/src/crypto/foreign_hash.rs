//! Password hashes that other systems made: read, bounded and compared, never made here.
//!
//! Users who come from another system bring their hashes. Such a hash may stand where our own stand; it is compared at
//! sign-in, and a match always asks for an upgrade, so it is replaced by Argon2id as soon as its user shows up.
//! [`ForeignHash::parse`] says at import what can be compared and why the rest cannot.
//!
//! | made by | for example |
//! |---|---|
//! | Argon2 in PHC form: PHP, Python, Go, … | `$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$…`, also `argon2i`, `argon2d`, `v=16` or none |
//! | Django, Argon2 | `argon2$argon2id$v=19$m=102400,t=2,p=8$c2FsdHNhbHQ$…` |
//! | bcrypt: Devise, Laravel, `password_hash` of PHP, Spring | `$2b$12$` and 53 characters, also `$2a$` and `$2y$` |
//! | Django, bcrypt | `bcrypt$$2b$12$…` |
//! | Django, bcrypt over the SHA-256 of the password in hex | `bcrypt_sha256$$2b$12$…` |
//! | PBKDF2 in PHC form | `$pbkdf2-sha256$i=600000,l=32$c2FsdHNhbHQ$…`, also `pbkdf2-sha512`, and `pbkdf2` for SHA-1 |
//! | passlib, PBKDF2 | `$pbkdf2-sha256$29000$c2FsdHNhbHQ$…`, also `pbkdf2-sha512`, and `pbkdf2` for SHA-1 |
//! | Django, PBKDF2 | `pbkdf2_sha256$870000$salt$…`, also `pbkdf2_sha1` |
//! | Werkzeug (Flask), PBKDF2 | `pbkdf2:sha256:1000000$salt$` and hex, also `sha1` and `sha512` |
//! | scrypt in PHC form, passlib | `$scrypt$ln=16,r=8,p=1$c2FsdHNhbHQ$…` |
//! | Django, scrypt | `scrypt$16384$salt$8$5$…` (N, salt, r, p) |
//! | Werkzeug (Flask), scrypt | `scrypt:32768:8:1$salt$` and hex |
//!
//! Not supported: `$2x$` and `$2$` of bcrypt (made by faulty code), Firebase's scrypt (its hash is encrypted with a
//! signer key of the project, which no stored hash carries), passlib's `bcrypt-sha256`, and everything that is one
//! pass of a plain digest.
//!
//! bcrypt and scrypt need the feature `legacy-hashes`. Without it such a hash is refused at import, and matches nothing
//! at sign-in, where the log says why: switch it on where users came with such hashes.
//!
//! # What is compared
//! The UTF-8 bytes of the password in NFC ([`NormalizedPassword`](super::password_text::NormalizedPassword)), whole.
//! Most systems hashed the bytes as they were typed. The two are the same for ASCII and for what nearly every keyboard
//! sends; a password that was hashed decomposed, or in another character set than UTF-8, does not match, and its user
//! resets it.
//!
//! An output is compared whole. How long it is follows from the format, but for Argon2 and scrypt in PHC form, which
//! leave it open: a cut Argon2 matches nothing; a cut scrypt is one with a shorter output, of 16 bytes at least.
//!
//! bcrypt looks at 72 bytes. The systems that made these hashes cut longer passwords without a word, so the same is
//! done here: two passwords that begin with the same 72 bytes match the same hash, until the upgrade hashes the one
//! that was typed as a whole. (`bcrypt_sha256` looks at all.) Implementations differ about NUL, so a password with
//! one matches no bcrypt hash; none arrives at sign-in, where control characters are refused.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use argon2::{Algorithm, Block, Version};
use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, STANDARD_NO_PAD};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::hasher::{
    MAX_STORED_ITERATIONS, MAX_STORED_MEMORY_KIB, MAX_STORED_PARALLELISM, MAX_WORK, argon2_with_memory, work,
};

/// The most bytes of a hash's text.
const MAX_TEXT_BYTES: usize = 1024;
/// The fewest and the most bytes of a salt, but for bcrypt's, which has 16, and Argon2's, which has eight at least.
const SALT_BYTES: RangeInclusive<usize> = 1..=128;
/// The fewest and the most bytes of an output, but for bcrypt's, which has 23.
const OUTPUT_BYTES: RangeInclusive<usize> = 16..=128;
/// The fewest and the most iterations of PBKDF2.
const PBKDF2_ITERATIONS: RangeInclusive<u32> = 1_000..=2_000_000;
/// The most iterations of PBKDF2 over all blocks of its output.
const MAX_PBKDF2_WORK: u64 = 4_000_000;
/// Bytes of an output that Django or Werkzeug made with scrypt.
const SCRYPT_OUTPUT_BYTES: usize = 64;

/// A password hash of another system, read and within bounds.
#[derive(Clone)]
pub struct ForeignHash {
    scheme: Scheme,
    salt: Zeroizing<Vec<u8>>,
    output: Zeroizing<Vec<u8>>,
}

/// Why a hash cannot be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnsupportedHash {
    /// No format that is known here.
    #[error("unknown format")]
    UnknownFormat,
    /// The format is known; what it asks for is too much, or too little to be a hash.
    #[error("parameters out of bounds: {0}")]
    OutOfBounds(&'static str),
    /// The format is known; the text is cut, altered or otherwise not of that format.
    #[error("not a valid encoding")]
    InvalidEncoding,
    /// The format is bcrypt or scrypt, and this program was built without them.
    #[error("bcrypt and scrypt need the feature legacy-hashes of usermgr-core")]
    LeftOut,
}

/// bcrypt and scrypt, for which the crate has dependencies of its own.
#[cfg(feature = "legacy-hashes")]
mod legacy;
/// The same without them.
#[cfg(not(feature = "legacy-hashes"))]
#[path = "foreign_hash/left_out.rs"]
mod legacy;

/// How an output is computed.
#[derive(Clone)]
enum Scheme {
    Argon2 {
        algorithm: Algorithm,
        version: Version,
        params: argon2::Params,
    },
    Pbkdf2 {
        digest: Pbkdf2Digest,
        iterations: NonZeroU32,
    },
    #[cfg_attr(not(feature = "legacy-hashes"), expect(dead_code, reason = "there is none to be made"))]
    Legacy(legacy::Scheme),
}

/// What bcrypt is given.
#[derive(Clone, Copy)]
enum BcryptInput {
    /// The password.
    Password,
    /// Its SHA-256 in lower-case hex, as Django does.
    Sha256Hex,
}

/// The digest under PBKDF2.
#[derive(Clone, Copy)]
enum Pbkdf2Digest {
    Sha1,
    Sha256,
    Sha512,
}

impl ForeignHash {
    /// Reads a hash of one of the formats above, and computes nothing.
    ///
    /// # Errors
    /// [`UnsupportedHash::UnknownFormat`] when the text begins like none of them; [`UnsupportedHash::OutOfBounds`] when
    /// it asks for more time or memory than a sign-in may cost, or its salt or output is too short or too long, or its
    /// text is longer than 1024 bytes; [`UnsupportedHash::InvalidEncoding`] when it is not whole, or not as its format
    /// writes it; [`UnsupportedHash::LeftOut`] for bcrypt and scrypt without the feature `legacy-hashes`.
    ///
    /// # Security
    /// Bounds: Argon2 with at most 256 MiB, 100 passes, 64 lanes and 4 GiB over all passes; bcrypt with a cost of 4 to
    /// 15; PBKDF2 with 1000 to 2 000 000 iterations, and 4 000 000 over all blocks of its output; scrypt with 128·N·r
    /// of at most 256 MiB, p of at most 16, r of at most 64 and N·r·p of at most 2²²; salts of 1 to 128 bytes (Argon2
    /// from 8) and outputs of 16 to 128 bytes. Each takes a few seconds at its bound.
    ///
    /// ```
    /// use usermgr_core::crypto::foreign_hash::{ForeignHash, UnsupportedHash};
    ///
    /// # #[cfg(feature = "legacy-hashes")] {
    /// let hash = ForeignHash::parse("$2y$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK")?;
    /// assert!(hash.verify(b"correct horse battery staple"));
    /// # }
    /// let md5 = ForeignHash::parse("9cc2ae8a1ba7a93da39b46fc1019c481");
    /// assert_eq!(md5.unwrap_err(), UnsupportedHash::UnknownFormat);
    /// # Ok::<(), UnsupportedHash>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, UnsupportedHash> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(UnsupportedHash::OutOfBounds("the text has more than 1024 bytes"));
        }
        let fields: Vec<&str> = text.split('$').collect();
        match *fields.as_slice() {
            ["", ident, ref rest @ ..] => parse_modular(ident, rest),
            ["argon2", ident, ref rest @ ..] => parse_argon2(ident, rest),
            ["bcrypt", "", ident, ref rest @ ..] => legacy::parse_bcrypt(ident, rest, BcryptInput::Password),
            ["bcrypt_sha256", "", ident, ref rest @ ..] => {
                legacy::parse_bcrypt(ident, rest, BcryptInput::Sha256Hex)
            }
            ["pbkdf2_sha1", ref rest @ ..] => parse_django_pbkdf2(Pbkdf2Digest::Sha1, rest),
            ["pbkdf2_sha256", ref rest @ ..] => parse_django_pbkdf2(Pbkdf2Digest::Sha256, rest),
            ["scrypt", ref rest @ ..] => parse_django_scrypt(rest),
            ["argon2" | "bcrypt" | "bcrypt_sha256", ..] => Err(UnsupportedHash::InvalidEncoding),
            [method, ref rest @ ..] => parse_werkzeug(method, rest),
            [] => Err(UnsupportedHash::UnknownFormat),
        }
    }

    /// Whether this is the hash of a password, given in UTF-8. This takes as long as the parameters say, and as much
    /// memory: at sign-in it is for [`HashPool::verify`](super::hasher::HashPool::verify), which does it on its own
    /// threads.
    ///
    /// # Security
    /// The outputs are compared in constant time.
    pub fn verify(&self, password: &[u8]) -> bool {
        self.verify_with_memory(password, &mut Vec::new())
    }

    /// The same in a thread's own memory, as far as it is Argon2's.
    pub(super) fn verify_with_memory(&self, password: &[u8], memory: &mut Vec<Block>) -> bool {
        let mut output = Zeroizing::new(vec![0_u8; self.output.len()]);
        let computed = match &self.scheme {
            Scheme::Argon2 { algorithm, version, params } => {
                argon2_with_memory((*algorithm, *version), params, password, &self.salt, &mut output, memory)
            }
            Scheme::Pbkdf2 { digest, iterations } => {
                pbkdf2::derive(digest.algorithm(), *iterations, &self.salt, password, &mut output);
                Some(())
            }
            Scheme::Legacy(scheme) => scheme.compute(&self.salt, password, &mut output),
        };
        computed.is_some() && bool::from(output.ct_eq(&self.output))
    }
}

impl fmt::Debug for ForeignHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForeignHash([redacted])")
    }
}

impl Pbkdf2Digest {
    fn algorithm(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// Reads what follows `$ident$`.
fn parse_modular(ident: &str, rest: &[&str]) -> Result<ForeignHash, UnsupportedHash> {
    match ident {
        "argon2i" | "argon2d" | "argon2id" => parse_argon2(ident, rest),
        "2a" | "2b" | "2y" => legacy::parse_bcrypt(ident, rest, BcryptInput::Password),
        "pbkdf2" => parse_modular_pbkdf2(Pbkdf2Digest::Sha1, rest),
        "pbkdf2-sha256" => parse_modular_pbkdf2(Pbkdf2Digest::Sha256, rest),
        "pbkdf2-sha512" => parse_modular_pbkdf2(Pbkdf2Digest::Sha512, rest),
        "scrypt" => parse_modular_scrypt(rest),
        _ => Err(UnsupportedHash::UnknownFormat),
    }
}

/// Reads `v=19$m=…,t=…,p=…$salt$output`; without a version it is 16.
fn parse_argon2(ident: &str, rest: &[&str]) -> Result<ForeignHash, UnsupportedHash> {
    let algorithm = match ident {
        "argon2i" => Algorithm::Argon2i,
        "argon2d" => Algorithm::Argon2d,
        "argon2id" => Algorithm::Argon2id,
        _ => return Err(UnsupportedHash::UnknownFormat),
    };
    let (version, costs, salt, output) = match *rest {
        ["v=19", costs, salt, output] => (Version::V0x13, costs, salt, output),
        ["v=16", costs, salt, output] | [costs, salt, output] => (Version::V0x10, costs, salt, output),
        _ => return Err(UnsupportedHash::InvalidEncoding),
    };
    let [memory_kib, iterations, parallelism] = named(costs, ["m", "t", "p"])?;
    let (salt, output) = (decode(&STANDARD_NO_PAD, salt)?, decode(&STANDARD_NO_PAD, output)?);
    within(memory_kib <= MAX_STORED_MEMORY_KIB, "Argon2 takes at most 256 MiB here")?;
    within(iterations <= MAX_STORED_ITERATIONS, "Argon2 takes at most 100 passes here")?;
    within(parallelism <= MAX_STORED_PARALLELISM, "Argon2 takes at most 64 lanes here")?;
    within(work(memory_kib, iterations) <= MAX_WORK, "Argon2 takes at most 4 GiB over all passes here")?;
    within(salt.len() >= argon2::MIN_SALT_LEN, "Argon2 takes a salt of 8 bytes at least")?;
    let params = argon2::Params::new(memory_kib, iterations, parallelism, Some(output.len()))
        .map_err(|_| UnsupportedHash::OutOfBounds("Argon2 cannot have such parameters"))?;
    bounded(Scheme::Argon2 { algorithm, version, params }, salt, output)
}

/// Reads `i=…,l=…$salt$output` in Base64, or `…$salt$output` in passlib's own, which has `.` for `+`. Without `l` the
/// output is as long as the digest's.
fn parse_modular_pbkdf2(digest: Pbkdf2Digest, rest: &[&str]) -> Result<ForeignHash, UnsupportedHash> {
    let [costs, salt, output] = *rest else { return Err(UnsupportedHash::InvalidEncoding) };
    if !costs.starts_with("i=") {
        let decode = |text: &str| decode(&STANDARD_NO_PAD, &Zeroizing::new(text.replace('.', "+")));
        let output = of_length(digest.bytes(), decode(output)?)?;
        return pbkdf2_of(digest, decimal(costs)?, decode(salt)?, output);
    }
    let (iterations, bytes) = if costs.contains(',') {
        let [iterations, bytes] = named(costs, ["i", "l"])?;
        (iterations, usize::try_from(bytes).map_err(|_| UnsupportedHash::InvalidEncoding)?)
    } else {
        let [iterations] = named(costs, ["i"])?;
        (iterations, digest.bytes())
    };
    let output = of_length(bytes, decode(&STANDARD_NO_PAD, output)?)?;
    pbkdf2_of(digest, iterations, decode(&STANDARD_NO_PAD, salt)?, output)
}

/// Reads `iterations$salt$output`, where the salt is a text.
fn parse_django_pbkdf2(digest: Pbkdf2Digest, rest: &[&str]) -> Result<ForeignHash, UnsupportedHash> {
    let [iterations, salt, output] = *rest else { return Err(UnsupportedHash::InvalidEncoding) };
    let output = of_length(digest.bytes(), decode(&STANDARD, output)?)?;
    pbkdf2_of(digest, decimal(iterations)?, text_salt(salt)?, output)
}

/// Reads `ln=…,r=…,p=…$salt$output`.
fn parse_modular_scrypt(rest: &[&str]) -> Result<ForeignHash, UnsupportedHash> {
    let [costs, salt, output] = *rest else { return Err(UnsupportedHash::InvalidEncoding) };
    let [log_n, r, p] = named(costs, ["ln", "r", "p"])?;
    let n = 1_u64.checked_shl(log_n).unwrap_or(u64::MAX);
    legacy::parse_scrypt((n, r, p), decode(&STANDARD_NO_PAD, salt)?, decode(&STANDARD_NO_PAD, output)?)
}

/// Reads `n$salt$r$p$output`, where the salt is a text.
fn parse_django_scrypt(rest: &[&str]) -> Result<ForeignHash, UnsupportedHash> {
    let [n, salt, r, p, output] = *rest else { return Err(UnsupportedHash::InvalidEncoding) };
    let costs = (decimal(n)?.into(), decimal(r)?, decimal(p)?);
    legacy::parse_scrypt(costs, text_salt(salt)?, of_length(SCRYPT_OUTPUT_BYTES, decode(&STANDARD, output)?)?)
}

/// Reads `pbkdf2:digest:iterations$salt$output` and `scrypt:n:r:p$salt$output` in hex, where the salt is a text.
fn parse_werkzeug(method: &str, rest: &[&str]) -> Result<ForeignHash, UnsupportedHash> {
    let method: Vec<&str> = method.split(':').collect();
    if !matches!(*method.as_slice(), ["pbkdf2" | "scrypt", _, ..]) {
        return Err(UnsupportedHash::UnknownFormat);
    }
    let [salt, output] = *rest else { return Err(UnsupportedHash::InvalidEncoding) };
    let (salt, output) = (text_salt(salt)?, hex(output)?);
    match *method.as_slice() {
        ["pbkdf2", digest, iterations] => {
            let digest = match digest {
                "sha1" => Pbkdf2Digest::Sha1,
                "sha256" => Pbkdf2Digest::Sha256,
                "sha512" => Pbkdf2Digest::Sha512,
                _ => return Err(UnsupportedHash::UnknownFormat),
            };
            pbkdf2_of(digest, decimal(iterations)?, salt, of_length(digest.bytes(), output)?)
        }
        ["scrypt", n, r, p] => {
            let costs = (decimal(n)?.into(), decimal(r)?, decimal(p)?);
            legacy::parse_scrypt(costs, salt, of_length(SCRYPT_OUTPUT_BYTES, output)?)
        }
        _ => Err(UnsupportedHash::InvalidEncoding),
    }
}

fn pbkdf2_of(
    digest: Pbkdf2Digest,
    iterations: u32,
    salt: Zeroizing<Vec<u8>>,
    output: Zeroizing<Vec<u8>>,
) -> Result<ForeignHash, UnsupportedHash> {
    const ITERATIONS: &str = "PBKDF2 takes 1000 to 2000000 iterations here";
    within(PBKDF2_ITERATIONS.contains(&iterations), ITERATIONS)?;
    let blocks = u64::try_from(output.len().div_ceil(digest.bytes())).unwrap_or(u64::MAX);
    let work = blocks.saturating_mul(iterations.into());
    within(work <= MAX_PBKDF2_WORK, "PBKDF2 takes 4000000 iterations over all blocks of its output here")?;
    let iterations = NonZeroU32::new(iterations).ok_or(UnsupportedHash::OutOfBounds(ITERATIONS))?;
    bounded(Scheme::Pbkdf2 { digest, iterations }, salt, output)
}

/// The hash, if its salt and output have lengths that make sense.
fn bounded(
    scheme: Scheme,
    salt: Zeroizing<Vec<u8>>,
    output: Zeroizing<Vec<u8>>,
) -> Result<ForeignHash, UnsupportedHash> {
    within(SALT_BYTES.contains(&salt.len()), "a salt has 1 to 128 bytes")?;
    within(OUTPUT_BYTES.contains(&output.len()), "an output has 16 to 128 bytes")?;
    Ok(ForeignHash { scheme, salt, output })
}

fn within(is_within: bool, bound: &'static str) -> Result<(), UnsupportedHash> {
    if is_within { Ok(()) } else { Err(UnsupportedHash::OutOfBounds(bound)) }
}

/// Numbers with their names, `m=65536,t=3,p=4`: all of them, in this order, and no others.
fn named<const N: usize>(text: &str, names: [&str; N]) -> Result<[u32; N], UnsupportedHash> {
    let mut numbers = [0; N];
    let mut fields = text.split(',');
    for (number, name) in numbers.iter_mut().zip(names) {
        let value = fields.next().and_then(|field| field.strip_prefix(name)?.strip_prefix('='));
        *number = decimal(value.ok_or(UnsupportedHash::InvalidEncoding)?)?;
    }
    if fields.next().is_some() { Err(UnsupportedHash::InvalidEncoding) } else { Ok(numbers) }
}

/// A number in digits alone, without a zero in front.
fn decimal(text: &str) -> Result<u32, UnsupportedHash> {
    if text.is_empty()
        || !text.bytes().all(|byte| byte.is_ascii_digit())
        || text.len() > 1 && text.starts_with('0')
    {
        return Err(UnsupportedHash::InvalidEncoding);
    }
    text.parse().map_err(|_| UnsupportedHash::OutOfBounds("a number has more than 32 bits"))
}

fn decode(engine: &GeneralPurpose, text: &str) -> Result<Zeroizing<Vec<u8>>, UnsupportedHash> {
    engine.decode(text).map(Zeroizing::new).map_err(|_| UnsupportedHash::InvalidEncoding)
}

/// An output that must have just so many bytes.
fn of_length(bytes: usize, output: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, UnsupportedHash> {
    if output.len() == bytes { Ok(output) } else { Err(UnsupportedHash::InvalidEncoding) }
}

/// Bytes in lower-case hex.
fn hex(text: &str) -> Result<Zeroizing<Vec<u8>>, UnsupportedHash> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?));
    let bytes = bytes.collect::<Option<Vec<u8>>>().filter(|_| odd.is_empty());
    bytes.map(Zeroizing::new).ok_or(UnsupportedHash::InvalidEncoding)
}

/// A salt that is taken as it is written.
fn text_salt(text: &str) -> Result<Zeroizing<Vec<u8>>, UnsupportedHash> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(Zeroizing::new(text.as_bytes().to_vec()))
    } else {
        Err(UnsupportedHash::InvalidEncoding)
    }
}

#[cfg(test)]
mod tests;
