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
}

impl EventKind {
    /// Every kind of event.
    pub const ALL: [Self; 4] =
        [Self::UserRegistered, Self::EmailVerified, Self::PasswordChanged, Self::SignedIn];

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
        }
    }
}
