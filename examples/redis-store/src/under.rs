//! What the store under this one does alone.

use std::time::Duration;

use async_trait::async_trait;
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::id::{EventId, OutboxId};
use usermgr_core::domain::page::Page;
use usermgr_core::domain::undeliverable::UndeliverableAddress;
use usermgr_core::port::store::event::{ClaimedEvent, EventFeed, EventQuery, EventStore, SettleEvent};
use usermgr_core::port::store::job::{BeginJob, EndJob, JobBegun, JobLease, JobRecord, JobStore, RenewJob};
use usermgr_core::port::store::key::{
    AddSigningKey, KeyStore, ResealSigningKey, RevokeSigningKeys, SealedSigningKey,
};
use usermgr_core::port::store::outbox::{
    Claim, Claimed, OutboxEntry, OutboxQuery, OutboxStore, RenewLeases, Renewed, Requeue, Requeued, Settle,
    Settled,
};
use usermgr_core::port::store::undeliverable::{
    MarkDeliverable, MarkRemoved, MarkUndeliverable, UndeliverableQuery, UndeliverableStore,
};
use usermgr_core::port::store::{Store, StoreError};

use super::RedisStore;

type Answer<T> = Result<T, StoreError>;

macro_rules! handed_down {
    ($($port:ident { $($method:ident($($argument:ident: $taken:ty)?) $(-> $answer:ty)?;)* })*) => {$(
        #[async_trait]
        impl $port for RedisStore {
            $(async fn $method(&self, $($argument: $taken)?) $(-> $answer)? {
                self.under.$method($($argument)?).await
            })*
        }
    )*};
}

handed_down! {
    OutboxStore {
        claim(command: Claim) -> Answer<Vec<Claimed>>;
        settle_all(commands: Vec<Settle>) -> Answer<Vec<Settled>>;
        renew_mails(command: RenewLeases<OutboxId>) -> Answer<Vec<Renewed>>;
        outbox(query: OutboxQuery) -> Answer<Page<OutboxEntry, OutboxId>>;
        requeue(command: Requeue) -> Answer<Requeued>;
        wait_for_due(at_most: Duration);
    }
    UndeliverableStore {
        mark_undeliverable(command: MarkUndeliverable) -> Answer<u32>;
        mark_deliverable(command: MarkDeliverable) -> Answer<MarkRemoved>;
        undeliverable(query: UndeliverableQuery) -> Answer<Page<UndeliverableAddress, EmailKey>>;
    }
    EventStore {
        events(query: EventQuery) -> Answer<EventFeed>;
        claim_events(command: Claim) -> Answer<Vec<ClaimedEvent>>;
        settle_events(commands: Vec<SettleEvent>) -> Answer<Vec<Settled>>;
        renew_events(command: RenewLeases<EventId>) -> Answer<Vec<Renewed>>;
        wait_for_events(at_most: Duration);
    }
    KeyStore {
        signing_keys() -> Answer<Vec<SealedSigningKey>>;
        add_signing_key(command: AddSigningKey) -> Answer<Vec<SealedSigningKey>>;
        reseal_signing_key(command: ResealSigningKey) -> Answer<bool>;
        revoke_signing_keys(command: RevokeSigningKeys) -> Answer<Option<Vec<SealedSigningKey>>>;
    }
    JobStore {
        begin_job(command: BeginJob) -> Answer<JobBegun>;
        renew_job(command: RenewJob) -> Answer<JobLease>;
        end_job(command: EndJob) -> Answer<JobLease>;
        jobs() -> Answer<Vec<JobRecord>>;
    }
}

/// All ten parts are there.
const _: fn(&RedisStore) -> &dyn Store = |store| store;
