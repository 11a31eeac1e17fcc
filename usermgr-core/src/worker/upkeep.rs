//! Removing what is over, so that the tables stay small.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior};

use super::Stop;
use super::caught::{Panicked, caught};
use crate::flow::signing_keys::KeyRing;
use crate::policy::{Policies, ThrottlePolicy};
use crate::port::clock::Clock;
use crate::port::store::upkeep::{Purge, Purged};
use crate::port::store::{Store, StoreError, UpkeepStore};

/// The most rows of each kind in one transaction: few enough that nothing waits long for it.
const BATCH: u32 = 1000;
/// How long codes, links and sessions are kept after they ended: long enough to say that a code came too late.
const ENDED_FOR: time::Duration = time::Duration::days(1);
/// How long a signing key is kept after its successor began to sign: longer than any token lives.
const RETIRED_FOR: time::Duration = time::Duration::days(2);
/// How long an address stays marked as undeliverable: mailboxes come back, and a mark that nobody looks at must not keep
/// its owner out for ever.
const UNDELIVERABLE_FOR: time::Duration = time::Duration::days(180);
/// The shortest interval between two runs.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Removes what nothing needs any more: registrations that are over, spent codes, ended sessions, delivered mails, old
/// audit entries and counters. Any number of processes may do so on one store.
#[derive(Clone)]
pub struct Upkeep {
    pub(super) store: Arc<dyn UpkeepStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) policies: Arc<Policies>,
    pub(super) keys: Option<Arc<KeyRing>>,
}

impl Upkeep {
    /// Upkeep of this store by these rules.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, policies: Arc<Policies>) -> Self {
        Self { store, clock, policies, keys: None }
    }

    /// And of these signing keys: the next one is made when the current one has signed for long enough.
    #[must_use]
    pub fn with_keys(mut self, keys: Arc<KeyRing>) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Removes all that is over now, in batches, and tells how much it was.
    ///
    /// # Errors
    /// [`StoreError`] when a batch failed; what the batches before it removed stays removed.
    pub async fn run_once(&self) -> Result<Purged, StoreError> {
        self.purge(None).await
    }

    /// Runs now and then at every `interval` (at least a second), until `stop`; a run that is under way then ends
    /// after its batch. A run that fails is logged, and the next one comes when it is due.
    pub async fn run(&self, interval: Duration, stop: Stop) {
        let mut ticks = tokio::time::interval(interval.max(SHORTEST_INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return,
                _ = ticks.tick() => {}
            }
            match caught(self.purge(Some(&stop))).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "upkeep failed");
                }
                Err(Panicked) => tracing::error!("upkeep panicked"),
            }
        }
    }

    async fn purge(&self, stop: Option<&Stop>) -> Result<Purged, StoreError> {
        let began = Instant::now();
        let command = self.command();
        let mut sum = Purged::default();
        loop {
            let purged = self.store.purge(command).await?;
            sum = sum.plus(purged);
            if purged.most() < u64::from(BATCH) || stop.is_some_and(Stop::is_requested) {
                break;
            }
            tokio::task::yield_now().await;
        }
        log(&sum, began.elapsed());
        self.rotate().await;
        Ok(sum)
    }

    async fn rotate(&self) {
        let Some(keys) = &self.keys else { return };
        match keys.rotate_if_due(self.clock.now()).await {
            Ok(true) => tracing::info!("a new signing key is published and signs in ten minutes"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the signing key could not be rotated"),
        }
    }

    fn command(&self) -> Purge {
        let now = self.clock.now();
        // What reaches back before all time removes nothing.
        let before = |age| now.checked_sub(age).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Purge {
            now,
            ended_before: before(ENDED_FOR),
            settled_before: before(self.policies.outbox.keep_sent),
            audited_before: before(self.policies.retention.audit),
            deleted_before: before(self.policies.deletion.grace),
            retired_before: before(RETIRED_FOR),
            known_before: before(ThrottlePolicy::KNOWN_NETWORK),
            marked_before: before(UNDELIVERABLE_FOR),
            batch: BATCH,
        }
    }
}

fn log(purged: &Purged, took: Duration) {
    let Purged {
        registrations,
        codes,
        sessions,
        outbox,
        audit,
        throttles,
        networks,
        users,
        access_tokens,
        signing_keys,
        undeliverable,
    } = *purged;
    tracing::info!(
        registrations,
        codes,
        sessions,
        outbox,
        audit,
        throttles,
        networks,
        users,
        access_tokens,
        signing_keys,
        undeliverable,
        ?took,
        "upkeep"
    );
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep").finish_non_exhaustive()
    }
}
