//! The audit log, signing keys and upkeep.

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{MemoryStore, Owner, RegistrationRow, State};
use crate::domain::audit::AuditEntry;
use crate::domain::id::{AuditId, RegistrationId, UserId};
use crate::domain::page::Page;
use crate::port::store::audit::{AuditQuery, AuditStore, Record, Recorded};
use crate::port::store::key::{
    AddSigningKey, KeyStore, KeysChanged, ResealSigningKey, RevokeSigningKeys, SealedSigningKey,
};
use crate::port::store::outbox::OutboxStatus;
use crate::port::store::upkeep::{Backlog, Purge, Purged, UpkeepStore};
use crate::port::store::{EventDraft, Happened, StoreError};

#[async_trait]
impl AuditStore for MemoryStore {
    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError> {
        let AuditQuery { subject, event, since, after, size } = query;
        let since = since.map(AuditId::first_of);
        let state = self.state()?;
        let mut entries: Vec<&AuditEntry> = state
            .audit
            .iter()
            .filter(|entry| subject.is_none() || entry.subject == subject)
            .filter(|entry| event.is_none_or(|event| entry.event == event))
            .filter(|entry| since.is_none_or(|since| entry.id >= since))
            .filter(|entry| after.is_none_or(|after| entry.id < after))
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.id));
        let size = usize::from(size.get());
        let next = if entries.len() > size { entries.get(size - 1).map(|entry| entry.id) } else { None };
        Ok(Page::new(entries.into_iter().take(size).cloned().collect(), next))
    }

    async fn record(&self, command: Record) -> Result<Recorded, StoreError> {
        let now = command.now;
        let mut state = self.state()?;
        state.clamp(&command.throttle, now);
        if let Some(retry_after) = state.used_up(&command.past(), now) {
            return Ok(Recorded::Throttled { retry_after });
        }
        let used_up = state.used_up(&command.throttle, now);
        for rule in &command.throttle {
            state.count(rule, now);
        }
        let entry = if used_up.is_some() { command.into_last_entry() } else { command.entry };
        state.audit.push(entry);
        Ok(used_up.map_or(Recorded::Recorded, |retry_after| Recorded::Throttled { retry_after }))
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        let mut keys = self.state()?.keys.clone();
        keys.sort_by_key(|key| std::cmp::Reverse((key.created_at, key.id)));
        Ok(keys)
    }

    async fn add_signing_key(&self, command: AddSigningKey) -> Result<Vec<SealedSigningKey>, StoreError> {
        let AddSigningKey { now, key, unless_since, audit } = command;
        {
            let mut state = self.state()?;
            let is_there = |other: &SealedSigningKey| {
                other.id == key.id
                    || other.algorithm == key.algorithm
                        && other.revoked_at.is_none()
                        && unless_since.is_some_and(|since| other.signs_from >= since)
            };
            if !state.keys.iter().any(is_there) {
                state.keys.push(key);
                state.audit_done(audit, now, None);
            }
        }
        self.signing_keys().await
    }

    async fn reseal_signing_key(&self, command: ResealSigningKey) -> Result<bool, StoreError> {
        let ResealSigningKey { id, before, after } = command;
        let mut state = self.state()?;
        let Some(key) = state.keys.iter_mut().find(|key| key.id == id && key.sealed == before) else {
            return Ok(false);
        };
        key.sealed = after;
        Ok(true)
    }

    async fn revoke_signing_keys(
        &self,
        command: RevokeSigningKeys,
    ) -> Result<Option<Vec<SealedSigningKey>>, StoreError> {
        {
            let mut state = self.state()?;
            let Some(changed) = SealedSigningKey::revoke(&mut state.keys, &command) else {
                return Ok(None);
            };
            let RevokeSigningKeys { now, which: _, replacement: _, audit } = command;
            if changed == KeysChanged::Yes {
                state.audit_done(audit, now, None);
            }
        }
        self.signing_keys().await.map(Some)
    }
}

#[async_trait]
impl UpkeepStore for MemoryStore {
    async fn purge(&self, command: Purge) -> Result<Purged, StoreError> {
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
        let mut guard = self.state()?;
        let state = &mut *guard;
        let mut budget = Batch(u64::from(batch));
        let registrations =
            budget.take(|take| state.remove_registrations(|_, row| row.expires_at <= now && take()));
        let codes = budget.take(|take| {
            remove(&mut state.codes, |_, row| {
                let over = row.closed_at.is_some_and(|at| at < ended_before)
                    || row.code.dies_at < ended_before
                    || row.expires_at.is_some_and(|at| at < ended_before);
                over && take()
            })
        });
        let sessions =
            budget.take(|take| remove(&mut state.sessions, |_, row| row.is_over(ended_before) && take()));
        let outbox = budget.take(|take| {
            remove(&mut state.outbox, |_, row| {
                let before = match row.status {
                    OutboxStatus::Sent | OutboxStatus::Void => settled_before,
                    OutboxStatus::Dead => dead_before,
                    OutboxStatus::Queued => return false,
                };
                row.settled_at.is_some_and(|at| at < before) && take()
            })
        });
        let audit = budget.take(|take| {
            let before = state.audit.len();
            state.audit.retain(|entry| !(entry.at < audited_before && take()));
            (before - state.audit.len()) as u64
        });
        let throttles =
            budget.take(|take| remove(&mut state.throttles, |_, row| row.ends_at <= now && take()));
        let networks =
            budget.take(|take| remove(&mut state.networks, |_, seen| *seen < known_before && take()));
        let mut gone = Vec::new();
        let users = budget.take(|take| {
            remove(&mut state.users, |id, row| {
                let over = row
                    .deleted
                    .is_some_and(|deleted| deleted.at < deleted_before && !deleted.is_restorable(now))
                    && take();
                if over {
                    gone.push(*id);
                }
                over
            })
        });
        for id in gone {
            state.forget(id);
            let happened = Happened { user_purged: true, ..Happened::default() };
            state.owe_events(&[EventDraft::user_purged(id)], happened, id, now);
        }
        let held: std::collections::BTreeSet<_> = state.sessions.keys().copied().collect();
        state.access_tokens.retain(|_, (session, _)| held.contains(session));
        let access_tokens =
            budget.take(|take| remove(&mut state.access_tokens, |_, (_, ends_at)| *ends_at <= now && take()));
        let signing_keys = state.remove_retired_keys(retired_before);
        let events = state.feed.purge(|event| command.is_over(event.at), batch);
        let undeliverable = budget
            .take(|take| remove(&mut state.undeliverable, |_, mark| mark.since < marked_before && take()));
        let purged = Purged {
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
        };
        drop(guard);
        self.wake();
        Ok(purged)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let state = self.state()?;
        let most = Backlog::MOST as usize;
        let of = |status| move |row: &&super::OutboxRow| row.status == status;
        let mut queued: Vec<_> = state.outbox.values().filter(of(OutboxStatus::Queued)).collect();
        queued.sort_by_key(|row| (row.due_at, row.mail.id));
        queued.truncate(most);
        let (undelivered_events, oldest_event) = state.feed.undelivered();
        Ok(Backlog {
            queued_mails: queued.len() as u64,
            oldest_mail: queued.iter().map(|row| row.mail.created_at).min(),
            dead_mails: state.outbox.values().filter(of(OutboxStatus::Dead)).take(most).count() as u64,
            undelivered_events: undelivered_events.min(u64::from(Backlog::MOST)),
            oldest_event,
        })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.state().map(drop)
    }
}

/// The most rows of each kind that one purge removes.
struct Batch(u64);

impl Batch {
    fn take(&mut self, remove: impl FnOnce(&mut dyn FnMut() -> bool) -> u64) -> u64 {
        let mut left = self.0;
        remove(&mut || {
            let may = left > 0;
            left = left.saturating_sub(1);
            may
        })
    }
}

fn remove<K: Ord, V>(
    rows: &mut std::collections::BTreeMap<K, V>,
    mut which: impl FnMut(&K, &V) -> bool,
) -> u64 {
    let before = rows.len();
    rows.retain(|key, row| !which(key, row));
    (before - rows.len()) as u64
}

impl State {
    fn remove_retired_keys(&mut self, retired_before: OffsetDateTime) -> u64 {
        let keys = self.keys.clone();
        self.keys.retain(|key| {
            !keys
                .iter()
                .filter(|later| later.revoked_at.is_none())
                .any(|later| later.signs_from > key.signs_from && later.signs_from < retired_before)
        });
        (keys.len() - self.keys.len()) as u64
    }

    /// Removes what is left of a user who was removed; the audit entries stay under the identifier alone.
    fn forget(&mut self, user: UserId) {
        self.sessions.retain(|_, row| row.session.user_id != user);
        self.codes.retain(|_, row| row.owner != Owner::User(user));
        self.networks.retain(|(id, _), _| *id != user);
        self.outbox.retain(|_, row| row.status == OutboxStatus::Queued || row.user != Some(user));
        for entry in
            self.audit.iter_mut().filter(|entry| entry.subject == Some(user) || entry.actor == Some(user))
        {
            (entry.email, entry.ip, entry.user_agent) = (None, None, None);
        }
    }

    /// Removes registrations with their codes.
    pub(super) fn remove_registrations(
        &mut self,
        which: impl FnMut(&RegistrationId, &RegistrationRow) -> bool,
    ) -> u64 {
        let removed = remove(&mut self.registrations, which);
        let registrations = &self.registrations;
        self.codes.retain(|_, row| match row.owner {
            Owner::Registration(id) => registrations.contains_key(&id),
            Owner::User(_) => true,
        });
        removed
    }
}
