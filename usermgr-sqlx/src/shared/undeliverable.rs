//! Addresses that no mail goes to any more.

use async_trait::async_trait;
use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::id::UserId;
use usermgr_core::domain::page::Page;
use usermgr_core::domain::undeliverable::{UndeliverableAddress, UndeliverableReason};
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::undeliverable::{
    MarkDeliverable, MarkRemoved, MarkUndeliverable, UndeliverableQuery, UndeliverableStore,
};
use uuid::Uuid;

use super::rows::corrupt;
use super::writing::{audit_done, audit_refused};
use super::{Store, Ts, Tx, fault, from_ts, reread, transact, ts};

#[async_trait]
impl UndeliverableStore for Store {
    async fn mark_undeliverable(&self, mut command: MarkUndeliverable) -> Result<u32, StoreError> {
        // In one order, so that commands at once take turns.
        command.addresses.sort_by(|(one, _), (other, _)| one.email.cmp(&other.email));
        transact!(self.mark_undeliverable_once(command))
    }

    async fn mark_deliverable(&self, command: MarkDeliverable) -> Result<MarkRemoved, StoreError> {
        transact!(self.mark_deliverable_once(command))
    }

    async fn undeliverable(
        &self,
        query: UndeliverableQuery,
    ) -> Result<Page<UndeliverableAddress, EmailKey>, StoreError> {
        reread!(self.undeliverable_once(query))
    }
}

impl Store {
    async fn undeliverable_once(
        &self,
        query: UndeliverableQuery,
    ) -> Result<Page<UndeliverableAddress, EmailKey>, StoreError> {
        let UndeliverableQuery { after, size } = query;
        let rows: Vec<(String, String, Ts)> = sqlx::query_as(
            "SELECT email_key, reason, since FROM usermgr_undeliverable WHERE email_key > $1 \
             ORDER BY email_key LIMIT $2",
        )
        .bind(after.as_ref().map_or("", EmailKey::as_str))
        .bind(i64::from(size.get()) + 1)
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(fault)?;
        let address = |(email, reason, since): (String, String, Ts)| {
            let reason = UndeliverableReason::from_name(&reason)
                .ok_or_else(|| corrupt("usermgr_undeliverable", "reason", "of an address"))?;
            Ok(UndeliverableAddress { email: EmailKey::from_stored(email), reason, since: from_ts(since) })
        };
        let mut items = rows.into_iter().map(address).collect::<Result<Vec<_>, StoreError>>()?;
        let more = items.len() > usize::from(size.get());
        items.truncate(usize::from(size.get()));
        let next = items.last().filter(|_| more).map(|address| address.email.clone());
        Ok(Page::new(items, next))
    }

    async fn mark_undeliverable_once(&self, command: MarkUndeliverable) -> Result<u32, StoreError> {
        let MarkUndeliverable { now, addresses } = command;
        let mut tx = self.begin().await?;
        let mut marked = 0;
        for (UndeliverableAddress { email, reason, since }, audit) in addresses {
            let made = sqlx::query(
                "INSERT INTO usermgr_undeliverable (email_key, reason, since) VALUES ($1, $2, $3) \
                 ON CONFLICT (email_key) DO NOTHING",
            )
            .bind(email.as_str())
            .bind(reason.as_str())
            .bind(ts(since))
            .execute(&mut *tx)
            .await
            .map_err(fault)?
            .rows_affected();
            if made > 0 {
                let user = user_of(&mut tx, &email).await?;
                audit_done(&mut tx, audit, now, user).await?;
                marked += 1;
            }
        }
        tx.commit().await.map_err(fault)?;
        Ok(marked)
    }

    async fn mark_deliverable_once(&self, command: MarkDeliverable) -> Result<MarkRemoved, StoreError> {
        let MarkDeliverable { now, email, audit } = command;
        let mut tx = self.begin().await?;
        let removed = sqlx::query("DELETE FROM usermgr_undeliverable WHERE email_key = $1")
            .bind(email.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?
            .rows_affected();
        let user = user_of(&mut tx, &email).await?;
        let outcome = if removed > 0 {
            audit_done(&mut tx, audit, now, user).await?;
            MarkRemoved::Removed
        } else {
            audit_refused(&mut tx, audit, now, "not_found", user).await?;
            MarkRemoved::NotFound
        };
        tx.commit().await.map_err(fault)?;
        Ok(outcome)
    }
}

async fn user_of(tx: &mut Tx, email: &EmailKey) -> Result<Option<UserId>, StoreError> {
    let user: Option<Uuid> =
        sqlx::query_scalar("SELECT id FROM usermgr_users WHERE email_key = $1 AND deleted_at IS NULL")
            .bind(email.as_str())
            .fetch_optional(&mut **tx)
            .await
            .map_err(fault)?;
    Ok(user.map(UserId::from_uuid))
}
