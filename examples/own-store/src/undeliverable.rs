//! Addresses that no mail goes to any more.

use async_trait::async_trait;
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::page::Page;
use usermgr_core::domain::undeliverable::UndeliverableAddress;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::undeliverable::{
    MarkDeliverable, MarkRemoved, MarkUndeliverable, UndeliverableQuery, UndeliverableStore,
};

use crate::FileStore;
use crate::database::Transaction;
use crate::rows::MarkRow;
use crate::text::Text as _;

#[async_trait]
impl UndeliverableStore for FileStore {
    async fn mark_undeliverable(&self, command: MarkUndeliverable) -> Result<u32, StoreError> {
        self.run(|tx| mark_undeliverable(tx, command)).await
    }

    async fn mark_deliverable(&self, command: MarkDeliverable) -> Result<MarkRemoved, StoreError> {
        self.run(|tx| mark_deliverable(tx, command)).await
    }

    async fn undeliverable(
        &self,
        query: UndeliverableQuery,
    ) -> Result<Page<UndeliverableAddress, EmailKey>, StoreError> {
        self.run(|tx| undeliverable(tx, query)).await
    }
}

fn mark_undeliverable(tx: &mut Transaction<'_>, command: MarkUndeliverable) -> Result<u32, StoreError> {
    let MarkUndeliverable { now, addresses } = command;
    let mut marked = 0;
    for (address, audit) in addresses {
        let key = address.email.text();
        if tx.get::<MarkRow>(&key)?.is_none() {
            let user = tx.user_of(&address.email)?.map(|row| row.user.id);
            tx.put(key, &MarkRow(address))?;
            tx.audit_done(audit, now, user)?;
            marked += 1;
        }
    }
    Ok(marked)
}

fn mark_deliverable(tx: &mut Transaction<'_>, command: MarkDeliverable) -> Result<MarkRemoved, StoreError> {
    let MarkDeliverable { now, email, audit } = command;
    let user = tx.user_of(&email)?.map(|row| row.user.id);
    if tx.get::<MarkRow>(email.text())?.is_none() {
        tx.audit_refused(audit, now, "not_found", user)?;
        return Ok(MarkRemoved::NotFound);
    }
    tx.remove::<MarkRow>(email.text());
    tx.audit_done(audit, now, user)?;
    Ok(MarkRemoved::Removed)
}

fn undeliverable(
    tx: &Transaction<'_>,
    query: UndeliverableQuery,
) -> Result<Page<UndeliverableAddress, EmailKey>, StoreError> {
    let UndeliverableQuery { after, size } = query;
    let marks = tx.rows::<MarkRow>()?.into_iter().map(|(_, MarkRow(mark))| mark);
    let behind = marks.filter(|mark| after.as_ref().is_none_or(|after| mark.email > *after));
    let size = usize::from(size.get());
    let mut items: Vec<_> = behind.take(size + 1).collect();
    let more = items.len() > size;
    items.truncate(size);
    let next = items.last().filter(|_| more).map(|mark| mark.email.clone());
    Ok(Page::new(items, next))
}
