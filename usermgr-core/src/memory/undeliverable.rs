//! Addresses that no mail goes to any more.

use std::collections::btree_map::Entry;
use std::ops::Bound;

use async_trait::async_trait;

use super::MemoryStore;
use crate::domain::email::EmailKey;
use crate::domain::page::Page;
use crate::domain::undeliverable::UndeliverableAddress;
use crate::port::store::StoreError;
use crate::port::store::undeliverable::{
    MarkDeliverable, MarkRemoved, MarkUndeliverable, UndeliverableQuery, UndeliverableStore,
};

#[async_trait]
impl UndeliverableStore for MemoryStore {
    async fn mark_undeliverable(&self, command: MarkUndeliverable) -> Result<u32, StoreError> {
        let MarkUndeliverable { now, addresses } = command;
        let mut guard = self.state()?;
        let state = &mut *guard;
        let mut marked = 0;
        for (address, audit) in addresses {
            let user = state.user_of(&address.email).map(|row| row.user.id);
            if let Entry::Vacant(place) = state.undeliverable.entry(address.email.clone()) {
                place.insert(address);
                state.audit_done(audit, now, user);
                marked += 1;
            }
        }
        Ok(marked)
    }

    async fn mark_deliverable(&self, command: MarkDeliverable) -> Result<MarkRemoved, StoreError> {
        let MarkDeliverable { now, email, audit } = command;
        let mut state = self.state()?;
        let user = state.user_of(&email).map(|row| row.user.id);
        if state.undeliverable.remove(&email).is_none() {
            state.audit_refused(audit, now, "not_found", user);
            return Ok(MarkRemoved::NotFound);
        }
        state.audit_done(audit, now, user);
        Ok(MarkRemoved::Removed)
    }

    async fn undeliverable(
        &self,
        query: UndeliverableQuery,
    ) -> Result<Page<UndeliverableAddress, EmailKey>, StoreError> {
        let UndeliverableQuery { after, size } = query;
        let state = self.state()?;
        let size = usize::from(size.get());
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let marks = state.undeliverable.range((behind, Bound::Unbounded)).map(|(_, address)| address.clone());
        let mut items: Vec<_> = marks.take(size + 1).collect();
        let more = items.len() > size;
        items.truncate(size);
        let next = items.last().filter(|_| more).map(|address| address.email.clone());
        Ok(Page::new(items, next))
    }
}
