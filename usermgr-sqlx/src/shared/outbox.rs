//! Mails that are owed.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::QueryBuilder;
use usermgr_core::domain::email::Email;
use usermgr_core::domain::id::{CodeId, OutboxId, UserId};
use usermgr_core::domain::mail::{OwedCode, OwedMail};
use usermgr_core::domain::page::Page;
use usermgr_core::domain::role::Roles;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::outbox::{
    Claim, Claimed, DeliveryResult, OutboxEntry, OutboxQuery, OutboxStatus, OutboxStore, Requeue, Requeued,
    Settle, Settled,
};
use uuid::Uuid;

use super::super::Db;
use super::account::{lock_actor, permits};
use super::code::code_parts;
use super::rows::{corrupt, locale, username};
use super::writing::{audit_done, audit_refused};
use super::{Store, Ts, fault, from_ts, reread, transact, ts};

/// The columns of a mail, in no particular order: [`OutboxRow`] takes them by name.
macro_rules! mail_columns {
    () => {
        "SELECT o.id, o.name, o.email, o.locale, o.username, o.created_at, o.due_at, o.attempts, \
         o.status, o.settled_at, o.error, c.id AS code_id, c.purpose, c.digits, c.secret_key \
         FROM usermgr_outbox o LEFT JOIN usermgr_codes c ON c.id = o.code_id "
    };
}

#[async_trait]
impl OutboxStore for Store {
    async fn claim(&self, command: Claim) -> Result<Vec<Claimed>, StoreError> {
        let due: Option<i64> = sqlx::query_scalar(
            "SELECT CAST(1 AS BIGINT) FROM usermgr_outbox WHERE status = 'queued' AND due_at <= $1 \
             AND (lease_until IS NULL OR lease_until <= $1) \
             UNION ALL SELECT CAST(1 AS BIGINT) FROM usermgr_outbox WHERE lease = $2 LIMIT 1",
        )
        .bind(ts(command.now))
        .bind(command.lease.0.as_slice())
        .fetch_optional(self.readers())
        .await
        .map_err(fault)?;
        if due.is_none() {
            return Ok(Vec::new());
        }
        transact!(self.claim_once(command))
    }

    async fn settle(&self, command: Settle) -> Result<Settled, StoreError> {
        transact!(self.settle_once(command))
    }

    async fn requeue(&self, command: Requeue) -> Result<Requeued, StoreError> {
        transact!(self.requeue_once(command))
    }

    async fn outbox(&self, query: OutboxQuery) -> Result<Page<OutboxEntry, OutboxId>, StoreError> {
        reread!(self.outbox_once(query))
    }

    async fn wait_for_due(&self, at_most: Duration) {
        self.listen().await;
        drop(tokio::time::timeout(at_most, self.due.notified()).await);
    }
}

impl Store {
    async fn outbox_once(&self, query: OutboxQuery) -> Result<Page<OutboxEntry, OutboxId>, StoreError> {
        let OutboxQuery { user, status, after, size } = query;
        let mut statement = QueryBuilder::<Db>::new(concat!(mail_columns!(), "WHERE o.id < "));
        statement.push_bind(after.map_or(Uuid::max(), |after| after.as_uuid()));
        // The name stands in the statement, so that the index of that status serves.
        statement.push(match status {
            None => "",
            Some(OutboxStatus::Queued) => " AND o.status = 'queued'",
            Some(OutboxStatus::Sent) => " AND o.status = 'sent'",
            Some(OutboxStatus::Dead) => " AND o.status = 'dead'",
            Some(OutboxStatus::Void) => " AND o.status = 'void'",
        });
        if let Some(user) = user {
            statement.push(" AND o.user_id = ").push_bind(user.as_uuid());
        }
        statement.push(" ORDER BY o.id DESC LIMIT ").push_bind(i64::from(size.get()) + 1);
        let rows: Vec<OutboxRow> =
            statement.build_query_as().fetch_all(self.readers()).await.map_err(fault)?;
        let mut items = rows.into_iter().map(OutboxRow::entry).collect::<Result<Vec<_>, _>>()?;
        let more = items.len() > usize::from(size.get());
        items.truncate(usize::from(size.get()));
        let next = items.last().filter(|_| more).map(|entry| entry.mail.id);
        Ok(Page::new(items, next))
    }

    async fn claim_once(&self, command: Claim) -> Result<Vec<Claimed>, StoreError> {
        let Claim { now, lease, lease_until, limit, passing_over } = command;
        let mut tx = self.begin().await?;
        sqlx::query(concat!(
            "UPDATE usermgr_outbox SET status = 'void', settled_at = $1, lease = NULL, lease_until = NULL \
             WHERE id IN (",
            skipping!(
                "SELECT o.id FROM usermgr_outbox o WHERE o.status = 'queued' AND o.due_at <= $1 \
                 AND (o.lease_until IS NULL OR o.lease_until <= $1) AND o.code_id IS NOT NULL \
                 AND NOT EXISTS (SELECT 1 FROM usermgr_codes c WHERE c.id = o.code_id AND c.closed_at IS NULL \
                 AND c.dies_at > $1 AND (c.expires_at IS NULL OR c.expires_at > $1)) LIMIT 1000",
                ")"
            )
        ))
        .bind(ts(now))
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        sqlx::query(concat!(
            "UPDATE usermgr_outbox SET status = 'dead', settled_at = $1, error = $2, lease = NULL, lease_until = NULL \
             WHERE id IN (",
            skipping!(
                "SELECT o.id FROM usermgr_outbox o WHERE o.status = 'queued' AND o.due_at <= $1 \
                 AND (o.lease_until IS NULL OR o.lease_until <= $1) \
                 AND EXISTS (SELECT 1 FROM usermgr_undeliverable u WHERE u.email_key = o.email_key) LIMIT 1000",
                ")"
            )
        ))
        .bind(ts(now))
        .bind(OutboxEntry::UNDELIVERABLE)
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        let again = sqlx::query("UPDATE usermgr_outbox SET lease_until = $2 WHERE lease = $1")
            .bind(lease.0.as_slice())
            .bind(ts(lease_until))
            .execute(&mut *tx)
            .await
            .map_err(fault)?
            .rows_affected();
        if again == 0 {
            let mut taking = QueryBuilder::<Db>::new("UPDATE usermgr_outbox SET lease = ");
            taking.push_bind(lease.0.to_vec()).push(", lease_until = ").push_bind(ts(lease_until));
            taking.push(
                ", attempts = attempts + 1 WHERE id IN (SELECT o.id FROM usermgr_outbox o \
                 WHERE o.status = 'queued' AND o.due_at <= ",
            );
            taking
                .push_bind(ts(now))
                .push(" AND (o.lease_until IS NULL OR o.lease_until <= ")
                .push_bind(ts(now));
            // Of marks that were made this very moment, and of those beyond what was swept above.
            taking.push(
                ") AND NOT EXISTS (SELECT 1 FROM usermgr_undeliverable u WHERE u.email_key = o.email_key)",
            );
            for domain in passing_over {
                // A domain holds no character that means something in a pattern.
                taking.push(" AND COALESCE(o.email, '') NOT LIKE ").push_bind(format!("%@{domain}"));
            }
            taking.push(" ORDER BY o.due_at, o.id LIMIT ").push_bind(i64::from(limit));
            taking.push(skipping!("", ")"));
            taking.build().execute(&mut *tx).await.map_err(fault)?;
        }
        let rows: Vec<OutboxRow> = sqlx::query_as(concat!(
            mail_columns!(),
            // A mail whose code was purged this very moment is left to the next claim, which voids it.
            "WHERE o.lease = $1 AND o.status = 'queued' AND (o.code_id IS NULL OR c.id IS NOT NULL) \
             ORDER BY o.due_at, o.id"
        ))
        .bind(lease.0.as_slice())
        .fetch_all(&mut *tx)
        .await
        .map_err(fault)?;
        let claimed = rows
            .into_iter()
            .map(|row| row.entry().map(|entry| Claimed { attempt: entry.attempts, mail: entry.mail }))
            .collect::<Result<Vec<_>, _>>()?;
        tx.commit().await.map_err(fault)?;
        Ok(claimed)
    }

    async fn requeue_once(&self, command: Requeue) -> Result<Requeued, StoreError> {
        let Requeue { now, id, by, audit } = command;
        let mut tx = self.begin().await?;
        let actor = lock_actor(&mut tx, by.as_ref()).await?;
        if !permits(by.as_ref(), actor.as_ref(), &Roles::new()) {
            audit_refused(&mut tx, audit, now, "forbidden", None).await?;
            tx.commit().await.map_err(fault)?;
            return Ok(Requeued::NotPermitted);
        }
        let requeued: Option<(Option<Uuid>,)> = sqlx::query_as(
            "UPDATE usermgr_outbox SET status = 'queued', attempts = 0, due_at = $2, settled_at = NULL \
             WHERE id = $1 AND status = 'dead' RETURNING user_id",
        )
        .bind(id.as_uuid())
        .bind(ts(now))
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault)?;
        let Some((user,)) = requeued else {
            audit_refused(&mut tx, audit, now, "not_found", None).await?;
            tx.commit().await.map_err(fault)?;
            return Ok(Requeued::NotFound);
        };
        audit_done(&mut tx, audit, now, user.map(UserId::from_uuid)).await?;
        tx.commit().await.map_err(fault)?;
        self.wake();
        Ok(Requeued::Requeued)
    }

    async fn settle_once(&self, command: Settle) -> Result<Settled, StoreError> {
        let Settle { now, id, lease, result } = command;
        let (status, due_at, settled_at, error, code_ttl) = match result {
            DeliveryResult::Sent { code_ttl } => (OutboxStatus::Sent, None, Some(now), None, code_ttl),
            DeliveryResult::Retry { at, error } => (OutboxStatus::Queued, Some(at), None, Some(error), None),
            DeliveryResult::Dead { error } => (OutboxStatus::Dead, None, Some(now), Some(error), None),
        };
        let mut tx = self.begin().await?;
        let settled: Option<(Option<Uuid>,)> = sqlx::query_as(
            "UPDATE usermgr_outbox SET status = $3, due_at = COALESCE($4, due_at), settled_at = $5, error = $6, \
             lease = NULL, lease_until = NULL WHERE id = $1 AND lease = $2 AND status = 'queued' RETURNING code_id",
        )
        .bind(id.as_uuid())
        .bind(lease.0.as_slice())
        .bind(status.as_str())
        .bind(due_at.map(ts))
        .bind(settled_at.map(ts))
        .bind(error)
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault)?;
        let Some((code,)) = settled else { return Ok(Settled::LostLease) };
        if let (Some(code), Some(ttl)) = (code, code_ttl) {
            sqlx::query("UPDATE usermgr_codes SET expires_at = $2 WHERE id = $1 AND expires_at IS NULL")
                .bind(code)
                .bind(ts(now + ttl))
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(Settled::Settled)
    }
}

#[derive(sqlx::FromRow)]
struct OutboxRow {
    id: Uuid,
    name: String,
    email: Option<String>,
    locale: Option<String>,
    username: Option<String>,
    created_at: Ts,
    due_at: Ts,
    attempts: i64,
    status: String,
    settled_at: Option<Ts>,
    error: Option<String>,
    code_id: Option<Uuid>,
    purpose: Option<String>,
    digits: Option<i64>,
    secret_key: Option<Vec<u8>>,
}

impl OutboxRow {
    fn entry(self) -> Result<OutboxEntry, StoreError> {
        let wrong = |column| corrupt("usermgr_outbox", column, self.id);
        Ok(OutboxEntry {
            mail: self.mail()?,
            status: OutboxStatus::from_name(&self.status).ok_or_else(|| wrong("status"))?,
            attempts: u32::try_from(self.attempts).map_err(|_| wrong("attempts"))?,
            due_at: from_ts(self.due_at),
            settled_at: self.settled_at.map(from_ts),
            error: self.error,
        })
    }

    fn mail(&self) -> Result<OwedMail, StoreError> {
        let wrong = |column| corrupt("usermgr_outbox", column, self.id);
        Ok(OwedMail {
            id: OutboxId::from_uuid(self.id),
            kind: self.name.parse().map_err(|_| wrong("name"))?,
            to: self.email.as_deref().and_then(|to| Email::parse(to).ok()).ok_or_else(|| wrong("email"))?,
            locale: locale(self.locale.as_deref()).map_err(|()| wrong("locale"))?,
            username: username(self.username.as_deref()).map_err(|()| wrong("username"))?,
            code: self.code()?,
            created_at: from_ts(self.created_at),
        })
    }

    fn code(&self) -> Result<Option<OwedCode>, StoreError> {
        let (Some(id), Some(purpose), Some(digits), Some(secret_key)) =
            (self.code_id, &self.purpose, self.digits, &self.secret_key)
        else {
            return Ok(None);
        };
        let (purpose, form, key) = code_parts(id, purpose, digits, secret_key)?;
        Ok(Some(OwedCode { id: CodeId::from_uuid(id), purpose, form, key }))
    }
}
