//! The audit log, signing keys and upkeep.

use std::borrow::Cow;

use async_trait::async_trait;
use sqlx::QueryBuilder;
use time::OffsetDateTime;
use usermgr_core::domain::audit::{AuditEntry, AuditEvent, AuditOutcome};
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::id::{AuditId, SigningKeyId, UserId};
use usermgr_core::domain::page::Page;
use usermgr_core::port::store::audit::{AuditQuery, AuditStore, Record, Recorded};
use usermgr_core::port::store::key::{
    AddSigningKey, KeyStore, KeysChanged, ResealSigningKey, RevokeSigningKeys, SealedSigningKey,
};
use usermgr_core::port::store::upkeep::{Backlog, Purge, Purged, UpkeepStore};
use usermgr_core::port::store::{EventDraft, Happened, StoreError};
use uuid::Uuid;

use super::super::Db;
use super::event::{owe_events, purge_events};
use super::rows::corrupt;
use super::writing::{Limits, audit, audit_done};
use super::{Store, Ts, Tx, fault, from_ts, reread, transact, ts};
use crate::error::MigrateError;

#[derive(sqlx::FromRow)]
struct BacklogRow {
    mails: i64,
    oldest_mail: Option<Ts>,
    dead: i64,
    events: i64,
    oldest_event: Option<Ts>,
}

impl Store {
    /// Each part reads one index, and no more of it than it counts.
    async fn backlog_once(&self) -> Result<Backlog, StoreError> {
        let row: BacklogRow = sqlx::query_as(
            "SELECT m.mails, m.oldest_mail, d.dead, e.events, f.oldest_event FROM \
             (SELECT COUNT(*) AS mails, MIN(created_at) AS oldest_mail FROM (SELECT created_at FROM usermgr_outbox \
             WHERE status = 'queued' ORDER BY due_at, id LIMIT $1) AS queued) AS m, \
             (SELECT COUNT(*) AS dead FROM (SELECT id FROM usermgr_outbox WHERE status = 'dead' LIMIT $1) AS dead) AS d, \
             (SELECT COUNT(*) AS events FROM (SELECT user_id FROM usermgr_events WHERE delivered_at IS NULL LIMIT $1) \
             AS undelivered) AS e, \
             (SELECT MIN(at) AS oldest_event FROM (SELECT at FROM (SELECT at FROM usermgr_events WHERE due_at IS NOT NULL \
             ORDER BY due_at, position LIMIT $1) AS due UNION ALL SELECT at FROM (SELECT at FROM usermgr_events \
             WHERE position IS NULL ORDER BY seq LIMIT 1) AS unnumbered) AS next) AS f",
        )
        .bind(i64::from(Backlog::MOST))
        .fetch_one(&mut *self.reader().await?)
        .await
        .map_err(fault)?;
        let count = |count: i64| u64::try_from(count).unwrap_or_default();
        Ok(Backlog {
            queued_mails: count(row.mails),
            oldest_mail: row.oldest_mail.map(from_ts),
            dead_mails: count(row.dead),
            undelivered_events: count(row.events),
            oldest_event: row.oldest_event.map(from_ts),
        })
    }
}

#[async_trait]
impl AuditStore for Store {
    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError> {
        reread!(self.audit_once(query))
    }

    async fn record(&self, command: Record) -> Result<Recorded, StoreError> {
        transact!(self.record_once(command))
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
        Ok(AuditEntry {
            id: AuditId::from_uuid(self.id),
            at: from_ts(self.at),
            event: AuditEvent::from_name(&self.event).ok_or_else(|| wrong("event"))?,
            outcome: AuditOutcome::from_name(&self.outcome).ok_or_else(|| wrong("outcome"))?,
            reason: self.reason.map(Cow::Owned),
            actor: self.actor.map(UserId::from_uuid),
            subject: self.subject.map(UserId::from_uuid),
            email: self.email.map(EmailKey::from_stored),
            ip: self.ip.map(|ip| ip.parse()).transpose().map_err(|_| wrong("ip"))?,
            user_agent: self.user_agent,
            request_id: self.request_id,
        })
    }
}

#[async_trait]
impl KeyStore for Store {
    async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        reread!(self.signing_keys_once())
    }

    async fn add_signing_key(&self, command: AddSigningKey) -> Result<Vec<SealedSigningKey>, StoreError> {
        self.outside_only()?;
        transact!(self.add_signing_key_once(command))?;
        self.signing_keys().await
    }

    async fn reseal_signing_key(&self, command: ResealSigningKey) -> Result<bool, StoreError> {
        self.outside_only()?;
        transact!(self.reseal_signing_key_once(command))
    }

    async fn revoke_signing_keys(
        &self,
        command: RevokeSigningKeys,
    ) -> Result<Option<Vec<SealedSigningKey>>, StoreError> {
        self.outside_only()?;
        if !transact!(self.revoke_signing_keys_once(command))? {
            return Ok(None);
        }
        self.signing_keys().await.map(Some)
    }
}

impl Store {
    async fn record_once(&self, command: Record) -> Result<Recorded, StoreError> {
        let now = command.now;
        let mut tx = self.begin().await?;
        let mut limits = Limits::lock(&mut tx, &command.throttle, now).await?;
        if let Some(retry_after) = limits.used_up(&command.past()) {
            limits.leave(tx).await?;
            return Ok(Recorded::Throttled { retry_after });
        }
        let used_up = limits.used_up(&command.throttle);
        for rule in &command.throttle {
            limits.count(rule);
        }
        limits.write(&mut tx).await?;
        let entry = if used_up.is_some() { command.into_last_entry() } else { command.entry };
        audit(&mut *tx, entry).await?;
        tx.commit().await.map_err(fault)?;
        Ok(used_up.map_or(Recorded::Recorded, |retry_after| Recorded::Throttled { retry_after }))
    }

    async fn audit_once(&self, query: AuditQuery) -> Result<Page<AuditEntry, AuditId>, StoreError> {
        let AuditQuery { subject, event, since, after, size } = query;
        let mut statement = QueryBuilder::<Db>::new(
            "SELECT id, at, event, outcome, reason, actor, subject, email, ip, user_agent, request_id \
             FROM usermgr_audit WHERE id < ",
        );
        statement.push_bind(after.map_or(Uuid::max(), |after| after.as_uuid()));
        if let Some(since) = since {
            statement.push(" AND id >= ").push_bind(AuditId::first_of(since).as_uuid());
        }
        if let Some(subject) = subject {
            statement.push(" AND subject = ").push_bind(subject.as_uuid());
        }
        if let Some(event) = event {
            statement.push(" AND event = ").push_bind(event.as_str());
        }
        statement.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(size.get()) + 1);
        let rows: Vec<AuditRow> =
            statement.build_query_as().fetch_all(&mut *self.reader().await?).await.map_err(fault)?;
        let mut items = rows.into_iter().map(AuditRow::entry).collect::<Result<Vec<_>, _>>()?;
        let more = items.len() > usize::from(size.get());
        items.truncate(usize::from(size.get()));
        let next = items.last().filter(|_| more).map(|entry| entry.id);
        Ok(Page::new(items, next))
    }

    async fn signing_keys_once(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        read_signing_keys(&mut *self.reader().await?).await
    }

    /// Answers whether there are such keys.
    async fn revoke_signing_keys_once(&self, command: RevokeSigningKeys) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        Self::lock_signing_keys(&mut tx).await.map_err(fault)?;
        let before = read_signing_keys(&mut tx).await?;
        let mut after = before.clone();
        let Some(changed) = SealedSigningKey::revoke(&mut after, &command) else { return Ok(false) };
        for key in after {
            match before.iter().find(|other| other.id == key.id) {
                None => insert_signing_key(&mut tx, key).await?,
                Some(other) if other.revoked_at != key.revoked_at => {
                    sqlx::query("UPDATE usermgr_signing_keys SET revoked_at = $2 WHERE id = $1")
                        .bind(key.id.as_uuid())
                        .bind(key.revoked_at.map(ts))
                        .execute(&mut *tx)
                        .await
                        .map_err(fault)?;
                }
                Some(_) => {}
            }
        }
        let RevokeSigningKeys { now, which: _, replacement: _, audit } = command;
        if changed == KeysChanged::Yes {
            audit_done(&mut tx, audit, now, None).await?;
        }
        tx.commit().await.map_err(fault)?;
        Ok(true)
    }

    async fn add_signing_key_once(&self, command: AddSigningKey) -> Result<(), StoreError> {
        let AddSigningKey { now, key, unless_since, audit } = command;
        let mut tx = self.begin().await?;
        Self::lock_signing_keys(&mut tx).await.map_err(fault)?;
        let before: Option<i64> = sqlx::query_scalar(
            "SELECT CAST(1 AS BIGINT) FROM usermgr_signing_keys \
             WHERE id = $3 OR (algorithm = $1 AND signs_from >= $2 AND revoked_at IS NULL) LIMIT 1",
        )
        .bind(&key.algorithm)
        .bind(unless_since.map(ts))
        .bind(key.id.as_uuid())
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault)?;
        if before.is_none() {
            insert_signing_key(&mut tx, key).await?;
            audit_done(&mut tx, audit, now, None).await?;
        }
        tx.commit().await.map_err(fault)
    }

    async fn purge_once(&self, command: Purge) -> Result<Purged, StoreError> {
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
        let mut tx = self.begin().await?;
        let batch = i64::from(batch);
        /// Deletes at most a batch of the rows that a condition on `$1` names.
        macro_rules! purge {
            ($table:literal, $key:literal, $condition:expr, $before:expr) => {
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
            ) + purge!("usermgr_outbox", "id", "settled_at < $1 AND status = 'dead'", dead_before),
            audit: purge!("usermgr_audit", "id", audit_is_over!(), audited_before),
            throttles: purge!("usermgr_throttles", "key", "ends_at <= $1", now),
            networks: purge!("usermgr_networks", "user_id, network", "seen_at < $1", known_before),
            undeliverable: purge!("usermgr_undeliverable", "email_key", "since < $1", marked_before),
            users: forget_users(&mut tx, deleted_before, now, batch).await?,
            events: 0,
            access_tokens: purge!("usermgr_access_tokens", "digest", "expires_at <= $1", now),
            signing_keys: sqlx::query(
                "DELETE FROM usermgr_signing_keys WHERE EXISTS (SELECT 1 FROM usermgr_signing_keys later \
                 WHERE later.signs_from > usermgr_signing_keys.signs_from AND later.signs_from < $1 \
                 AND later.revoked_at IS NULL)",
            )
            .bind(ts(retired_before))
            .execute(&mut *tx)
            .await
            .map_err(fault)?
            .rows_affected(),
        };
        // Last: whoever numbers events waits until this is over.
        let events = purge_events(&mut tx, &command).await?;
        tx.commit().await.map_err(fault)?;
        if purged.users > 0 {
            self.wake();
        }
        Ok(Purged { events, ..purged })
    }
}

async fn read_signing_keys(
    connection: &mut <Db as sqlx::Database>::Connection,
) -> Result<Vec<SealedSigningKey>, StoreError> {
    type Row = (Uuid, String, Ts, Ts, Vec<u8>, Option<Ts>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, algorithm, created_at, signs_from, sealed, revoked_at FROM usermgr_signing_keys \
         ORDER BY created_at DESC, id DESC",
    )
    .fetch_all(connection)
    .await
    .map_err(fault)?;
    let key = |(id, algorithm, created_at, signs_from, sealed, revoked_at): Row| SealedSigningKey {
        id: SigningKeyId::from_uuid(id),
        algorithm,
        created_at: from_ts(created_at),
        signs_from: from_ts(signs_from),
        sealed,
        revoked_at: revoked_at.map(from_ts),
    };
    Ok(rows.into_iter().map(key).collect())
}

async fn insert_signing_key(tx: &mut Tx, key: SealedSigningKey) -> Result<(), StoreError> {
    let SealedSigningKey { id, algorithm, created_at, signs_from, sealed, revoked_at } = key;
    sqlx::query(
        "INSERT INTO usermgr_signing_keys (id, algorithm, created_at, signs_from, sealed, revoked_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(id.as_uuid())
    .bind(algorithm)
    .bind(ts(created_at))
    .bind(ts(signs_from))
    .bind(sealed)
    .bind(revoked_at.map(ts))
    .execute(&mut **tx)
    .await
    .map_err(fault)
    .map(drop)
}

/// Removes users who were deleted long ago and do not come back any more, with all that is theirs; audit entries keep
/// their identifiers alone, and an event tells of each.
async fn forget_users(
    tx: &mut Tx,
    before: OffsetDateTime,
    now: OffsetDateTime,
    batch: i64,
) -> Result<u64, StoreError> {
    let mut users: Vec<(Uuid,)> = sqlx::query_as(skipping!(
        "SELECT id FROM usermgr_users \
         WHERE deleted_at < $1 AND (restorable_until IS NULL OR restorable_until <= $3) LIMIT $2",
        ""
    ))
    .bind(ts(before))
    .bind(batch)
    .bind(ts(now))
    .fetch_all(&mut **tx)
    .await
    .map_err(fault)?;
    users.sort_unstable();
    for (user,) in &users {
        let (user_id, happened) =
            (UserId::from_uuid(*user), Happened { user_purged: true, ..Happened::default() });
        owe_events(tx, &[EventDraft::user_purged(user_id)], happened, user_id, now).await?;
        for statement in [
            "UPDATE usermgr_audit SET email = NULL, ip = NULL, user_agent = NULL WHERE subject = $1",
            "UPDATE usermgr_audit SET email = NULL, ip = NULL, user_agent = NULL WHERE actor = $1",
            "DELETE FROM usermgr_outbox WHERE user_id = $1 AND status <> 'queued'",
            "DELETE FROM usermgr_users WHERE id = $1",
        ] {
            sqlx::query(statement).bind(user).execute(&mut **tx).await.map_err(fault)?;
        }
    }
    Ok(users.len() as u64)
}

impl Store {
    async fn reseal_signing_key_once(&self, command: ResealSigningKey) -> Result<bool, StoreError> {
        let ResealSigningKey { id, before, after } = command;
        let mut tx = self.begin().await?;
        let resealed =
            sqlx::query("UPDATE usermgr_signing_keys SET sealed = $3 WHERE id = $1 AND sealed = $2")
                .bind(id.as_uuid())
                .bind(before)
                .bind(after)
                .execute(&mut *tx)
                .await
                .map_err(fault)?
                .rows_affected();
        tx.commit().await.map_err(fault)?;
        Ok(resealed > 0)
    }

    async fn fits_once(&self) -> Result<(), StoreError> {
        Self::fits(&mut *self.reader().await?).await.map_err(unfit)
    }

    /// Writes something that changes nothing: a full disk, a read-only file and a standby all take reads.
    async fn prove_write_once(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        Self::fits(&mut tx).await.map_err(unfit)?;
        sqlx::query(skipping!(
            "UPDATE usermgr_jobs SET runs = runs WHERE name = (SELECT name FROM usermgr_jobs ORDER BY name LIMIT 1",
            ")"
        ))
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        self.write_proof.renew();
        Ok(())
    }
}

fn unfit(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Database(error) => fault(error),
        error => StoreError::unavailable(error),
    }
}

#[async_trait]
impl UpkeepStore for Store {
    async fn purge(&self, command: Purge) -> Result<Purged, StoreError> {
        self.outside_only()?;
        let patient = self.patient();
        transact!(patient.purge_once(command))
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let patient = self.patient();
        reread!(patient.backlog_once())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if self.joined.is_some() || self.write_proof.is_fresh() {
            return reread!(self.fits_once());
        }
        let store = self.clone();
        transact!(store.prove_write_once())
    }
}
