//! The store: what must be atomic is one method here.
//!
//! Each write takes a command that holds all it needs and answers an outcome. A command is one transaction: it
//! judges, counts, changes, writes the mail, the audit entry and the events it owes, and commits, or leaves no
//! trace. The core never decides from an earlier read that the command does not check again.
//!
//! # Laws
//! Every adapter obeys these; the suite in `conformance` (feature `testing`) shows it.
//!
//! - **Linearizable.** Of any number of callers that redeem one code or link, one wins.
//! - **All or nothing.** State, mails, events, audit and throttle change together, also when the future is dropped at any
//!   await or the process dies.
//! - **A refusal commits.** A wrong try is counted and audited; only a [`StoreError`] leaves no trace. The one
//!   exception is a request over a limit: it changes nothing and is not audited, so that a flood writes nothing.
//!   Whatever a client can repeat at will has a limit; see [`record`](AuditStore::record) for refusals.
//! - **Only `now` of the command is time, and identifiers come from the caller.** The same creating command again
//!   is answered as the first time and doubles nothing.
//! - **No default methods.** Adapters take commands apart without `..`, so a new field breaks them at compile time.
#![expect(
    clippy::exhaustive_structs,
    clippy::exhaustive_enums,
    reason = "a store takes every command apart and a flow every outcome: what is new breaks them at compile time"
)]

pub mod account;
pub mod audit;
pub mod code;
pub mod event;
pub mod job;
pub mod key;
pub mod outbox;
pub mod session;
pub mod throttle;
pub mod undeliverable;
pub mod upkeep;

use crate::domain::event::EventKind;
use crate::domain::id::{EventId, OutboxId, SessionId, UserId};
use crate::domain::mail::MailKind;

pub use account::AccountStore;
pub use audit::AuditStore;
pub use code::CodeStore;
pub use event::EventStore;
pub use job::JobStore;
pub use key::KeyStore;
pub use outbox::OutboxStore;
pub use session::SessionStore;
pub use undeliverable::UndeliverableStore;
pub use upkeep::UpkeepStore;

/// A whole store: the sum of its parts, held as `Arc<dyn Store>`.
pub trait Store:
    AccountStore
    + CodeStore
    + SessionStore
    + OutboxStore
    + UndeliverableStore
    + EventStore
    + AuditStore
    + KeyStore
    + JobStore
    + UpkeepStore
{
}

impl<T> Store for T where
    T: AccountStore
        + CodeStore
        + SessionStore
        + OutboxStore
        + UndeliverableStore
        + EventStore
        + AuditStore
        + KeyStore
        + JobStore
        + UpkeepStore
        + ?Sized
{
}

/// Why a store did not answer. Nothing of the command remains, unless its commit was under way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database cannot be reached, is too busy, or failed.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row holds what no version of this program wrote.
    #[error("corrupt data: table {table}, column {column}, row {row}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's identifier.
        row: String,
    },
    /// The store works in a transaction of the host's, and that is over. The caller's bug.
    #[error("the host's transaction is over")]
    TransactionOver,
    /// The store works in a transaction of the host's, and this is only done in transactions of its own. The caller's bug.
    #[error("this is not done in a host's transaction")]
    OutsideOnly,
}

impl StoreError {
    /// An unavailable store, with what it said.
    pub fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into())
    }
}

/// A mail that a command owes. The store addresses it: to the owner of the row the command changes, at the address
/// as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailDraft {
    /// The mail's identifier.
    pub id: OutboxId,
    /// Which mail.
    pub kind: MailKind,
}

/// An event that a command owes, if what it tells of happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventDraft {
    /// The event's identifier.
    pub id: EventId,
    /// What happened.
    pub kind: EventKind,
}

impl EventDraft {
    /// The event that tells that a user was removed for good. It happens once, so its identifier is the user's.
    pub const fn user_purged(user: UserId) -> Self {
        Self { id: EventId::from_uuid(user.as_uuid()), kind: EventKind::UserPurged }
    }
}

/// What a command did, to tell which of its [`EventDraft`]s are true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, read once")]
pub struct Happened {
    /// A user came to be.
    pub user_registered: bool,
    /// An address was proven that was not before.
    pub email_verified: bool,
    /// A password was set or changed.
    pub password_changed: bool,
    /// A session was opened.
    pub signed_in: bool,
    /// Sessions were ended, and nothing else tells of it.
    pub sessions_ended: bool,
    /// A name, a language or a profile was changed.
    pub user_updated: bool,
    /// Roles were changed.
    pub roles_changed: bool,
    /// A user was disabled or enabled.
    pub status_changed: bool,
    /// An address was changed.
    pub email_changed: bool,
    /// A user was deleted.
    pub user_deleted: bool,
    /// A deleted user came back.
    pub user_restored: bool,
    /// A deleted user was removed for good.
    pub user_purged: bool,
    /// The session that was opened or ended, if it was one.
    pub session: Option<SessionId>,
}

impl Happened {
    /// Whether the event tells the truth.
    pub const fn includes(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::UserRegistered => self.user_registered,
            EventKind::EmailVerified => self.email_verified,
            EventKind::PasswordChanged => self.password_changed,
            EventKind::SignedIn => self.signed_in,
            EventKind::SessionsEnded => self.sessions_ended,
            EventKind::UserUpdated => self.user_updated,
            EventKind::RolesChanged => self.roles_changed,
            EventKind::StatusChanged => self.status_changed,
            EventKind::EmailChanged => self.email_changed,
            EventKind::UserDeleted => self.user_deleted,
            EventKind::UserRestored => self.user_restored,
            EventKind::UserPurged => self.user_purged,
        }
    }

    /// The session that an event of this kind names.
    pub fn session_of(&self, kind: EventKind) -> Option<SessionId> {
        self.session.filter(|_| matches!(kind, EventKind::SignedIn | EventKind::SessionsEnded))
    }
}
