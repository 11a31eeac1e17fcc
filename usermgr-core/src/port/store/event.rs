//! Events that are kept, in one order for everybody who reads them.
//!
//! An event is written in the transaction of the change it tells of, while the user's row is locked, so that for one
//! user events stand in the order in which things happened. Its position is given after the commit: to what is
//! committed and has none, in that order, by one at a time. So no position is ever given behind one that was read,
//! however late a transaction commits.

use async_trait::async_trait;
use time::OffsetDateTime;

use super::StoreError;
use super::outbox::{Claim, Lease, RenewLeases, Renewed, Settled};
use crate::domain::event::{Event, EventPosition};
use crate::domain::id::EventId;
use crate::domain::page::PageSize;

/// Events that are kept.
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Events after a position, in order. Everything that was committed before the call is there to be read, on this
    /// page or one that follows. Everybody reads the same events at the same positions.
    ///
    /// Where the reader's position says nothing any more, the answer is [`EventFeed::Gap`], never a page that
    /// lacks something.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn events(&self, query: EventQuery) -> Result<EventFeed, StoreError>;

    /// Takes up to `limit` events that are due and leases them until `lease_until`: no other claim gets them before.
    /// Each attempt is counted. An event whose lease has passed is due again.
    ///
    /// Of each user only the oldest event that was not delivered is handed out. Events come in order of their
    /// positions, those that are tried again behind those that are new.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn claim_events(&self, command: Claim) -> Result<Vec<ClaimedEvent>, StoreError>;

    /// Ends attempts, all in one transaction, and answers each. `Delivered` makes the user's next event due. Refused with
    /// `LostLease` is one whose event is not leased under its `lease` any more.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains of any.
    async fn settle_events(&self, commands: Vec<SettleEvent>) -> Result<Vec<Settled>, StoreError>;

    /// Renews the leases of attempts that go on, as [`OutboxStore::renew_mails`](super::OutboxStore::renew_mails) does.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains of any.
    async fn renew_events(&self, command: RenewLeases<EventId>) -> Result<Vec<Renewed>, StoreError>;

    /// Returns when an event may have become due since the last call, at once after a commit that tells of something
    /// through this store, and within `at_most` in any case. May return too early, never too late.
    async fn wait_for_events(&self, at_most: std::time::Duration);
}

/// See [`EventStore::events`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventQuery {
    /// Up to where the reader has read; `None` to begin with the oldest event that is kept.
    pub after: Option<EventPosition>,
    /// How many.
    pub size: PageSize,
}

/// The answer to [`EventQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventFeed {
    /// The events that follow; none when the reader is at the end.
    Page {
        /// The events, in order.
        events: Vec<Event>,
        /// Up to where the reader has read now.
        next: EventPosition,
    },
    /// The reader may lack events: some after its position were purged, or the position was never given (the store was
    /// set back to an older copy). The reader reads everything anew, and then the feed from `resume_after` on.
    Gap {
        /// A position after which nothing is lacking.
        resume_after: EventPosition,
    },
}

/// An event that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedEvent {
    /// The event.
    pub event: Event,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// See [`EventStore::settle_events`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettleEvent {
    /// The time.
    pub now: OffsetDateTime,
    /// Which event.
    pub id: EventId,
    /// Under which claim.
    pub lease: Lease,
    /// How the attempt ended.
    pub result: EventResult,
}

/// How an attempt to deliver an event ended. There is no giving up: what follows would be out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventResult {
    /// The other side took it.
    Delivered,
    /// It failed and is to be tried again.
    Retry {
        /// When.
        at: OffsetDateTime,
    },
}
