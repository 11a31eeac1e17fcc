//! Codes and links: what they are for and what they look like.

use std::fmt;
use std::str::FromStr;

/// What a mailed code is good for. A code of one purpose is worthless for every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CodePurpose {
    /// Proves an address: turns a pending registration into a user, or marks a user's address as verified.
    EmailVerification,
    /// Lets an invited user set the first password.
    FirstTimeSetup,
    /// Lets somebody who forgot the password set a new one.
    ResetPassword,
    /// Lets a signed-in user set a new password.
    ChangePassword,
    /// Proves a new address before it replaces the old one.
    ChangeEmail,
}

impl CodePurpose {
    /// Every purpose.
    pub const ALL: [Self; 5] = [
        Self::EmailVerification,
        Self::FirstTimeSetup,
        Self::ResetPassword,
        Self::ChangePassword,
        Self::ChangeEmail,
    ];

    /// The stable name, as in requests, tables and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmailVerification => "email_verification",
            Self::FirstTimeSetup => "first_time_setup",
            Self::ResetPassword => "reset_password",
            Self::ChangePassword => "change_password",
            Self::ChangeEmail => "change_email",
        }
    }

    /// Whether a code of this purpose and form is the link that undoes a change of address.
    ///
    /// # Security
    /// The link outlives the credentials that it recovers from: a new password, a second change, disabling and a
    /// deletion that can be taken back leave it open.
    pub const fn is_undo(self, form: CodeForm) -> bool {
        matches!((self, form), (Self::ChangeEmail, CodeForm::Link))
    }
}

impl fmt::Display for CodePurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a code purpose; it takes email_verification, first_time_setup, reset_password, change_password or change_email"
)]
pub struct UnknownPurpose;

impl FromStr for CodePurpose {
    type Err = UnknownPurpose;

    fn from_str(text: &str) -> Result<Self, UnknownPurpose> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text).ok_or(UnknownPurpose)
    }
}

/// What the secret looks like when it is mailed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a store keeps each in its own way")]
pub enum CodeForm {
    /// A decimal code of this many digits, leading zeros kept.
    Digits(CodeLength),
    /// A 256-bit secret inside a link.
    Link,
}

/// How many digits a code has: 4 to 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeLength(u8);

impl CodeLength {
    /// The fewest digits a code may have, and then only for [`CodePurpose::EmailVerification`].
    pub const MIN: u8 = 4;
    /// The fewest digits of a code that can set a password (20 bits: NIST SP 800-63B-4 §3.1.3.2).
    pub const MIN_FOR_PASSWORDS: u8 = 6;
    /// The most digits a code may have.
    pub const MAX: u8 = 10;
    /// The default of six digits.
    pub const SIX: Self = Self(6);

    /// A length between [`MIN`](Self::MIN) and [`MAX`](Self::MAX), else `None`.
    pub const fn new(digits: u8) -> Option<Self> {
        if digits >= Self::MIN && digits <= Self::MAX { Some(Self(digits)) } else { None }
    }

    /// The number of digits.
    pub const fn digits(self) -> u8 {
        self.0
    }

    /// This length for the purpose: never under six digits where a password or an address can be set with it.
    #[must_use]
    pub const fn for_purpose(self, purpose: CodePurpose) -> Self {
        if matches!(purpose, CodePurpose::EmailVerification) || self.0 >= Self::MIN_FOR_PASSWORDS {
            self
        } else {
            Self::SIX
        }
    }
}

impl CodeForm {
    /// The number of digits, or 0 for a link: how the form stands in a table.
    pub const fn digits(self) -> u8 {
        match self {
            Self::Digits(length) => length.digits(),
            Self::Link => 0,
        }
    }

    /// Reads what [`digits`](Self::digits) gave.
    pub const fn from_digits(digits: u8) -> Option<Self> {
        if digits == 0 {
            return Some(Self::Link);
        }
        match CodeLength::new(digits) {
            Some(length) => Some(Self::Digits(length)),
            None => None,
        }
    }
}
