//! Identifiers. They are public, sortable by creation and never secret.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "manager")]
use time::OffsetDateTime;
use uuid::Uuid;

#[cfg(feature = "manager")]
use crate::port::random::Random;

/// A text that is no identifier of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid identifier")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new identifier: a `UUIDv7` (RFC 9562) of `now` and 74 random bits.
            #[cfg(feature = "manager")]
            pub fn new(now: OffsetDateTime, random: &dyn Random) -> Self {
                Self(uuid_v7(now, random))
            }

            /// Takes an identifier that was made elsewhere, for example one read from a table.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The smallest identifier of a time: whatever was made then or later is not smaller.
            #[cfg(feature = "manager")]
            pub fn first_of(time: OffsetDateTime) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(millis(time), &[0; 10]).into_uuid())
            }

            /// The identifier as a UUID.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                // Only the hyphenated form: one identifier has one spelling.
                if text.len() != 36 {
                    return Err(InvalidId);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// Names a user. Never reused: who registers again with the same address is another user.
    UserId
);
id!(
    /// Names a pending registration. Clients see it only inside a [`RegistrationToken`](crate::RegistrationToken).
    RegistrationId
);
id!(
    /// Names a code or a link. The secret itself is derived from it, see [`crate::crypto::secret_keys`].
    CodeId
);
id!(
    /// Names a session: one sign-in on one device.
    SessionId
);
id!(
    /// Names a mail in the outbox; also the `Message-ID` and the `Idempotency-Key` of its delivery.
    OutboxId
);
id!(
    /// Names an event; also the `webhook-id` of its delivery.
    EventId
);
id!(
    /// Names an entry of the audit log.
    AuditId
);
id!(
    /// Names a signing key; the `kid` of a token.
    SigningKeyId
);

#[cfg(feature = "manager")]
fn uuid_v7(now: OffsetDateTime, random: &dyn Random) -> Uuid {
    let mut bytes = [0_u8; 10];
    random.fill(&mut bytes);
    uuid::Builder::from_unix_timestamp_millis(millis(now), &bytes).into_uuid()
}

#[cfg(feature = "manager")]
fn millis(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}
