//! Keeping the tables small, and telling whether the store is well.

use async_trait::async_trait;
use time::OffsetDateTime;

use super::StoreError;

/// Upkeep.
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait UpkeepStore: Send + Sync {
    /// Removes rows that nothing needs any more, at most `batch` of each kind. Any number of instances may run it at
    /// any time; nothing that is still of use is ever removed.
    ///
    /// # Errors
    /// [`StoreError`], and nothing remains of this batch.
    async fn purge(&self, command: Purge) -> Result<Purged, StoreError>;

    /// What waits to leave, for whoever watches: counted up to [`Backlog::MOST`] of each kind, so that the answer is quick
    /// also when much waits.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn backlog(&self) -> Result<Backlog, StoreError>;

    /// Whether the store can be reached and its tables are those of this version.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot serve.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// See [`UpkeepStore::purge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purge {
    /// The time: registrations that are over by it go with their codes, throttle rows whose window is over go, and access tokens
    /// that ran out.
    pub now: OffsetDateTime,
    /// Codes and links that were spent, voided or ran out before this go, and sessions that ended before this.
    pub ended_before: OffsetDateTime,
    /// Mails that were settled as sent or void before this go.
    pub settled_before: OffsetDateTime,
    /// Mails that failed for good before this go, whether somebody looked at them or not.
    pub dead_before: OffsetDateTime,
    /// Audit entries from before this go.
    pub audited_before: OffsetDateTime,
    /// Events from before this go, delivered or not, in their order: none goes before one that stays. One from farther
    /// in the future than this is in the past was written by a clock that was wrong, and goes too.
    pub events_before: OffsetDateTime,
    /// Users who were deleted before this go, with all that is theirs. Audit entries that tell of them stay, without
    /// address, agent and client: the user's identifier is then a pseudonym. An event
    /// ([`UserPurged`](crate::domain::event::EventKind::UserPurged)) tells of each; it happens once, so its identifier is
    /// the user's.
    pub deleted_before: OffsetDateTime,
    /// Signing keys go when another one, not revoked, signed from a time before this on, later than theirs.
    pub retired_before: OffsetDateTime,
    /// Networks that last signed in before this are no longer known.
    pub known_before: OffsetDateTime,
    /// Marks at undeliverable addresses from before this go: mailboxes come back.
    pub marked_before: OffsetDateTime,
    /// The most rows of each kind.
    pub batch: u32,
}

/// How many rows of each kind were removed. What goes with another row is not counted: the codes of a registration, the
/// access tokens of a session, and all that is a user's. A store that keeps access tokens in another place than sessions
/// counts them when they run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "each field is the number of rows of the kind it names")]
pub struct Purged {
    pub registrations: u64,
    pub codes: u64,
    pub sessions: u64,
    pub outbox: u64,
    pub events: u64,
    pub audit: u64,
    pub throttles: u64,
    pub networks: u64,
    pub users: u64,
    pub access_tokens: u64,
    pub signing_keys: u64,
    pub undeliverable: u64,
}

/// What waits to leave. Of more than [`Self::MOST`] the count says that many, and the oldest is that of the first due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Mails that are queued.
    pub queued_mails: u64,
    /// When the oldest of them was owed.
    pub oldest_mail: Option<OffsetDateTime>,
    /// Mails that failed for good and were not seen to.
    pub dead_mails: u64,
    /// Events that were not delivered; where nobody is told of them, all that are kept.
    pub undelivered_events: u64,
    /// When the oldest of those happened whose turn it is.
    pub oldest_event: Option<OffsetDateTime>,
}

impl Backlog {
    /// How far each kind is counted.
    pub const MOST: u32 = 10_000;
}

impl Purge {
    /// Whether an event of this time is over.
    pub fn is_over(&self, at: OffsetDateTime) -> bool {
        at < self.events_before || at - self.now > self.now - self.events_before
    }
}

impl std::fmt::Display for Purged {
    /// What was removed: `12 codes, 3 sessions`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            registrations,
            codes,
            sessions,
            outbox,
            events,
            audit,
            throttles,
            networks,
            users,
            access_tokens,
            signing_keys,
            undeliverable,
        } = *self;
        let counts = [
            (registrations, "registrations"),
            (codes, "codes and links"),
            (sessions, "sessions"),
            (outbox, "mails"),
            (events, "events"),
            (audit, "audit entries"),
            (throttles, "counters of limits"),
            (networks, "known networks"),
            (users, "deleted users"),
            (access_tokens, "access tokens"),
            (signing_keys, "signing keys"),
            (undeliverable, "marks of addresses"),
        ];
        let removed = counts.into_iter().filter(|(count, _)| *count > 0);
        let removed: Vec<_> = removed.map(|(count, what)| format!("{count} {what}")).collect();
        if removed.is_empty() { f.write_str("nothing") } else { f.write_str(&removed.join(", ")) }
    }
}

impl Purged {
    /// The largest of the counts: a full batch means there may be more to remove.
    pub fn most(&self) -> u64 {
        let Self {
            registrations,
            codes,
            sessions,
            outbox,
            events,
            audit,
            throttles,
            networks,
            users,
            access_tokens,
            signing_keys,
            undeliverable,
        } = *self;
        let counts = [
            registrations,
            codes,
            sessions,
            outbox,
            events,
            audit,
            throttles,
            networks,
            users,
            access_tokens,
            signing_keys,
            undeliverable,
        ];
        counts.into_iter().max().unwrap_or(0)
    }

    /// The sum of two runs.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            registrations: self.registrations + other.registrations,
            codes: self.codes + other.codes,
            sessions: self.sessions + other.sessions,
            outbox: self.outbox + other.outbox,
            events: self.events + other.events,
            audit: self.audit + other.audit,
            throttles: self.throttles + other.throttles,
            networks: self.networks + other.networks,
            users: self.users + other.users,
            access_tokens: self.access_tokens + other.access_tokens,
            signing_keys: self.signing_keys + other.signing_keys,
            undeliverable: self.undeliverable + other.undeliverable,
        }
    }
}
