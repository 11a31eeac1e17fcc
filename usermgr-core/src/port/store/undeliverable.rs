//! Addresses that no mail goes to any more.

use async_trait::async_trait;
use time::OffsetDateTime;

use super::StoreError;
use crate::domain::audit::AuditDraft;
use crate::domain::email::EmailKey;
use crate::domain::page::{Page, PageSize};
use crate::domain::undeliverable::UndeliverableAddress;

/// Marks at addresses that no mail goes to. What they do stands at [`OutboxStore::claim`](super::OutboxStore::claim).
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait UndeliverableStore: Send + Sync {
    /// Marks addresses and audits each as done, with the user who has it, if any. One that is marked already keeps its
    /// mark as it is, and nothing is audited. Answers how many were marked.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn mark_undeliverable(&self, command: MarkUndeliverable) -> Result<u32, StoreError>;

    /// Takes the mark from an address and audits it as done; without one, as refused (`not_found`). Mails that the mark
    /// has made dead stay dead until they are requeued.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn mark_deliverable(&self, command: MarkDeliverable) -> Result<MarkRemoved, StoreError>;

    /// The marked addresses, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn undeliverable(
        &self,
        query: UndeliverableQuery,
    ) -> Result<Page<UndeliverableAddress, EmailKey>, StoreError>;
}

/// See [`UndeliverableStore::mark_undeliverable`].
#[derive(Debug, Clone)]
pub struct MarkUndeliverable {
    /// The time.
    pub now: OffsetDateTime,
    /// Each address with its audit entry.
    pub addresses: Vec<(UndeliverableAddress, AuditDraft)>,
}

/// See [`UndeliverableStore::mark_deliverable`].
#[derive(Debug, Clone)]
pub struct MarkDeliverable {
    /// The time.
    pub now: OffsetDateTime,
    /// Which address.
    pub email: EmailKey,
    /// The audit entry.
    pub audit: AuditDraft,
}

/// The answer to [`MarkDeliverable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkRemoved {
    /// Mail goes there again.
    Removed,
    /// It was not marked.
    NotFound,
}

/// See [`UndeliverableStore::undeliverable`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UndeliverableQuery {
    /// The last address of the page before.
    pub after: Option<EmailKey>,
    /// How many.
    pub size: PageSize,
}
