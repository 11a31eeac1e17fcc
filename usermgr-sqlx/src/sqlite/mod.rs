//! The store on SQLite: one file, one process, no server.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use time::OffsetDateTime;
use tokio::sync::Notify;
use usermgr_core::port::store::StoreError;

use crate::error::{ConnectError, MigrateError, TransactionError};
use crate::pool::PoolGauges;
use crate::write_proof::WriteProof;

type Db = sqlx::Sqlite;
type Store = SqliteStore;
/// How a time stands in a table: microseconds since 1970, for text of the driver's making sorts wrongly.
type Ts = i64;

fn ts(time: OffsetDateTime) -> Ts {
    i64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

fn from_ts(time: Ts) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time) * 1_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A statement that locks the rows it reads: here the whole database has one writer at a time.
macro_rules! locking {
    ($sql:literal) => {
        $sql
    };
}

/// A statement that passes over rows that others hold: here there are none.
macro_rules! skipping {
    ($before:literal, $after:literal) => {
        concat!($before, $after)
    };
    ($before:literal, of $table:literal) => {
        $before
    };
}

/// A condition: that a text is not ASCII.
macro_rules! not_ascii {
    ($column:literal) => {
        concat!("length(CAST(", $column, " AS BLOB)) <> length(", $column, ")")
    };
}

/// Which entries of the audit log a purge before `$1` removes.
macro_rules! audit_is_over {
    () => {
        "at < $1"
    };
}

/// The statements of a migration.
macro_rules! migration {
    ($file:literal) => {
        include_str!(concat!("../../migrations/sqlite/", $file))
    };
}

/// Runs one attempt at a command. A file answers or fails; there is nobody to wait for.
macro_rules! attempt {
    ($store:ident.$once:ident($($argument:expr),*)) => {
        $store.$once($($argument),*).await
    };
}

#[path = "../shared/mod.rs"]
#[cfg_attr(
    feature = "postgres",
    expect(
        clippy::duplicate_mod,
        reason = "the statements stand once and are compiled for each database's types"
    )
)]
mod shared;
pub use shared::host_transaction::HostTransaction;
use shared::host_transaction::{Joined, Tx};

mod group;
use group::{Turns, Tx as OwnTx};

type OwnReader = sqlx::pool::PoolConnection<Db>;

/// A store in an SQLite file. Cloning is cheap and shares the pools.
///
/// ```
/// use std::sync::Arc;
/// use usermgr_core::UserManager;
/// use usermgr_sqlx::SqliteStore;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// # let folder = tempfile::tempdir()?;
/// # let url = format!("sqlite://{}", folder.path().join("users.db").display());
/// let store = SqliteStore::connect(&url, 4).await?; // sqlite://users.db
/// store.migrate().await?; // makes the tables, or upgrades them
/// let builder = UserManager::builder().store(Arc::new(store));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    /// The host's transaction that this store works in.
    joined: Option<Joined>,
    turns: Turns,
    due: Arc<Notify>,
    events_due: Arc<Notify>,
    write_proof: WriteProof,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SqliteStore")
    }
}

impl SqliteStore {
    /// Opens `sqlite://path`, and makes the file (readable by its owner only) if there is none.
    ///
    /// One connection writes and `max_connections` read. Commits are durable: the write-ahead log is synced, once for all
    /// writes that waited at the same time.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self, ConnectError> {
        let options = SqliteConnectOptions::from_str(url)
            .map_err(ConnectError)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // A root file system can be read-only and have no folder for temporary files.
            .pragma("temp_store", "MEMORY")
            .busy_timeout(Duration::from_secs(10));
        make_private(options.get_filename()).map_err(|error| ConnectError(sqlx::Error::Io(error)))?;
        let pool = |connections: u32| {
            // A connection is looked at when it is given back; before each command it would be one more change of threads.
            let pool = SqlitePoolOptions::new().max_connections(connections).test_before_acquire(false);
            pool.acquire_timeout(Duration::from_secs(10))
        };
        let writer = pool(1).connect_with(options.clone()).await.map_err(ConnectError)?;
        // What one reads from a file lies in the memory of the system, too: half a MiB for each who reads is enough.
        let options = options.pragma("cache_size", "-512");
        let readers = pool(max_connections.max(1)).connect_with(options).await.map_err(ConnectError)?;
        Ok(Self::of(writer, readers))
    }

    /// A store on a pool that the host made; foreign keys must be on. Its tables begin with `usermgr_` and live beside
    /// the host's own. While it writes it holds one connection of the pool.
    ///
    /// ```
    /// use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};
    /// use usermgr_sqlx::SqliteStore;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let file = folder.path().join("app.db");
    /// // Foreign keys are on in sqlx unless they are switched off.
    /// let options = SqliteConnectOptions::new()
    ///     .filename(file)
    ///     .create_if_missing(true)
    ///     .journal_mode(SqliteJournalMode::Wal);
    /// let pool = SqlitePool::connect_with(options).await?;
    /// let store = SqliteStore::with_pool(pool.clone());
    /// store.migrate().await?;
    /// // A table of yours, beside ours:
    /// sqlx::query("CREATE TABLE notes (owner TEXT NOT NULL, text TEXT NOT NULL)").execute(&pool).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_pool(pool: SqlitePool) -> Self {
        Self::of(pool.clone(), pool)
    }

    fn of(writer: SqlitePool, readers: SqlitePool) -> Self {
        let (turns, due, events_due, write_proof) = Default::default();
        Self { writer, readers, joined: None, turns, due, events_due, write_proof }
    }

    /// How the pools are doing: the one connection that writes, and those that read.
    pub fn pools(&self) -> Vec<PoolGauges> {
        vec![PoolGauges::of("writer", &self.writer), PoolGauges::of("readers", &self.readers)]
    }

    /// Joins a transaction of the host's in the same file, whose rows and what commands write are then committed together.
    /// It is begun with `BEGIN IMMEDIATE` (`begin_with`), so that it waits for other writers before it reads; one that has
    /// read before another wrote is refused ([`TransactionError::NotImmediate`]). Any pool on the file will do. Until it
    /// ends, all others who write wait, up to their time-out; so does a command beside it, which its own task must not wait
    /// for.
    ///
    /// # Errors
    /// [`TransactionError`]; the transaction is rolled back.
    ///
    /// ```
    /// use usermgr_core::flow::register::Register;
    /// use usermgr_core::flow::verify_email::Verify;
    /// use usermgr_core::{ClientContext, UserManager};
    /// # use std::sync::Arc;
    /// # use usermgr_core::{SecretKey, testing::Mailbox};
    /// # use usermgr_sqlx::SqliteStore;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let url = format!("sqlite://{}", folder.path().join("app.db").display());
    /// # let store = SqliteStore::connect(&url, 4).await?;
    /// # store.migrate().await?;
    /// # let pool = sqlx::SqlitePool::connect(&url).await?; // any pool on the same file
    /// # sqlx::query("CREATE TABLE notes (owner TEXT NOT NULL, text TEXT NOT NULL)").execute(&pool).await?;
    /// # let mailbox = Arc::new(Mailbox::default());
    /// # let users = UserManager::builder()
    /// #     .store(Arc::new(store.clone()))
    /// #     .mailer(mailbox.clone())
    /// #     .secret_key(SecretKey::from_bytes([7; 32]))
    /// #     .build()?;
    /// # let client = ClientContext::new();
    /// # users.registration().register(Register::new("ana@example.org", "correct horse battery"), &client).await?;
    /// # users.mail_worker().run_once().await?;
    /// # let code = mailbox.last_code("ana@example.org").ok_or("no code")?;
    /// // The code makes a user, and the first note is theirs: both or neither.
    /// let transaction = store.in_tx(pool.begin_with("BEGIN IMMEDIATE").await?).await?;
    /// let within = users.over(transaction.store());
    /// let ana = within.registration().verify(Verify::new("ana@example.org", code), &client).await?;
    /// sqlx::query("INSERT INTO notes (owner, text) VALUES ($1, 'hello')")
    ///     .bind(ana.id.to_string())
    ///     .execute(&mut *transaction.connection().await?)
    ///     .await?;
    /// transaction.commit().await?;
    /// # let notes: i64 = sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&pool).await?;
    /// # assert_eq!(notes, 1);
    /// # assert_eq!(users.users().by_email("ana@example.org").await?.id, ana.id);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn in_tx(
        &self,
        tx: sqlx::Transaction<'static, sqlx::Sqlite>,
    ) -> Result<HostTransaction, TransactionError> {
        HostTransaction::join(self.clone(), tx).await
    }

    /// The store for work that may take long.
    fn patient(&self) -> Self {
        self.clone()
    }

    #[expect(clippy::unused_async, reason = "the other database asks its server")]
    async fn check_server(&self) -> Result<(), MigrateError> {
        Ok(())
    }

    async fn own_reader(&self) -> Result<OwnReader, sqlx::Error> {
        self.readers.acquire().await
    }

    const fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    async fn begin(&self) -> Result<Tx, StoreError> {
        if let Some(joined) = &self.joined {
            return Ok(Tx::Joined(joined.turn().await?));
        }
        self.turns.begin(&self.writer).await.map(Tx::Own).map_err(StoreError::unavailable)
    }

    async fn begin_migration(&self) -> Result<sqlx::Transaction<'static, Db>, MigrateError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    #[expect(clippy::unused_async, reason = "the other database waits here; this one has one writer")]
    async fn lock_signing_keys(_: &mut Tx) -> Result<(), sqlx::Error> {
        Ok(())
    }

    /// Tells the workers that mails and events are due.
    fn wake(&self) {
        // Of what joined a host's transaction, the commit tells.
        if self.joined.is_none() {
            self.due.notify_one();
            self.events_due.notify_one();
        }
    }

    /// Tells the workers that events are due.
    fn wake_for_events(&self) {
        if self.joined.is_none() {
            self.events_due.notify_one();
        }
    }

    #[expect(clippy::unused_async, reason = "the other database connects here; this one has one process")]
    async fn listen(&self) {}
}

/// Makes the file before the driver does, so that nobody else can ever read it.
fn make_private(path: &std::path::Path) -> std::io::Result<()> {
    if path.as_os_str().is_empty() || path == std::path::Path::new(":memory:") {
        return Ok(());
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Refuses a host's transaction in which commands would not hold.
async fn refuse_unfit(tx: &mut sqlx::Transaction<'static, Db>) -> Result<(), TransactionError> {
    let foreign_keys: bool = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&mut **tx).await?;
    if !foreign_keys {
        return Err(TransactionError::ForeignKeysOff);
    }
    // Changes nothing, and has the file for writing from now on.
    let writes =
        sqlx::query("UPDATE usermgr_event_feed SET last = last WHERE FALSE").execute(&mut **tx).await;
    match writes {
        Ok(_) => Ok(()),
        Err(error) if busy_code(&error).is_some() => Err(TransactionError::NotImmediate(error)),
        Err(error) => Err(error.into()),
    }
}

/// Which kind of `SQLITE_BUSY` it is.
fn busy_code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    (code & 0xff == SQLITE_BUSY).then_some(code)
}

const SQLITE_BUSY: u32 = 5;

/// Whether the connection was there no more: here nobody is at the other end.
const fn was_cut_off(_: &StoreError) -> bool {
    false
}

impl Store {
    /// Whether the attempt failed because its connection takes no writes. All connections are to the same file.
    #[expect(clippy::unused_self, reason = "the other database notes it")]
    const fn was_on_a_read_only_connection(&self, _: &StoreError) -> bool {
        false
    }
}

/// Whether the transaction was rolled back only because another one was in its way, so that it may be run again.
fn was_in_the_way(error: &StoreError, _joined: bool) -> bool {
    let StoreError::Unavailable(source) = error else { return false };
    // Itself it says that another process had the file for as long as we wait: no more.
    source.downcast_ref().and_then(busy_code).is_some_and(|code| code != SQLITE_BUSY)
}

#[cfg(test)]
mod tests {
    use usermgr_core::port::store::UpkeepStore as _;

    use super::*;

    async fn store() -> (SqliteStore, String, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("usermgr.db").display());
        let store = SqliteStore::connect(&url, 2).await.unwrap();
        store.migrate().await.unwrap();
        (store, url, dir)
    }

    #[tokio::test]
    async fn a_file_that_takes_no_writes_is_not_healthy() {
        let (store, url, _dir) = store().await;
        store.ping().await.unwrap();
        let options = SqliteConnectOptions::from_str(&url).unwrap().read_only(true);
        let read_only = SqliteStore::with_pool(SqlitePool::connect_with(options).await.unwrap());
        let refused = read_only.ping().await.unwrap_err();
        let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{refused} {cause}").contains("readonly"), "{refused}: {cause}");
    }

    #[tokio::test]
    async fn who_waited_for_another_process_long_enough_is_told_so() {
        let (store, url, _dir) = store().await;
        let options = SqliteConnectOptions::from_str(&url).unwrap();
        let other = SqlitePool::connect_with(options.clone()).await.unwrap();
        let held = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();
        let hasty = SqliteStore::with_pool(
            SqlitePool::connect_with(options.busy_timeout(Duration::from_millis(1))).await.unwrap(),
        );
        let refused = hasty.begin().await.err().unwrap();
        assert!(refused.to_string().contains("database is locked"), "{refused}");
        assert!(!was_in_the_way(&refused, false), "it is not waited for once more");
        held.rollback().await.unwrap();
        hasty.begin().await.unwrap().commit().await.unwrap();
        store.ping().await.unwrap();
    }
}
