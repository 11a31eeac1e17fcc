//! Sessions: one sign-in on one device.

use std::net::IpAddr;

use time::OffsetDateTime;

use super::id::{SessionId, UserId};

/// One sign-in on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session's identifier; `sid` of its access tokens.
    pub id: SessionId,
    /// Whose session it is.
    pub user_id: UserId,
    /// When it was opened.
    pub created_at: OffsetDateTime,
    /// When the user last proved who they are in it (`auth_time`).
    pub authenticated_at: OffsetDateTime,
    /// When it was last renewed.
    pub last_seen_at: OffsetDateTime,
    /// When its refresh token runs out unless it is renewed before.
    pub idle_expires_at: OffsetDateTime,
    /// When it ends whatever happens.
    pub expires_at: OffsetDateTime,
    /// How it was opened.
    pub method: AuthMethod,
    /// The client's address when it was opened.
    pub ip: Option<IpAddr>,
    /// The client's `User-Agent` when it was opened.
    pub user_agent: Option<String>,
}

/// How somebody proved who they are (`amr`, RFC 8176).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthMethod {
    /// With the password.
    Password,
    /// With a mailed code, by which the password was set as well.
    EmailCode,
}

impl AuthMethod {
    /// The stable name, in tables and as `amr`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "pwd",
            Self::EmailCode => "otp",
        }
    }

    /// Reads the stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Password, Self::EmailCode].into_iter().find(|method| method.as_str() == name)
    }
}
