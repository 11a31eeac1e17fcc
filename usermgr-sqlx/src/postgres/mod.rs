//! The store on PostgreSQL: the engine that several servers share.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use time::OffsetDateTime;
use tokio::sync::{Notify, OnceCell};
use usermgr_core::port::store::StoreError;

use crate::error::{ConnectError, MigrateError};

type Db = sqlx::Postgres;
type Store = PgStore;
type Tx = sqlx::Transaction<'static, Db>;
/// How a time stands in a table: TIMESTAMPTZ, to the microsecond.
type Ts = OffsetDateTime;

const fn ts(time: OffsetDateTime) -> Ts {
    time
}

const fn from_ts(time: Ts) -> OffsetDateTime {
    time
}

/// A statement that locks the rows it reads until the transaction ends.
macro_rules! locking {
    ($sql:literal) => {
        concat!($sql, " FOR UPDATE")
    };
}

/// A statement that locks the rows it reads and passes over those that others hold.
macro_rules! skipping {
    ($before:literal, $after:literal) => {
        concat!($before, " FOR UPDATE SKIP LOCKED", $after)
    };
}

#[path = "../shared/mod.rs"]
mod shared;

const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_initial.sql"),
    include_str!("../../migrations/postgres/0002_administration.sql"),
    include_str!("../../migrations/postgres/0005_undeliverable.sql"),
];
/// Held while tables are made, so that instances that start together take turns.
const MIGRATION_LOCK: i64 = 0x7573_6572_6d67_7200;
const CHANNEL: &str = "usermgr_outbox";

/// A store on PostgreSQL 13 or later. Cloning is cheap and shares the pool.
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    due: Arc<Notify>,
    listening: Arc<OnceCell<()>>,
}

impl std::fmt::Debug for PgStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PgStore")
    }
}

impl PgStore {
    /// Connects to `postgres://user:password@host/database`. Ten connections suffice for two cores. Whoever waits for
    /// owed mails keeps one more, to be woken by.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self, ConnectError> {
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(Duration::from_secs(10))
            .connect(url)
            .await
            .map_err(ConnectError)?;
        Ok(Self::with_pool(pool))
    }

    /// A store on a pool that the host made. Its tables begin with `usermgr_` and live beside the host's own.
    pub fn with_pool(pool: PgPool) -> Self {
        Self { pool, due: Arc::default(), listening: Arc::default() }
    }

    const fn readers(&self) -> &PgPool {
        &self.pool
    }

    async fn begin(&self) -> Result<Tx, StoreError> {
        self.pool.begin().await.map_err(StoreError::unavailable)
    }

    async fn begin_migration(&self) -> Result<Tx, MigrateError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *tx).await?;
        Ok(tx)
    }

    async fn lock_signing_keys(tx: &mut Tx) -> Result<(), sqlx::Error> {
        sqlx::query("LOCK TABLE usermgr_signing_keys IN SHARE ROW EXCLUSIVE MODE")
            .execute(&mut **tx)
            .await
            .map(drop)
    }

    /// Tells the workers of this process and, by NOTIFY, of all others that something is due.
    fn wake(&self) {
        self.due.notify_one();
        let pool = self.pool.clone();
        // After the commit and beside it: NOTIFY inside the transaction would make commits queue for each other.
        tokio::spawn(async move {
            let told = sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(&pool).await;
            if let Err(error) = told {
                tracing::debug!(%error, "other processes were not woken; they poll");
            }
        });
    }

    /// Begins to listen for what other processes commit. Without it, polling finds it a little later.
    async fn listen(&self) {
        self.listening
            .get_or_init(|| async {
                let (pool, due) = (self.pool.clone(), Arc::downgrade(&self.due));
                tokio::spawn(async move {
                    while due.strong_count() > 0 && !pool.is_closed() {
                        // A connection beside the pool's: those are for commands, and there may be only one.
                        let options = pool.connect_options().as_ref().clone();
                        if let Ok(own) = PgPoolOptions::new().max_connections(1).connect_with(options).await
                            && let Ok(mut listener) = PgListener::connect_with(&own).await
                            && listener.listen(CHANNEL).await.is_ok()
                        {
                            while let Ok(_notification) = listener.recv().await {
                                let Some(due) = due.upgrade() else { return };
                                due.notify_one();
                            }
                        }
                        tokio::time::sleep(Duration::from_secs(5)).await;
                    }
                });
            })
            .await;
    }
}

/// Whether the transaction was rolled back only because another one was in its way, so that it may be run again. A value
/// that may be there once was taken at this very moment; the next run sees by whom.
fn was_in_the_way(error: &StoreError) -> bool {
    let StoreError::Unavailable(source) = error else { return false };
    source
        .downcast_ref::<sqlx::Error>()
        .and_then(sqlx::Error::as_database_error)
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| ["40001", "40P01", "23505"].contains(&code.as_ref()))
}
