//! The audit log, signing keys and upkeep.

use std::borrow::Cow;

use async_trait::async_trait;
use usermgr_core::domain::audit::{AuditEntry, AuditEvent, AuditOutcome};
use usermgr_core::domain::email::Email;
use usermgr_core::domain::id::{AuditId, SigningKeyId, UserId};
use usermgr_core::domain::page::Page;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::audit::{AuditQuery, AuditStore};
use usermgr_core::port::store::key::{KeyStore, SealedSigningKey};
use usermgr_core::port::store::upkeep::{Purge, Purged, UpkeepStore};
use uuid::Uuid;

use super::rows::corrupt;
use super::{Store, Ts, fault, from_ts, transact, ts};

#[async_trait]
impl AuditStore for Store {
    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError> {
        let AuditQuery { subject, after, size } = query;
        let rows: Vec<AuditRow> = sqlx::query_as(
            "SELECT id, at, event, outcome, reason, actor, subject, email, ip, user_agent, request_id \
             FROM usermgr_audit WHERE id < $1 AND ($2 IS NULL OR subject = $2) ORDER BY id DESC LIMIT $3",
        )
        .bind(after.map_or(Uuid::max(), |after| after.as_uuid()))
        .bind(subject.map(|subject| subject.as_uuid()))
        .bind(i64::from(size.get()) + 1)
        .fetch_all(self.readers())
        .await
        .map_err(fault)?;
        let mut items = rows.into_iter().map(AuditRow::entry).collect::<Result<Vec<_>, _>>()?;
        let more = items.len() > usize::from(size.get());
        items.truncate(usize::from(size.get()));
        let next = items.last().filter(|_| more).map(|entry| entry.id);
        Ok(Page::new(items, next))
    }
}

#[derive(sqlx::FromRow)]
struct AuditRow {
    id: Uuid,
    at: Ts,
    event: String,
    outcome: String,
    reason: Option<String>,
    actor: Option<Uuid>,
    subject: Option<Uuid>,
    email: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
}

impl AuditRow {
    fn entry(self) -> Result<AuditEntry, StoreError> {
        let wrong = |column| corrupt("usermgr_audit", column, self.id);
        let outcome =
            [AuditOutcome::Done, AuditOutcome::Refused].into_iter().find(|o| o.as_str() == self.outcome);
        let email = self.email.as_deref().map(Email::parse).transpose().map_err(|_| wrong("email"))?;
        Ok(AuditEntry {
            id: AuditId::from_uuid(self.id),
            at: from_ts(self.at),
            event: AuditEvent::from_name(&self.event).ok_or_else(|| wrong("event"))?,
            outcome: outcome.ok_or_else(|| wrong("outcome"))?,
            reason: self.reason.map(Cow::Owned),
            actor: self.actor.map(UserId::from_uuid),
            subject: self.subject.map(UserId::from_uuid),
            email: email.map(|email| email.key().clone()),
            ip: self.ip.map(|ip| ip.parse()).transpose().map_err(|_| wrong("ip"))?,
            user_agent: self.user_agent,
            request_id: self.request_id,
        })
    }
}

#[async_trait]
impl KeyStore for Store {
    async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        let rows: Vec<(Uuid, String, Ts, Vec<u8>)> = sqlx::query_as(
            "SELECT id, algorithm, created_at, sealed FROM usermgr_signing_keys ORDER BY created_at DESC, id DESC",
        )
        .fetch_all(self.readers())
        .await
        .map_err(fault)?;
        Ok(rows
            .into_iter()
            .map(|(id, algorithm, created_at, sealed)| SealedSigningKey {
                id: SigningKeyId::from_uuid(id),
                algorithm,
                created_at: from_ts(created_at),
                sealed,
            })
            .collect())
    }

    async fn ensure_signing_key(&self, key: SealedSigningKey) -> Result<Vec<SealedSigningKey>, StoreError> {
        transact!(self.ensure_signing_key_once(key))?;
        self.signing_keys().await
    }
}

impl Store {
    async fn ensure_signing_key_once(&self, key: SealedSigningKey) -> Result<(), StoreError> {
        let SealedSigningKey { id, algorithm, created_at, sealed } = key;
        let mut tx = self.begin().await?;
        Self::lock_signing_keys(&mut tx).await.map_err(fault)?;
        let before: Option<i64> = sqlx::query_scalar(
            "SELECT CAST(1 AS BIGINT) FROM usermgr_signing_keys WHERE algorithm = $1 LIMIT 1",
        )
        .bind(&algorithm)
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault)?;
        if before.is_none() {
            sqlx::query(
                "INSERT INTO usermgr_signing_keys (id, algorithm, created_at, sealed) VALUES ($1, $2, $3, $4)",
            )
            .bind(id.as_uuid())
            .bind(algorithm)
            .bind(ts(created_at))
            .bind(sealed)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        }
        tx.commit().await.map_err(fault)
    }

    async fn purge_once(&self, command: Purge) -> Result<Purged, StoreError> {
        let Purge { now, ended_before, settled_before, audited_before, known_before, batch } = command;
        let mut tx = self.begin().await?;
        let batch = i64::from(batch);
        /// Deletes at most a batch of the rows that a condition on `$1` names.
        macro_rules! purge {
            ($table:literal, $key:literal, $condition:literal, $before:expr) => {
                sqlx::query(concat!(
                    "DELETE FROM ",
                    $table,
                    " WHERE (",
                    $key,
                    ") IN (SELECT ",
                    $key,
                    " FROM ",
                    $table,
                    " WHERE ",
                    $condition,
                    skipping!(" LIMIT $2", ")")
                ))
                .bind(ts($before))
                .bind(batch)
                .execute(&mut *tx)
                .await
                .map_err(fault)?
                .rows_affected()
            };
        }
        let purged = Purged {
            registrations: purge!("usermgr_registrations", "id", "expires_at <= $1", now),
            codes: purge!(
                "usermgr_codes",
                "id",
                "closed_at < $1 OR dies_at < $1 OR expires_at < $1",
                ended_before
            ),
            sessions: purge!(
                "usermgr_sessions",
                "id",
                "ended_at < $1 OR idle_expires_at < $1 OR expires_at < $1",
                ended_before
            ),
            outbox: purge!(
                "usermgr_outbox",
                "id",
                "settled_at < $1 AND status IN ('sent', 'void')",
                settled_before
            ),
            audit: purge!("usermgr_audit", "id", "at < $1", audited_before),
            throttles: purge!("usermgr_throttles", "key", "ends_at <= $1", now),
            networks: purge!("usermgr_networks", "user_id, network", "seen_at < $1", known_before),
        };
        tx.commit().await.map_err(fault)?;
        Ok(purged)
    }
}

#[async_trait]
impl UpkeepStore for Store {
    async fn purge(&self, command: Purge) -> Result<Purged, StoreError> {
        transact!(self.purge_once(command))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let version: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM usermgr_schema")
            .fetch_one(self.readers())
            .await
            .map_err(fault)?;
        match usize::try_from(version) {
            Ok(version) if version >= super::MIGRATIONS.len() => Ok(()),
            _ => Err(StoreError::unavailable("the tables are not migrated to this version")),
        }
    }
}
