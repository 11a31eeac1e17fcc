//! What stands in for bcrypt and scrypt where they were left out: their hashes are refused.

use zeroize::Zeroizing;

use super::{BcryptInput, ForeignHash, UnsupportedHash};

/// There is none.
#[derive(Clone, Copy)]
pub(super) enum Scheme {}

impl Scheme {
    pub(super) const fn compute(self, _: &[u8], _: &[u8], _: &mut [u8]) -> Option<()> {
        match self {}
    }
}

pub(super) fn parse_bcrypt(ident: &str, _: &[&str], _: BcryptInput) -> Result<ForeignHash, UnsupportedHash> {
    match ident {
        "2a" | "2b" | "2y" => Err(UnsupportedHash::LeftOut),
        _ => Err(UnsupportedHash::UnknownFormat),
    }
}

pub(super) fn parse_scrypt(
    _: (u64, u32, u32),
    _: Zeroizing<Vec<u8>>,
    _: Zeroizing<Vec<u8>>,
) -> Result<ForeignHash, UnsupportedHash> {
    Err(UnsupportedHash::LeftOut)
}
