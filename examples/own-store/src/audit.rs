//! The audit log.

use async_trait::async_trait;
use usermgr_core::domain::audit::AuditEntry;
use usermgr_core::domain::id::AuditId;
use usermgr_core::domain::page::Page;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::audit::{AuditQuery, AuditStore};

use crate::FileStore;
use crate::database::Transaction;
use crate::rows::AuditRow;

#[async_trait]
impl AuditStore for FileStore {
    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError> {
        self.run(move |tx| audit(tx, query)).await
    }

    async fn record(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.run(|tx| tx.record(entry)).await
    }
}

fn audit(tx: &Transaction<'_>, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError> {
    let AuditQuery { subject, event, since, after, size } = query;
    let since = since.map(AuditId::first_of);
    let entries =
        tx.rows::<AuditRow>()?.into_iter().rev().map(|(_, AuditRow(entry))| entry).filter(|entry| {
            (subject.is_none() || entry.subject == subject)
                && event.is_none_or(|event| entry.event == event)
                && since.is_none_or(|since| entry.id >= since)
                && after.is_none_or(|after| entry.id < after)
        });
    let size = usize::from(size.get());
    let mut entries: Vec<_> = entries.take(size + 1).collect();
    let more = entries.len() > size;
    entries.truncate(size);
    let next = entries.last().filter(|_| more).map(|entry| entry.id);
    Ok(Page::new(entries, next))
}
