//! Keeping the file small, and telling whether the store is well.

use async_trait::async_trait;
use time::OffsetDateTime;
use usermgr_core::domain::id::UserId;
use usermgr_core::port::store::outbox::OutboxStatus;
use usermgr_core::port::store::upkeep::{Backlog, Purge, Purged, UpkeepStore};
use usermgr_core::port::store::{EventDraft, Happened, StoreError};

use crate::FileStore;
use crate::database::Transaction;
use crate::rows::{
    AccessRow, AuditRow, CodeRow, EventRow, KeyRow, MailRow, MarkRow, NetworkRow, Owner, SessionRow,
    ThrottleRow, UserRow,
};

#[async_trait]
impl UpkeepStore for FileStore {
    async fn purge(&self, command: Purge) -> Result<Purged, StoreError> {
        self.run(move |tx| purge(tx, command)).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.run(|tx| backlog(tx)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.run(|_| Ok(())).await
    }
}

fn purge(tx: &mut Transaction<'_>, command: Purge) -> Result<Purged, StoreError> {
    let Purge {
        now,
        ended_before,
        settled_before,
        dead_before,
        audited_before,
        events_before: _,
        deleted_before,
        retired_before,
        known_before,
        marked_before,
        batch,
    } = command;
    let most = batch as usize;
    let before = |at: Option<OffsetDateTime>, end: OffsetDateTime| at.is_some_and(|at| at < end);
    let count = |removed: Vec<String>| removed.len() as u64;
    let purged = Purged {
        registrations: tx.remove_registrations(most, |row| row.expires_at <= now)?,
        codes: count(tx.purge(most, |row: &CodeRow| {
            before(row.closed_at, ended_before)
                || row.code.dies_at < ended_before
                || before(row.expires_at, ended_before)
        })?),
        sessions: count(tx.purge(most, |row: &SessionRow| {
            before(row.ended_at, ended_before)
                || row.session.idle_expires_at < ended_before
                || row.session.expires_at < ended_before
        })?),
        outbox: count(tx.purge(most, |row: &MailRow| match row.status {
            OutboxStatus::Sent | OutboxStatus::Void => before(row.settled_at, settled_before),
            OutboxStatus::Dead => before(row.settled_at, dead_before),
            OutboxStatus::Queued => false,
        })?),
        audit: count(tx.purge(most, |AuditRow(entry): &AuditRow| entry.at < audited_before)?),
        throttles: count(tx.purge(most, |row: &ThrottleRow| row.ends_at <= now)?),
        networks: count(tx.purge(most, |row: &NetworkRow| row.seen_at < known_before)?),
        undeliverable: count(tx.purge(most, |MarkRow(mark): &MarkRow| mark.since < marked_before)?),
        users: forget_users(tx, deleted_before, now, most)?,
        access_tokens: purge_tokens(tx, now, most)?,
        signing_keys: purge_keys(tx, retired_before)?,
        // Last: a user who is removed is told of.
        events: purge_events(tx, &command)?,
    };
    Ok(purged)
}

/// Removes users who were deleted long ago and do not come back any more, with all that is theirs.
fn forget_users(
    tx: &mut Transaction<'_>,
    deleted_before: OffsetDateTime,
    now: OffsetDateTime,
    most: usize,
) -> Result<u64, StoreError> {
    let gone = tx.purge(most, |row: &UserRow| {
        row.deleted.is_some_and(|deleted| deleted.at < deleted_before && !deleted.is_restorable(now))
    })?;
    for user in &gone {
        let Ok(user) = user.parse::<UserId>() else { continue };
        tx.purge(usize::MAX, |row: &SessionRow| row.session.user_id == user)?;
        tx.purge(usize::MAX, |row: &CodeRow| row.owner == Owner::User(user))?;
        tx.purge(usize::MAX, |row: &NetworkRow| row.user == user)?;
        tx.purge(usize::MAX, |row: &MailRow| row.user == Some(user) && row.status != OutboxStatus::Queued)?;
        tx.change(|AuditRow(entry): &mut AuditRow| {
            let tells = entry.subject == Some(user) || entry.actor == Some(user);
            if tells {
                (entry.email, entry.ip, entry.user_agent) = (None, None, None);
            }
            tells
        })?;
        let happened = Happened { user_purged: true, ..Happened::default() };
        tx.owe_events(&[EventDraft::user_purged(user)], happened, user, now)?;
    }
    Ok(gone.len() as u64)
}

/// Removes the access tokens of sessions that are gone, which do not count, and those that ran out.
fn purge_tokens(tx: &mut Transaction<'_>, now: OffsetDateTime, most: usize) -> Result<u64, StoreError> {
    let sessions: Vec<_> = tx.rows::<SessionRow>()?.into_iter().map(|(_, row)| row.session.id).collect();
    tx.purge(usize::MAX, |row: &AccessRow| !sessions.contains(&row.session))?;
    Ok(tx.purge(most, |row: &AccessRow| row.ends_at <= now)?.len() as u64)
}

fn purge_keys(tx: &mut Transaction<'_>, retired_before: OffsetDateTime) -> Result<u64, StoreError> {
    let keys: Vec<_> = tx.rows::<KeyRow>()?.into_iter().map(|(_, KeyRow(key))| key).collect();
    let removed = tx.purge(usize::MAX, |KeyRow(key): &KeyRow| {
        keys.iter()
            .filter(|later| later.revoked_at.is_none())
            .any(|later| later.signs_from > key.signs_from && later.signs_from < retired_before)
    })?;
    Ok(removed.len() as u64)
}

/// Removes the oldest events as far as they are over, and notes up to where.
fn purge_events(tx: &mut Transaction<'_>, command: &Purge) -> Result<u64, StoreError> {
    let rows = tx.rows::<EventRow>()?.into_iter().map(|(_, row)| row);
    let over: Vec<_> =
        rows.take(command.batch as usize).take_while(|row| command.is_over(row.event.at)).collect();
    let mut feed = tx.feed()?;
    for row in &over {
        tx.remove::<EventRow>(row.key());
        feed.purged = row.event.position.as_u64();
    }
    if !over.is_empty() {
        tx.put("", &feed)?;
    }
    Ok(over.len() as u64)
}

fn backlog(tx: &Transaction<'_>) -> Result<Backlog, StoreError> {
    let most = Backlog::MOST as usize;
    let mails: Vec<_> = tx.rows::<MailRow>()?.into_iter().map(|(_, row)| row).collect();
    let mut queued: Vec<_> = mails.iter().filter(|row| row.status == OutboxStatus::Queued).collect();
    queued.sort_by_key(|row| (row.due_at, row.id));
    queued.truncate(most);
    let events = tx.rows::<EventRow>()?;
    let waiting = || events.iter().map(|(_, row)| row).filter(|row| !row.delivered).take(most);
    Ok(Backlog {
        queued_mails: queued.len() as u64,
        oldest_mail: queued.iter().map(|row| row.created_at).min(),
        dead_mails: mails.iter().filter(|row| row.status == OutboxStatus::Dead).take(most).count() as u64,
        undelivered_events: waiting().count() as u64,
        oldest_event: waiting().map(|row| row.event.at).min(),
    })
}
