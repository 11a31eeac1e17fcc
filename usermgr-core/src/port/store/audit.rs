//! The audit log, read.

use async_trait::async_trait;

use super::StoreError;
use crate::domain::audit::AuditEntry;
use crate::domain::id::{AuditId, UserId};
use crate::domain::page::{Page, PageSize};

/// The audit log. Entries are written by the commands they tell of, never by a method here.
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Entries, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError>;
}

/// See [`AuditStore::audit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditQuery {
    /// Only entries whose subject is this user.
    pub subject: Option<UserId>,
    /// The last entry of the page before.
    pub after: Option<AuditId>,
    /// How many.
    pub size: PageSize,
}
