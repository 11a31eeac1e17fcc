//! Mails that are owed: what to say to whom, without any secret in it.

use std::fmt;
use std::str::FromStr;

use time::OffsetDateTime;

use super::code::{CodeForm, CodePurpose};
use super::email::Email;
use super::id::{CodeId, OutboxId};
use super::secret::SecretKeyId;
use super::user::{Locale, Username};

/// Which mail. [`as_str`](Self::as_str) is also the name of the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MailKind {
    /// The code of a pending registration, or of a user whose address is not proven yet.
    VerifyEmail,
    /// To the owner of an address that somebody tried to register again.
    AccountExists,
    /// After a registration was completed.
    Welcome,
    /// The code for the first password of an invited user.
    FirstTimeSetup,
    /// The code that resets a password.
    ResetPasswordCode,
    /// The link that resets a password.
    ResetPasswordLink,
    /// The code by which a signed-in user changes the password.
    ChangePasswordCode,
    /// The code that proves a new address, sent to the new address.
    ChangeEmailCode,
    /// Notice: the password was changed.
    PasswordChanged,
    /// Notice: somebody asked for another address, sent to the one that is.
    EmailChangeRequested,
    /// Notice: the address was changed, sent to the old address with a link that undoes it.
    EmailChanged,
    /// Notice: the account was deleted by its owner, and how to have it back.
    AccountDeleted,
}

impl MailKind {
    /// Every kind of mail.
    pub const ALL: [Self; 12] = [
        Self::VerifyEmail,
        Self::AccountExists,
        Self::Welcome,
        Self::FirstTimeSetup,
        Self::ResetPasswordCode,
        Self::ResetPasswordLink,
        Self::ChangePasswordCode,
        Self::ChangeEmailCode,
        Self::PasswordChanged,
        Self::EmailChangeRequested,
        Self::EmailChanged,
        Self::AccountDeleted,
    ];

    /// The stable name, in tables, logs and template file names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::AccountExists => "account_exists",
            Self::Welcome => "welcome",
            Self::FirstTimeSetup => "first_time_setup",
            Self::ResetPasswordCode => "reset_password_code",
            Self::ResetPasswordLink => "reset_password_link",
            Self::ChangePasswordCode => "change_password_code",
            Self::ChangeEmailCode => "change_email_code",
            Self::PasswordChanged => "password_changed",
            Self::EmailChangeRequested => "email_change_requested",
            Self::EmailChanged => "email_changed",
            Self::AccountDeleted => "account_deleted",
        }
    }

    /// The mail that carries a code of this purpose.
    pub const fn of_code(purpose: CodePurpose) -> Self {
        match purpose {
            CodePurpose::EmailVerification => Self::VerifyEmail,
            CodePurpose::FirstTimeSetup => Self::FirstTimeSetup,
            CodePurpose::ResetPassword => Self::ResetPasswordCode,
            CodePurpose::ChangePassword => Self::ChangePasswordCode,
            CodePurpose::ChangeEmail => Self::ChangeEmailCode,
        }
    }
}

impl fmt::Display for MailKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of mail")]
pub struct UnknownMailKind;

impl FromStr for MailKind {
    type Err = UnknownMailKind;

    fn from_str(text: &str) -> Result<Self, UnknownMailKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownMailKind)
    }
}

/// A mail in the outbox. It names a code, it never holds one: the worker derives the code when it sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwedMail {
    /// The mail's identifier: `Message-ID` and `Idempotency-Key` of every attempt to deliver it.
    pub id: OutboxId,
    /// Which mail.
    pub kind: MailKind,
    /// To whom.
    pub to: Email,
    /// In which language, if the receiver chose one.
    pub locale: Option<Locale>,
    /// The receiver's display name.
    pub username: Option<Username>,
    /// The code or link that it carries.
    pub code: Option<OwedCode>,
    /// When it was written: its `Date`.
    pub created_at: OffsetDateTime,
}

/// What the worker needs to derive the code or link of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwedCode {
    /// The code's identifier.
    pub id: CodeId,
    /// What the code is for.
    pub purpose: CodePurpose,
    /// What it looks like.
    pub form: CodeForm,
    /// Which secret key derives it.
    pub key: SecretKeyId,
}
