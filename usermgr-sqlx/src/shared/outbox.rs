//! Mails that are owed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::QueryBuilder;
use time::OffsetDateTime;
use usermgr_core::domain::email::Email;
use usermgr_core::domain::id::{CodeId, OutboxId, UserId};
use usermgr_core::domain::mail::{OwedCode, OwedMail};
use usermgr_core::domain::page::Page;
use usermgr_core::domain::role::Roles;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::outbox::{
    Claim, Claimed, DeliveryResult, OutboxEntry, OutboxQuery, OutboxStatus, OutboxStore, RenewLeases,
    Renewed, Requeue, Requeued, Settle, Settled,
};
use uuid::Uuid;

use super::super::Db;
use super::account::{lock_actor, permits};
use super::code::code_parts;
use super::rows::{corrupt, locale, username};
use super::writing::{audit_done, audit_refused};
use super::{Store, Ts, Tx, fault, from_ts, reread, transact, ts};

/// Mails and their codes, in columns that [`OutboxRow`] takes by name, and what else is asked of them.
macro_rules! mails {
    ($more:literal) => {
        concat!(
            "SELECT o.id, o.name, o.email, o.locale, o.username, o.created_at, o.due_at, o.attempts, o.status, \
             o.settled_at, o.error, c.id AS code_id, c.purpose, c.digits, c.secret_key",
            $more,
            " FROM usermgr_outbox o LEFT JOIN usermgr_codes c ON c.id = o.code_id "
        )
    };
}

#[async_trait]
impl OutboxStore for Store {
    async fn claim(&self, command: Claim) -> Result<Vec<Claimed>, StoreError> {
        self.outside_only()?;
        loop {
            let claimed = match reread!(self.claimable(command)) {
                Err(error) => return Err(error),
                Ok(Claimable::Nothing) => return Ok(Vec::new()),
                Ok(Claimable::Leased) => transact!(self.claim_again(command)),
                Ok(Claimable::Due) => transact!(self.claim_once(command)),
            }?;
            // Of those that were looked at, none may be handed out: there may be others behind them.
            if let Some(claimed) = claimed {
                return Ok(claimed);
            }
        }
    }

    async fn settle_all(&self, commands: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        self.outside_only()?;
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        transact!(self.settle_once(commands))
    }

    async fn renew_mails(&self, command: RenewLeases<OutboxId>) -> Result<Vec<Renewed>, StoreError> {
        self.outside_only()?;
        if command.held.is_empty() {
            return Ok(Vec::new());
        }
        transact!(self.renew_mails_once(command))
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
        let mut statement = QueryBuilder::<Db>::new(concat!(mails!(""), "WHERE o.id < "));
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
            statement.build_query_as().fetch_all(&mut *self.reader().await?).await.map_err(fault)?;
        let mut items = rows.into_iter().map(OutboxRow::entry).collect::<Result<Vec<_>, _>>()?;
        let more = items.len() > usize::from(size.get());
        items.truncate(usize::from(size.get()));
        let next = items.last().filter(|_| more).map(|entry| entry.mail.id);
        Ok(Page::new(items, next))
    }

    /// Whether a claim would find something; nobody waits for the writer to learn that there is nothing.
    async fn claimable(&self, command: Claim) -> Result<Claimable, StoreError> {
        let found: Option<(bool,)> = sqlx::query_as(
            // In the order of the index, or PostgreSQL may think that one is found as soon by reading the table.
            "SELECT leased FROM (SELECT TRUE AS leased FROM usermgr_outbox WHERE lease = $2 UNION ALL \
             SELECT leased FROM (SELECT FALSE AS leased FROM usermgr_outbox WHERE status = 'queued' AND due_at <= $1 \
             AND (lease_until IS NULL OR lease_until <= $1) ORDER BY due_at, id LIMIT 1) AS due) AS found LIMIT 1",
        )
        .bind(ts(command.now))
        .bind(command.lease.0.as_slice())
        .fetch_optional(&mut *self.reader().await?)
        .await
        .map_err(fault)?;
        Ok(match found {
            None => Claimable::Nothing,
            Some((true,)) => Claimable::Leased,
            Some((false,)) => Claimable::Due,
        })
    }

    /// What was claimed under this lease and not answered.
    async fn claim_again(&self, command: Claim) -> Result<Option<Vec<Claimed>>, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE usermgr_outbox SET lease_until = $2 WHERE lease = $1")
            .bind(command.lease.0.as_slice())
            .bind(ts(command.lease_until))
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        let rows: Vec<OutboxRow> = sqlx::query_as(concat!(
            mails!(""),
            // A mail whose code was purged this very moment is left to a later claim, which voids it.
            "WHERE o.lease = $1 AND o.status = 'queued' AND (o.code_id IS NULL OR c.id IS NOT NULL) \
             ORDER BY o.due_at, o.id"
        ))
        .bind(command.lease.0.as_slice())
        .fetch_all(&mut *tx)
        .await
        .map_err(fault)?;
        let claimed = rows.into_iter().map(OutboxRow::claimed).collect::<Result<Vec<_>, _>>()?;
        tx.commit().await.map_err(fault)?;
        Ok(Some(claimed))
    }

    /// Claims among the first that are due. `None` when they were ended, and there may be more.
    async fn claim_once(&self, command: Claim) -> Result<Option<Vec<Claimed>>, StoreError> {
        let Claim { now, lease, lease_until, limit, mut room } = command;
        let mut tx = self.begin().await?;
        let mut statement = QueryBuilder::<Db>::new(concat!(
            mails!(
                ", o.code_id AS owed_code, c.closed_at, c.dies_at, c.expires_at, \
                 EXISTS (SELECT 1 FROM usermgr_undeliverable u WHERE u.email_key = o.email_key) AS is_undeliverable"
            ),
            "WHERE o.status = 'queued' AND o.due_at <= "
        ));
        statement.push_bind(ts(now)).push(" AND (o.lease_until IS NULL OR o.lease_until <= ");
        statement.push_bind(ts(now)).push(")");
        for domain in room.full() {
            // A domain holds no character that means something in a pattern.
            statement.push(" AND COALESCE(o.email, '') NOT LIKE ").push_bind(format!("%@{domain}"));
        }
        statement.push(" ORDER BY o.due_at, o.id LIMIT ").push_bind(i64::from(limit));
        statement.push(skipping!("", of "o"));
        let rows: Vec<DueRow> = statement.build_query_as().fetch_all(&mut *tx).await.map_err(fault)?;
        let there_may_be_more = rows.len() >= limit as usize;
        let (mut claimed, mut taken, mut void, mut dead) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for due in rows {
            let id = due.row.id;
            if due.code_is_over(now) {
                void.push(id);
                continue;
            }
            if due.is_undeliverable {
                dead.push(id);
                continue;
            }
            let mut mail = due.row.claimed()?;
            if room.take(mail.mail.to.domain()) {
                mail.attempt += 1;
                claimed.push(mail);
                taken.push(id);
            }
        }
        end(&mut tx, OutboxStatus::Void, None, now, &void).await?;
        end(&mut tx, OutboxStatus::Dead, Some(OutboxEntry::UNDELIVERABLE), now, &dead).await?;
        if !taken.is_empty() {
            let mut statement = QueryBuilder::<Db>::new("UPDATE usermgr_outbox SET lease = ");
            statement.push_bind(lease.0.to_vec()).push(", lease_until = ").push_bind(ts(lease_until));
            statement.push(", attempts = attempts + 1");
            only(&mut statement, &taken).build().execute(&mut *tx).await.map_err(fault)?;
        }
        tx.commit().await.map_err(fault)?;
        let all_were_ended = claimed.is_empty() && !(void.is_empty() && dead.is_empty());
        Ok(if all_were_ended && there_may_be_more { None } else { Some(claimed) })
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

    async fn renew_mails_once(&self, command: RenewLeases<OutboxId>) -> Result<Vec<Renewed>, StoreError> {
        let RenewLeases { lease_until, held } = command;
        let mut tx = self.begin().await?;
        let mut statement = QueryBuilder::<Db>::new("WITH going_on (mail, held) AS (");
        statement.push_values(&held, |mut row, (id, lease)| {
            row.push_bind(id.as_uuid()).push_bind(lease.0.to_vec());
        });
        statement.push(") UPDATE usermgr_outbox SET lease_until = ").push_bind(ts(lease_until));
        // No index but that of identifiers serves: one lease may hold many mails.
        statement.push(
            " FROM going_on WHERE id = mail AND CASE WHEN lease = held THEN status END = 'queued' RETURNING id",
        );
        let rows: Vec<(Uuid,)> = statement.build_query_as().fetch_all(&mut *tx).await.map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        let kept: BTreeSet<Uuid> = rows.into_iter().map(|(id,)| id).collect();
        let renewed = |(id, _): &(OutboxId, _)| {
            if kept.contains(&id.as_uuid()) { Renewed::Kept } else { Renewed::Lost }
        };
        Ok(held.iter().map(renewed).collect())
    }

    async fn settle_once(&self, commands: Vec<Settle>) -> Result<Vec<Settled>, StoreError> {
        let mut tx = self.begin().await?;
        let mut settled = vec![Settled::LostLease; commands.len()];
        let mut left: Vec<_> = commands.iter().zip(&mut settled).collect();
        // Of one mail one at a time, in their order.
        while !left.is_empty() {
            let mut mails = BTreeSet::new();
            let (now, later) = left.into_iter().partition(|(command, _)| mails.insert(command.id));
            settle_each(&mut tx, now).await?;
            left = later;
        }
        tx.commit().await.map_err(fault)?;
        Ok(settled)
    }
}

/// Ends attempts, each of another mail.
async fn settle_each(tx: &mut Tx, attempts: Vec<(&Settle, &mut Settled)>) -> Result<(), StoreError> {
    let mut statement =
        QueryBuilder::<Db>::new("WITH ended (mail, held, ends_as, due_again, ended_at, why) AS (");
    statement.push_values(&attempts, |mut row, (Settle { now, id, lease, result }, _)| {
        let (status, due_at, settled_at, error) = match result {
            DeliveryResult::Sent { .. } => (OutboxStatus::Sent, None, Some(*now), None),
            DeliveryResult::Retry { at, error } => (OutboxStatus::Queued, Some(*at), None, Some(error)),
            DeliveryResult::Dead { error } => (OutboxStatus::Dead, None, Some(*now), Some(error)),
        };
        row.push_bind(id.as_uuid())
            .push_bind(lease.0.to_vec())
            .push_bind(status.as_str())
            .push_bind(due_at.map(ts))
            .push_bind(settled_at.map(ts))
            .push_bind(error.cloned());
    });
    // No index but that of identifiers serves: one lease may hold many mails.
    statement.push(
        ") UPDATE usermgr_outbox SET status = ends_as, due_at = COALESCE(due_again, due_at), settled_at = ended_at, \
         error = why, lease = NULL, lease_until = NULL FROM ended WHERE id = mail \
         AND CASE WHEN lease = held THEN status END = 'queued' RETURNING id, code_id",
    );
    let rows: Vec<(Uuid, Option<Uuid>)> =
        statement.build_query_as().fetch_all(&mut **tx).await.map_err(fault)?;
    let codes: BTreeMap<Uuid, Option<Uuid>> = rows.into_iter().collect();
    let mut lives = Vec::new();
    for (Settle { now, id, result, .. }, settled) in attempts {
        let Some(code) = codes.get(&id.as_uuid()) else { continue };
        *settled = Settled::Settled;
        if let (Some(code), DeliveryResult::Sent { code_ttl: Some(ttl) }) = (code, result) {
            lives.push((*code, ts(*now + *ttl)));
        }
    }
    if lives.is_empty() {
        return Ok(());
    }
    let mut statement = QueryBuilder::<Db>::new("WITH begun (code, ends_at) AS (");
    statement.push_values(lives, |mut row, (code, ends_at)| {
        row.push_bind(code).push_bind(ends_at);
    });
    statement.push(
        ") UPDATE usermgr_codes SET expires_at = ends_at FROM begun WHERE id = code AND expires_at IS NULL",
    );
    statement.build().execute(&mut **tx).await.map_err(fault).map(drop)
}

/// What a claim would find.
enum Claimable {
    Nothing,
    /// What this lease has already.
    Leased,
    /// What is due.
    Due,
}

/// Ends mails that are not sent any more.
async fn end(
    tx: &mut Tx,
    status: OutboxStatus,
    error: Option<&str>,
    now: OffsetDateTime,
    mails: &[Uuid],
) -> Result<(), StoreError> {
    if mails.is_empty() {
        return Ok(());
    }
    let mut statement = QueryBuilder::<Db>::new("UPDATE usermgr_outbox SET status = ");
    statement.push_bind(status.as_str()).push(", settled_at = ").push_bind(ts(now));
    statement.push(", error = COALESCE(").push_bind(error.map(str::to_owned)).push(", error)");
    statement.push(", lease = NULL, lease_until = NULL");
    only(&mut statement, mails).build().execute(&mut **tx).await.map_err(fault).map(drop)
}

fn only<'a>(statement: &'a mut QueryBuilder<Db>, mails: &[Uuid]) -> &'a mut QueryBuilder<Db> {
    statement.push(" WHERE id IN (");
    let mut list = statement.separated(", ");
    for mail in mails {
        list.push_bind(*mail);
    }
    list.push_unseparated(")");
    statement
}

/// A mail that is due, and whether it is still to be sent.
#[derive(sqlx::FromRow)]
struct DueRow {
    #[sqlx(flatten)]
    row: OutboxRow,
    /// The code that it carries; it may have been purged.
    owed_code: Option<Uuid>,
    closed_at: Option<Ts>,
    dies_at: Option<Ts>,
    expires_at: Option<Ts>,
    is_undeliverable: bool,
}

impl DueRow {
    fn code_is_over(&self, now: OffsetDateTime) -> bool {
        let is_over = |end: Option<Ts>| end.is_some_and(|end| end <= ts(now));
        let purged = self.row.code_id.is_none();
        self.owed_code.is_some()
            && (purged || self.closed_at.is_some() || is_over(self.dies_at) || is_over(self.expires_at))
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

    fn claimed(self) -> Result<Claimed, StoreError> {
        let OutboxEntry { mail, attempts, .. } = self.entry()?;
        Ok(Claimed { mail, attempt: attempts })
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
