//! Roles and what they permit.

use std::borrow::Cow;
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
    /// The most characters a role's name may have.
    pub const MAX: usize = 64;
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
        let fits = (1..=Self::MAX).contains(&text.len())
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

/// What a role may permit: a subject and a verb, as `users:read`. Hosts may name their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Permission(Cow<'static, str>);

/// A text that cannot name a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a permission is subject:verb, each of a-z, 0-9, '_' and '-', at most 64 characters")]
pub struct InvalidPermission;

impl Permission {
    /// To list users and roles and to look at one user.
    pub const USERS_READ: Self = Self(Cow::Borrowed("users:read"));
    /// To invite, change, disable and enable users, and to end their sessions.
    pub const USERS_WRITE: Self = Self(Cow::Borrowed("users:write"));
    /// To delete users.
    pub const USERS_DELETE: Self = Self(Cow::Borrowed("users:delete"));
    /// To give roles to users and to take them.
    pub const ROLES_ASSIGN: Self = Self(Cow::Borrowed("roles:assign"));
    /// To read the audit log.
    pub const AUDIT_READ: Self = Self(Cow::Borrowed("audit:read"));
    /// To see owed mails and to have dead ones sent again.
    pub const OUTBOX_MANAGE: Self = Self(Cow::Borrowed("outbox:manage"));

    /// To read the feed of events.
    pub const EVENTS_READ: Self = Self(Cow::Borrowed("events:read"));

    /// The permissions that calls of this library ask for.
    pub const ALL: [Self; 7] = [
        Self::USERS_READ,
        Self::USERS_WRITE,
        Self::USERS_DELETE,
        Self::ROLES_ASSIGN,
        Self::AUDIT_READ,
        Self::OUTBOX_MANAGE,
        Self::EVENTS_READ,
    ];

    /// The permission's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Permission {
    type Err = InvalidPermission;

    fn from_str(text: &str) -> Result<Self, InvalidPermission> {
        let word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
        };
        match text.split_once(':') {
            Some((subject, verb)) if text.len() <= 64 && word(subject) && word(verb) => {
                Ok(Self(Cow::Owned(text.into())))
            }
            _ => Err(InvalidPermission),
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
