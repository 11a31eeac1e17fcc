//! The store on PostgreSQL: the engine that several servers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use tokio::sync::{Notify, OnceCell};
use usermgr_core::port::store::StoreError;

use crate::error::{ConnectError, MigrateError, TransactionError};
use crate::pool::PoolGauges;
use crate::write_proof::WriteProof;

type Db = sqlx::Postgres;
type Store = PgStore;
type OwnTx = Transaction;
type OwnReader = Connection;
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
    ($before:literal, of $table:literal) => {
        concat!($before, " FOR UPDATE OF ", $table, " SKIP LOCKED")
    };
}

/// A condition: that a text is not ASCII.
macro_rules! not_ascii {
    ($column:literal) => {
        concat!("octet_length(convert_to(", $column, ", 'UTF8')) <> length(", $column, ")")
    };
}

/// Which entries of the audit log a purge before `$1` removes. A trigger refuses to remove younger ones.
macro_rules! audit_is_over {
    () => {
        "at < $1 AND at < now() - INTERVAL '30 days'"
    };
}

/// The statements of a migration.
macro_rules! migration {
    ($file:literal) => {
        include_str!(concat!("../../migrations/postgres/", $file))
    };
}

/// Runs one attempt at a command within its deadline. What works in a host transaction has the host's own deadline.
macro_rules! attempt {
    ($store:ident.$once:ident($($argument:expr),*)) => {
        if $store.joined.is_some() {
            $store.$once($($argument),*).await
        } else {
            super::super::connection::deadline($store.timeout, $store.$once($($argument),*)).await
        }
    };
}

mod connection;
mod url;
use connection::{Begin, Connection, Suspicion, TIMEOUT, Transaction};

#[path = "../shared/mod.rs"]
mod shared;
use shared::STALE;
pub use shared::host_transaction::HostTransaction;
use shared::host_transaction::{Joined, Tx};

/// Held while tables are made, so that instances that start together take turns.
const MIGRATION_LOCK: i64 = 0x7573_6572_6d67_7200;
/// How long to wait for the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an attempt at a command of upkeep may take.
const UPKEEP_TIMEOUT: Duration = Duration::from_mins(1);
const CHANNEL: &str = "usermgr_outbox";
/// What is told where no mail is due.
const ONLY_EVENTS: &str = "events";

/// A store on PostgreSQL 13 or later. Cloning is cheap and shares the pool.
///
/// ```no_run
/// use std::sync::Arc;
/// use usermgr_core::UserManager;
/// use usermgr_sqlx::PgStore;
///
/// # async fn open() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PgStore::connect("postgres://app@localhost/app", 10).await?;
/// store.migrate().await?; // safe when several instances start together
/// let builder = UserManager::builder().store(Arc::new(store));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    /// The host's transaction that this store works in.
    joined: Option<Joined>,
    due: Arc<Notify>,
    events_due: Arc<Notify>,
    listening: Arc<OnceCell<()>>,
    /// What other processes are to be told of.
    others_due: Arc<Notify>,
    mails_due_elsewhere: Arc<AtomicBool>,
    telling: Arc<OnceCell<()>>,
    suspicion: Suspicion,
    write_proof: WriteProof,
    /// How long an attempt at a command may take.
    timeout: Duration,
    begin: Begin,
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
        let options = url::parse(url).map_err(ConnectError)?;
        // A lone connection first: the pool would try again until its time is up, and not say why.
        let connecting = async {
            let mut first = PgConnection::connect_with(&options).await?;
            connection::check_encoding(&mut first).await?;
            connection::check_writable(&mut first).await?;
            first.close().await
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        connected.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(ConnectError)?;
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(TIMEOUT)
            // A round trip for each command, to learn what the command itself learns.
            .test_before_acquire(false)
            // The address can lead to a standby for a moment. The pool tries again until it leads to the primary.
            .after_connect(|connection, _| Box::pin(connection::check_writable(connection)))
            .connect_lazy_with(options);
        Ok(Self::with_pool(pool))
    }

    /// Sets how long an attempt at a command may take; 5 seconds unless it is set. Then the command fails, and its
    /// connection is closed. Whether it was done is not known. A host's pool should wait no longer for a connection
    /// (`acquire_timeout`).
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, begin: Begin::within(timeout), ..self }
    }

    /// Checks a URL for [`connect`](Self::connect) without connecting.
    ///
    /// # Errors
    /// [`ConnectError`] for parameters that are not known and for several hosts: the driver would pass over them.
    pub fn check_url(url: &str) -> Result<(), ConnectError> {
        url::parse(url).map(drop).map_err(ConnectError)
    }

    /// A store on a pool that the host made. Its tables begin with `usermgr_` and live beside the host's own.
    pub fn with_pool(pool: PgPool) -> Self {
        Self {
            pool,
            joined: None,
            due: Arc::default(),
            events_due: Arc::default(),
            listening: Arc::default(),
            others_due: Arc::default(),
            mails_due_elsewhere: Arc::default(),
            telling: Arc::default(),
            suspicion: Suspicion::none(),
            write_proof: WriteProof::default(),
            timeout: TIMEOUT,
            begin: Begin::within(TIMEOUT),
        }
    }

    /// How the pool is doing.
    pub fn pools(&self) -> Vec<PoolGauges> {
        vec![PoolGauges::of("all", &self.pool)]
    }

    /// Joins a transaction of the host's, whose rows and what commands write are then committed together. It must be `READ
    /// COMMITTED`, as transactions are by default: in any other, commands would not see what others have committed. The
    /// pool needs a second connection for what is done beside the transaction.
    ///
    /// # Errors
    /// [`TransactionError`]; the transaction is rolled back.
    ///
    /// ```no_run
    /// # use usermgr_core::{ClientContext, UserManager, flow::verify_email::Verify};
    /// # async fn join(
    /// #     pool: sqlx::PgPool, store: usermgr_sqlx::PgStore, users: UserManager, code: &str,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = ClientContext::new();
    /// let transaction = store.in_tx(pool.begin().await?).await?;
    /// let within = users.over(transaction.store());
    /// let ana = within.registration().verify(Verify::new("ana@example.org", code), &client).await?;
    /// sqlx::query("INSERT INTO notes (owner, text) VALUES ($1, 'hello')")
    ///     .bind(ana.id.as_uuid())
    ///     .execute(&mut *transaction.connection().await?)
    ///     .await?;
    /// transaction.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn in_tx(
        &self,
        tx: sqlx::Transaction<'static, sqlx::Postgres>,
    ) -> Result<HostTransaction, TransactionError> {
        HostTransaction::join(self.clone(), tx).await
    }

    const fn readers(&self) -> &PgPool {
        &self.pool
    }

    async fn begin(&self) -> Result<Tx, StoreError> {
        if let Some(joined) = &self.joined {
            return Ok(Tx::Joined(joined.turn().await?));
        }
        let begun = self.suspicion.begin(&self.pool, &self.begin, STALE).await;
        begun.map(Tx::Own).map_err(StoreError::unavailable)
    }

    /// The store for work that may take long.
    fn patient(&self) -> Self {
        self.clone().with_timeout(self.timeout.max(UPKEEP_TIMEOUT))
    }

    async fn check_server(&self) -> Result<(), MigrateError> {
        Ok(connection::check_encoding(&mut *self.pool.acquire().await?).await?)
    }

    async fn own_reader(&self) -> Result<OwnReader, sqlx::Error> {
        Connection::acquire(&self.pool).await
    }

    async fn begin_migration(&self) -> Result<OwnTx, MigrateError> {
        let mut tx = self.suspicion.begin(&self.pool, &Begin::without_limit(), STALE).await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *tx).await?;
        Ok(tx)
    }

    async fn lock_signing_keys(tx: &mut Tx) -> Result<(), sqlx::Error> {
        sqlx::query("LOCK TABLE usermgr_signing_keys IN SHARE ROW EXCLUSIVE MODE")
            .execute(&mut **tx)
            .await
            .map(drop)
    }

    /// Tells the workers of this process and, by NOTIFY, of all others that mails and events are due.
    fn wake(&self) {
        // Of what joined a host's transaction, the commit tells.
        if self.joined.is_none() {
            self.due.notify_one();
            self.mails_due_elsewhere.store(true, Ordering::Release);
            self.wake_for_events();
        }
    }

    /// Tells them that events are due.
    fn wake_for_events(&self) {
        if self.joined.is_some() {
            return;
        }
        self.events_due.notify_one();
        self.others_due.notify_one();
        if self.telling.set(()).is_err() {
            return;
        }
        // After the commit and beside it: NOTIFY inside the transaction would make commits queue for each other. One at a
        // time: what comes to be due meanwhile is told by the next.
        let (pool, others_due) = (self.pool.clone(), Arc::downgrade(&self.others_due));
        let mails_due = Arc::clone(&self.mails_due_elsewhere);
        tokio::spawn(async move {
            while let Some(due) = others_due.upgrade() {
                let told = tokio::time::timeout(Duration::from_mins(1), due.notified()).await;
                drop(due);
                if told.is_err() {
                    continue;
                }
                let only = if mails_due.swap(false, Ordering::AcqRel) { "" } else { ONLY_EVENTS };
                let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(only);
                if let Err(error) = notify.execute(&pool).await {
                    tracing::debug!(%error, "other processes were not woken; they poll");
                }
            }
        });
    }

    /// Begins to listen for what other processes commit. Without it, polling finds it a little later.
    async fn listen(&self) {
        self.listening
            .get_or_init(|| async {
                let pool = self.pool.clone();
                let (due, events_due) = (Arc::downgrade(&self.due), Arc::downgrade(&self.events_due));
                tokio::spawn(async move {
                    while due.strong_count() > 0 && !pool.is_closed() {
                        // A connection beside the pool's: those are for commands, and there may be only one.
                        let options = pool.connect_options().as_ref().clone();
                        if let Ok(own) = PgPoolOptions::new().max_connections(1).connect_with(options).await
                            && let Ok(mut listener) = PgListener::connect_with(&own).await
                            && listener.listen(CHANNEL).await.is_ok()
                        {
                            while let Ok(notification) = listener.recv().await {
                                let (Some(due), Some(events_due)) = (due.upgrade(), events_due.upgrade())
                                else {
                                    return;
                                };
                                if notification.payload() != ONLY_EVENTS {
                                    due.notify_one();
                                }
                                events_due.notify_one();
                            }
                        }
                        tokio::time::sleep(Duration::from_secs(5)).await;
                    }
                });
            })
            .await;
    }
}

/// Refuses a host's transaction in which commands would not hold.
async fn refuse_unfit(tx: &mut sqlx::Transaction<'static, Db>) -> Result<(), TransactionError> {
    let isolation: String =
        sqlx::query_scalar("SELECT current_setting('transaction_isolation')").fetch_one(&mut **tx).await?;
    if isolation == "read committed" { Ok(()) } else { Err(TransactionError::Isolation(isolation)) }
}

/// As [`connection::is_cut_off`], for an error of the store.
fn was_cut_off(error: &StoreError) -> bool {
    database_error(error).is_some_and(connection::is_cut_off)
}

/// Whether the transaction was rolled back only because another one was in its way, so that it may be run again. A value
/// that may be there once was taken at this very moment; the next run sees by whom. In a host's transaction only that is
/// run again: whatever else is in the way waits for what the host has locked.
fn was_in_the_way(error: &StoreError, joined: bool) -> bool {
    let code = database_error(error).and_then(sqlx::Error::as_database_error).and_then(DatabaseError::code);
    code.is_some_and(|code| code == "23505" || (!joined && ["40001", "40P01"].contains(&code.as_ref())))
}

fn database_error(error: &StoreError) -> Option<&sqlx::Error> {
    let StoreError::Unavailable(source) = error else { return None };
    source.downcast_ref()
}

impl Store {
    /// Whether the attempt failed because its connection takes no writes. Nothing was written, and the next attempt begins
    /// on another connection.
    fn was_on_a_read_only_connection(&self, error: &StoreError) -> bool {
        let refused = self.joined.is_none() && database_error(error).is_some_and(connection::is_read_only);
        if refused {
            self.suspicion.raise();
            self.write_proof.revoke();
        }
        refused
    }
}
