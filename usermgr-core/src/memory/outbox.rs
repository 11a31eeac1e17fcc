//! Mails that are owed.

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{MemoryStore, OutboxRow, State};
use crate::domain::id::OutboxId;
use crate::domain::page::Page;
use crate::domain::role::Roles;
use crate::port::store::StoreError;
use crate::port::store::outbox::{
    Claim, Claimed, DeliveryResult, OutboxEntry, OutboxQuery, OutboxStatus, OutboxStore, RenewLeases,
    Renewed, Requeue, Requeued, Settle, Settled,
};

#[async_trait]
impl OutboxStore for MemoryStore {
    async fn claim(&self, command: Claim) -> Result<Vec<Claimed>, StoreError> {
        let Claim { now, lease, lease_until, limit, mut room } = command;
        let mut guard = self.state()?;
        let state = &mut *guard;
        let is_ours = |row: &OutboxRow| {
            row.status == OutboxStatus::Queued && row.lease.is_some_and(|(held, _)| held == lease)
        };
        let mut again: Vec<_> = state.outbox.values_mut().filter(|row| is_ours(row)).collect();
        if !again.is_empty() {
            again.sort_by_key(|row| row.due_at);
            let leased = again.into_iter().map(|row| {
                row.lease = Some((lease, lease_until));
                Claimed { mail: row.mail(&state.codes), attempt: row.attempts }
            });
            return Ok(leased.collect());
        }
        let full: Vec<_> = room.full().map(str::to_owned).collect();
        let mut due: Vec<_> = state
            .outbox
            .iter()
            .filter(|(_, row)| {
                row.status == OutboxStatus::Queued
                    && row.due_at <= now
                    && row.lease.is_none_or(|(_, until)| until <= now)
                    && !full.iter().any(|domain| domain == row.mail.to.domain())
            })
            .map(|(id, row)| (row.due_at, *id))
            .collect();
        due.sort_unstable();
        let mut claimed = Vec::new();
        for looked_at in due.chunks(limit.max(1) as usize).take_while(|_| limit > 0) {
            let mut ended = false;
            for (_, id) in looked_at {
                let Some(row) = state.outbox.get_mut(id) else { continue };
                if let Some(code) = &row.code
                    && state.codes.get(code).is_none_or(|code| code.closed_at.is_some() || code.is_over(now))
                {
                    row.end(OutboxStatus::Void, now);
                    ended = true;
                } else if state.undeliverable.contains_key(row.mail.to.key()) {
                    row.end(OutboxStatus::Dead, now);
                    row.error = Some(OutboxEntry::UNDELIVERABLE.into());
                    ended = true;
                } else if room.take(row.mail.to.domain()) {
                    row.lease = Some((lease, lease_until));
                    row.attempts += 1;
                    claimed.push(Claimed { mail: row.mail(&state.codes), attempt: row.attempts });
                }
            }
            if !claimed.is_empty() || !ended {
                break;
            }
        }
        Ok(claimed)
    }

    async fn settle_all(&self, commands: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        let mut state = self.state()?;
        Ok(commands.into_iter().map(|command| state.settle(command)).collect())
    }

    async fn renew_mails(&self, command: RenewLeases<OutboxId>) -> Result<Vec<Renewed>, StoreError> {
        let RenewLeases { lease_until, held } = command;
        let mut state = self.state()?;
        let renew = |(id, lease)| match state.outbox.get_mut(&id) {
            Some(OutboxRow { status: OutboxStatus::Queued, lease: Some((by, until)), .. })
                if *by == lease =>
            {
                *until = lease_until;
                Renewed::Kept
            }
            _ => Renewed::Lost,
        };
        Ok(held.into_iter().map(renew).collect())
    }

    async fn requeue(&self, command: Requeue) -> Result<Requeued, StoreError> {
        let Requeue { now, id, by, audit } = command;
        let mut state = self.state()?;
        if !state.permits(by.as_ref(), &Roles::new()) {
            state.audit_refused(audit, now, "forbidden", None);
            return Ok(Requeued::NotPermitted);
        }
        let Some(row) = state.outbox.get_mut(&id).filter(|row| row.status == OutboxStatus::Dead) else {
            state.audit_refused(audit, now, "not_found", None);
            return Ok(Requeued::NotFound);
        };
        row.status = OutboxStatus::Queued;
        row.attempts = 0;
        row.due_at = now;
        row.settled_at = None;
        let user = row.user;
        state.audit_done(audit, now, user);
        drop(state);
        self.wake();
        Ok(Requeued::Requeued)
    }

    async fn outbox(&self, query: OutboxQuery) -> Result<Page<OutboxEntry, OutboxId>, StoreError> {
        let OutboxQuery { user, status, after, size } = query;
        let state = self.state()?;
        let size = usize::from(size.get());
        let mut items: Vec<OutboxEntry> = state
            .outbox
            .iter()
            .rev()
            .filter(|(id, row)| {
                after.is_none_or(|after| **id < after)
                    && status.is_none_or(|s| row.status == s)
                    && user.is_none_or(|user| row.user == Some(user))
            })
            .take(size + 1)
            .map(|(_, row)| OutboxEntry {
                mail: row.mail(&state.codes),
                status: row.status,
                attempts: row.attempts,
                due_at: row.due_at,
                settled_at: row.settled_at,
                error: row.error.clone(),
            })
            .collect();
        let more = items.len() > size;
        items.truncate(size);
        let next = items.last().filter(|_| more).map(|entry| entry.mail.id);
        Ok(Page::new(items, next))
    }

    async fn wait_for_due(&self, at_most: std::time::Duration) {
        drop(tokio::time::timeout(at_most, self.due.notified()).await);
    }
}

impl OutboxRow {
    const fn end(&mut self, status: OutboxStatus, now: OffsetDateTime) {
        self.status = status;
        self.settled_at = Some(now);
        self.lease = None;
    }
}

impl State {
    fn settle(&mut self, command: Settle) -> Settled {
        let Settle { now, id, lease, result } = command;
        let Some(row) = self.outbox.get_mut(&id).filter(|row| {
            row.status == OutboxStatus::Queued && row.lease.is_some_and(|(held, _)| held == lease)
        }) else {
            return Settled::LostLease;
        };
        row.lease = None;
        match result {
            DeliveryResult::Sent { code_ttl } => {
                row.status = OutboxStatus::Sent;
                row.settled_at = Some(now);
                row.error = None;
                if let (Some(code), Some(ttl)) = (&row.code, code_ttl)
                    && let Some(code) = self.codes.get_mut(code)
                    && code.expires_at.is_none()
                {
                    code.expires_at = Some(now + ttl);
                }
            }
            DeliveryResult::Retry { at, error } => {
                row.due_at = at;
                row.error = Some(error);
            }
            DeliveryResult::Dead { error } => {
                row.status = OutboxStatus::Dead;
                row.settled_at = Some(now);
                row.error = Some(error);
            }
        }
        Settled::Settled
    }
}
