//! Roles and what they permit.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The name of a role: 1 to 64 characters of `a-z`, `0-9`, `_`, `-`, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Role(String);

/// A text that cannot name a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is 1 to 64 characters of a-z, 0-9, '_' and '-', beginning with a letter")]
pub struct InvalidRole;

impl Role {
    /// The name of the role that every user has.
    pub const USER: &'static str = "user";
    /// The name of the role that permits everything.
    pub const ADMIN: &'static str = "admin";

    /// The role every user has: nothing beyond one's own account.
    pub fn user() -> Self {
        Self(Self::USER.into())
    }

    /// The role that permits everything.
    pub fn admin() -> Self {
        Self(Self::ADMIN.into())
    }

    /// The role's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        let fits = (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if fits { Ok(Self(text.into())) } else { Err(InvalidRole) }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The roles of a user, sorted.
pub type Roles = BTreeSet<Role>;
