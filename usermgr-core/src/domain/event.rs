//! What happened, for the host: facts of the domain that other parts of an application may want to follow.

use std::fmt;
use std::str::FromStr;

use serde::ser::{Error as _, SerializeStruct as _};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use super::id::{EventId, SessionId, UserId};

/// A fact of the domain, told at least once after the change it tells of was committed, and for one user in the order
/// in which things happened.
///
/// # Security
/// It names people by their identifiers alone. Whoever needs more asks for the user: so nothing of a deleted person is
/// left in a queue or at a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's identifier, the same each time it is told.
    pub id: EventId,
    /// Where it stands among all events.
    pub position: EventPosition,
    /// When it happened.
    pub at: OffsetDateTime,
    /// What happened.
    pub kind: EventKind,
    /// To whom.
    pub user_id: UserId,
    /// The session that was opened or ended, where it was one.
    pub session_id: Option<SessionId>,
}

/// As receivers get it: `id`, `position`, `kind`, `at` (RFC 3339, UTC), `user_id`, and `session_id` or null.
impl serde::Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = self.at.to_offset(UtcOffset::UTC).format(&Rfc3339).map_err(S::Error::custom)?;
        let mut event = serializer.serialize_struct("Event", 6)?;
        event.serialize_field("id", &self.id)?;
        event.serialize_field("position", &self.position)?;
        event.serialize_field("kind", self.kind.as_str())?;
        event.serialize_field("at", &at)?;
        event.serialize_field("user_id", &self.user_id)?;
        event.serialize_field("session_id", &self.session_id)?;
        event.end()
    }
}

/// Where an event stands among all events, from 1: what a reader of the feed remembers. Positions only grow, and none
/// is given behind one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
#[serde(transparent)]
pub struct EventPosition(u64);

impl EventPosition {
    /// Before every event.
    pub const START: Self = Self(0);

    /// Takes a position that was read before, for example from a table.
    pub const fn from_u64(position: u64) -> Self {
        Self(position)
    }

    /// The position as a number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for EventPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position in the feed of events")]
pub struct InvalidEventPosition;

impl FromStr for EventPosition {
    type Err = InvalidEventPosition;

    fn from_str(text: &str) -> Result<Self, InvalidEventPosition> {
        // Digits alone: one position has one spelling.
        let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        let position = text.parse::<i64>().ok().filter(|_| is_plain).ok_or(InvalidEventPosition)?;
        u64::try_from(position).map(Self).map_err(|_| InvalidEventPosition)
    }
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// A user came to be.
    UserRegistered,
    /// A user's address was proven.
    EmailVerified,
    /// A user's password was set or changed. Every other session of the user ended.
    PasswordChanged,
    /// A user signed in: a session was opened.
    SignedIn,
    /// Sessions were ended, by their user, an administrator, or because a refresh token was used twice: the one that is
    /// named, or several.
    SessionsEnded,
    /// A user's name, language or profile was changed.
    UserUpdated,
    /// A user was given roles or lost some.
    RolesChanged,
    /// A user was disabled or enabled. Who is disabled has no session any more.
    StatusChanged,
    /// A user's address was changed, or the change was undone.
    EmailChanged,
    /// A user was deleted and has no session any more. Until the user is purged, the deletion may be undone.
    UserDeleted,
    /// A user who had deleted their account came back in time.
    UserRestored,
    /// The grace of a deleted user is over: nothing is kept of them, and they never come back.
    UserPurged,
}

impl EventKind {
    /// Every kind of event.
    pub const ALL: [Self; 12] = [
        Self::UserRegistered,
        Self::EmailVerified,
        Self::PasswordChanged,
        Self::SignedIn,
        Self::SessionsEnded,
        Self::UserUpdated,
        Self::RolesChanged,
        Self::StatusChanged,
        Self::EmailChanged,
        Self::UserDeleted,
        Self::UserRestored,
        Self::UserPurged,
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
            Self::SessionsEnded => "sessions_ended",
            Self::UserUpdated => "user_updated",
            Self::RolesChanged => "roles_changed",
            Self::StatusChanged => "status_changed",
            Self::EmailChanged => "email_changed",
            Self::UserDeleted => "user_deleted",
            Self::UserRestored => "user_restored",
            Self::UserPurged => "user_purged",
        }
    }
}

#[cfg(all(test, feature = "manager"))]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_event_has_the_documented_json() {
        let (id, user) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let event = Event {
            id: EventId::from_uuid(id),
            position: EventPosition::from_u64(7),
            at: time::macros::datetime!(2026-01-02 03:04:05.678 +01:00),
            kind: EventKind::SignedIn,
            user_id: UserId::from_uuid(user),
            session_id: None,
        };
        let json = format!(
            r#"{{"id":"{id}","position":7,"kind":"signed_in","at":"2026-01-02T02:04:05.678Z","user_id":"{user}","session_id":null}}"#
        );
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
    }

    #[test]
    fn a_position_has_one_spelling() {
        for (text, position) in [("0", 0), ("1", 1), ("9223372036854775807", i64::MAX.unsigned_abs())] {
            assert_eq!(text.parse(), Ok(EventPosition::from_u64(position)));
            assert_eq!(EventPosition::from_u64(position).to_string(), text);
        }
        for text in ["", "-1", "+1", "01", "1.0", " 1", "1 ", "x", "9223372036854775808"] {
            assert_eq!(text.parse::<EventPosition>(), Err(InvalidEventPosition), "{text:?}");
        }
    }
}
