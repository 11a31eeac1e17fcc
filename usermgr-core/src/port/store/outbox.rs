//! Mails that are owed, and how they leave.

use std::collections::BTreeMap;

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};

use super::StoreError;
use super::account::Actor;
use crate::domain::audit::AuditDraft;
use crate::domain::id::{OutboxId, UserId};
use crate::domain::mail::OwedMail;
use crate::domain::page::{Page, PageSize};

/// Mails that are owed.
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait OutboxStore: Send + Sync {
    /// Takes up to `limit` mails that are due, the oldest due first, and leases them until `lease_until`: no other
    /// claim gets them before. Each attempt is counted. A mail whose lease has passed is due again.
    ///
    /// A mail whose code is no longer live is not handed out: it becomes `Void`. Nor is one to an address that is marked
    /// as [undeliverable](super::undeliverable): it becomes `Dead` with the error [`OutboxEntry::UNDELIVERABLE`]. Mails to a
    /// domain beyond what `room` has for it are left for another claim.
    ///
    /// It looks at `limit` mails, without those to domains that have no room; and as long as it hands out none because they
    /// were ended, at the next ones. So it may bring fewer than there are, and none only when there is none to bring.
    ///
    /// A claim whose answer was lost may be made again under the same lease: it gets what it has then, and nothing else,
    /// leased until the new `lease_until` and with no further attempt counted.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn claim(&self, command: Claim) -> Result<Vec<Claimed>, StoreError>;

    /// Ends attempts, all in one transaction, and answers each. `Sent` also begins the life of the code in the mail,
    /// unless it has begun. Refused with `LostLease` is one whose mail is not leased under its `lease` any more.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains of any.
    async fn settle_all(&self, commands: Vec<Settle>) -> Result<Vec<Settled>, StoreError>;

    /// Renews the leases of attempts that go on, all in one transaction, and answers each. A lease that has passed is
    /// renewed as long as nobody else took the mail. `Lost` is one whose mail is not leased under it any more: it was
    /// settled, or another claim has it.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains of any.
    async fn renew_mails(&self, command: RenewLeases<OutboxId>) -> Result<Vec<Renewed>, StoreError>;

    /// What stands in the outbox, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn outbox(&self, query: OutboxQuery) -> Result<Page<OutboxEntry, OutboxId>, StoreError>;

    /// Makes a dead mail due again, with its attempts counted anew, and audits it as done. There is no such mail, or it
    /// is not dead: audit as refused (`not_found`). `by` does not hold: audit as refused (`forbidden`).
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains.
    async fn requeue(&self, command: Requeue) -> Result<Requeued, StoreError>;

    /// Returns when something may have become due since the last call, at once after a commit that owes something
    /// through this store, and within `at_most` in any case. May return too early, never too late.
    async fn wait_for_due(&self, at_most: std::time::Duration);
}

/// Names one claim: 128 random bits, fresh for each that is not made again. A settlement under another lease is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease(pub [u8; 16]);

/// See [`OutboxStore::claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The time.
    pub now: OffsetDateTime,
    /// The claim's name.
    pub lease: Lease,
    /// Until when.
    pub lease_until: OffsetDateTime,
    /// How many at most.
    pub limit: u32,
    /// How many of them each domain may have.
    pub room: DomainRoom,
}

/// How many deliveries each domain may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainRoom {
    /// A domain that is not named.
    each: u32,
    /// Domains as [`Email::domain`](crate::domain::email::Email::domain) spells them.
    named: BTreeMap<String, u32>,
}

impl DomainRoom {
    /// As many as there are.
    pub const UNBOUNDED: Self = Self::new(u32::MAX);

    /// So many for each domain.
    pub const fn new(each: u32) -> Self {
        Self { each, named: BTreeMap::new() }
    }

    /// So many for this domain.
    #[must_use]
    pub fn with(mut self, domain: impl Into<String>, room: u32) -> Self {
        self.named.insert(domain.into(), room);
        self
    }

    /// The domains without any.
    pub fn full(&self) -> impl Iterator<Item = &str> {
        self.named.iter().filter(|(_, room)| **room == 0).map(|(domain, _)| domain.as_str())
    }

    /// Whether this domain has none.
    pub fn is_full(&self, domain: &str) -> bool {
        self.named.get(domain).copied().unwrap_or(self.each) == 0
    }

    /// Takes one of this domain's; whether there was one.
    pub fn take(&mut self, domain: &str) -> bool {
        let room = match self.named.get_mut(domain) {
            Some(room) => room,
            None => self.named.entry(domain.to_owned()).or_insert(self.each),
        };
        let left = room.checked_sub(1);
        *room = left.unwrap_or(0);
        left.is_some()
    }
}

/// A mail that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The mail.
    pub mail: OwedMail,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// See [`OutboxStore::settle_all`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    /// The time.
    pub now: OffsetDateTime,
    /// Which mail.
    pub id: OutboxId,
    /// Under which claim.
    pub lease: Lease,
    /// How the attempt ended.
    pub result: DeliveryResult,
}

/// See [`OutboxStore::renew_mails`] and [`EventStore::renew_events`](super::event::EventStore::renew_events).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewLeases<I> {
    /// Until when the leases last from now on.
    pub lease_until: OffsetDateTime,
    /// Each item that is being delivered, and the lease it was claimed under.
    pub held: Vec<(I, Lease)>,
}

/// The answer to [`RenewLeases`], for each item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// No other claim gets it before the new end.
    Kept,
    /// It is settled, or another claim has it.
    Lost,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryResult {
    /// The other side took it.
    Sent {
        /// How long the code in it lives from `now`.
        code_ttl: Option<Duration>,
    },
    /// It failed and is to be tried again.
    Retry {
        /// When.
        at: OffsetDateTime,
        /// Why it failed; no secret, at most [`OutboxEntry::MAX_ERROR`] bytes.
        error: String,
    },
    /// It failed for good.
    Dead {
        /// Why it failed; no secret, at most [`OutboxEntry::MAX_ERROR`] bytes.
        error: String,
    },
}

/// The answer to [`Settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was noted.
    Settled,
    /// The lease had passed and somebody else has it, or it is settled.
    LostLease,
}

/// See [`OutboxStore::requeue`].
#[derive(Debug, Clone)]
pub struct Requeue {
    /// The time.
    pub now: OffsetDateTime,
    /// Which mail.
    pub id: OutboxId,
    /// Who does it; `None` for the operator.
    pub by: Option<Actor>,
    /// The audit entry.
    pub audit: AuditDraft,
}

/// The answer to [`Requeue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeued {
    /// It is due now.
    Requeued,
    /// There is no such mail, or it is not dead.
    NotFound,
    /// The actor may not, or no longer.
    NotPermitted,
}

/// See [`OutboxStore::outbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxQuery {
    /// Only what is owed to this user.
    pub user: Option<UserId>,
    /// Only of this status.
    pub status: Option<OutboxStatus>,
    /// The last mail of the page before.
    pub after: Option<OutboxId>,
    /// How many.
    pub size: PageSize,
}

/// A mail of the outbox and how it fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// The mail.
    pub mail: OwedMail,
    /// How it fares.
    pub status: OutboxStatus,
    /// How many attempts there were.
    pub attempts: u32,
    /// When it is due, while it is queued.
    pub due_at: OffsetDateTime,
    /// When it was settled for good.
    pub settled_at: Option<OffsetDateTime>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

impl OutboxEntry {
    /// The most bytes of an error that are kept.
    pub const MAX_ERROR: usize = 500;
    /// The error of a mail that was not sent because its address is marked.
    pub const UNDELIVERABLE: &str = "undeliverable address";
}

/// How a mail of the outbox fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutboxStatus {
    /// It waits, or an attempt is under way.
    Queued,
    /// It was taken.
    Sent,
    /// It failed for good.
    Dead,
    /// Its code was no longer live before it left, so it was not sent.
    Void,
}

impl OutboxStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Queued, Self::Sent, Self::Dead, Self::Void];

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Dead => "dead",
            Self::Void => "void",
        }
    }

    /// Reads the stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}
