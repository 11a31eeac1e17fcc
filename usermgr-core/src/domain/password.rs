//! Password hashes and their versions. What a password must be is policy, see [`PasswordPolicy`](crate::policy::PasswordPolicy).

use std::fmt;

/// A password hash in PHC string form, for example `$argon2id$v=19$m=19456,t=2,p=1$…`, or as
/// [another system](crate::crypto::foreign_hash) wrote it.
#[derive(Clone)]
pub struct PasswordHash(secrecy::SecretString);

impl PasswordHash {
    /// Takes a hash as it stands in a table. Its form and cost are checked before it is ever computed with.
    pub fn new(phc: impl Into<String>) -> Self {
        Self(secrecy::SecretString::from(phc.into()))
    }

    /// The text to store.
    pub fn expose(&self) -> &str {
        use secrecy::ExposeSecret as _;
        self.0.expose_secret()
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash([redacted])")
    }
}

/// Counts the passwords a user has had. A write that was prepared under one version is refused under another, and
/// a session that was opened under an older one is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PasswordVersion(i64);

impl PasswordVersion {
    /// The version of a user who has never had a password.
    pub const NONE: Self = Self(0);
    /// The version of the first password.
    pub const FIRST: Self = Self(1);

    /// A version as it stands in a table.
    pub const fn from_i64(version: i64) -> Self {
        Self(version)
    }

    /// The version as a number.
    pub const fn as_i64(self) -> i64 {
        self.0
    }

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}
