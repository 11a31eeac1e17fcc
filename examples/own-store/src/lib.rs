//! A store in one file, for small installations: rows as JSON under keys, every commit one line that is synced.
//!
//! It is written from `docs/writing-a-store.md` and passes the whole conformance suite. It looks rows up by walking along
//! them, so it is for hundreds of users and not for thousands.
#![forbid(unsafe_code)]

mod account;
mod audit;
mod code;
mod database;
mod event;
mod job;
mod key;
mod outbox;
mod rows;
mod session;
mod text;
mod undeliverable;
mod upkeep;

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use usermgr_core::port::store::StoreError;

pub use database::OpenError;
use database::{Database, Transaction};

/// A store in one file that one process has. Clones share it.
#[derive(Clone)]
pub struct FileStore {
    database: Arc<Mutex<Database>>,
    due: Arc<Notify>,
    events_due: Arc<Notify>,
}

impl std::fmt::Debug for FileStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileStore")
    }
}

impl FileStore {
    /// Opens the file, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let database = Arc::new(Mutex::new(Database::open(path)?));
        Ok(Self { database, due: Arc::default(), events_due: Arc::default() })
    }

    /// Runs a command in a transaction, and wakes whoever waits for what it owes. It runs to its end on a thread of its own,
    /// also when nobody waits for its answer any more.
    async fn run<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let run = tokio::task::spawn_blocking(move || {
            let broken = |_| StoreError::unavailable("a command panicked while it held the store");
            let mut database = store.database.lock().map_err(broken)?;
            let mut transaction = database.begin();
            let answer = command(&mut transaction)?;
            let owes = transaction.commit()?;
            drop(database);
            if owes {
                for due in [&store.due, &store.events_due] {
                    due.notify_waiters();
                    due.notify_one();
                }
            }
            Ok(answer)
        });
        run.await.map_err(StoreError::unavailable)?
    }
}
