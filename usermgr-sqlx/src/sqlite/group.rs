//! One commit, and one sync of the disk, for all writes that waited at the same time.
//!
//! SQLite has one writer. Writes take turns in a transaction that they share, each in a savepoint, so that one that is
//! given up takes back only what is its own. Whoever finds no transaction begins one; it is committed after the turns of
//! those who waited by then, by a task of its own that nobody can cancel. Nobody is told of success before that commit.
//! A write may be dropped at any await; entering its turn is finished all the same (see `finish`), because the driver stops
//! between two statements of one string when nobody waits for its answer any more.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard, mpsc, oneshot};

use crate::finish::finish;

/// How long to wait for a turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// Whoever writes before holds the file for long, or waits for another process that does.
const NO_TURN: &str = "the database is locked: a write did not get its turn within 10 seconds";

/// A write that reads first and writes later fails when another process wrote in between, unless it begins so.
const BEGIN: &str = "BEGIN IMMEDIATE; SAVEPOINT write_turn";
/// Keeps the last write and begins the next one. Half of it must not be done: the next one would find no savepoint.
const NEXT: &str = "RELEASE write_turn; SAVEPOINT write_turn";
/// Takes the last write back; its savepoint remains for the next one.
const TAKE_BACK: &str = "ROLLBACK TO write_turn";

type Outcome = Result<(), Arc<sqlx::Error>>;

/// The turns of a store.
#[derive(Clone, Default)]
pub(super) struct Turns {
    shared: Arc<Mutex<Option<Shared>>>,
    waiting: Arc<AtomicUsize>,
}

/// The transaction that writes share.
struct Shared {
    connection: PoolConnection<Sqlite>,
    last: Last,
    /// Who is to be told how it ended, without the last one.
    members: Vec<oneshot::Sender<Outcome>>,
    /// Closed when the task is gone that commits.
    committer: mpsc::Sender<()>,
}

/// What the last write left.
enum Last {
    /// No transaction has begun.
    Nothing,
    /// A write is under way, or was given up.
    Unfinished,
    /// A write that is to be kept.
    Finished(oneshot::Sender<Outcome>),
    /// Entering or ending was cut off with its runtime. What the connection is in is not known.
    Unknown,
}

/// A write that has its turn. Dropped without a [`commit`](Self::commit), it leaves nothing.
pub(super) struct Tx {
    shared: OwnedMappedMutexGuard<Option<Shared>, Shared>,
    /// Dropped when the first turn is over: until then the task that commits does not queue for its own.
    _first: Option<oneshot::Sender<()>>,
}

impl Turns {
    /// Waits for a turn.
    pub(super) async fn begin(&self, writer: &SqlitePool) -> Result<Tx, sqlx::Error> {
        let mut shared = self.turn().await?;
        let mut first = None;
        if shared.as_ref().is_none_or(Shared::is_abandoned) {
            // Of a runtime that was shut down: SQLite rolls back what its connection had begun.
            if let Some(left) = shared.take() {
                left.connection.close().await?;
            }
            let (committer, alive) = mpsc::channel(1);
            let connection = writer.acquire().await?;
            *shared = Some(Shared { connection, last: Last::Nothing, members: Vec::new(), committer });
            let (turn, is_over) = oneshot::channel();
            first = Some(turn);
            tokio::spawn(self.clone().commit_groups(is_over, alive));
        }
        let mut shared =
            OwnedMutexGuard::try_map(shared, Option::as_mut).map_err(|_| sqlx::Error::WorkerCrashed)?;
        let enter = finish(async move {
            shared.enter().await?;
            Ok(Tx { shared, _first: first })
        });
        enter.await
    }

    async fn turn(&self) -> Result<OwnedMutexGuard<Option<Shared>>, sqlx::Error> {
        let _waiting = Waiting::new(&self.waiting);
        let turn = tokio::time::timeout(TURN_TIMEOUT, Arc::clone(&self.shared).lock_owned()).await;
        turn.map_err(|_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, NO_TURN)))
    }

    /// Commits what is shared after the turns of those who waited, until nobody waits; then the connection goes back to its
    /// pool.
    async fn commit_groups(self, first_is_over: oneshot::Receiver<()>, _alive: mpsc::Receiver<()>) {
        drop(first_is_over.await);
        loop {
            let mut shared = self.shared.lock().await;
            if let Some(shared) = shared.as_mut() {
                shared.end().await;
            }
            if let Some(left) = shared.take_if(|shared| matches!(shared.last, Last::Unknown)) {
                drop(left.connection.close().await);
            }
            if self.waiting.load(Ordering::Relaxed) == 0 {
                *shared = None;
                return;
            }
        }
    }
}

/// Counts one who waits, while it does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(&mut *self.connection).await.map(drop)
    }

    /// Whether the runtime is gone that would have committed it.
    fn is_abandoned(&self) -> bool {
        self.committer.is_closed() || matches!(self.last, Last::Unknown)
    }

    /// Begins the next write. Must run to its end.
    async fn enter(&mut self) -> Result<(), sqlx::Error> {
        let (entered, finished) = match std::mem::replace(&mut self.last, Last::Unknown) {
            Last::Nothing => return self.begin().await,
            Last::Unfinished => (self.run(TAKE_BACK).await, None),
            Last::Finished(member) => (self.run(NEXT).await, Some(member)),
            Last::Unknown => return Err(sqlx::Error::WorkerCrashed),
        };
        self.members.extend(finished);
        if let Err(error) = entered {
            // SQLite has ended the transaction by itself, as it does when the disk is full.
            self.lose(error).await;
            return self.begin().await;
        }
        self.last = Last::Unfinished;
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), sqlx::Error> {
        let begun = self.run(BEGIN).await;
        self.last = if begun.is_ok() {
            Last::Unfinished
        } else {
            drop(self.run("ROLLBACK").await);
            Last::Nothing
        };
        begun
    }

    /// Commits the writes that are to be kept, and tells them. Must run to its end.
    async fn end(&mut self) {
        let (ended, finished) = match std::mem::replace(&mut self.last, Last::Unknown) {
            Last::Nothing => (Ok(()), None),
            Last::Unfinished if self.members.is_empty() => (self.run("ROLLBACK").await, None),
            Last::Unfinished => (self.run("ROLLBACK TO write_turn; COMMIT").await, None),
            Last::Finished(member) => (self.run("RELEASE write_turn; COMMIT").await, Some(member)),
            Last::Unknown => return,
        };
        self.members.extend(finished);
        match ended {
            Ok(()) => self.tell(&Ok(())),
            Err(error) => self.lose(error).await,
        }
    }

    /// Nothing of the transaction remains.
    async fn lose(&mut self, error: sqlx::Error) {
        // Fails when SQLite has done so itself.
        drop(self.run("ROLLBACK").await);
        self.tell(&Err(Arc::new(error)));
    }

    fn tell(&mut self, outcome: &Outcome) {
        self.last = Last::Nothing;
        for member in self.members.drain(..) {
            // One that does not listen any more was cancelled.
            drop(member.send(outcome.clone()));
        }
    }
}

impl Tx {
    /// Has the write kept, and returns when it is on the disk.
    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let (member, mut told) = oneshot::channel();
        let committer = self.shared.committer.clone();
        self.shared.last = Last::Finished(member);
        drop(self);
        let outcome = tokio::select! {
            biased;
            told = &mut told => told.ok(),
            // It may have told at this very moment.
            () = committer.closed() => told.try_recv().ok(),
        };
        match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(sqlx::Error::Io(std::io::Error::other(error))),
            None => Err(sqlx::Error::WorkerCrashed),
        }
    }
}

impl Deref for Tx {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.shared.connection
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.shared.connection
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::str::FromStr as _;

    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
    use tokio::task::JoinHandle;

    use super::*;

    type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

    struct Rows {
        turns: Turns,
        pool: SqlitePool,
        _dir: tempfile::TempDir,
    }

    impl Rows {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}", dir.path().join("rows.db").display());
            let options = SqliteConnectOptions::from_str(&url).unwrap().create_if_missing(true);
            let pool = SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await.unwrap();
            sqlx::raw_sql("CREATE TABLE rows (name TEXT)").execute(&pool).await.unwrap();
            Self { turns: Turns::default(), pool, _dir: dir }
        }

        async fn begin(&self, name: &str) -> Tx {
            let mut tx = self.turns.begin(&self.pool).await.unwrap();
            sqlx::query("INSERT INTO rows VALUES ($1)").bind(name).execute(&mut *tx).await.unwrap();
            tx
        }

        /// A write that waits for its turn now, and then does `what`.
        async fn waits<T: Send + 'static>(
            &self,
            name: &'static str,
            what: impl FnOnce(Tx) -> BoxFuture<T> + Send + 'static,
        ) -> JoinHandle<T> {
            let before = self.turns.waiting.load(Ordering::Relaxed);
            let rows = Self {
                turns: self.turns.clone(),
                pool: self.pool.clone(),
                _dir: tempfile::tempdir().unwrap(),
            };
            let waiting = tokio::spawn(async move { what(rows.begin(name).await).await });
            while self.turns.waiting.load(Ordering::Relaxed) == before {
                tokio::task::yield_now().await;
            }
            waiting
        }

        async fn count(&self, name: &str) -> i64 {
            let count = sqlx::query_scalar("SELECT count(*) FROM rows WHERE name = $1").bind(name);
            count.fetch_one(&self.pool).await.unwrap()
        }

        async fn names(&self) -> Vec<String> {
            sqlx::query_scalar("SELECT name FROM rows ORDER BY rowid").fetch_all(&self.pool).await.unwrap()
        }
    }

    #[tokio::test]
    async fn those_who_wait_are_committed_together_and_told_then() {
        let rows = Rows::new().await;
        let first = rows.begin("first").await;
        let (go, gone) = oneshot::channel();
        let second = rows
            .waits("second", |tx| {
                Box::pin(async {
                    let () = gone.await.unwrap();
                    tx.commit().await
                })
            })
            .await;
        let mut first = tokio::spawn(first.commit());
        let early = tokio::time::timeout(Duration::from_millis(200), &mut first).await;
        assert!(early.is_err(), "it is told before its commit");
        assert!(rows.names().await.is_empty());
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(rows.names().await, ["first", "second"]);
        second.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_given_up_takes_back_only_its_own() {
        let rows = Rows::new().await;
        let first = rows.begin("first").await;
        let given_up = rows.waits("given up", |tx| Box::pin(async { drop(tx) })).await;
        let last = rows.waits("last", |tx| Box::pin(tx.commit())).await;
        let given_up_too = rows.waits("given up too", |tx| Box::pin(async { drop(tx) })).await;
        first.commit().await.unwrap();
        last.await.unwrap().unwrap();
        given_up.await.unwrap();
        given_up_too.await.unwrap();
        assert_eq!(rows.names().await, ["first", "last"]);
        drop(rows.begin("alone").await);
        rows.begin("after").await.commit().await.unwrap();
        assert_eq!(rows.names().await, ["first", "last", "after"]);
    }

    /// As SQLite does after a full disk or an I/O error; the driver is not told.
    async fn ended_by_itself(tx: &mut Tx) {
        sqlx::raw_sql("ROLLBACK").execute(&mut **tx).await.unwrap();
    }

    #[tokio::test]
    async fn what_sqlite_ended_by_itself_is_told_to_everybody_in_it_and_stops_nobody_after() {
        let rows = Rows::new().await;
        for commits in [false, true] {
            let first = rows.begin("first").await;
            let second = rows
                .waits("second", move |mut tx| {
                    Box::pin(async move {
                        ended_by_itself(&mut tx).await;
                        if commits { tx.commit().await } else { Err(sqlx::Error::RowNotFound) }
                    })
                })
                .await;
            let third = rows.waits("third", |tx| Box::pin(tx.commit())).await;
            first.commit().await.unwrap_err();
            second.await.unwrap().unwrap_err();
            third.await.unwrap().unwrap();
            let mut alone = rows.begin("alone").await;
            ended_by_itself(&mut alone).await;
            alone.commit().await.unwrap_err();
        }
        assert_eq!(rows.names().await, ["third", "third"]);
    }

    #[tokio::test]
    async fn who_is_cancelled_holds_up_nobody() {
        let rows = Rows::new().await;
        let first = rows.begin("first").await;
        let waiting = rows.waits("waiting", |tx| Box::pin(tx.commit())).await;
        let inside = rows
            .waits("inside", |tx| {
                Box::pin(async move {
                    std::future::pending::<Tx>().await;
                    drop(tx);
                })
            })
            .await;
        let last = rows.waits("last", |tx| Box::pin(tx.commit())).await;
        waiting.abort();
        let first = tokio::spawn(first.commit());
        tokio::time::sleep(Duration::from_millis(50)).await;
        inside.abort();
        first.await.unwrap().unwrap();
        last.await.unwrap().unwrap();
        assert_eq!(rows.names().await, ["first", "last"]);
    }

    /// Polls a future so often at most, then drops it: `None`. As a client does that hangs up.
    async fn leaves_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
        let mut future = Box::pin(future);
        let mut left = polls;
        std::future::poll_fn(move |context| {
            if left == 0 {
                return std::task::Poll::Ready(None);
            }
            left -= 1;
            let polled = future.as_mut().poll(context).map(Some);
            // Dropped right after the last poll, without waiting for the next wake-up.
            if left == 0 && polled.is_pending() { std::task::Poll::Ready(None) } else { polled }
        })
        .await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_write_dropped_at_any_await_fails_no_other_write() {
        /// More awaits than a write has.
        const POLLS: usize = 24;
        let rows = Rows::new().await;
        let mut finished = 0;
        for round in 0..8 {
            for polls in 0..POLLS {
                let (mut stays, mut leaves) = (Vec::new(), Vec::new());
                for member in 0..4 {
                    let [stay, leave] =
                        ["stays", "leaves"].map(|what| format!("{what} {round} {polls} {member}"));
                    let write = |name: String| {
                        let (turns, pool) = (rows.turns.clone(), rows.pool.clone());
                        async move {
                            let mut tx = turns.begin(&pool).await?;
                            for _ in 0..2 {
                                let insert = sqlx::query("INSERT INTO rows VALUES ($1)").bind(name.clone());
                                insert.execute(&mut *tx).await?;
                            }
                            tx.commit().await
                        }
                    };
                    stays.push((stay.clone(), tokio::spawn(write(stay))));
                    leaves.push((leave.clone(), tokio::spawn(leaves_after(polls, write(leave)))));
                }
                for (name, write) in stays {
                    write.await.unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert_eq!(rows.count(&name).await, 2, "{name}");
                }
                for (name, write) in leaves {
                    let left = write.await.unwrap();
                    // The next write takes back what was given up.
                    rows.begin("after").await.commit().await.unwrap();
                    let count = rows.count(&name).await;
                    match left {
                        Some(outcome) => {
                            outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
                            assert_eq!(count, 2, "{name}");
                            finished += 1;
                        }
                        None => assert!([0, 2].contains(&count), "{name} is half done"),
                    }
                }
            }
        }
        assert!(finished > 0, "no write needs more than {POLLS} polls");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_turn_is_told_that_the_database_is_locked() {
        let turns = Turns::default();
        let _held = turns.shared.lock().await;
        let refused = turns.turn().await.err().unwrap();
        assert!(refused.to_string().contains("database is locked"), "{refused}");
    }

    #[test]
    fn a_runtime_that_is_shut_down_leaves_the_turns_to_others() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (one, other) = (runtime(), runtime());
        let rows = one.block_on(Rows::new());
        let begun = one.block_on(rows.begin("begun"));
        drop(one);
        other.block_on(async {
            begun.commit().await.unwrap_err();
            rows.begin("after").await.commit().await.unwrap();
            assert_eq!(rows.names().await, ["after"]);
        });
    }
}
