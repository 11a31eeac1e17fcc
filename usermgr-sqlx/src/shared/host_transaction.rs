//! A host's transaction that a store works in: one command at a time, each in a savepoint of its own.
//!
//! What a command did is kept by saying so; the statement that keeps it, or takes it back, is run by whoever comes next.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

use sqlx::Transaction;
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};
use usermgr_core::port::store::StoreError;

use super::super::{Db, OwnReader, OwnTx, refuse_unfit};
use super::Store;
use crate::error::TransactionError;
use crate::finish::finish;

type Connection = <Db as sqlx::Database>::Connection;

const BEGIN: &str = "SAVEPOINT usermgr_command";
/// Keeps what was done since, and begins the next command.
const NEXT: &str = "RELEASE SAVEPOINT usermgr_command; SAVEPOINT usermgr_command";
/// Takes back what was done since; the savepoint remains for the next command.
const TAKE_BACK: &str = "ROLLBACK TO SAVEPOINT usermgr_command";
const END: &str = "RELEASE SAVEPOINT usermgr_command";

/// A transaction of the host's that a store has joined: what the host writes and what commands write is committed
/// together, or not at all. Dropped without a [`commit`](Self::commit), it leaves nothing.
///
/// Commands and the host's statements take turns. A command that fails or is given up is taken back, and the rest stays.
/// Claims, jobs, purges, the feed of events, signing keys and the renewal of sessions are refused
/// ([`StoreError::OutsideOnly`]): those are done in transactions of their own.
///
/// # Security
/// A wrong guess at a code or a password ends the transaction, and is counted outside of it before it is answered: whoever
/// rolls back on a refusal would otherwise grant guesses without number. All other counts, and the audit entries of other
/// refusals, are the transaction's, and go with it.
pub struct HostTransaction {
    outside: Store,
    shared: Arc<Mutex<Option<Shared>>>,
}

impl std::fmt::Debug for HostTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostTransaction")
    }
}

impl HostTransaction {
    pub(in super::super) async fn join(
        outside: Store,
        mut tx: Transaction<'static, Db>,
    ) -> Result<Self, TransactionError> {
        refuse_unfit(&mut tx).await?;
        sqlx::raw_sql(BEGIN).execute(&mut *tx).await?;
        let shared = Arc::new(Mutex::new(Some(Shared { tx, last: Last::Kept })));
        Ok(Self { outside, shared })
    }

    /// The store within the transaction, for [`UserManager::over`](usermgr_core::UserManager::over). Once the transaction is
    /// over, it answers [`StoreError::TransactionOver`].
    pub fn store(&self) -> Arc<dyn usermgr_core::port::store::Store> {
        let joined = Joined(Arc::downgrade(&self.shared));
        Arc::new(Store { joined: Some(joined), ..self.outside.clone() })
    }

    /// The connection, for statements of the host's. Commands wait until it is dropped.
    ///
    /// # Errors
    /// [`TransactionError`]; `Over` after a wrong guess.
    pub async fn connection(
        &self,
    ) -> Result<impl DerefMut<Target = Connection> + Send + Sync + 'static, TransactionError> {
        let mut turn = turn(Arc::clone(&self.shared)).await?;
        turn.0.last = Last::Kept;
        Ok(turn)
    }

    /// Commits, and wakes whoever delivers the mails and events that commands have written.
    ///
    /// # Errors
    /// [`TransactionError`], and nothing remains unless the commit was under way; `Over` after a wrong guess.
    pub async fn commit(self) -> Result<(), TransactionError> {
        let mut shared = self.shared.lock().await.take().ok_or(TransactionError::Over)?;
        // Where a statement of the host's has failed, PostgreSQL answers a commit as if it were one: this fails instead.
        shared.enter().await?;
        shared.run(END).await?;
        shared.tx.commit().await?;
        self.outside.wake();
        Ok(())
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// [`TransactionError`]; `Over` after a wrong guess. Nothing remains either way.
    pub async fn rollback(self) -> Result<(), TransactionError> {
        let shared = self.shared.lock().await.take().ok_or(TransactionError::Over)?;
        Ok(shared.tx.rollback().await?)
    }
}

struct Shared {
    tx: Transaction<'static, Db>,
    last: Last,
}

/// What came last in the transaction, since its savepoint.
enum Last {
    /// What is to be kept.
    Kept,
    /// A command that is under way, or was given up.
    Unfinished,
    /// A savepoint that failed, or was cut off with its runtime: what stands now is not known, and nothing more is done.
    Unknown,
}

impl Shared {
    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(&mut *self.tx).await.map(drop)
    }

    /// Begins the next command.
    async fn enter(&mut self) -> Result<(), TransactionError> {
        let sql = match std::mem::replace(&mut self.last, Last::Unknown) {
            Last::Kept => NEXT,
            Last::Unfinished => TAKE_BACK,
            Last::Unknown => return Err(TransactionError::Over),
        };
        self.run(sql).await?;
        self.last = Last::Unfinished;
        Ok(())
    }
}

/// The transaction as its stores know it. They do not keep it open.
#[derive(Clone)]
pub(in super::super) struct Joined(Weak<Mutex<Option<Shared>>>);

impl Joined {
    pub(in super::super) async fn turn(&self) -> Result<Turn, StoreError> {
        let shared = self.0.upgrade().ok_or(StoreError::TransactionOver)?;
        turn(shared).await.map_err(|error| match error {
            TransactionError::Over => StoreError::TransactionOver,
            error => StoreError::unavailable(error),
        })
    }
}

async fn turn(shared: Arc<Mutex<Option<Shared>>>) -> Result<Turn, TransactionError> {
    let shared = OwnedMutexGuard::try_map(shared.lock_owned().await, Option::as_mut);
    let mut shared = shared.map_err(|_| TransactionError::Over)?;
    let enter = finish(async move {
        shared.enter().await?;
        Ok(Turn(shared))
    });
    enter.await
}

/// A turn in a host's transaction. Dropped before it was said that it is kept, it leaves nothing.
pub(in super::super) struct Turn(OwnedMappedMutexGuard<Option<Shared>, Shared>);

impl Deref for Turn {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0.tx
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0.tx
    }
}

/// What a store works with: its own, or a turn in a host's transaction.
pub(in super::super) enum OwnOr<T> {
    Own(T),
    Joined(Turn),
}

/// The transaction of a command.
pub(in super::super) type Tx = OwnOr<OwnTx>;
/// A connection to read with.
pub(in super::super) type Reader = OwnOr<OwnReader>;

impl<T: Deref<Target = Connection>> Deref for OwnOr<T> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Own(own) => own,
            Self::Joined(turn) => turn,
        }
    }
}

impl<T: DerefMut<Target = Connection>> DerefMut for OwnOr<T> {
    fn deref_mut(&mut self) -> &mut Connection {
        match self {
            Self::Own(own) => own,
            Self::Joined(turn) => turn,
        }
    }
}

impl Tx {
    /// Has the command kept: now, or when the host commits.
    pub(in super::super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Own(own) => own.commit().await,
            Self::Joined(mut turn) => {
                turn.0.last = Last::Kept;
                Ok(())
            }
        }
    }
}

impl Store {
    /// A connection to read with.
    pub(super) async fn reader(&self) -> Result<Reader, StoreError> {
        match &self.joined {
            Some(joined) => Ok(Reader::Joined(joined.turn().await?)),
            None => self.own_reader().await.map(Reader::Own).map_err(super::fault),
        }
    }

    /// Refuses what is only done in transactions of its own.
    pub(super) const fn outside_only(&self) -> Result<(), StoreError> {
        if self.joined.is_some() { Err(StoreError::OutsideOnly) } else { Ok(()) }
    }

    /// Ends the host's transaction that this store works in, and answers the store outside of it, for what must stay
    /// whatever the host does. `None` of a store that works in none.
    pub(super) async fn end_host_transaction(&self) -> Option<Self> {
        let joined = self.joined.as_ref()?;
        if let Some(shared) = joined.0.upgrade()
            && let Some(shared) = shared.lock().await.take()
            && let Err(error) = shared.tx.rollback().await
        {
            tracing::debug!(%error, "a host's transaction was not rolled back; its connection is closed");
        }
        Some(Self { joined: None, ..self.clone() })
    }
}
