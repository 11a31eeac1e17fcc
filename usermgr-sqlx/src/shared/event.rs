//! Events that are kept, and the positions they are given.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::QueryBuilder;
use time::OffsetDateTime;
use usermgr_core::domain::event::{Event, EventKind, EventPosition};
use usermgr_core::domain::id::{EventId, SessionId, UserId};
use usermgr_core::port::store::event::{
    ClaimedEvent, EventFeed, EventQuery, EventResult, EventStore, SettleEvent,
};
use usermgr_core::port::store::outbox::{Claim, RenewLeases, Renewed, Settled};
use usermgr_core::port::store::upkeep::Purge;
use usermgr_core::port::store::{EventDraft, Happened, StoreError};
use uuid::Uuid;

use super::super::Db;
use super::rows::corrupt;
use super::{Store, Ts, Tx, fault, from_ts, reread, transact, ts};

/// The most events that get their positions in one transaction, so that nobody waits long for it.
const NUMBERED_AT_ONCE: i64 = 1000;
/// When an event is due that was not tried yet: at any time, also for a clock that is set back.
const AT_ONCE: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// The columns of an event with a position, for [`EventRow`].
macro_rules! event_columns {
    () => {
        "SELECT id, position, kind, user_id, session_id, at, attempts FROM usermgr_events "
    };
}

#[async_trait]
impl EventStore for Store {
    async fn events(&self, query: EventQuery) -> Result<EventFeed, StoreError> {
        self.outside_only()?;
        transact!(self.events_once(query))
    }

    async fn claim_events(&self, command: Claim) -> Result<Vec<ClaimedEvent>, StoreError> {
        self.outside_only()?;
        let now = command.now;
        if !reread!(self.any_event_is_due_once(now))? {
            return Ok(Vec::new());
        }
        transact!(self.claim_events_once(command))
    }

    async fn settle_events(&self, commands: Vec<SettleEvent>) -> Result<Vec<Settled>, StoreError> {
        self.outside_only()?;
        transact!(self.settle_events_once(commands))
    }

    async fn renew_events(&self, command: RenewLeases<EventId>) -> Result<Vec<Renewed>, StoreError> {
        self.outside_only()?;
        if command.held.is_empty() {
            return Ok(Vec::new());
        }
        transact!(self.renew_events_once(command))
    }

    async fn wait_for_events(&self, at_most: Duration) {
        self.listen().await;
        drop(tokio::time::timeout(at_most, self.events_due.notified()).await);
    }
}

impl Store {
    async fn events_once(&self, query: EventQuery) -> Result<EventFeed, StoreError> {
        let EventQuery { after, size } = query;
        if self.has_unnumbered_events().await? {
            let mut tx = self.begin().await?;
            number(&mut tx).await?;
            tx.commit().await.map_err(fault)?;
        }
        let begin = match after {
            Some(after) => as_i64(after),
            None => feed_state(&mut *self.reader().await?).await?.purged,
        };
        let rows: Vec<EventRow> =
            sqlx::query_as(concat!(event_columns!(), "WHERE position > $1 ORDER BY position LIMIT $2"))
                .bind(begin)
                .bind(i64::from(size.get()))
                .fetch_all(&mut *self.reader().await?)
                .await
                .map_err(fault)?;
        let events = rows.into_iter().map(EventRow::event).collect::<Result<Vec<_>, _>>()?;
        // Read after the events: what was purged before they were read shows here.
        let FeedState { last, purged } = feed_state(&mut *self.reader().await?).await?;
        if !(purged..=last).contains(&begin) {
            return Ok(EventFeed::Gap { resume_after: position(purged)? });
        }
        let next = events.last().map_or(position(begin)?, |event| event.position);
        Ok(EventFeed::Page { events, next })
    }

    async fn any_event_is_due_once(&self, now: OffsetDateTime) -> Result<bool, StoreError> {
        let due: Option<i64> =
            sqlx::query_scalar("SELECT CAST(1 AS BIGINT) FROM usermgr_events WHERE due_at <= $1 LIMIT 1")
                .bind(ts(now))
                .fetch_optional(&mut *self.reader().await?)
                .await
                .map_err(fault)?;
        Ok(due.is_some() || self.has_unnumbered_events().await?)
    }

    async fn has_unnumbered_events(&self) -> Result<bool, StoreError> {
        let found: Option<i64> =
            sqlx::query_scalar("SELECT CAST(1 AS BIGINT) FROM usermgr_events WHERE position IS NULL LIMIT 1")
                .fetch_optional(&mut *self.reader().await?)
                .await
                .map_err(fault)?;
        Ok(found.is_some())
    }

    async fn claim_events_once(&self, command: Claim) -> Result<Vec<ClaimedEvent>, StoreError> {
        let Claim { now, lease, lease_until, limit, room: _ } = command;
        let mut tx = self.begin().await?;
        number(&mut tx).await?;
        let due: Vec<(i64,)> = sqlx::query_as(
            "SELECT position FROM usermgr_events WHERE due_at <= $1 ORDER BY due_at, position LIMIT $2",
        )
        .bind(ts(now))
        .bind(i64::from(limit))
        .fetch_all(&mut *tx)
        .await
        .map_err(fault)?;
        let mut claimed = Vec::with_capacity(due.len());
        for (position,) in due {
            let row: EventRow = sqlx::query_as(
                "UPDATE usermgr_events SET lease = $2, due_at = $3, attempts = attempts + 1 WHERE position = $1 \
                 RETURNING id, position, kind, user_id, session_id, at, attempts",
            )
            .bind(position)
            .bind(lease.0.as_slice())
            .bind(ts(lease_until))
            .fetch_one(&mut *tx)
            .await
            .map_err(fault)?;
            let attempt =
                u32::try_from(row.attempts).map_err(|_| corrupt("usermgr_events", "attempts", row.id))?;
            claimed.push(ClaimedEvent { event: row.event()?, attempt });
        }
        tx.commit().await.map_err(fault)?;
        Ok(claimed)
    }

    async fn renew_events_once(&self, command: RenewLeases<EventId>) -> Result<Vec<Renewed>, StoreError> {
        let RenewLeases { lease_until, held } = command;
        let mut tx = self.begin().await?;
        let mut renewed = Vec::with_capacity(held.len());
        for (id, lease) in held {
            // While a lease holds, `due_at` is its end.
            let kept = sqlx::query("UPDATE usermgr_events SET due_at = $3 WHERE id = $1 AND lease = $2")
                .bind(id.as_uuid())
                .bind(lease.0.as_slice())
                .bind(ts(lease_until))
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
            renewed.push(if kept.rows_affected() > 0 { Renewed::Kept } else { Renewed::Lost });
        }
        tx.commit().await.map_err(fault)?;
        Ok(renewed)
    }

    async fn settle_events_once(&self, commands: Vec<SettleEvent>) -> Result<Vec<Settled>, StoreError> {
        let mut tx = self.begin().await?;
        // Whoever passes a turn on must not pass it by an event that is being numbered.
        lock_feed(&mut tx).await?;
        let mut settled = Vec::with_capacity(commands.len());
        for command in commands {
            settled.push(settle_event(&mut tx, command).await?);
        }
        tx.commit().await.map_err(fault)?;
        Ok(settled)
    }
}

async fn settle_event(tx: &mut Tx, command: SettleEvent) -> Result<Settled, StoreError> {
    let SettleEvent { now, id, lease, result } = command;
    let (delivered_at, due_at) = match result {
        EventResult::Delivered => (Some(now), None),
        EventResult::Retry { at } => (None, Some(at)),
    };
    let settled: Option<(Uuid,)> = sqlx::query_as(
        "UPDATE usermgr_events SET delivered_at = $3, due_at = $4, lease = NULL WHERE id = $1 AND lease = $2 \
         RETURNING user_id",
    )
    .bind(id.as_uuid())
    .bind(lease.0.as_slice())
    .bind(delivered_at.map(ts))
    .bind(due_at.map(ts))
    .fetch_optional(&mut **tx)
    .await
    .map_err(fault)?;
    let Some((user,)) = settled else { return Ok(Settled::LostLease) };
    if delivered_at.is_some() {
        pass_turn(tx, user).await?;
    }
    Ok(Settled::Settled)
}

/// Writes the events that came true. The user's row is locked, so that of one user they stand in the order of commits.
pub(super) async fn owe_events(
    tx: &mut Tx,
    drafts: &[EventDraft],
    happened: Happened,
    user: UserId,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    for draft in drafts.iter().filter(|draft| happened.includes(draft.kind)) {
        sqlx::query(
            "INSERT INTO usermgr_events (id, kind, user_id, session_id, at, attempts) VALUES ($1, $2, $3, $4, $5, 0)",
        )
        .bind(draft.id.as_uuid())
        .bind(draft.kind.as_str())
        .bind(user.as_uuid())
        .bind(happened.session_of(draft.kind).map(|session| session.as_uuid()))
        .bind(ts(now))
        .execute(&mut **tx)
        .await
        .map_err(fault)?;
    }
    Ok(())
}

/// Writes the events of many new users.
pub(super) async fn owe_events_of_many(
    tx: &mut Tx,
    events: &[(EventDraft, UserId)],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let mut statement: QueryBuilder<Db> =
        QueryBuilder::new("INSERT INTO usermgr_events (id, kind, user_id, at, attempts) ");
    statement.push_values(events, |mut row, (draft, user)| {
        row.push_bind(draft.id.as_uuid())
            .push_bind(draft.kind.as_str())
            .push_bind(user.as_uuid())
            .push_bind(ts(now))
            .push_bind(0_i64);
    });
    statement.build().persistent(false).execute(&mut **tx).await.map_err(fault)?;
    Ok(())
}

/// Removes the oldest events as far as they are over. What has no position yet gets one first, so that a reader who was
/// away learns that something is gone.
pub(super) async fn purge_events(tx: &mut Tx, command: &Purge) -> Result<u64, StoreError> {
    number(tx).await?;
    let oldest: Vec<(i64, Ts, Uuid, Option<Ts>)> = sqlx::query_as(
        "SELECT position, at, user_id, due_at FROM usermgr_events WHERE position > \
         (SELECT purged FROM usermgr_event_feed) ORDER BY position LIMIT $1",
    )
    .bind(i64::from(command.batch))
    .fetch_all(&mut **tx)
    .await
    .map_err(fault)?;
    let over = oldest.iter().take_while(|(_, at, _, _)| command.is_over(from_ts(*at))).count();
    let Some((last, ..)) = over.checked_sub(1).and_then(|last| oldest.get(last)) else { return Ok(0) };
    sqlx::query("UPDATE usermgr_event_feed SET purged = $1")
        .bind(last)
        .execute(&mut **tx)
        .await
        .map_err(fault)?;
    sqlx::query("DELETE FROM usermgr_events WHERE position <= $1")
        .bind(last)
        .execute(&mut **tx)
        .await
        .map_err(fault)?;
    for (_, _, user, _) in oldest.iter().take(over).filter(|(_, _, _, due_at)| due_at.is_some()) {
        pass_turn(tx, *user).await?;
    }
    Ok(over as u64)
}

/// Where the feed ends, and where it begins.
#[derive(sqlx::FromRow)]
struct FeedState {
    /// The position that was given last.
    last: i64,
    /// Up to where events were purged.
    purged: i64,
}

async fn feed_state(executor: impl sqlx::Executor<'_, Database = Db>) -> Result<FeedState, StoreError> {
    sqlx::query_as("SELECT last, purged FROM usermgr_event_feed").fetch_one(executor).await.map_err(fault)
}

/// Takes the turn to change positions. Whoever has it sees all that was committed before.
async fn lock_feed(tx: &mut Tx) -> Result<i64, StoreError> {
    sqlx::query_scalar(locking!("SELECT last FROM usermgr_event_feed"))
        .fetch_one(&mut **tx)
        .await
        .map_err(fault)
}

/// Gives positions to what is committed and has none. Of a user of whom nothing else is undelivered, the first is due.
async fn number(tx: &mut Tx) -> Result<(), StoreError> {
    let last = lock_feed(tx).await?;
    let numbered = sqlx::query(
        "UPDATE usermgr_events SET position = numbered.position FROM (SELECT seq, $1 + ROW_NUMBER() OVER \
         (ORDER BY seq) AS position FROM (SELECT seq FROM usermgr_events WHERE position IS NULL ORDER BY seq \
         LIMIT $2) AS unnumbered) AS numbered WHERE usermgr_events.seq = numbered.seq",
    )
    .bind(last)
    .bind(NUMBERED_AT_ONCE)
    .execute(&mut **tx)
    .await
    .map_err(fault)?
    .rows_affected();
    if numbered == 0 {
        return Ok(());
    }
    sqlx::query("UPDATE usermgr_event_feed SET last = $1")
        .bind(last.saturating_add_unsigned(numbered))
        .execute(&mut **tx)
        .await
        .map_err(fault)?;
    sqlx::query(
        "UPDATE usermgr_events SET due_at = $2 WHERE position > $1 AND NOT EXISTS (SELECT 1 FROM usermgr_events older \
         WHERE older.user_id = usermgr_events.user_id AND older.delivered_at IS NULL \
         AND older.position < usermgr_events.position)",
    )
    .bind(last)
    .bind(ts(AT_ONCE))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(())
}

/// Makes a user's oldest undelivered event due.
async fn pass_turn(tx: &mut Tx, user: Uuid) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE usermgr_events SET due_at = $2 WHERE position = (SELECT position FROM usermgr_events \
         WHERE user_id = $1 AND delivered_at IS NULL AND position IS NOT NULL ORDER BY position LIMIT 1) \
         AND due_at IS NULL",
    )
    .bind(user)
    .bind(ts(AT_ONCE))
    .execute(&mut **tx)
    .await
    .map_err(fault)?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct EventRow {
    id: Uuid,
    position: i64,
    kind: String,
    user_id: Uuid,
    session_id: Option<Uuid>,
    at: Ts,
    attempts: i64,
}

impl EventRow {
    fn event(self) -> Result<Event, StoreError> {
        Ok(Event {
            id: EventId::from_uuid(self.id),
            position: position(self.position)?,
            at: from_ts(self.at),
            kind: EventKind::from_name(&self.kind)
                .ok_or_else(|| corrupt("usermgr_events", "kind", self.id))?,
            user_id: UserId::from_uuid(self.user_id),
            session_id: self.session_id.map(SessionId::from_uuid),
        })
    }
}

fn position(position: i64) -> Result<EventPosition, StoreError> {
    u64::try_from(position)
        .map(EventPosition::from_u64)
        .map_err(|_| corrupt("usermgr_events", "position", position))
}

/// A position beyond what a table can hold was never given.
fn as_i64(position: EventPosition) -> i64 {
    i64::try_from(position.as_u64()).unwrap_or(i64::MAX)
}
