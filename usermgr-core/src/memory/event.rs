//! Events that are kept.

use std::collections::BTreeSet;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{MemoryStore, State};
use crate::domain::event::{Event, EventPosition};
use crate::domain::id::{EventId, UserId};
use crate::port::store::event::{ClaimedEvent, EventFeed, EventQuery, EventResult, EventStore, SettleEvent};
use crate::port::store::outbox::{Claim, Lease, RenewLeases, Renewed, Settled};
use crate::port::store::{EventDraft, Happened, StoreError};

/// The feed: one lock for all commands makes the order of writing the order of committing.
#[derive(Clone, Default)]
pub(crate) struct Feed {
    pub(crate) rows: Vec<EventRow>,
    /// The position that was given last.
    last: u64,
    /// Up to where events were purged.
    purged: u64,
}

#[derive(Clone)]
pub(crate) struct EventRow {
    pub(crate) event: Event,
    attempts: u32,
    due_at: OffsetDateTime,
    lease: Option<Lease>,
    delivered: bool,
}

impl Feed {
    fn add(&mut self, draft: EventDraft, happened: Happened, user_id: UserId, now: OffsetDateTime) {
        self.last += 1;
        let event = Event {
            id: draft.id,
            position: EventPosition::from_u64(self.last),
            at: now,
            kind: draft.kind,
            user_id,
            session_id: happened.session_of(draft.kind),
        };
        let due_at = OffsetDateTime::UNIX_EPOCH;
        self.rows.push(EventRow { event, attempts: 0, due_at, lease: None, delivered: false });
    }

    /// How many events were not delivered, and when the oldest of them happened.
    pub(super) fn undelivered(&self) -> (u64, Option<OffsetDateTime>) {
        let waiting = || self.rows.iter().filter(|row| !row.delivered);
        (waiting().count() as u64, waiting().map(|row| row.event.at).min())
    }

    /// Removes the oldest events as far as they are over.
    pub(super) fn purge(&mut self, is_over: impl Fn(&Event) -> bool, most: u32) -> u64 {
        let over = self.rows.iter().take(most as usize).take_while(|row| is_over(&row.event)).count();
        for row in self.rows.drain(..over) {
            self.purged = row.event.position.as_u64();
        }
        over as u64
    }
}

impl State {
    pub(crate) fn owe_events(
        &mut self,
        drafts: &[EventDraft],
        happened: Happened,
        user_id: UserId,
        now: OffsetDateTime,
    ) {
        for draft in drafts.iter().filter(|draft| happened.includes(draft.kind)) {
            self.feed.add(*draft, happened, user_id, now);
        }
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn events(&self, query: EventQuery) -> Result<EventFeed, StoreError> {
        let EventQuery { after, size } = query;
        let state = self.state()?;
        let Feed { rows, last, purged } = &state.feed;
        let after = after.map_or(*purged, EventPosition::as_u64);
        if !(*purged..=*last).contains(&after) {
            return Ok(EventFeed::Gap { resume_after: EventPosition::from_u64(*purged) });
        }
        let following = rows.iter().map(|row| &row.event).filter(|event| event.position.as_u64() > after);
        let events: Vec<Event> = following.take(usize::from(size.get())).cloned().collect();
        let next = events.last().map_or(EventPosition::from_u64(after), |event| event.position);
        Ok(EventFeed::Page { events, next })
    }

    async fn claim_events(&self, command: Claim) -> Result<Vec<ClaimedEvent>, StoreError> {
        let Claim { now, lease, lease_until, limit, room: _ } = command;
        let mut state = self.state()?;
        let mut seen = BTreeSet::new();
        let mut due: Vec<&mut EventRow> = state
            .feed
            .rows
            .iter_mut()
            .filter(|row| !row.delivered && seen.insert(row.event.user_id) && row.due_at <= now)
            .collect();
        due.sort_by_key(|row| (row.due_at, row.event.position));
        let claimed = due.into_iter().take(limit as usize).map(|row| {
            row.lease = Some(lease);
            row.due_at = lease_until;
            row.attempts += 1;
            ClaimedEvent { event: row.event.clone(), attempt: row.attempts }
        });
        Ok(claimed.collect())
    }

    async fn settle_events(&self, commands: Vec<SettleEvent>) -> Result<Vec<Settled>, StoreError> {
        let mut state = self.state()?;
        let settle = |command| {
            let SettleEvent { now: _, id, lease, result } = command;
            let mut rows = state.feed.rows.iter_mut();
            let Some(row) = rows.find(|row| row.event.id == id && row.lease == Some(lease)) else {
                return Settled::LostLease;
            };
            row.lease = None;
            match result {
                EventResult::Delivered => row.delivered = true,
                EventResult::Retry { at } => row.due_at = at,
            }
            Settled::Settled
        };
        Ok(commands.into_iter().map(settle).collect())
    }

    async fn renew_events(&self, command: RenewLeases<EventId>) -> Result<Vec<Renewed>, StoreError> {
        let RenewLeases { lease_until, held } = command;
        let mut state = self.state()?;
        let renew = |(id, lease)| {
            let mut rows = state.feed.rows.iter_mut();
            let Some(row) = rows.find(|row| row.event.id == id && row.lease == Some(lease)) else {
                return Renewed::Lost;
            };
            row.due_at = lease_until;
            Renewed::Kept
        };
        Ok(held.into_iter().map(renew).collect())
    }

    async fn wait_for_events(&self, at_most: std::time::Duration) {
        drop(tokio::time::timeout(at_most, self.events_due.notified()).await);
    }
}
