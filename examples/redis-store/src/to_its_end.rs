//! Commands that are finished whether or not anybody waits for them: what is begun in one place is ended in the other.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::Instrument as _;
use usermgr_core::port::store::StoreError;

use super::RedisStore;

/// Commands whose callers went away. The next command waits for them: who gives up and asks again finds what came of it.
#[derive(Default)]
pub(super) struct Left(Mutex<Vec<JoinHandle<()>>>);

impl Left {
    fn tasks(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command that somebody waits for.
struct Awaited {
    task: Option<JoinHandle<()>>,
    left: Arc<Left>,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.left.tasks().extend(self.task.take().filter(|task| !task.is_finished()));
    }
}

impl RedisStore {
    /// Runs a command to its end, also when whoever asked for it goes away between the two places.
    pub(super) async fn to_its_end<T, F>(
        &self,
        command: impl FnOnce(Self) -> F + Send,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let (left, command) = (std::mem::take(&mut *self.left.tasks()), command(self.clone()));
        let work = async move {
            for task in left {
                drop(task.await);
            }
            drop(answer.send(command.await));
        };
        let task = tokio::spawn(work.in_current_span());
        let _awaited = Awaited { task: Some(task), left: Arc::clone(&self.left) };
        answered.await.map_err(StoreError::unavailable)?
    }
}
