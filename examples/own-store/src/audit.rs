//! The audit log.

use async_trait::async_trait;
use usermgr_core::domain::audit::AuditEntry;
use usermgr_core::domain::id::AuditId;
use usermgr_core::domain::page::Page;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::audit::{AuditQuery, AuditStore, Record, Recorded};

use crate::FileStore;
use crate::database::Transaction;
use crate::rows::AuditRow;

#[async_trait]
impl AuditStore for FileStore {
    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError> {
        self.run(move |tx| audit(tx, query)).await
    }

    async fn record(&self, command: Record) -> Result<Recorded, StoreError> {
        self.run(|tx| record(tx, command)).await
    }
}

fn record(tx: &mut Transaction<'_>, command: Record) -> Result<Recorded, StoreError> {
    let now = command.now;
    tx.clamp(&command.throttle, now)?;
    if let Some(retry_after) = tx.used_up(&command.past(), now)? {
        return Ok(Recorded::Throttled { retry_after });
    }
    let used_up = tx.used_up(&command.throttle, now)?;
    for rule in &command.throttle {
        tx.count(rule, now)?;
    }
    let entry = if used_up.is_some() { command.into_last_entry() } else { command.entry };
    tx.record(entry)?;
    Ok(used_up.map_or(Recorded::Recorded, |retry_after| Recorded::Throttled { retry_after }))
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
