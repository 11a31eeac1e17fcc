//! Pending registrations and users.

use std::collections::BTreeMap;

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
use crate::domain::profile::Profile;
use crate::domain::role::{Role, Roles};
use crate::domain::secret::Digest;
use crate::domain::user::{Locale, User, UserStatus, Username};

/// Registrations, users and their passwords.
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// Begins a registration, beside any other of the same address.
    ///
    /// 1. The same `id` was registered before: answer `Pending`, change nothing.
    /// 2. A rule of `throttle` is used up: `Throttled`, change nothing. Else count each rule once.
    /// 3. Set `tries` (if any) to 0 with a whole window, whatever follows.
    /// 4. A user (also a disabled one) has the address: owe `taken_mail` to that user, audit as refused
    ///    (`email_taken`), answer `Taken`.
    /// 5. Else insert the registration and its code, owe `code_mail`, audit as done, answer `Pending`.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn register(&self, command: Register) -> Result<Registered, StoreError>;

    /// How some limits stand, and whether the account of an address knows the client's network. A read before costly
    /// work, that changes nothing: the command that follows decides.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn limits(&self, query: LimitsQuery) -> Result<LimitsView, StoreError>;

    /// Makes a user without a registration, as an administrator does. With an invitation, its mail is owed. Audited as
    /// done, or as refused: `email_taken`, or `forbidden` when `by` does not hold or a role is `by.beyond`.
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
    /// A rule of `throttle` is used up: `Throttled`, change nothing. Else count each rule once, whatever follows.
    ///
    /// The user must be active and at version `expect`. Sets the hash and the next version, ends every session but
    /// `keep` (which goes on under the new version), voids every code and link of the user but those that undo a change
    /// of address, owes the notice, audits as done. Otherwise changes nothing but the audit (refused, `stale` or `gone`).
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn replace_password(&self, command: ReplacePassword) -> Result<PasswordReplaced, StoreError>;

    /// A user by identifier.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// Users: newest first, or, with a prefix to look for, in the order of what it matched. A user is on one page at
    /// most, also while users come and go.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn users(&self, query: UserQuery) -> Result<Page<User, UserCursor>, StoreError>;

    /// Changes a user's name, language, profile, status or roles, all at once.
    ///
    /// A rule of `throttle` is used up: `Throttled`, change nothing. Else count each rule once, whatever follows.
    ///
    /// 1. `by` does not hold (see [`Actor`]), or the user has, or would get or lose, a role of `by.beyond`:
    ///    `NotPermitted`. The user is unknown or deleted: `NotFound`. An administrator who can sign
    ///    in ([`Credentials::is_working_admin`]) would cease to be one and no other is left: `LastAdmin`. Audit as refused (`forbidden`, `not_found`, `last_admin`),
    ///    change nothing else.
    /// 2. Else change what differs. A user who is disabled loses every session and every open code and link but
    ///    those that undo a change of address. Audit as done, unless nothing differs; answer `Updated`.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn update_user(&self, command: UpdateUser) -> Result<UserUpdated, StoreError>;

    /// Deletes a user: from now on the account is not found, and its address is free. The row stays until it is purged.
    ///
    /// A rule of `throttle` is used up: `Throttled`, change nothing. Else count each rule once, whatever follows.
    ///
    /// 1. As [`update_user`](Self::update_user), and `Stale` (refused, `stale`) when `expect` is set and is not the
    ///    version of the password.
    /// 2. Else end every session, void every open code and link (those that undo a change of address only without
    ///    `restorable_until`), owe the notice, audit as done, answer `Deleted`.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn delete_user(&self, command: DeleteUser) -> Result<UserDeleted, StoreError>;

    /// Begins the change of a user's address. The change comes true when the code is redeemed.
    ///
    /// 1. The same code id was issued before: answer `Queued`, change nothing.
    /// 2. A rule of `throttle` is used up: `Throttled`, change nothing. Else count each rule once, and set `tries`
    ///    (if any) to 0 with a whole window.
    /// 3. The user is deleted or disabled: `Gone`; `expect` is set and is not the version of the password: `Stale`.
    ///    Audit as refused (`gone`, `stale`), change nothing else.
    /// 4. Void the user's open codes of `ChangeEmail` that are digits, and owe the notice to the address as it is.
    /// 5. Another user has the new address: owe `taken_mail` to that user, audit as refused (`email_taken`). Else
    ///    insert the code, which names the new address, owe `code_mail` to the new address, audit as done. Either way
    ///    answer `Queued`.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn request_email_change(
        &self,
        command: RequestEmailChange,
    ) -> Result<EmailChangeRequested, StoreError>;

    /// Adds users that come from another system, each audited as done, in one transaction. A user whose identifier or
    /// address is there already is left out and changes nothing. Answers, in the order of the command, who was added.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn import_users(&self, command: ImportUsers) -> Result<Vec<UserImported>, StoreError>;
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
    /// The profile that the user will have.
    pub profile: Option<Profile>,
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
    /// The counter of wrong tries for this address and purpose, set to 0, unless it is kept elsewhere.
    pub tries: Option<ThrottleRule>,
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

/// See [`AccountStore::limits`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsQuery {
    /// The time.
    pub now: OffsetDateTime,
    /// The limits.
    pub rules: Vec<ThrottleRule>,
    /// The network to look for, if that matters.
    pub network: Option<KnownNetwork>,
}

/// Whether somebody signed in to the account of an address from a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownNetwork {
    /// The address.
    pub email: EmailKey,
    /// The network.
    pub network: Digest,
    /// How far back a sign-in makes a network a known one.
    pub since: OffsetDateTime,
}

/// The answer to [`LimitsQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsView {
    /// The rules that are used up, by their keys: how long until each is free again.
    pub used_up: BTreeMap<Digest, Duration>,
    /// Whether the address has a user who is not deleted and who signed in from the network.
    pub is_known: bool,
}

impl LimitsView {
    /// The longest wait of those of some rules that are used up.
    pub fn wait<'a>(&self, rules: impl IntoIterator<Item = &'a ThrottleRule>) -> Option<Duration> {
        rules.into_iter().filter_map(|rule| self.used_up.get(&rule.key)).max().copied()
    }
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
    /// The profile.
    pub profile: Option<Profile>,
    /// The roles.
    pub roles: Roles,
    /// The password; without one the user sets it by a code of `FirstTimeSetup`.
    pub password: Option<PasswordHash>,
    /// The code of `FirstTimeSetup` and its mail.
    pub invitation: Option<(NewCode, MailDraft)>,
    /// Who does it; `None` for the operator.
    pub by: Option<Actor>,
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
    /// The actor may not, or no longer.
    NotPermitted,
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
    /// The user of the address, whatever the status; one that is deleted only if nobody else has the address and
    /// signing in brings the account back.
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

impl Credentials {
    /// Whether this user, who is not deleted, counts when administrators are counted: one who can sign in.
    pub fn is_working_admin(&self) -> bool {
        is_working_admin(&self.user, self.password.as_ref())
    }
}

/// Whether a user who is not deleted is an administrator who can sign in: active, and with a password.
///
/// Signing in needs no proven address. A way to sign in without a password would have to be counted here, and in the
/// statement of `usermgr-sqlx` that looks for another administrator.
pub fn is_working_admin(user: &User, password: Option<&PasswordHash>) -> bool {
    user.status == UserStatus::Active && user.roles.contains(&Role::admin()) && password.is_some()
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
    /// The limits on what users write to their own accounts.
    pub throttle: Vec<ThrottleRule>,
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
    /// Too many requests.
    Throttled {
        /// How long until the last of the used-up limits is free again.
        retry_after: Duration,
    },
}

/// See [`AccountStore::users`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserQuery {
    /// Only users whose address or display name begins so, in the form of [`Username::folded`].
    pub prefix: Option<String>,
    /// Only users with this role.
    pub role: Option<Role>,
    /// Only users of this status.
    pub status: Option<UserStatus>,
    /// Where the page before ended.
    pub after: Option<UserCursor>,
    /// How many.
    pub size: PageSize,
}

/// Where a page of users ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCursor {
    /// What the prefix matched, if there was one: the folded address or display name.
    pub term: Option<String>,
    /// The last user of the page.
    pub id: UserId,
}

/// Who acts upon another's account, as it is checked again in the transaction.
///
/// It holds while the actor is active and has exactly these roles: the permission was decided from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The actor.
    pub id: UserId,
    /// The actor's roles, as they were when the permission was decided.
    pub roles: Roles,
    /// The roles that permit more than the actor may: users who have one are out of reach, and none can be given or
    /// taken.
    pub beyond: Roles,
}

/// See [`AccountStore::update_user`].
#[derive(Debug, Clone)]
pub struct UpdateUser {
    /// The time.
    pub now: OffsetDateTime,
    /// Whose account.
    pub id: UserId,
    /// Who does it; `None` for the user and for the operator.
    pub by: Option<Actor>,
    /// What to change.
    pub change: UserChange,
    /// The limits on what users write to their own accounts.
    pub throttle: Vec<ThrottleRule>,
    /// The audit entry.
    pub audit: AuditDraft,
    /// The events, if they come true.
    pub events: Vec<EventDraft>,
}

/// What to change of a user; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserChange {
    /// The display name, or none.
    pub username: Option<Option<Username>>,
    /// The language of mails, or none.
    pub locale: Option<Option<Locale>>,
    /// The whole profile, or none.
    pub profile: Option<Option<Profile>>,
    /// Whether the account may be used.
    pub status: Option<UserStatus>,
    /// The roles.
    pub roles: Option<RolesChange>,
}

/// What to do to a user's roles. Every user keeps the role `user`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolesChange {
    /// These and no others.
    Set(Roles),
    /// This one too.
    Grant(Role),
    /// Not this one.
    Revoke(Role),
}

impl RolesChange {
    /// The roles after the change.
    pub fn applied_to(&self, roles: &Roles) -> Roles {
        let mut roles = roles.clone();
        match self {
            Self::Set(new) => roles.clone_from(new),
            Self::Grant(role) => drop(roles.insert(role.clone())),
            Self::Revoke(role) => drop(roles.remove(role)),
        }
        roles.insert(Role::user());
        roles
    }
}

/// The answer to [`UpdateUser`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserUpdated {
    /// The user as it is now.
    Updated(Box<User>),
    /// There is no such user.
    NotFound,
    /// The actor may not, or no longer.
    NotPermitted,
    /// It would leave no administrator who can sign in.
    LastAdmin,
    /// Too many requests.
    Throttled {
        /// How long until the last of the used-up limits is free again.
        retry_after: Duration,
    },
}

/// See [`AccountStore::delete_user`].
#[derive(Debug, Clone)]
pub struct DeleteUser {
    /// The time.
    pub now: OffsetDateTime,
    /// Whose account.
    pub id: UserId,
    /// Who does it; `None` for the user and for the operator.
    pub by: Option<Actor>,
    /// The version of the password that was proven, if one was.
    pub expect: Option<PasswordVersion>,
    /// Until when signing in brings the account back, if it does.
    pub restorable_until: Option<OffsetDateTime>,
    /// The notice to the address.
    pub notice: Option<MailDraft>,
    /// The limits on what users write to their own accounts.
    pub throttle: Vec<ThrottleRule>,
    /// The audit entry.
    pub audit: AuditDraft,
    /// The events, if they come true.
    pub events: Vec<EventDraft>,
}

/// The answer to [`DeleteUser`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserDeleted {
    /// It is deleted.
    Deleted,
    /// There is no such user.
    NotFound,
    /// The actor may not, or no longer.
    NotPermitted,
    /// It would leave no administrator who can sign in.
    LastAdmin,
    /// The password was changed meanwhile.
    Stale,
    /// Too many requests.
    Throttled {
        /// How long until the last of the used-up limits is free again.
        retry_after: Duration,
    },
}

/// See [`AccountStore::request_email_change`].
#[derive(Debug, Clone)]
pub struct RequestEmailChange {
    /// The time.
    pub now: OffsetDateTime,
    /// Whose address.
    pub user_id: UserId,
    /// The address that it shall be.
    pub new_email: Email,
    /// The version of the password that was proven, if one was.
    pub expect: Option<PasswordVersion>,
    /// The code, of purpose `ChangeEmail`.
    pub code: NewCode,
    /// The mail with the code, to the new address.
    pub code_mail: MailDraft,
    /// The mail to the owner of an address that is taken.
    pub taken_mail: MailDraft,
    /// The notice to the address as it is.
    pub notice: MailDraft,
    /// The limits.
    pub throttle: Vec<ThrottleRule>,
    /// The counter of wrong tries, set to 0, unless it is kept elsewhere.
    pub tries: Option<ThrottleRule>,
    /// The audit entry.
    pub audit: AuditDraft,
}

/// The answer to [`RequestEmailChange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailChangeRequested {
    /// Its mails are owed. Whether the new address is taken, the caller must not learn.
    Queued,
    /// The password was changed meanwhile.
    Stale,
    /// The user is deleted or disabled.
    Gone,
    /// Too many requests.
    Throttled {
        /// How long until the last of the used-up limits is free again.
        retry_after: Duration,
    },
}

/// See [`AccountStore::import_users`].
#[derive(Debug, Clone)]
pub struct ImportUsers {
    /// The time.
    pub now: OffsetDateTime,
    /// The users.
    pub users: Vec<ImportedUser>,
}

/// A user from another system.
#[derive(Debug, Clone)]
pub struct ImportedUser {
    /// The user. `updated_at` and `last_login_at` are stored as they stand here.
    pub user: User,
    /// The hash of the password, in a form that can be verified.
    pub password: Option<PasswordHash>,
    /// The audit entry.
    pub audit: AuditDraft,
    /// The event that tells of the new user.
    pub event: EventDraft,
}

/// The answer for one of [`ImportUsers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserImported {
    /// The user was added.
    Added,
    /// The address or the identifier was there already.
    Exists,
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
