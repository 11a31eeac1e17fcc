//! Events that are kept.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;
use usermgr_core::domain::event::{Event, EventPosition};
use usermgr_core::domain::id::EventId;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::event::{
    ClaimedEvent, EventFeed, EventQuery, EventResult, EventStore, SettleEvent,
};
use usermgr_core::port::store::outbox::{Claim, Lease, RenewLeases, Renewed, Settled};

use crate::FileStore;
use crate::database::Transaction;
use crate::rows::{EventRow, FeedRow};

#[async_trait]
impl EventStore for FileStore {
    async fn events(&self, query: EventQuery) -> Result<EventFeed, StoreError> {
        self.run(move |tx| events(tx, query)).await
    }

    async fn claim_events(&self, command: Claim) -> Result<Vec<ClaimedEvent>, StoreError> {
        self.run(move |tx| claim_events(tx, &command)).await
    }

    async fn settle_events(&self, commands: Vec<SettleEvent>) -> Result<Vec<Settled>, StoreError> {
        self.run(|tx| commands.into_iter().map(|command| settle_event(tx, command)).collect()).await
    }

    async fn renew_events(&self, command: RenewLeases<EventId>) -> Result<Vec<Renewed>, StoreError> {
        self.run(move |tx| {
            let RenewLeases { lease_until, held } = command;
            held.into_iter().map(|(id, lease)| renew_event(tx, id, lease, lease_until)).collect()
        })
        .await
    }

    async fn wait_for_events(&self, at_most: Duration) {
        drop(tokio::time::timeout(at_most, self.events_due.notified()).await);
    }
}

fn events(tx: &Transaction<'_>, query: EventQuery) -> Result<EventFeed, StoreError> {
    let EventQuery { after, size } = query;
    let FeedRow { last, purged } = tx.feed()?;
    let after = after.map_or(purged, EventPosition::as_u64);
    if !(purged..=last).contains(&after) {
        return Ok(EventFeed::Gap { resume_after: EventPosition::from_u64(purged) });
    }
    let events = tx.rows::<EventRow>()?.into_iter().map(|(_, row)| row.event);
    let following = events.filter(|event| event.position.as_u64() > after);
    let events: Vec<Event> = following.take(usize::from(size.get())).collect();
    let next = events.last().map_or(EventPosition::from_u64(after), |event| event.position);
    Ok(EventFeed::Page { events, next })
}

fn claim_events(tx: &mut Transaction<'_>, command: &Claim) -> Result<Vec<ClaimedEvent>, StoreError> {
    // Of each user the oldest that was not delivered.
    let mut seen = BTreeSet::new();
    let rows = tx.rows::<EventRow>()?.into_iter().map(|(_, row)| row);
    let waiting = rows.filter(|row| !row.delivered && seen.insert(row.event.user_id));
    let mut due: Vec<_> = waiting.filter(|row| row.due_at <= command.now).collect();
    due.sort_by_key(|row| (row.due_at, row.event.position));
    let mut claimed = Vec::new();
    for mut row in due.into_iter().take(command.limit as usize) {
        row.lease = Some(command.lease);
        row.due_at = command.lease_until;
        row.attempts += 1;
        tx.put(row.key(), &row)?;
        claimed.push(ClaimedEvent { attempt: row.attempts, event: row.event });
    }
    Ok(claimed)
}

fn renew_event(
    tx: &mut Transaction<'_>,
    id: EventId,
    lease: Lease,
    lease_until: OffsetDateTime,
) -> Result<Renewed, StoreError> {
    let mut rows = tx.rows::<EventRow>()?.into_iter().map(|(_, row)| row);
    let Some(mut row) = rows.find(|row| row.event.id == id && row.lease == Some(lease)) else {
        return Ok(Renewed::Lost);
    };
    row.due_at = lease_until;
    tx.put(row.key(), &row)?;
    Ok(Renewed::Kept)
}

fn settle_event(tx: &mut Transaction<'_>, command: SettleEvent) -> Result<Settled, StoreError> {
    let SettleEvent { now: _, id, lease, result } = command;
    let mut rows = tx.rows::<EventRow>()?.into_iter().map(|(_, row)| row);
    let Some(mut row) = rows.find(|row| row.event.id == id && row.lease == Some(lease)) else {
        return Ok(Settled::LostLease);
    };
    row.lease = None;
    match result {
        EventResult::Delivered => row.delivered = true,
        EventResult::Retry { at } => row.due_at = at,
    }
    tx.put(row.key(), &row)?;
    Ok(Settled::Settled)
}
