//! Brings keys of addresses and names that earlier versions wrote to the fold of this one.
//!
//! Earlier versions folded by the neighbours of a letter, so `νίκος` and `ΝΊΚΟΣ` had two keys. SQL cannot fold as this program
//! does, so a step of the migration reads every key that is not ASCII and writes those that differ. Done again, it changes
//! nothing.

use std::collections::BTreeSet;

use usermgr_core::domain::email::EmailKey;
use usermgr_core::domain::user::Username;
use uuid::Uuid;

use super::super::Db;
use super::Ts;

/// The version of the tables that has these keys.
pub(super) const VERSION: i64 = 7;
/// Rows that are read at once.
const BATCH: i64 = 1000;

type Connection = <Db as sqlx::Database>::Connection;

pub(super) async fn refold(connection: &mut Connection) -> Result<(), sqlx::Error> {
    refold_users(connection).await?;
    refold_undeliverable(connection).await?;
    /// Folds one column of a table anew, row by row.
    macro_rules! refold {
        ($table:literal, $column:literal, $fold:expr) => {{
            let mut last = Uuid::nil();
            loop {
                let rows: Vec<(Uuid, String)> = sqlx::query_as(concat!(
                    "SELECT id, ",
                    $column,
                    " FROM ",
                    $table,
                    " WHERE id > $1 AND ",
                    not_ascii!($column),
                    " ORDER BY id LIMIT $2"
                ))
                .bind(last)
                .bind(BATCH)
                .fetch_all(&mut *connection)
                .await?;
                let Some((end, _)) = rows.last() else { break };
                last = *end;
                for (id, before) in rows {
                    let after: String = $fold(&before);
                    if after != before {
                        sqlx::query(concat!("UPDATE ", $table, " SET ", $column, " = $2 WHERE id = $1"))
                            .bind(id)
                            .bind(after)
                            .execute(&mut *connection)
                            .await?;
                    }
                }
            }
        }};
    }
    refold!("usermgr_users", "username_key", Username::folded);
    refold!("usermgr_registrations", "email_key", renewed);
    refold!("usermgr_codes", "email_key", renewed);
    refold!("usermgr_outbox", "email_key", renewed);
    refold!("usermgr_audit", "email", renewed);
    Ok(())
}

fn renewed(key: &str) -> String {
    EmailKey::from_stored(key).renewed().as_str().to_owned()
}

/// A user as far as it says who keeps an address.
#[derive(sqlx::FromRow)]
struct Holder {
    id: Uuid,
    email_key: String,
    email_verified_at: Option<Ts>,
    created_at: Ts,
    deleted_at: Option<Ts>,
}

impl Holder {
    /// The one that goes first keeps the address: who proved it, then the older one.
    fn rank(&self) -> (bool, Ts, Uuid) {
        (self.email_verified_at.is_none(), self.created_at, self.id)
    }
}

/// Of two users who have one key now, one keeps the address, and the other a key that no address folds to: it signs in no more
/// by address, keeps its sessions, and is found by its identifier. Nobody is removed.
async fn refold_users(connection: &mut Connection) -> Result<(), sqlx::Error> {
    let (mut last, mut told) = (Uuid::nil(), BTreeSet::new());
    loop {
        let rows: Vec<Holder> = sqlx::query_as(concat!(
            "SELECT id, email_key, email_verified_at, created_at, deleted_at FROM usermgr_users WHERE id > $1 AND ",
            not_ascii!("email_key"),
            " ORDER BY id LIMIT $2"
        ))
        .bind(last)
        .bind(BATCH)
        .fetch_all(&mut *connection)
        .await?;
        let Some(end) = rows.last() else { return Ok(()) };
        last = end.id;
        for row in rows {
            let key = renewed(&row.email_key);
            if key == row.email_key {
                continue;
            }
            let other: Option<Holder> = sqlx::query_as(
                "SELECT id, email_key, email_verified_at, created_at, deleted_at FROM usermgr_users \
                 WHERE email_key = $1 AND id <> $2 AND deleted_at IS NULL",
            )
            .bind(&key)
            .bind(row.id)
            .fetch_optional(&mut *connection)
            .await?;
            let Some(other) = other.filter(|_| row.deleted_at.is_none()) else {
                set_key(connection, row.id, &key).await?;
                continue;
            };
            let (keeper, loser) = if row.rank() < other.rank() { (&row, &other) } else { (&other, &row) };
            if keeper.id == row.id {
                // Both keys are taken, so the loser has none for a moment.
                set_key(connection, loser.id, &loser.id.to_string()).await?;
                set_key(connection, keeper.id, &key).await?;
                set_key(connection, loser.id, &row.email_key).await?;
            }
            if told.insert(loser.id) {
                tracing::warn!(
                    user = %loser.id,
                    keeper = %keeper.id,
                    "two users have one address now that case is folded alike in every script; this user cannot sign in by \
                     address until it is given another: see docs/operations.md"
                );
            }
        }
    }
}

async fn set_key(connection: &mut Connection, id: Uuid, key: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE usermgr_users SET email_key = $2 WHERE id = $1")
        .bind(id)
        .bind(key)
        .execute(connection)
        .await
        .map(drop)
}

/// Marks have their address as key; of two that are one now, one stays.
async fn refold_undeliverable(connection: &mut Connection) -> Result<(), sqlx::Error> {
    let keys: Vec<(String,)> = sqlx::query_as(concat!(
        "SELECT email_key FROM usermgr_undeliverable WHERE ",
        not_ascii!("email_key")
    ))
    .fetch_all(&mut *connection)
    .await?;
    for (before,) in keys {
        let after = renewed(&before);
        if after == before {
            continue;
        }
        sqlx::query(
            "INSERT INTO usermgr_undeliverable (email_key, reason, since) SELECT $2, reason, since \
             FROM usermgr_undeliverable WHERE email_key = $1 ON CONFLICT (email_key) DO NOTHING",
        )
        .bind(&before)
        .bind(&after)
        .execute(&mut *connection)
        .await?;
        sqlx::query("DELETE FROM usermgr_undeliverable WHERE email_key = $1")
            .bind(&before)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
