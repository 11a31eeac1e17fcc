//! How keys, digests and times stand in Redis.

use time::{Duration, OffsetDateTime};
use usermgr_core::domain::id::{SessionId, UserId};
use usermgr_core::domain::secret::Digest;
use uuid::Uuid;

use super::Redis;

impl Redis {
    fn key(&self, kind: &str, name: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), b":", kind.as_bytes(), b":", name].concat()
    }

    pub(super) fn limit(&self, key: &Digest) -> Vec<u8> {
        self.key("limit", key.as_bytes())
    }

    /// The note that a command was counted.
    pub(super) fn counted(&self, created: Uuid) -> Vec<u8> {
        self.key("counted", created.as_bytes())
    }

    /// The index of known networks, by when each signed in last.
    pub(super) fn networks(&self) -> Vec<u8> {
        self.key("networks", b"")
    }

    pub(super) fn half(&self, session: SessionId) -> Vec<u8> {
        self.key("session", session.as_uuid().as_bytes())
    }

    pub(super) fn access(&self, token: &Digest) -> Vec<u8> {
        self.key("access", token.as_bytes())
    }

    /// The index of access tokens, by their ends.
    pub(super) fn access_ends(&self) -> Vec<u8> {
        self.key("access-ends", b"")
    }
}

/// A network of a user, in the index of known networks.
pub(super) fn network_of(user: UserId, network: &Digest) -> Vec<u8> {
    [user.as_uuid().as_bytes().as_slice(), network.as_bytes()].concat()
}

/// A time in microseconds since 1970, as all stores keep them.
pub(super) fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

pub(super) fn from_micros(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()
}

pub(super) fn length(span: Duration) -> i64 {
    i64::try_from(span.whole_microseconds()).unwrap_or(i64::MAX)
}
