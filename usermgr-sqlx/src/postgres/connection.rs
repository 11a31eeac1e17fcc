//! Connections of the pool, and how a command ends that takes too long or whose caller leaves.
//!
//! The pool takes a connection back by an exchange with the server that has no deadline. A server that went silent would
//! use the whole pool up this way, although new connections would work. So a connection whose command ran into its deadline is
//! closed, and one whose caller left in the middle is given back only if the server answers in time.

use std::cell::Cell;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use usermgr_core::port::store::StoreError;

use super::Db;

/// How long a command may take, unless the host sets another time.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// How long connections are checked before use, after one of them refused to write.
const SUSPICION: Duration = Duration::from_mins(1);

const ROLLBACK: &str = "ROLLBACK";

/// The statement that begins a transaction. It names each setting that a database can change: at another isolation, commands
/// would not see the commits of others; without time limits, a transaction whose client fell silent would keep its locks for hours.
#[derive(Clone)]
pub(super) struct Begin(Arc<str>);

impl Begin {
    /// Limits each statement to `limit`, and the pause between two statements to a fifth of it. The pause is shorter because
    /// several silent transactions can wait for one lock, and each gets it in turn.
    pub(super) fn within(limit: Duration) -> Self {
        Self::with(limit.as_millis().max(5), (limit / 5).as_millis().max(1))
    }

    /// Sets no time limits, for migrations.
    pub(super) fn without_limit() -> Self {
        Self::with(0, 0)
    }

    fn with(statement: u128, idle: u128) -> Self {
        Self(
            format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {statement}; \
                 SET LOCAL idle_in_transaction_session_timeout = {idle}"
            )
            .into(),
        )
    }
}

/// Why a command's future is dropped.
#[derive(Clone, Copy)]
enum End {
    /// It was polled to its end.
    Finished,
    /// The server gets this long to answer, before the connection is closed.
    CallerLeft(Duration),
    PastDeadline,
}

thread_local! {
    /// Why the future that this thread drops just now is dropped. Its connections are dropped with it, and read this.
    static END: Cell<End> = const { Cell::new(End::Finished) };
}

/// A command that took longer than it may. Whether it was done is not known.
#[derive(Debug, thiserror::Error)]
#[error("the database did not answer within {} s", .0.as_secs_f32())]
struct PastDeadline(Duration);

/// Runs a command to its deadline.
///
/// # Errors
/// [`StoreError::Unavailable`] at the deadline; the command's connection is closed then.
pub(super) async fn deadline<T>(
    limit: Duration,
    command: impl Future<Output = Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    let mut command = Command { future: Some(Box::pin(command)), end: End::CallerLeft(limit) };
    let outcome = match command.future.as_mut() {
        Some(future) => tokio::time::timeout(limit, future).await,
        None => return Err(StoreError::unavailable(PastDeadline(limit))),
    };
    command.end = if outcome.is_ok() { End::Finished } else { End::PastDeadline };
    outcome.unwrap_or_else(|_| Err(StoreError::unavailable(PastDeadline(limit))))
}

/// A command's future, and why it is dropped when it is.
struct Command<F> {
    /// Taken when it is dropped.
    future: Option<Pin<Box<F>>>,
    end: End,
}

impl<F> Drop for Command<F> {
    fn drop(&mut self) {
        END.set(self.end);
        // Dropped here, and not after this function: its connections read the reason.
        drop(self.future.take());
        END.set(End::Finished);
    }
}

/// A connection of the pool.
pub(super) struct Connection(
    /// Taken when it is dropped.
    Option<PoolConnection<Db>>,
);

impl Connection {
    pub(super) async fn acquire(pool: &PgPool) -> Result<Self, sqlx::Error> {
        pool.acquire().await.map(Some).map(Self)
    }

    /// Closes the connection instead of giving it back.
    fn retire(mut self) {
        close(self.0.take());
    }
}

fn close(connection: Option<PoolConnection<Db>>) {
    if let Some(mut connection) = connection {
        connection.close_on_drop();
    }
}

/// Gives a connection back after a last statement, if the server answers it in time. Otherwise it is closed.
fn give_back_after(connection: Option<PoolConnection<Db>>, statement: &'static str, limit: Duration) {
    let Some(mut connection) = connection else { return };
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return close(Some(connection)) };
    runtime.spawn(async move {
        let last = sqlx::raw_sql(statement).execute(&mut *connection);
        if !matches!(tokio::time::timeout(limit, last).await, Ok(Ok(_))) {
            connection.close_on_drop();
        }
    });
}

impl Drop for Connection {
    fn drop(&mut self) {
        match END.get() {
            End::Finished => drop(self.0.take()),
            End::CallerLeft(limit) => give_back_after(self.0.take(), "", limit),
            End::PastDeadline => close(self.0.take()),
        }
    }
}

impl Deref for Connection {
    type Target = PgConnection;

    #[expect(clippy::expect_used, reason = "only `drop` and `retire` take it")]
    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect("a connection until it is dropped")
    }
}

impl DerefMut for Connection {
    #[expect(clippy::expect_used, reason = "only `drop` and `retire` take it")]
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("a connection until it is dropped")
    }
}

/// A transaction of a command. Dropped before its commit, it is rolled back.
///
/// It is not the driver's, whose connection cannot be closed at a deadline.
pub(super) struct Transaction {
    connection: Connection,
    is_open: bool,
}

impl Transaction {
    async fn begin(connection: Connection, begin: &Begin) -> Result<Self, sqlx::Error> {
        // Open before the statement: dropped half way, the server may have begun it.
        let mut transaction = Self { connection, is_open: true };
        sqlx::raw_sql(AssertSqlSafe(Arc::clone(&begin.0))).execute(&mut *transaction).await?;
        Ok(transaction)
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let committed = sqlx::raw_sql("COMMIT").execute(&mut *self).await;
        // After a failure too: there is nothing left to roll back, or the connection is broken.
        self.is_open = false;
        committed.map(drop)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.is_open {
            match END.get() {
                End::Finished => give_back_after(self.connection.0.take(), ROLLBACK, TIMEOUT),
                End::CallerLeft(limit) => give_back_after(self.connection.0.take(), ROLLBACK, limit),
                End::PastDeadline => {}
            }
        }
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// Whether connections of the pool may be unusable although they are alive.
#[derive(Clone)]
pub(super) struct Suspicion {
    since: Instant,
    /// Milliseconds after `since`.
    until: Arc<AtomicU64>,
}

impl Suspicion {
    pub(super) fn none() -> Self {
        Self { since: Instant::now(), until: Arc::default() }
    }

    /// A connection refused to write. Others of the pool may lead to the same server.
    pub(super) fn raise(&self) {
        self.until.store(
            self.millis() + u64::try_from(SUSPICION.as_millis()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    fn is_raised(&self) -> bool {
        self.millis() < self.until.load(Ordering::Relaxed)
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Begins a transaction on a connection that can write. Connections that cannot are closed on the way.
    ///
    /// # Errors
    /// What the database answered when none of `at_most` connections was usable.
    pub(super) async fn begin(
        &self,
        pool: &PgPool,
        begin: &Begin,
        at_most: u32,
    ) -> Result<Transaction, sqlx::Error> {
        let mut tried = 1;
        loop {
            let mut connection = Connection::acquire(pool).await?;
            let checked = if self.is_raised() { check_writable(&mut connection).await } else { Ok(()) };
            let outcome = match checked {
                Ok(()) => Transaction::begin(connection, begin).await,
                Err(error) => {
                    connection.retire();
                    Err(error)
                }
            };
            match outcome {
                Err(error) if tried < at_most && (is_cut_off(&error) || is_read_only(&error)) => tried += 1,
                outcome => return outcome,
            }
        }
    }
}

/// A server that is read-only answers so: `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";
/// The server ended the connection: `admin_shutdown`, `crash_shutdown`, `idle_session_timeout`.
const ENDED: [&str; 3] = ["57P01", "57P02", "57P05"];

/// Whether the server takes no writes on this connection. Another one may lead to a server that does.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Configuration(source) if source.is::<ReadOnly>())
        || error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == READ_ONLY)
}

/// Whether the server closed the connection before the statement: it restarted, or an operator ended the session.
pub(super) fn is_cut_off(error: &sqlx::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    match error {
        sqlx::Error::Io(error) => {
            [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof]
                .contains(&error.kind())
        }
        sqlx::Error::Database(error) => error.code().is_some_and(|code| ENDED.contains(&code.as_ref())),
        _ => false,
    }
}

/// A connection to a server that takes no writes.
#[derive(Debug, thiserror::Error)]
#[error("the server is read-only: it is a standby, or it was set so")]
struct ReadOnly;

fn read_only() -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(ReadOnly))
}

/// A database that cannot keep every text that users may type.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database has the encoding {0} and needs UTF8: create it with ENCODING 'UTF8' TEMPLATE template0"
)]
struct UnfitEncoding(String);

/// Refuses a server that takes no writes.
pub(super) async fn check_writable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if is_read_only_connection(connection).await? { Err(read_only()) } else { Ok(()) }
}

/// Refuses a database that cannot keep every text.
pub(super) async fn check_encoding(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let encoding: String =
        sqlx::query_scalar("SELECT current_setting('server_encoding')").fetch_one(connection).await?;
    if encoding == "UTF8" {
        Ok(())
    } else {
        Err(sqlx::Error::Configuration(Box::new(UnfitEncoding(encoding))))
    }
}

async fn is_read_only_connection(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT current_setting('transaction_read_only') = 'on'").fetch_one(connection).await
}
