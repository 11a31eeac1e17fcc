//! The audit log: who did what, when, from where, with what outcome. No secret is ever in it.

use std::borrow::Cow;
use std::net::IpAddr;

use time::OffsetDateTime;

use super::email::EmailKey;
use super::id::{AuditId, UserId};

/// One entry of the audit log, written in the transaction of what it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// The entry's identifier.
    pub id: AuditId,
    /// When.
    pub at: OffsetDateTime,
    /// What.
    pub event: AuditEvent,
    /// With what outcome.
    pub outcome: AuditOutcome,
    /// Why it was refused: a stable word such as `invalid_code`.
    pub reason: Option<Cow<'static, str>>,
    /// Who did it, if they had proven who they are.
    pub actor: Option<UserId>,
    /// To which user.
    pub subject: Option<UserId>,
    /// To which address, where there is no user (yet).
    pub email: Option<EmailKey>,
    /// From which address.
    pub ip: Option<IpAddr>,
    /// With which agent.
    pub user_agent: Option<String>,
    /// Under which request id.
    pub request_id: Option<String>,
}

/// An audit entry before its outcome is known: the store completes it in the transaction that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditDraft {
    /// The entry's identifier.
    pub id: AuditId,
    /// What.
    pub event: AuditEvent,
    /// Who does it, if they have proven who they are.
    pub actor: Option<UserId>,
    /// To which address.
    pub email: Option<EmailKey>,
    /// From which address.
    pub ip: Option<IpAddr>,
    /// With which agent.
    pub user_agent: Option<String>,
    /// Under which request id.
    pub request_id: Option<String>,
}

impl AuditDraft {
    /// The entry of something that was done.
    pub fn done(self, at: OffsetDateTime, subject: Option<UserId>) -> AuditEntry {
        self.entry(at, AuditOutcome::Done, None, subject)
    }

    /// The entry of something that was refused, and why.
    pub fn refused(self, at: OffsetDateTime, reason: &'static str, subject: Option<UserId>) -> AuditEntry {
        self.entry(at, AuditOutcome::Refused, Some(Cow::Borrowed(reason)), subject)
    }

    fn entry(
        self,
        at: OffsetDateTime,
        outcome: AuditOutcome,
        reason: Option<Cow<'static, str>>,
        subject: Option<UserId>,
    ) -> AuditEntry {
        let Self { id, event, actor, email, ip, user_agent, request_id } = self;
        AuditEntry { id, at, event, outcome, reason, actor, subject, email, ip, user_agent, request_id }
    }
}

/// What the audit log tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuditEvent {
    /// Somebody asked for an account.
    Registration,
    /// Somebody asked for a code.
    CodeRequest,
    /// Somebody asked for a reset link.
    LinkRequest,
    /// A user came to be, or an address was proven.
    Verification,
    /// A password was set by a code or a link, or by the operator.
    PasswordReset,
    /// A password was changed by its owner.
    PasswordChange,
    /// Somebody signed in.
    SignIn,
    /// Somebody signed out, or a session was ended.
    SignOut,
    /// An administrator made a user.
    UserCreation,
    /// A session was renewed by its refresh token.
    SessionRefresh,
    /// A user's name, language or profile was changed. With what content is not told.
    UserUpdate,
    /// A user was given roles or lost some.
    RoleChange,
    /// A user was disabled or enabled.
    StatusChange,
    /// A user was deleted.
    UserDeletion,
    /// A user who had deleted their account signed in within the grace and has it back.
    UserRestoration,
    /// Somebody asked for another address for their account.
    EmailChangeRequest,
    /// An account's address was changed.
    EmailChange,
    /// The change of an account's address was undone from the old address.
    EmailChangeUndo,
    /// A user came from another system.
    UserImport,
    /// Everything held about a user was read by that user.
    UserExport,
    /// A dead mail is to be sent again.
    MailRetry,
    /// A signing key was added.
    KeyRotation,
    /// Signing keys were revoked.
    KeyRevocation,
    /// An address was marked: no mail goes there any more.
    UndeliverableMark,
    /// The mark was taken from an address: mail goes there again.
    UndeliverableRemoval,
    /// Something was asked for without the permission for it.
    AccessDenied,
}

impl AuditEvent {
    /// Every event.
    pub const ALL: [Self; 26] = [
        Self::Registration,
        Self::CodeRequest,
        Self::LinkRequest,
        Self::Verification,
        Self::PasswordReset,
        Self::PasswordChange,
        Self::SignIn,
        Self::SignOut,
        Self::UserCreation,
        Self::SessionRefresh,
        Self::UserUpdate,
        Self::RoleChange,
        Self::StatusChange,
        Self::UserDeletion,
        Self::UserRestoration,
        Self::EmailChangeRequest,
        Self::EmailChange,
        Self::EmailChangeUndo,
        Self::UserImport,
        Self::UserExport,
        Self::MailRetry,
        Self::KeyRotation,
        Self::KeyRevocation,
        Self::UndeliverableMark,
        Self::UndeliverableRemoval,
        Self::AccessDenied,
    ];

    /// Reads the stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::CodeRequest => "code_request",
            Self::LinkRequest => "link_request",
            Self::Verification => "verification",
            Self::PasswordReset => "password_reset",
            Self::PasswordChange => "password_change",
            Self::SignIn => "sign_in",
            Self::SignOut => "sign_out",
            Self::UserCreation => "user_creation",
            Self::SessionRefresh => "session_refresh",
            Self::UserUpdate => "user_update",
            Self::RoleChange => "role_change",
            Self::StatusChange => "status_change",
            Self::UserDeletion => "user_deletion",
            Self::UserRestoration => "user_restoration",
            Self::EmailChangeRequest => "email_change_request",
            Self::EmailChange => "email_change",
            Self::EmailChangeUndo => "email_change_undo",
            Self::UserImport => "user_import",
            Self::UserExport => "user_export",
            Self::MailRetry => "mail_retry",
            Self::KeyRotation => "key_rotation",
            Self::KeyRevocation => "key_revocation",
            Self::UndeliverableMark => "undeliverable_mark",
            Self::UndeliverableRemoval => "undeliverable_removal",
            Self::AccessDenied => "access_denied",
        }
    }
}

/// How what the audit log tells of went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
}

impl AuditOutcome {
    /// The outcome of a stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Done, Self::Refused].into_iter().find(|outcome| outcome.as_str() == name)
    }

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}
