//! bcrypt and scrypt, as other systems made them.

use std::ops::RangeInclusive;

use aws_lc_rs::digest::{SHA256, digest};
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, NO_PAD};
use zeroize::Zeroizing;

use super::{BcryptInput, ForeignHash, Scheme as Outer, UnsupportedHash, bounded, decode, within};

/// The least and the most cost of bcrypt, which computes 2^cost rounds.
const BCRYPT_COST: RangeInclusive<u32> = 4..=15;
/// Bytes of a password that bcrypt looks at, the NUL after a shorter one included.
const BCRYPT_PASSWORD_BYTES: usize = 72;
/// Bytes of bcrypt's salt.
const BCRYPT_SALT_BYTES: usize = 16;
/// Characters of bcrypt's salt.
const BCRYPT_SALT_CHARS: usize = 22;
/// Bytes of bcrypt's output: the last of 24 was never stored.
const BCRYPT_OUTPUT_BYTES: usize = 23;
/// The most memory of scrypt, 128·N·r bytes.
const MAX_SCRYPT_MEMORY_BYTES: u64 = 256 * 1024 * 1024;
/// The most of scrypt's r.
const MAX_SCRYPT_BLOCK: u32 = 64;
/// The most of scrypt's p.
const MAX_SCRYPT_PARALLELISM: u32 = 16;
/// The most of scrypt's N·r·p, which is what its time goes by.
const MAX_SCRYPT_WORK: u64 = 1 << 22;

/// The engine of bcrypt's outputs.
const BCRYPT_BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::BCRYPT, NO_PAD);
/// The engine of bcrypt's salts. Old versions of passlib left chance in the four bits past the end.
const BCRYPT_SALT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// How an output is computed.
#[derive(Clone)]
pub(super) enum Scheme {
    Bcrypt { cost: u32, input: BcryptInput },
    Scrypt(scrypt::Params),
}

impl Scheme {
    /// `None` when there is nothing that could match.
    pub(super) fn compute(&self, salt: &[u8], password: &[u8], output: &mut [u8]) -> Option<()> {
        match self {
            Self::Bcrypt { cost, input } => bcrypt(*cost, *input, salt, password, output),
            Self::Scrypt(params) => scrypt(params, salt, password, output),
        }
    }
}

/// Reads `12$` and 22 characters of salt with 31 of output.
pub(super) fn parse_bcrypt(
    ident: &str,
    rest: &[&str],
    input: BcryptInput,
) -> Result<ForeignHash, UnsupportedHash> {
    if !matches!(ident, "2a" | "2b" | "2y") {
        return Err(UnsupportedHash::UnknownFormat);
    }
    let [cost, salt_and_output] = *rest else { return Err(UnsupportedHash::InvalidEncoding) };
    let cost = match *cost.as_bytes() {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => u32::from(tens - b'0') * 10 + u32::from(ones - b'0'),
        _ => return Err(UnsupportedHash::InvalidEncoding),
    };
    let (salt, output) =
        salt_and_output.split_at_checked(BCRYPT_SALT_CHARS).ok_or(UnsupportedHash::InvalidEncoding)?;
    let (salt, output) = (decode(&BCRYPT_SALT_BASE64, salt)?, decode(&BCRYPT_BASE64, output)?);
    if salt.len() != BCRYPT_SALT_BYTES || output.len() != BCRYPT_OUTPUT_BYTES {
        return Err(UnsupportedHash::InvalidEncoding);
    }
    within(BCRYPT_COST.contains(&cost), "bcrypt takes a cost of 4 to 15 here")?;
    bounded(Outer::Legacy(Scheme::Bcrypt { cost, input }), salt, output)
}

/// Reads what `N`, `r` and `p` ask for.
pub(super) fn parse_scrypt(
    (n, r, p): (u64, u32, u32),
    salt: Zeroizing<Vec<u8>>,
    output: Zeroizing<Vec<u8>>,
) -> Result<ForeignHash, UnsupportedHash> {
    within(n >= 2 && n.is_power_of_two(), "scrypt takes a power of two for N")?;
    within((1..=MAX_SCRYPT_BLOCK).contains(&r), "scrypt takes 1 to 64 for r here")?;
    within((1..=MAX_SCRYPT_PARALLELISM).contains(&p), "scrypt takes 1 to 16 for p here")?;
    let memory = n.saturating_mul(u64::from(r) * 128);
    within(memory <= MAX_SCRYPT_MEMORY_BYTES, "scrypt takes at most 256 MiB here")?;
    within(
        n.saturating_mul(u64::from(r) * u64::from(p)) <= MAX_SCRYPT_WORK,
        "scrypt takes N·r·p up to 2^22 here",
    )?;
    let params =
        u8::try_from(n.trailing_zeros()).ok().and_then(|log_n| scrypt::Params::new(log_n, r, p).ok());
    let params = params.ok_or(UnsupportedHash::OutOfBounds("scrypt cannot have such parameters"))?;
    bounded(Outer::Legacy(Scheme::Scrypt(params)), salt, output)
}

/// `None` when the password has a NUL.
fn bcrypt(cost: u32, input: BcryptInput, salt: &[u8], password: &[u8], output: &mut [u8]) -> Option<()> {
    // A NUL stands after the password, where there is room for it.
    let mut key = Zeroizing::new([0_u8; BCRYPT_PASSWORD_BYTES]);
    let length = match input {
        BcryptInput::Password if password.contains(&0) => return None,
        BcryptInput::Password => {
            key.iter_mut().zip(password).for_each(|(byte, given)| *byte = *given);
            password.len()
        }
        BcryptInput::Sha256Hex => {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            let digest = digest(&SHA256, password);
            let nibbles = digest.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
            key.iter_mut().zip(nibbles).for_each(|(byte, nibble)| *byte = DIGITS[usize::from(nibble)]);
            digest.as_ref().len() * 2
        }
    };
    let key = key.get(..(length + 1).min(BCRYPT_PASSWORD_BYTES))?;
    let computed = Zeroizing::new(bcrypt::bcrypt(cost, *salt.first_chunk()?, key));
    output.copy_from_slice(computed.get(..output.len())?);
    Some(())
}

/// `None` when the system has no more memory. What is taken is given back when it is done, but not wiped.
fn scrypt(params: &scrypt::Params, salt: &[u8], password: &[u8], output: &mut [u8]) -> Option<()> {
    let blocks = usize::try_from(params.n()).ok()?.checked_add(2)?;
    let blocks = blocks.checked_mul(usize::try_from(params.r()).ok()?)?;
    // Asked for here, where a refusal is an answer, and given back for the computation to take.
    Vec::<[u8; 128]>::new().try_reserve_exact(blocks).ok()?;
    scrypt::scrypt(password, salt, params, output).ok()
}
