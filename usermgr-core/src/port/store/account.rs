//! Pending registrations and users.

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};

use super::code::NewCode;
use super::session::NewSession;
use super::throttle::{LoginGuard, ThrottleRule};
use super::{EventDraft, MailDraft, StoreError};
use crate::domain::audit::AuditDraft;
use crate::domain::email::{Email, EmailKey};
use crate::domain::id::{RegistrationId, SessionId, UserId};
use crate::domain::page::{Page, PageSize};
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::domain::role::Roles;
use crate::domain::user::{Locale, User, Username};

/// Registrations, users and their passwords.
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// Begins a registration, beside any other of the same address.
    ///
    /// 1. The same `id` was registered before: answer `Pending`, change nothing.
    /// 2. A rule of `throttle` is used up: `Throttled`, change nothing. Else count each rule once.
    /// 3. Set `tries` to 0 with a whole window, whatever follows.
    /// 4. A user (also a disabled one) has the address: owe `taken_mail` to that user, audit as refused
    ///    (`email_taken`), answer `Taken`.
    /// 5. Else insert the registration and its code, owe `code_mail`, audit as done, answer `Pending`.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn register(&self, command: Register) -> Result<Registered, StoreError>;

    /// Makes a user without a registration, as an administrator does. With `code` (an invitation), its mail is
    /// owed. Audited as done, or as refused (`email_taken`).
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn create_user(&self, command: CreateUser) -> Result<UserCreated, StoreError>;

    /// What signing in needs to know, in one read: whether the guard refuses, and the user with the password.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn credentials(&self, query: CredentialsQuery) -> Result<CredentialsView, StoreError>;

    /// Changes a password that its owner has proven to know.
    ///
    /// The user must be active and at version `expect`. Sets the hash and the next version, ends every session but
    /// `keep` (which goes on under the new version), voids every code and link of the user, owes the notice,
    /// audits as done. Otherwise changes nothing but the audit (refused, `stale` or `gone`).
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn replace_password(&self, command: ReplacePassword) -> Result<PasswordReplaced, StoreError>;

    /// A user by identifier.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// Users, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn users(&self, query: UserQuery) -> Result<Page<User, UserId>, StoreError>;
}

/// See [`AccountStore::register`].
#[derive(Debug, Clone)]
pub struct Register {
    /// The time.
    pub now: OffsetDateTime,
    /// The registration's identifier.
    pub id: RegistrationId,
    /// The address.
    pub email: Email,
    /// The hash of the password that the user will have.
    pub password: PasswordHash,
    /// The display name.
    pub username: Option<Username>,
    /// The language of mails.
    pub locale: Option<Locale>,
    /// When the registration is over unless it was completed.
    pub expires_at: OffsetDateTime,
    /// Its code, of purpose `EmailVerification`.
    pub code: NewCode,
    /// The mail with the code.
    pub code_mail: MailDraft,
    /// The mail to the owner of an address that is taken.
    pub taken_mail: MailDraft,
    /// The limits.
    pub throttle: Vec<ThrottleRule>,
    /// The counter of wrong tries for this address and purpose, set to 0.
    pub tries: ThrottleRule,
    /// The audit entry.
    pub audit: AuditDraft,
}

/// The answer to [`Register`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// It waits for its code.
    Pending,
    /// The address has a user already. The caller must not learn it.
    Taken,
    /// Too many requests.
    Throttled {
        /// How long until the last of the used-up limits is free again.
        retry_after: Duration,
    },
}

/// See [`AccountStore::create_user`].
#[derive(Debug, Clone)]
pub struct CreateUser {
    /// The time.
    pub now: OffsetDateTime,
    /// The user's identifier.
    pub id: UserId,
    /// The address.
    pub email: Email,
    /// When the address was proven, if it counts as proven.
    pub email_verified_at: Option<OffsetDateTime>,
    /// The display name.
    pub username: Option<Username>,
    /// The language of mails.
    pub locale: Option<Locale>,
    /// The roles.
    pub roles: Roles,
    /// The password; without one the user sets it by a code of `FirstTimeSetup`.
    pub password: Option<PasswordHash>,
    /// The code of `FirstTimeSetup` and its mail.
    pub invitation: Option<(NewCode, MailDraft)>,
    /// The audit entry.
    pub audit: AuditDraft,
    /// The events, if they come true.
    pub events: Vec<EventDraft>,
}

/// The answer to [`CreateUser`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserCreated {
    /// The new user.
    Created(Box<User>),
    /// The address has a user already.
    Taken,
}

/// See [`AccountStore::credentials`].
#[derive(Debug, Clone)]
pub struct CredentialsQuery {
    /// The time.
    pub now: OffsetDateTime,
    /// The address.
    pub email: EmailKey,
    /// The limits of failed sign-ins, if they are on.
    pub guard: Option<LoginGuard>,
}

/// The answer to [`CredentialsQuery`].
#[derive(Debug, Clone)]
pub struct CredentialsView {
    /// Set when the guard refuses: how long.
    pub throttled: Option<Duration>,
    /// The user of the address, whatever the status, unless deleted.
    pub user: Option<Credentials>,
}

/// A user with the password.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user.
    pub user: User,
    /// The password's hash; `None` before the first setup.
    pub password: Option<PasswordHash>,
    /// The password's version.
    pub version: PasswordVersion,
}

/// See [`AccountStore::replace_password`].
#[derive(Debug, Clone)]
pub struct ReplacePassword {
    /// The time.
    pub now: OffsetDateTime,
    /// Whose password.
    pub user_id: UserId,
    /// The version that the proof was made under.
    pub expect: PasswordVersion,
    /// The new hash.
    pub password: PasswordHash,
    /// The session that goes on.
    pub keep: Option<SessionId>,
    /// The notice.
    pub notice: MailDraft,
    /// The audit entry.
    pub audit: AuditDraft,
    /// The events, if they come true.
    pub events: Vec<EventDraft>,
}

/// The answer to [`ReplacePassword`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordReplaced {
    /// It was replaced.
    Replaced,
    /// The password was changed meanwhile.
    Stale,
    /// The user is deleted or disabled.
    Gone,
}

/// See [`AccountStore::users`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserQuery {
    /// The last user of the page before.
    pub after: Option<UserId>,
    /// How many.
    pub size: PageSize,
}

/// What a new password comes with, wherever a code or a link sets it.
#[derive(Debug, Clone)]
pub struct NewPassword {
    /// The hash.
    pub hash: PasswordHash,
    /// The session to open, if setting the password signs in.
    pub session: Option<NewSession>,
    /// The notice to a user who existed before.
    pub notice: MailDraft,
}
