//! The audit log is in the store under this one; how often something is recorded is counted in Redis.

use async_trait::async_trait;
use usermgr_core::domain::audit::AuditEntry;
use usermgr_core::domain::id::AuditId;
use usermgr_core::domain::page::Page;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::audit::{AuditQuery, AuditStore, Record, Recorded};

use super::RedisStore;
use super::limits::Entry;

#[async_trait]
impl AuditStore for RedisStore {
    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError> {
        self.under.audit(query).await
    }

    async fn record(&self, command: Record) -> Result<Recorded, StoreError> {
        if command.throttle.is_empty() {
            return self.under.record(command).await;
        }
        self.to_its_end(async move |store| {
            let now = command.now;
            let (entry, recorded) = match store.redis.count_entry(&command.throttle, now).await? {
                Entry::Free => (command.entry, Recorded::Recorded),
                Entry::Last(retry_after) => (command.into_last_entry(), Recorded::Throttled { retry_after }),
                Entry::Past(retry_after) => return Ok(Recorded::Throttled { retry_after }),
            };
            store.under.record(Record::unlimited(entry)).await?;
            Ok(recorded)
        })
        .await
    }
}
