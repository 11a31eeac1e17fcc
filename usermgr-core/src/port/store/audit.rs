//! The audit log, read.

use async_trait::async_trait;
use time::OffsetDateTime;

use super::StoreError;
use crate::domain::audit::{AuditEntry, AuditEvent};
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
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn record(&self, entry: AuditEntry) -> Result<(), StoreError>;
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
