//! Mails that are owed.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;
use usermgr_core::domain::id::OutboxId;
use usermgr_core::domain::mail::{OwedCode, OwedMail};
use usermgr_core::domain::page::Page;
use usermgr_core::domain::role::Roles;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::outbox::{
    Claim, Claimed, DeliveryResult, Lease, OutboxEntry, OutboxQuery, OutboxStatus, OutboxStore, RenewLeases,
    Renewed, Requeue, Requeued, Settle, Settled,
};

use crate::FileStore;
use crate::database::Transaction;
use crate::rows::{CodeRow, MailRow, MarkRow};
use crate::text::Text as _;

#[async_trait]
impl OutboxStore for FileStore {
    async fn claim(&self, command: Claim) -> Result<Vec<Claimed>, StoreError> {
        self.run(|tx| claim(tx, command)).await
    }

    async fn settle_all(&self, commands: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        self.run(|tx| commands.into_iter().map(|command| settle(tx, command)).collect()).await
    }

    async fn renew_mails(&self, command: RenewLeases<OutboxId>) -> Result<Vec<Renewed>, StoreError> {
        self.run(move |tx| {
            let RenewLeases { lease_until, held } = command;
            held.into_iter().map(|(id, lease)| renew(tx, id, lease, lease_until)).collect()
        })
        .await
    }

    async fn outbox(&self, query: OutboxQuery) -> Result<Page<OutboxEntry, OutboxId>, StoreError> {
        self.run(move |tx| outbox(tx, query)).await
    }

    async fn requeue(&self, command: Requeue) -> Result<Requeued, StoreError> {
        self.run(|tx| requeue(tx, command)).await
    }

    async fn wait_for_due(&self, at_most: Duration) {
        drop(tokio::time::timeout(at_most, self.due.notified()).await);
    }
}

/// A mail with what the worker needs of its code.
fn owed(tx: &Transaction<'_>, row: &MailRow) -> Result<OwedMail, StoreError> {
    let code = code_of(tx, row)?;
    Ok(OwedMail {
        id: row.id,
        kind: row.kind,
        to: row.to.clone(),
        locale: row.locale.clone(),
        username: row.username.clone(),
        code: code.map(|CodeRow { code, purpose, .. }| OwedCode {
            id: code.id,
            purpose,
            form: code.form,
            key: code.key,
        }),
        created_at: row.created_at,
    })
}

fn code_of(tx: &Transaction<'_>, row: &MailRow) -> Result<Option<CodeRow>, StoreError> {
    row.code.map_or(Ok(None), |code| tx.get(code))
}

fn claim(tx: &mut Transaction<'_>, command: Claim) -> Result<Vec<Claimed>, StoreError> {
    let Claim { now, lease, lease_until, limit, mut room } = command;
    let queued = tx.rows::<MailRow>()?.into_iter().map(|(_, row)| row);
    let mut queued: Vec<_> = queued.filter(|row| row.status == OutboxStatus::Queued).collect();
    queued.sort_by_key(|row| (row.due_at, row.id));
    let mut claimed = Vec::new();
    for mut row in queued.iter().filter(|row| row.lease == Some(lease)).cloned() {
        row.lease_until = Some(lease_until);
        tx.put(row.id, &row)?;
        claimed.push(Claimed { mail: owed(tx, &row)?, attempt: row.attempts });
    }
    if !claimed.is_empty() || limit == 0 {
        return Ok(claimed);
    }
    let full: Vec<_> = room.full().map(str::to_owned).collect();
    queued.retain(|row| {
        row.due_at <= now
            && row.lease_until.is_none_or(|until| until <= now)
            && !full.iter().any(|domain| domain == row.to.domain())
    });
    for looked_at in queued.chunks(limit as usize) {
        let mut ended = false;
        for row in looked_at {
            let mut row = row.clone();
            let code = code_of(tx, &row)?;
            let code_is_over = code.is_none_or(|code| code.closed_at.is_some() || code.is_over(now));
            if row.code.is_some() && code_is_over {
                end(&mut row, OutboxStatus::Void, now);
                ended = true;
            } else if tx.get::<MarkRow>(row.to.key().text())?.is_some() {
                end(&mut row, OutboxStatus::Dead, now);
                row.error = Some(OutboxEntry::UNDELIVERABLE.to_owned());
                ended = true;
            } else if room.take(row.to.domain()) {
                row.lease = Some(lease);
                row.lease_until = Some(lease_until);
                row.attempts += 1;
                claimed.push(Claimed { mail: owed(tx, &row)?, attempt: row.attempts });
            }
            tx.put(row.id, &row)?;
        }
        if !claimed.is_empty() || !ended {
            break;
        }
    }
    Ok(claimed)
}

fn end(row: &mut MailRow, status: OutboxStatus, now: OffsetDateTime) {
    row.status = status;
    row.settled_at = Some(now);
    (row.lease, row.lease_until) = (None, None);
}

fn renew(
    tx: &mut Transaction<'_>,
    id: OutboxId,
    lease: Lease,
    lease_until: OffsetDateTime,
) -> Result<Renewed, StoreError> {
    let is_held = |row: &MailRow| row.status == OutboxStatus::Queued && row.lease == Some(lease);
    let Some(mut row) = tx.get::<MailRow>(id)?.filter(is_held) else { return Ok(Renewed::Lost) };
    row.lease_until = Some(lease_until);
    tx.put(row.id, &row)?;
    Ok(Renewed::Kept)
}

fn settle(tx: &mut Transaction<'_>, command: Settle) -> Result<Settled, StoreError> {
    let Settle { now, id, lease, result } = command;
    let is_held = |row: &MailRow| row.status == OutboxStatus::Queued && row.lease == Some(lease);
    let Some(mut row) = tx.get::<MailRow>(id)?.filter(is_held) else { return Ok(Settled::LostLease) };
    match result {
        DeliveryResult::Sent { code_ttl } => {
            end(&mut row, OutboxStatus::Sent, now);
            row.error = None;
            if let (Some(mut code), Some(ttl)) = (code_of(tx, &row)?, code_ttl)
                && code.expires_at.is_none()
            {
                code.expires_at = Some(now + ttl);
                tx.put(code.code.id, &code)?;
            }
        }
        DeliveryResult::Retry { at, error } => {
            (row.lease, row.lease_until) = (None, None);
            row.due_at = at;
            row.error = Some(error);
        }
        DeliveryResult::Dead { error } => {
            end(&mut row, OutboxStatus::Dead, now);
            row.error = Some(error);
        }
    }
    tx.put(id, &row)?;
    Ok(Settled::Settled)
}

fn outbox(tx: &Transaction<'_>, query: OutboxQuery) -> Result<Page<OutboxEntry, OutboxId>, StoreError> {
    let OutboxQuery { user, status, after, size } = query;
    let rows = tx.rows::<MailRow>()?.into_iter().rev().map(|(_, row)| row).filter(|row| {
        after.is_none_or(|after| row.id < after)
            && status.is_none_or(|status| row.status == status)
            && user.is_none_or(|user| row.user == Some(user))
    });
    let size = usize::from(size.get());
    let mut found: Vec<_> = rows.take(size + 1).collect();
    let more = found.len() > size;
    found.truncate(size);
    let next = found.last().filter(|_| more).map(|row| row.id);
    let entries = found.into_iter().map(|row| {
        Ok(OutboxEntry {
            mail: owed(tx, &row)?,
            status: row.status,
            attempts: row.attempts,
            due_at: row.due_at,
            settled_at: row.settled_at,
            error: row.error,
        })
    });
    Ok(Page::new(entries.collect::<Result<_, StoreError>>()?, next))
}

fn requeue(tx: &mut Transaction<'_>, command: Requeue) -> Result<Requeued, StoreError> {
    let Requeue { now, id, by, audit } = command;
    if !tx.permits(by.as_ref(), &Roles::new())? {
        tx.audit_refused(audit, now, "forbidden", None)?;
        return Ok(Requeued::NotPermitted);
    }
    let Some(mut row) = tx.get::<MailRow>(id)?.filter(|row| row.status == OutboxStatus::Dead) else {
        tx.audit_refused(audit, now, "not_found", None)?;
        return Ok(Requeued::NotFound);
    };
    row.status = OutboxStatus::Queued;
    row.attempts = 0;
    row.due_at = now;
    row.settled_at = None;
    tx.put(id, &row)?;
    tx.audit_done(audit, now, row.user)?;
    Ok(Requeued::Requeued)
}
