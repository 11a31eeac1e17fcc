//! What happened, for the host: facts of the domain that other parts of an application may want to follow.

use time::OffsetDateTime;

use super::id::{OutboxId, UserId};

/// A fact of the domain, delivered at least once after the change it tells of was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's identifier, the same at every delivery.
    pub id: OutboxId,
    /// When it happened.
    pub at: OffsetDateTime,
    /// What happened.
    pub kind: EventKind,
    /// To whom.
    pub user_id: UserId,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// A user came to be.
    UserRegistered,
    /// A user's address was proven.
    EmailVerified,
    /// A user's password was set or changed.
    PasswordChanged,
    /// A user signed in.
    SignedIn,
    /// A user's name or language was changed.
    UserUpdated,
    /// A user was given roles or lost some.
    RolesChanged,
    /// A user was disabled or enabled.
    StatusChanged,
    /// A user's address was changed, or the change was undone.
    EmailChanged,
    /// A user was deleted.
    UserDeleted,
    /// A user who had deleted their account came back in time.
    UserRestored,
}

impl EventKind {
    /// Every kind of event.
    pub const ALL: [Self; 10] = [
        Self::UserRegistered,
        Self::EmailVerified,
        Self::PasswordChanged,
        Self::SignedIn,
        Self::UserUpdated,
        Self::RolesChanged,
        Self::StatusChanged,
        Self::EmailChanged,
        Self::UserDeleted,
        Self::UserRestored,
    ];

    /// Reads the stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserRegistered => "user_registered",
            Self::EmailVerified => "email_verified",
            Self::PasswordChanged => "password_changed",
            Self::SignedIn => "signed_in",
            Self::UserUpdated => "user_updated",
            Self::RolesChanged => "roles_changed",
            Self::StatusChanged => "status_changed",
            Self::EmailChanged => "email_changed",
            Self::UserDeleted => "user_deleted",
            Self::UserRestored => "user_restored",
        }
    }
}
