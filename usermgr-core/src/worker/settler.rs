//! Having it noted how deliveries ended: of those that end at the same time in one transaction.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::backoff::{doubled, jittered};
use super::caught::{Panicked, caught};
use super::lane::Lane;
use crate::port::store::StoreError;
use crate::port::store::outbox::Settled;

/// How often a settlement is tried while the store fails. What it tells of has left by then.
pub(super) const TRIES: u32 = 6;
/// How long each of these tries may take.
pub(super) const TIMEOUT: StdDuration = StdDuration::from_secs(10);
/// The first and the longest wait between two tries.
pub(super) const WAIT: (Duration, Duration) = (Duration::milliseconds(100), Duration::seconds(2));
/// How long those that end wait for the settlement before theirs: so that they share one, and no longer where the store
/// hangs.
pub(super) const TOGETHER: StdDuration = StdDuration::from_secs(1);
/// How many are settled in one transaction.
const AT_ONCE: usize = 32;

/// Where deliveries say how they ended. It works until the last clone is dropped, and then until all is noted.
pub(super) struct Settler<L: Lane> {
    queue: mpsc::UnboundedSender<Waiting<L::Settle>>,
}

struct Waiting<C> {
    command: C,
    told: oneshot::Sender<Settled>,
}

impl<L: Lane> Clone for Settler<L> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<L: Lane> Settler<L> {
    pub(super) fn start(lane: &Arc<L>) -> Self {
        let (queue, ended) = mpsc::unbounded_channel();
        tokio::spawn(run(Arc::clone(lane), ended));
        Self { queue }
    }

    /// Has the end noted, through short failures of the store: what was sent must not be sent again for them. `None`
    /// when it could not be noted.
    pub(super) async fn settle(&self, command: L::Settle) -> Option<Settled> {
        let (told, answer) = oneshot::channel();
        self.queue.send(Waiting { command, told }).ok()?;
        answer.await.ok()
    }
}

async fn run<L: Lane>(lane: Arc<L>, mut ended: mpsc::UnboundedReceiver<Waiting<L::Settle>>) {
    let mut under_way = JoinSet::new();
    let mut batch = Vec::new();
    while ended.recv_many(&mut batch, AT_ONCE).await > 0 {
        under_way.spawn(settle(Arc::clone(&lane), std::mem::take(&mut batch)));
        drop(tokio::time::timeout(TOGETHER, under_way.join_next()).await);
    }
    while under_way.join_next().await.is_some() {}
}

async fn settle<L: Lane>(lane: Arc<L>, batch: Vec<Waiting<L::Settle>>) {
    let commands: Vec<_> = batch.iter().map(|waiting| waiting.command.clone()).collect();
    for attempt in 1..=TRIES {
        let error = match tokio::time::timeout(TIMEOUT, caught(lane.settle(commands.clone()))).await {
            Ok(Ok(Ok(settled))) => {
                for (waiting, settled) in batch.into_iter().zip(settled) {
                    waiting.told.send(settled).ok();
                }
                return;
            }
            Ok(Ok(Err(error))) => error,
            Ok(Err(Panicked)) => StoreError::unavailable("the store panicked"),
            Err(_) => StoreError::unavailable("the store did not answer in time"),
        };
        if attempt == TRIES {
            tracing::error!(
                deliveries = batch.len(),
                error = &error as &dyn std::error::Error,
                "the end of deliveries could not be noted"
            );
            return;
        }
        if attempt == 1 {
            tracing::warn!(
                deliveries = batch.len(),
                error = &error as &dyn std::error::Error,
                "the end of deliveries could not be noted; trying again"
            );
        }
        let wait = jittered(doubled(WAIT.0, WAIT.1, attempt), lane.random());
        tokio::time::sleep(wait.unsigned_abs()).await;
    }
}
