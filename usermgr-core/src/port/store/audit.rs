//! The audit log, read.

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};

use super::StoreError;
use super::throttle::ThrottleRule;
use crate::domain::audit::{AuditEntry, AuditEvent, AuditOutcome};
use crate::domain::id::{AuditId, UserId};
use crate::domain::page::{Page, PageSize};

/// The audit log. What a command does is written by that command; only what no command tells of is recorded here.
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Entries, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError>;

    /// Records what changed nothing else: a refusal before any command, or something that was read.
    ///
    /// 1. A rule of `throttle` was counted more often than its limit: change nothing, answer `Throttled`.
    /// 2. A rule is used up: count each rule once, record the entry as refused (`too_many_attempts`), answer
    ///    `Throttled`. So a window has one such entry.
    /// 3. Else count each rule once, record the entry, answer `Recorded`.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn record(&self, command: Record) -> Result<Recorded, StoreError>;
}

/// See [`AuditStore::record`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The time.
    pub now: OffsetDateTime,
    /// The entry.
    pub entry: AuditEntry,
    /// The limits on entries of this kind.
    pub throttle: Vec<ThrottleRule>,
}

impl Record {
    /// An entry without a limit: of what cannot be repeated at will.
    pub const fn unlimited(entry: AuditEntry) -> Self {
        Self { now: entry.at, entry, throttle: Vec::new() }
    }

    /// The entry that says that a limit was met.
    pub fn into_last_entry(self) -> AuditEntry {
        AuditEntry { outcome: AuditOutcome::Refused, reason: Some("too_many_attempts".into()), ..self.entry }
    }

    /// The rules as those see them who ask whether the last entry of the window was recorded.
    pub fn past(&self) -> Vec<ThrottleRule> {
        self.throttle.iter().copied().map(ThrottleRule::past).collect()
    }
}

/// The answer to [`Record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is recorded.
    Recorded,
    /// Too many before it.
    Throttled {
        /// How long until the last of the used-up limits is free again.
        retry_after: Duration,
    },
}

/// See [`AuditStore::audit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditQuery {
    /// Only entries whose subject is this user.
    pub subject: Option<UserId>,
    /// Only entries of this event.
    pub event: Option<AuditEvent>,
    /// Only entries from this time on, to the millisecond.
    pub since: Option<OffsetDateTime>,
    /// The last entry of the page before.
    pub after: Option<AuditId>,
    /// How many.
    pub size: PageSize,
}
