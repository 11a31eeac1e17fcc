//! Sessions.

use std::net::IpAddr;

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};

use super::account::Actor;
use super::throttle::{LoginGuard, ThrottleRule};
use super::{EventDraft, StoreError};
use crate::domain::audit::AuditDraft;
use crate::domain::id::{SessionId, UserId};
use crate::domain::password::{PasswordHash, PasswordVersion};
use crate::domain::secret::Digest;
use crate::domain::session::{AuthMethod, Session};
use crate::domain::user::User;

/// Sessions.
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// Opens a session for somebody who proved the password of version `expect`.
    ///
    /// 1. The session exists: answer `Opened`, change nothing.
    /// 2. The guard refuses, or a rule of `throttle` is used up: `Throttled`, change nothing. Else count each rule of
    ///    `throttle` once.
    /// 3. The user is deleted or disabled: `NotActive`; the version differs: `Stale`. Audit as refused (`not_active`,
    ///    `stale`), change nothing else. A deleted user whom signing in brings back is not deleted, unless another
    ///    user has the address.
    /// 4. Bring a deleted user back and audit it as done by `restore`. Insert the session, set `last_login_at`, set the hash to `upgrade` without a new version, remove the row of
    ///    `guard.own`, make the network known, audit as done, answer `Opened`.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn open_session(&self, command: OpenSession) -> Result<SessionOpened, StoreError>;

    /// Counts a failed proof of a password and audits it as refused (`invalid_credentials`).
    ///
    /// When the guard refuses already, changes nothing and answers `Throttled`.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn login_failed(&self, command: LoginFailed) -> Result<LoginCounted, StoreError>;

    /// A session with its user, in one read, while the session holds: it was not ended, neither of its ends has come,
    /// its user is active and still has the password version that it was opened under. By access digest, also only
    /// while the access token has not run out.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn session(&self, query: SessionQuery) -> Result<Option<SessionView>, StoreError>;

    /// The sessions of a user that hold, the one that was renewed last first; at most [`SessionsQuery::MOST`].
    ///
    /// # Errors
    /// [`StoreError`].
    async fn sessions(&self, query: SessionsQuery) -> Result<Vec<Session>, StoreError>;

    /// Renews a session by its refresh token.
    ///
    /// 1. There is no such session, or it does not hold (see [`session`](Self::session)): change nothing, answer
    ///    `Ended`. Anybody can ask so for ever, so the caller records it within limits
    ///    ([`record`](super::audit::AuditStore::record)).
    /// 2. `presented` is the current digest: it becomes the one before, the first of `next` becomes the current one,
    ///    `last_seen_at` is now, the idle end is `idle_expires_at` or the absolute end if that is sooner, and the
    ///    access token is added. Audit as done, answer `Rotated`.
    /// 3. `presented` is the one before, it was replaced less than `grace` before or after `now`, and the current one is
    ///    among `next`: a client that asked twice. (After: `now` was read before the command waited for its turn, and the
    ///    clocks of two servers differ.) Add the access token, answer `Repeated` with the place of the
    ///    current one. So every caller of one rotation gets the same successor.
    /// 4. Anything else is a token that was used up: end the session, audit as refused (`token_reused`), answer
    ///    `Reused`. No limit keeps a stolen token from being noticed.
    ///
    /// Before 2 and 3: a rule of `throttle` is used up: change nothing, answer `Throttled`. Else count each rule once.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn rotate(&self, command: Rotate) -> Result<Rotated, StoreError>;

    /// Ends sessions of a user; audits as done. Answers how many were open; when none was, nothing changes and nothing is
    /// audited. When `by` does not hold, or the user has a role of `by.beyond`, audits as refused (`forbidden`) and
    /// answers `NotPermitted`.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn end_sessions(&self, command: EndSessions) -> Result<SessionsEnded, StoreError>;
}

/// A session to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// The session's identifier.
    pub id: SessionId,
    /// The digest of its refresh token.
    pub refresh: Digest,
    /// The digest of its access token and when that runs out, where tokens are opaque.
    pub access: Option<(Digest, OffsetDateTime)>,
    /// When the refresh token runs out.
    pub idle_expires_at: OffsetDateTime,
    /// When the session ends whatever happens.
    pub expires_at: OffsetDateTime,
    /// How the user proved who they are.
    pub method: AuthMethod,
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// The client's agent.
    pub user_agent: Option<String>,
    /// The client's network, which signing in makes a known one.
    pub network: Digest,
}

/// See [`SessionStore::open_session`].
#[derive(Debug, Clone)]
pub struct OpenSession {
    /// The time.
    pub now: OffsetDateTime,
    /// Whose session.
    pub user_id: UserId,
    /// The version of the password that was proven.
    pub expect: PasswordVersion,
    /// The session.
    pub session: NewSession,
    /// The same password, hashed by today's parameters.
    pub upgrade: Option<PasswordHash>,
    /// The limits of failed sign-ins, if they are on.
    pub guard: Option<LoginGuard>,
    /// The limits on sign-ins that succeed.
    pub throttle: Vec<ThrottleRule>,
    /// The audit entry of bringing a deleted user back, if it comes to that.
    pub restore: AuditDraft,
    /// The audit entry.
    pub audit: AuditDraft,
    /// The events, if they come true.
    pub events: Vec<EventDraft>,
}

/// The answer to [`OpenSession`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionOpened {
    /// It is open; the user as it is now.
    Opened(Box<User>),
    /// The password was changed meanwhile.
    Stale,
    /// The user is deleted or disabled.
    NotActive,
    /// Too many failures meanwhile.
    Throttled {
        /// How long until a sign-in is looked at again.
        retry_after: Duration,
    },
}

/// See [`SessionStore::login_failed`].
#[derive(Debug, Clone)]
pub struct LoginFailed {
    /// The time.
    pub now: OffsetDateTime,
    /// The user, if the address has one.
    pub user_id: Option<UserId>,
    /// The limits, if they are on.
    pub guard: Option<LoginGuard>,
    /// The audit entry.
    pub audit: AuditDraft,
}

/// The answer to [`LoginFailed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginCounted {
    /// It was counted.
    Counted,
    /// There were too many before it.
    Throttled {
        /// How long until a sign-in is looked at again.
        retry_after: Duration,
    },
}

/// See [`SessionStore::session`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionQuery {
    /// The time.
    pub now: OffsetDateTime,
    /// Which session.
    pub key: SessionKey,
}

/// By what a session is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKey {
    /// By identifier: the `sid` of a verified token.
    Id(SessionId),
    /// By the digest of an opaque access token.
    Access(Digest),
}

/// A session that holds, with its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// The session.
    pub session: Session,
    /// The user.
    pub user: User,
    /// The version of the user's password.
    pub password_version: PasswordVersion,
}

/// See [`SessionStore::sessions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionsQuery {
    /// The time.
    pub now: OffsetDateTime,
    /// Whose sessions.
    pub user_id: UserId,
}

impl SessionsQuery {
    /// The most sessions that are listed.
    pub const MOST: usize = 200;
}

/// See [`SessionStore::rotate`].
#[derive(Debug, Clone)]
pub struct Rotate {
    /// The time.
    pub now: OffsetDateTime,
    /// The session that the token names.
    pub id: SessionId,
    /// The digest of the token that was presented.
    pub presented: Digest,
    /// The digests that its successor may have: one for each secret key, the one in force first.
    pub next: Vec<Digest>,
    /// A new access token and when it runs out, where tokens are opaque.
    pub access: Option<(Digest, OffsetDateTime)>,
    /// When the refresh token runs out.
    pub idle_expires_at: OffsetDateTime,
    /// For how long the token before counts while its successor was not used.
    pub grace: Duration,
    /// The limits on renewals.
    pub throttle: Vec<ThrottleRule>,
    /// The audit entry.
    pub audit: AuditDraft,
    /// The events, if they come true.
    pub events: Vec<EventDraft>,
}

/// The answer to [`Rotate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotated {
    /// It was renewed: the session and its user as they are now.
    Rotated(Box<SessionView>),
    /// It had been renewed by the same token a moment ago.
    Repeated {
        /// The session and its user as they are now.
        view: Box<SessionView>,
        /// Which of [`Rotate::next`] is the current token.
        successor: usize,
    },
    /// The token was used up before. Its session is over now.
    Reused,
    /// The session is over.
    Ended {
        /// Whose session it was, if there was one.
        owner: Option<UserId>,
    },
    /// Too many renewals.
    Throttled {
        /// How long until the last of the used-up limits is free again.
        retry_after: Duration,
    },
}

/// The answer to [`EndSessions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionsEnded {
    /// So many were open and are over now.
    Ended(u64),
    /// The actor may not, or no longer.
    NotPermitted,
}

/// See [`SessionStore::end_sessions`].
#[derive(Debug, Clone)]
pub struct EndSessions {
    /// The time.
    pub now: OffsetDateTime,
    /// Whose sessions.
    pub user_id: UserId,
    /// Which of them.
    pub which: SessionSelector,
    /// Who does it; `None` for the user and for the operator.
    pub by: Option<Actor>,
    /// The audit entry.
    pub audit: AuditDraft,
    /// The events, if they come true.
    pub events: Vec<EventDraft>,
}

/// Which of a user's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionSelector {
    /// This one.
    One(SessionId),
    /// All but this one.
    AllBut(SessionId),
    /// All.
    All,
}

impl SessionSelector {
    /// The session, where it is one.
    pub const fn one(self) -> Option<SessionId> {
        match self {
            Self::One(id) => Some(id),
            Self::AllBut(_) | Self::All => None,
        }
    }
}
